"""The compare-and-set on a graph."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Conflict, Cycle, NotFound, Unavailable
from holdfast_model.events import Event, Family
from holdfast_model.mutations import AddNode
from holdfast_store import keys
from holdfast_store.commits import Committed, Extra, Limits
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Kv
from holdfast_testkit.waiting import LIMIT, eventually

from .between import Between, times
from .changes import REF, Do, add, count_of, increment, node, op, remove
from .conftest import Client, Stores


async def test_a_commit_is_seen_by_every_other_replica(stores: Stores) -> None:
    # Given two replicas of a graph that never was
    one, two = stores(), stores()
    assert (await two.refresh(REF)).version == 0
    # When one commits
    assert await one.commit(REF, op("a"), add("n", 7)) == Committed(1, True)
    # Then a replica that knew it, a new one and the version agree
    for store in (one, two, stores()):
        graph = await store.refresh(REF)
        assert (graph.version, count_of(graph, "n")) == (1, 7)
        assert await store.version(REF) == 1


async def test_a_removed_node_leaves_its_tombstone_with_every_replica(stores: Stores) -> None:
    # Given
    one, two = stores(), stores()
    await one.commit(REF, op("a"), add("n"))
    await two.refresh(REF)
    # When
    await one.commit(REF, op("b"), remove("n"))
    # Then
    for store in (one, two, stores()):
        graph = await store.refresh(REF)
        assert "n" not in graph
        assert set(graph.gone) == {("n", "thing")}
    # When it comes back / Then the tombstone goes
    await two.commit(REF, op("c"), add("n"))
    assert not (await stores().refresh(REF)).gone


async def test_a_known_operation_is_not_applied_again(stores: Stores) -> None:
    # Given
    one, two = stores(), stores()
    await one.commit(REF, op("a"), increment("n"))
    await one.commit(REF, op("b"), increment("n"))
    # When another process repeats the first
    again = increment("n")
    assert await two.commit(REF, op("a"), again) == Committed(1, False)
    # Then
    assert again.applied == 0
    assert count_of(await two.refresh(REF), "n") == 2


async def test_callers_of_one_group_share_a_version_and_keep_their_own_verdicts(stores: Stores, kv: Kv) -> None:
    # Given
    store = stores(Between(kv))
    await store.commit(REF, op("0"), add("a"))

    def bug(graph: DesiredGraph, reads: list[Any]) -> Extra:
        graph.apply(AddNode(node("half")), "tester")
        raise ZeroDivisionError

    # When several are committed at once, some of them wrong
    verdicts = await asyncio.gather(
        store.commit(REF, op("1"), add("b", needs=["a"], value="mine")),
        store.commit(REF, op("2"), add("a", needs=["b"])),
        store.commit(REF, op("3"), remove("none")),
        store.commit(REF, op("4"), Do(bug)),
        store.commit(REF, op("5"), add("c")),
        store.commit(REF, op("5"), add("c")),
        return_exceptions=True,
    )
    # Then the good ones are one version, and the bad ones left no trace
    assert verdicts[0] == Committed(2, True, "mine")
    assert [type(v) for v in verdicts[1:4]] == [Cycle, NotFound, ZeroDivisionError]
    assert verdicts[4:] == [Committed(2, True), Committed(2, False)]
    graph = await stores().refresh(REF)
    assert set(graph.nodes) == {"a", "b", "c"}
    assert [o.id for o in (await store.log(REF))[-1].ops] == ["1", "5"]


async def test_racing_writers_lose_no_update(stores: Stores) -> None:
    # Given three processes with four writers each on one counter
    processes = [stores() for _ in range(3)]

    async def write(store: GraphStore, name: str) -> None:
        for i in range(10):
            await store.commit(REF, op(f"{name}-{i}"), increment("n"))

    # When
    await asyncio.gather(*[write(s, f"{i}-{w}") for i, s in enumerate(processes) for w in range(4)])
    # Then every update is there once, and every version is in the log
    graph = await stores().refresh(REF)
    assert count_of(graph, "n") == 120
    log = await processes[0].log(REF, count=1000)
    assert [e.version for e in log] == list(range(1, graph.version + 1))
    assert sum(len(e.ops) for e in log) == 120
    for store in processes:
        assert (await store.refresh(REF)).rows == graph.rows


async def test_a_lost_round_applies_the_change_to_the_newer_graph(stores: Stores, kv: Kv) -> None:
    # Given a writer that is overtaken between its read and its EXEC
    between, other = Between(kv), stores()
    store = stores(between)
    await store.commit(REF, op("0"), increment("n"))
    between.before_commit = times(1, lambda: _commit(other, "other"))
    change = increment("n")
    # When
    assert (await store.commit(REF, op("1"), change)).version == 3
    # Then
    assert change.applied == 2
    assert count_of(await store.refresh(REF), "n") == 3


async def _commit(store: GraphStore, name: str) -> None:
    await store.commit(REF, op(name), increment("n"))


async def test_losing_every_round_is_a_conflict_that_wrote_nothing(stores: Stores, kv: Kv, client: Client) -> None:
    # Given somebody who always gets in between
    between, thief = Between(kv), client()
    store = stores(between)

    async def steal() -> None:
        await thief.run(("SET", keys.ver(REF), 0))

    between.before_commit = steal
    # When / Then
    change = increment("n")
    with pytest.raises(Conflict):
        await store.commit(REF, op("1"), change)
    assert change.applied == 8
    assert await thief.run(("EXISTS", keys.node(REF), keys.log(REF), keys.ops(REF))) == [0]
    # And the next commit goes on from there
    between.before_commit = None
    assert await store.commit(REF, op("1"), change) == Committed(1, True)


async def test_a_change_is_applied_again_when_a_further_key_it_watches_moves(
    stores: Stores, kv: Kv, client: Client
) -> None:
    # Given a change that copies a count into a node
    between, other = Between(kv), client()
    store = stores(between)
    await other.run(("HSET", keys.counts(REF), "k", 1))

    async def count() -> None:
        await other.run(("HINCRBY", keys.counts(REF), "k", 1))

    between.before_commit = times(1, count)

    def copy(graph: DesiredGraph, reads: list[Any]) -> Extra:
        graph.apply(AddNode(node("n", int(reads[0]))), "tester")
        return Extra(cmds=[("HDEL", keys.counts(REF), "k")], value=reads)

    # When it moves before EXEC
    done = await store.commit(
        REF, op("1"), Do(copy, watch=[keys.counts(REF)], reads=[("HGET", keys.counts(REF), "k"), ("GET", "none")])
    )
    # Then what was written rests on the newer value
    assert done.value == [b"2", None]
    assert count_of(await store.refresh(REF), "n") == 2
    assert await other.run(("EXISTS", keys.counts(REF))) == [0]


async def test_events_commands_and_the_audit_go_with_the_change(stores: Stores, kv: Kv) -> None:
    # Given
    store = stores()
    event = Event("e1", Family.GRAPH, "changed", REF.tenant, REF.graph, 1.0, {"x": 1})
    # When
    await store.commit(REF, op("1"), add("n", cmds=[("HSET", keys.meta(REF), "status", "ok")], events=[event]))
    # Then
    assert await store.meta(REF) == {"status": b"ok"}
    ((entry, seen),) = await store.outbox(REF)
    assert seen == event
    await store.outbox_ack(REF, [entry])
    assert await store.outbox(REF) == []
    (logged,) = await store.log(REF)
    assert (logged.version, logged.ops[0].id, logged.ops[0].actor, logged.ops[0].cause) == (1, "1", "tester", "because")
    assert logged.ops[0].mutations[0]["kind"] == "ADD_NODE"


async def test_a_change_that_needs_no_version_leaves_the_version_and_the_log(stores: Stores) -> None:
    # Given
    store = stores()
    await store.commit(REF, op("0"), add("n"))

    def count(graph: DesiredGraph, reads: list[Any]) -> Extra:
        return Extra(cmds=[("HINCRBY", keys.counts(REF), "k", 1)], no_version=True)

    # When it is sent twice
    assert await store.commit(REF, op("1"), Do(count)) == Committed(1, True)
    assert await store.commit(REF, op("1"), Do(count)) == Committed(1, False)
    # Then it happened once, beside the log
    assert await store.kv.run(("HGET", keys.counts(REF), "k")) == [b"1"]
    assert len(await store.log(REF)) == 1
    # But a no-op that does not say so is a version
    assert (await store.commit(REF, op("2"), Do(lambda g, r: None))).version == 2


async def test_nobody_sees_a_change_before_it_is_committed(stores: Stores, kv: Kv) -> None:
    # Given somebody who holds the graph of the process that commits
    between = Between(kv)
    store = stores(between)
    graph = await store.refresh(REF)
    seen: list[tuple[int, bool]] = []

    async def look() -> None:
        seen.append((graph.version, "n" in graph))

    between.before_commit = look
    # When
    await store.commit(REF, op("1"), add("n"))
    # Then
    assert seen == [(0, False)]
    assert (graph.version, "n" in graph) == (1, True)


async def test_who_lost_twice_asks_the_others_to_wait(stores: Stores, kv: Kv, client: Client) -> None:
    # Given a writer that loses its first two rounds
    between, other, watcher = Between(kv), stores(), client()
    store = stores(between)
    intents: list[bool] = []
    lose = times(2, lambda: _count_up(other, intents))

    async def before() -> None:
        intents.append((await watcher.run(("EXISTS", keys.intent(REF))))[0] == 1)
        await lose()

    between.before_commit = before
    # When
    await store.commit(REF, op("mine"), increment("n"))
    # Then its third round runs under an intent, which goes with the commit
    assert intents == [False, False, True]
    assert await watcher.run(("EXISTS", keys.intent(REF))) == [0]


async def _count_up(store: GraphStore, seen: list[bool]) -> None:
    await store.commit(REF, op(f"other-{len(seen)}"), increment("n"))


async def test_every_writer_honours_an_intent(stores: Stores, kv: Kv) -> None:
    # Given somebody's intent
    store = stores()
    await kv.run(("SET", keys.intent(REF), "somebody", "PX", 60_000))
    # When another wants to commit
    task = asyncio.create_task(store.commit(REF, op("1"), add("n")))
    await asyncio.wait([task], timeout=0.1)
    assert not task.done()
    # Then it waits until the intent is gone
    await kv.run(("DEL", keys.intent(REF)))
    assert (await asyncio.wait_for(task, LIMIT)).version == 1


async def test_a_caller_that_goes_away_stops_nobody_else(stores: Stores) -> None:
    store = stores()
    tasks = [asyncio.create_task(store.commit(REF, op(str(i)), add(f"n{i}"))) for i in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert [v.version for v in done[1:] if isinstance(v, Committed)] == [1, 1]


async def test_the_queue_of_writers_is_bounded(stores: Stores, kv: Kv) -> None:
    # Given a store that takes two waiting writers
    store = stores(limits=Limits(queue=2))
    # When three come at once
    done = await asyncio.gather(
        *[store.commit(REF, op(str(i)), add(f"n{i}")) for i in range(3)], return_exceptions=True
    )
    # Then the third is told to come back
    assert [isinstance(v, Unavailable) for v in done] == [False, False, True]


async def test_closing_the_store_ends_those_who_wait(stores: Stores, kv: Kv) -> None:
    # Given a commit that waits for somebody's intent
    store = stores()
    await kv.run(("SET", keys.intent(REF), "somebody", "PX", 60_000))
    task = asyncio.create_task(store.commit(REF, op("1"), add("n")))
    await asyncio.wait([task], timeout=0.02)
    # When / Then
    await store.close()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(task, LIMIT)


async def test_old_operation_ids_are_forgotten(stores: Stores, kv: Kv) -> None:
    # Given an operation that is older than they are kept, and a recent one
    store = stores()
    await store.commit(REF, op("old"), add("n"))
    committed = time.time()
    await eventually(lambda: time.time() > committed + 0.01)
    between = time.time()
    await eventually(lambda: time.time() > between + 0.01)
    await store.commit(REF, op("recent"), add("n"))
    # When another process commits
    await stores(limits=Limits(ops_kept=5.0), now=lambda: between + 5.0).commit(REF, op("new"), add("n"))
    # Then
    assert await kv.run(("ZMSCORE", keys.ops(REF), "old", "recent", "new")) == [[None, 2.0, 3.0]]


async def test_the_log_is_trimmed_by_age_and_who_fell_behind_loads_afresh(stores: Stores, kv: Kv) -> None:
    # Given a replica that stands at version 1, and a log that was trimmed above it
    one, two = stores(), stores()
    await one.commit(REF, op("a"), add("a"))
    feed = await two.feed(REF)
    for i in range(3):
        await one.commit(REF, op(f"b{i}"), add(f"b{i}"))
    await kv.run(("XTRIM", keys.log(REF), "MAXLEN", 1))
    # When
    graph = await two.refresh(REF)
    # Then
    assert (graph.version, set(graph.nodes)) == (4, {"a", "b0", "b1", "b2"})
    assert set(feed.take().rows) == {"b0", "b1", "b2"}
    # Even an empty log is enough to go on
    await kv.run(("XTRIM", keys.log(REF), "MAXLEN", 0))
    await two.commit(REF, op("c"), add("c"))
    for store in (one, two, stores()):
        assert set((await store.refresh(REF)).nodes) == {"a", "b0", "b1", "b2", "c"}


async def test_a_store_that_went_back_in_time_is_read_afresh(stores: Stores, kv: Kv) -> None:
    # Given a replica at version 3
    one, two = stores(), stores()
    for i in range(3):
        await one.commit(REF, op(str(i)), add(f"n{i}"))
    feed = await one.feed(REF)
    # When the store loses everything and others go on, past that version
    names = [keys.ver, keys.node, keys.log, keys.ops, keys.gone]
    await kv.run(("DEL", *[name(REF) for name in names]))
    assert (await one.refresh(REF)).version == 0
    for i in range(4):
        await two.commit(REF, op(f"new {i}"), add(f"m{i}"))
    # Then what was lost is not mixed with what is there
    for store in (one, two):
        assert set((await store.refresh(REF)).nodes) == {"m0", "m1", "m2", "m3"}
    assert {i for i, row in feed.take().rows.items() if row is None} == {"n0", "n1", "n2"}
