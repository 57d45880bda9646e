"""A connection that breaks during EXEC: nothing is lost and nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Unavailable
from holdfast_store import keys
from holdfast_store.commits import Committed, Extra, Limits
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Ambiguous
from holdfast_store.leases import Leases
from holdfast_store.memory_kv import MemoryServer
from holdfast_store.redis_kv import RedisKv
from holdfast_testkit.servers import RedisServer
from holdfast_testkit.waiting import LIMIT, eventually

from .changes import REF, Do, add, blueprint, count_of, increment, op
from .conftest import wiped
from .flaky import ExecProxy, Flaky, FlakyMemory


@pytest.fixture(params=["redis", "memory"])
async def flaky(request: pytest.FixtureRequest) -> AsyncIterator[Flaky]:
    if request.param == "memory":
        yield FlakyMemory(MemoryServer(time.time))
        return
    proxy = ExecProxy(await wiped(request))
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def store(flaky: Flaky) -> AsyncIterator[GraphStore]:
    store = GraphStore(flaky.kv, rng=random.Random(0))
    yield store
    await store.close()


def _lose(flaky: Flaky, what: str) -> None:
    if what == "reply":
        flaky.lose_reply()
    else:
        flaky.lose_request()


both = pytest.mark.parametrize("what", ["reply", "request"])


@both
async def test_the_port_says_that_it_does_not_know(flaky: Flaky, what: str) -> None:
    _lose(flaky, what)
    async with flaky.kv.watching("w") as watch:
        await watch.read()
        with pytest.raises(Ambiguous):
            await watch.commit(("INCR", "w"))
    # Then it was sent once at most
    assert await flaky.kv.run(("GET", "w")) == [b"1" if what == "reply" else None]


@both
async def test_a_lost_exec_is_applied_once(flaky: Flaky, store: GraphStore, what: str) -> None:
    # Given
    await store.commit(REF, op("0"), increment("n"))
    # When
    _lose(flaky, what)
    done = await store.commit(REF, op("1"), increment("n"))
    # Then
    assert done.version == 2
    assert done.applied is (what == "request")
    graph = await GraphStore(flaky.kv).refresh(REF)
    assert (graph.version, count_of(graph, "n")) == (2, 2)
    assert (await store.refresh(REF)).rows == graph.rows


@both
async def test_a_lost_exec_that_only_counts_counts_once(flaky: Flaky, store: GraphStore, what: str) -> None:
    def count(graph: DesiredGraph, reads: list[Any]) -> Extra:
        return Extra(cmds=[("HINCRBY", keys.counts(REF), "k", 1)], no_version=True)

    _lose(flaky, what)
    await store.commit(REF, op("1"), Do(count))
    assert await store.kv.run(("HGET", keys.counts(REF), "k")) == [b"1"]


@both
async def test_a_lost_bulk_commit_is_applied_once(flaky: Flaky, what: str) -> None:
    store = GraphStore(flaky.kv, limits=Limits(bulk=50))
    _lose(flaky, what)
    await store.commit(REF, op("1"), blueprint([f"n{i}" for i in range(100)]))
    assert len(await GraphStore(flaky.kv).refresh(REF)) == 100
    assert len(await store.log(REF)) == 1
    assert (await flaky.kv.run(("SCAN", 0, "MATCH", "hf:*:stage*", "COUNT", 1000)))[0][1] == []


@both
async def test_a_lost_turn_is_written_once(flaky: Flaky, store: GraphStore, what: str) -> None:
    await store.raise_epoch(REF, 1)
    _lose(flaky, what)
    await store.turn(REF, epoch=1, cmds=[("HINCRBY", keys.meta(REF), "operation", 1)])
    assert (await store.meta(REF))["operation"] == b"1"


@both
async def test_a_lost_acquisition_takes_the_lease_once(flaky: Flaky, what: str) -> None:
    leases = Leases(flaky.kv, "one", time.time)
    _lose(flaky, what)
    lease = await leases.acquire(3)
    assert lease is not None
    assert lease.epoch == 1
    assert await leases.renew(lease)


async def test_an_exec_that_arrives_late_finds_its_work_done(request: pytest.FixtureRequest) -> None:
    # Given a connection that breaks while EXEC is still on its way to the server
    proxy = ExecProxy(await wiped(request))
    await proxy.start()
    store = GraphStore(proxy.kv, rng=random.Random(0))
    await store.raise_epoch(REF, 1)

    def count(graph: DesiredGraph, reads: list[Any]) -> Extra:
        return Extra(cmds=[("HINCRBY", keys.counts(REF), "k", 1)], no_version=True)

    writes = {
        "a commit": lambda: store.commit(REF, op("1"), increment("n")),
        "a count": lambda: store.commit(REF, op("2"), Do(count)),
        "a turn": lambda: store.turn(REF, epoch=1, cmds=[("HINCRBY", keys.meta(REF), "operation", 1)]),
    }
    for write in writes.values():
        # When the writer goes on without it, and only then it arrives
        proxy.delay_request()
        await write()
        answer = await proxy.deliver()
        # Then it is aborted
        assert answer.endswith(b"*-1\r\n")
    assert count_of(await GraphStore(proxy.kv).refresh(REF), "n") == 1
    assert await store.kv.run(("HGET", keys.counts(REF), "k")) == [b"1"]
    assert (await store.meta(REF))["operation"] == b"1"
    await proxy.stop()


async def test_a_server_that_is_down_is_unavailable_and_nothing_waits_for_ever(own_redis: RedisServer) -> None:
    # Given a store whose server goes away
    kv = RedisKv(own_redis.url, timeout=10.0)
    store = GraphStore(kv)
    await store.commit(REF, op("0"), add("n"))
    await own_redis.kill()
    # When / Then
    with pytest.raises(Unavailable):
        await store.commit(REF, op("1"), add("m"))
    with pytest.raises(Unavailable):
        await kv.ping()
    # When it is back / Then the same client goes on
    await own_redis.start()
    assert await store.commit(REF, op("1"), add("m")) == Committed(2, True)
    assert set((await store.refresh(REF)).nodes) == {"n", "m"}
    await kv.close()


async def test_a_server_that_does_not_answer_is_unavailable_within_the_limit(own_redis: RedisServer) -> None:
    # Given a server that stands still
    kv = RedisKv(own_redis.url, timeout=1.0)
    await eventually(lambda: _answers(kv))
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        # When / Then
        with pytest.raises(Unavailable):
            await asyncio.wait_for(kv.ping(), LIMIT)
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    # And it answers again once the server does
    await eventually(lambda: _answers(kv))
    await kv.close()


async def _answers(kv: RedisKv) -> bool:
    try:
        await kv.ping()
    except Unavailable:
        return False
    return True


async def test_who_finds_no_free_connection_is_told_so_within_the_limit(redis_url: str) -> None:
    kv = RedisKv(redis_url, connections=1, timeout=1.0)
    async with kv.watching("w"):
        with pytest.raises(Unavailable, match="busy"):
            await kv.ping()
    await kv.ping()
    await kv.close()
