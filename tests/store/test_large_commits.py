"""Changes that are announced as large: applied aside, in a thread, and seen when they are committed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Dangling
from holdfast_model.rows import declare
from holdfast_store import keys
from holdfast_store.commits import Committed, Extra, Limits
from holdfast_store.kv import Kv

from .between import Between, times
from .changes import REF, Do, add, count_of, increment, node, op
from .conftest import Stores

BULK = Limits(bulk=50)


def declaring(ids: list[str], count: int = 0, needs: tuple[str, ...] = ()) -> tuple[Do, list[int]]:
    """A blueprint as a change, and the threads in which it was applied."""
    threads: list[int] = []
    declared = [(i, declare(node(i, count, needs))) for i in ids]

    def how(graph: DesiredGraph, reads: list[Any]) -> Extra:
        threads.append(threading.get_ident())
        graph.declare("main", declared)
        return Extra(value=len(graph))

    return Do(how), threads


IDS = [f"n{i}" for i in range(120)]


async def test_a_large_change_is_applied_once_aside_and_seen_when_it_is_committed(stores: Stores, kv: Kv) -> None:
    # Given a graph that somebody follows
    between = Between(kv)
    store = stores(between, limits=BULK)
    await store.commit(REF, op("0"), add("kept"))
    feed = await store.feed(REF)
    graph = feed.graph
    graph.tracking = True
    seen: list[tuple[int, set[str]]] = []

    async def look() -> None:
        seen.append((graph.version, set((await store.refresh(REF)).nodes)))

    between.before_commit = look
    change, threads = declaring(IDS)
    # When
    assert await store.commit(REF, op("1"), change, weight=120) == Committed(2, True, 121)
    # Then nobody saw it too early, and it was applied once, not on the event loop
    assert seen == [(1, {"kept"})]
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    # And followers have the same graph, and what changed in it
    assert feed.graph is await store.refresh(REF) is graph
    assert (graph.version, set(graph.nodes)) == (2, {"kept", *IDS})
    assert set(feed.take().rows) == graph.drain()[0].keys() == set(IDS)
    assert (await stores().refresh(REF)).rows == graph.rows
    # And small commits go on from there
    await store.commit(REF, op("2"), increment("n7"))
    assert count_of(graph, "n7") == 1


async def test_a_large_change_that_does_not_fit_is_refused_and_leaves_no_trace(stores: Stores, kv: Kv) -> None:
    store = stores(limits=BULK)
    await store.commit(REF, op("0"), add("kept"))
    change, _ = declaring(IDS, needs=("nowhere",))
    # When / Then
    with pytest.raises(Dangling):
        await store.commit(REF, op("1"), change, weight=120)
    assert set((await store.refresh(REF)).nodes) == {"kept"}
    assert (await store.version(REF), await kv.run(("HLEN", keys.node(REF)))) == (1, [1])
    assert await kv.run(("EXISTS", keys.gone(REF))) == [0]


async def test_a_large_change_that_is_overtaken_is_applied_to_the_newer_graph(stores: Stores, kv: Kv) -> None:
    # Given another process that gets in between, and this one taking notice of it
    between, other = Between(kv), stores()
    store = stores(between, limits=BULK)

    async def overtake() -> None:
        await other.commit(REF, op("small"), increment("small"))
        await store.refresh(REF)

    between.before_commit = times(1, overtake)
    change, threads = declaring(IDS)
    # When
    done = await store.commit(REF, op("1"), change, weight=120)
    # Then
    assert (done, len(threads)) == (Committed(2, True, 121), 2)
    for each in (store, stores()):
        graph = await each.refresh(REF)
        assert (graph.version, len(graph), count_of(graph, "small")) == (2, 121, 1)


async def test_a_large_change_shares_no_transaction(stores: Stores) -> None:
    store = stores(limits=BULK)
    large, again = declaring(IDS)[0], declaring(IDS, 1)[0]
    # When large and small ones come at once
    done = await asyncio.gather(
        store.commit(REF, op("0"), add("a")),
        store.commit(REF, op("1"), add("b")),
        store.commit(REF, op("2"), large, weight=120),
        store.commit(REF, op("3"), again, weight=120),
        store.commit(REF, op("4"), increment("n1")),
    )
    # Then they are committed in order, the large ones by themselves
    assert [d.version for d in done] == [1, 1, 2, 3, 4]
    assert count_of(await stores().refresh(REF), "n1") == 2


async def test_a_wrong_guess_of_the_weight_changes_nothing_but_the_way(stores: Stores) -> None:
    store = stores(limits=BULK)
    few, threads = declaring(["n0"])
    # When a change is announced as large and is not / Then it is in the log like any other
    assert (await store.commit(REF, op("1"), few, weight=1000)).version == 1
    assert threads[0] != threading.get_ident()
    assert [e.reload for e in await store.log(REF)] == [False]
    # When a large one was not announced / Then it is a bulk commit all the same
    many, threads = declaring(IDS)
    await store.commit(REF, op("2"), many)
    assert threads == [threading.get_ident()]
    assert [e.reload for e in await store.log(REF)] == [False, True]
    assert set((await stores().refresh(REF)).nodes) == set(IDS)


async def test_a_repeated_large_operation_is_applied_once(stores: Stores) -> None:
    store = stores(limits=BULK)
    await store.commit(REF, op("1"), declaring(IDS)[0], weight=120)
    again, threads = declaring(IDS, 7)
    assert await store.commit(REF, op("1"), again, weight=120) == Committed(1, False)
    assert threads == []
