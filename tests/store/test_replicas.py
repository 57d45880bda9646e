"""Replicas: loading while others write, feeds, bulk commits, bounds in memory, the price of a commit."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_model.errors import Permanent
from holdfast_model.rows import Row
from holdfast_store import keys
from holdfast_store.commits import Limits
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Kv
from holdfast_store.log import LogEntry

from .between import Between, times
from .changes import REF, GraphRef, add, blueprint, count_of, increment, op, remove
from .conftest import Client, Stores

SMALL_BULK = Limits(bulk=50)


async def test_a_snapshot_taken_while_others_write_is_one_version(stores: Stores) -> None:
    # Given a graph that is large enough to be read in pages, and two processes that keep changing it
    writers = [stores(), stores()]
    await writers[0].commit(REF, op("first"), blueprint([f"n{i}" for i in range(3000)]))
    base = dict((await writers[0].refresh(REF)).rows)
    stop = asyncio.Event()

    async def write(store: GraphStore, name: str) -> None:
        for i in range(10_000):
            if stop.is_set():
                return
            change = add(f"n{i * 37 % 3000}", i) if i % 3 else remove(f"n{i * 37 % 3000}")
            await store.commit(REF, op(f"{name}-{i}"), change)

    tasks = [asyncio.create_task(write(s, str(i))) for i, s in enumerate(writers)]
    # When others load it meanwhile
    loaded = [await stores().refresh(REF) for _ in range(4)]
    seen = [(graph.version, dict(graph.rows)) for graph in loaded]
    stop.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Then each got exactly the rows of its version
    log = await writers[0].log(REF, count=100_000)
    assert len({version for version, _ in seen}) > 1
    for version, rows in seen:
        assert rows == _rows_at(version, base, log)


def _rows_at(version: int, base: dict[str, Row], log: list[LogEntry]) -> dict[str, Row]:
    rows = dict(base)
    for entry in log:
        if 1 < entry.version <= version:
            rows.update((i, r) for i, r in entry.delta.rows.items() if r is not None)
            for gone in [i for i, r in entry.delta.rows.items() if r is None]:
                rows.pop(gone, None)
    return rows


async def test_the_price_of_a_commit_does_not_depend_on_the_size_of_the_graph(stores: Stores, kv: Kv) -> None:
    # Given the same change to a small and to a large graph
    between = Between(kv)
    store = stores(between)
    price = {}
    for size in (10, 3000):
        ref = GraphRef("acme", f"g{size:04d}")
        await store.commit(ref, op("first"), blueprint([f"n{i}" for i in range(size)]))
        # When
        between.reset()
        await store.commit(ref, op("second"), increment("n1"))
        price[size] = (between.round_trips, len(between.sent), between.sent_bytes)
    # Then it costs the same round trips, commands and bytes
    assert price[10][:2] == price[3000][:2] == (2, 8)
    assert abs(price[10][2] - price[3000][2]) < 20


async def test_catching_up_costs_the_changes(stores: Stores, kv: Kv) -> None:
    # Given a replica of a large graph that is three versions behind
    between, writer = Between(kv), stores()
    reader = stores(between)
    await writer.commit(REF, op("first"), blueprint([f"n{i}" for i in range(3000)]))
    feed = await reader.feed(REF)
    for i in range(3):
        await writer.commit(REF, op(str(i)), add("n1", i))
    # When
    between.reset()
    graph = await reader.refresh(REF)
    # Then one round trip brings it up, and the feed holds the one node that changed
    assert between.round_trips == 1
    assert count_of(graph, "n1") == 2
    assert set(feed.take().rows) == {"n1"}
    assert not feed


async def test_a_feed_merges_what_this_process_and_others_changed(stores: Stores) -> None:
    # Given a feed on a graph that is there already
    one, two = stores(), stores()
    await one.commit(REF, op("0"), add("old"))
    feed = await one.feed(REF)
    assert not feed
    # When both change it
    await one.commit(REF, op("1"), add("a", 1))
    await two.commit(REF, op("2"), add("a", 2))
    await two.commit(REF, op("3"), remove("old"))
    await one.refresh(REF)
    # Then the last values are there once
    delta = feed.take()
    assert delta.rows["old"] is None
    assert delta.rows["a"] == feed.graph.rows["a"]
    assert set(delta.rows) == {"a", "old"}
    assert set(delta.gone) == {"thing old"}
    # And a closed feed is told nothing
    feed.close()
    await one.commit(REF, op("4"), add("b"))
    assert not feed


async def test_whoever_follows_a_graph_misses_nothing_when_another_one_drains_or_stops(stores: Stores) -> None:
    # Given a graph that is loaded again before the host that it had is all gone
    store = stores()
    before = await store.feed(REF)
    before.follow()
    await store.commit(REF, op("0"), add("known"))
    now = await store.feed(REF)
    now.follow()
    # When it changes, and the first one drains, and stops after another change
    await store.commit(REF, op("1"), add("a"))
    assert set(before.drain()[0]) == {"known", "a"}
    await store.commit(REF, op("2"), remove("a"))
    await store.commit(REF, op("3"), add("b"))
    before.close()
    await store.commit(REF, op("4"), add("c"))
    # Then the other one is told of everything since it follows
    nodes, gone = now.drain()
    assert {name for name, node in nodes.items() if node is not None} == {"b", "c"}
    assert nodes["a"] is None
    assert set(gone) == {("a", "thing")}
    assert now.drain() == ({}, {})
    # And when nobody follows, nobody pays
    now.close()
    assert not now.graph.tracking


async def test_a_bulk_commit_replaces_the_rows_and_replicas_load_afresh(stores: Stores, kv: Kv) -> None:
    # Given a graph, another replica and its feed
    one, two = stores(limits=SMALL_BULK), stores(limits=SMALL_BULK)
    await one.commit(REF, op("0"), add("kept"))
    feed = await two.feed(REF)
    # When very many nodes come
    ids = [f"n{i}" for i in range(120)]
    await one.commit(REF, op("1"), blueprint(ids))
    # Then the log says reload, nothing is left beside, and the rows do not expire
    assert [e.reload for e in await one.log(REF)] == [False, True]
    assert (await kv.run(("SCAN", 0, "MATCH", "hf:{acme/shop}:stage*", "COUNT", 1000)))[0][1] == []
    assert await kv.run(("TTL", keys.node(REF)), ("HLEN", keys.node(REF))) == [-1, 121]
    for store in (one, two, stores()):
        assert set((await store.refresh(REF)).nodes) == {"kept", *ids}
    assert set(feed.take().rows) == set(ids)
    # When all of them go again, they become tombstones; when they are forgotten, nothing is left
    await two.commit(REF, op("2"), blueprint([]))
    for store in (one, stores()):
        graph = await store.refresh(REF)
        assert (set(graph.nodes), len(graph.gone)) == ({"kept"}, 120)
    assert await kv.run(("TTL", keys.gone(REF)), ("HLEN", keys.gone(REF)), ("HLEN", keys.node(REF))) == [-1, 120, 1]
    # And small commits go on as before
    await one.commit(REF, op("3"), add("small"))
    assert "small" in await two.refresh(REF)
    assert len(feed.take().gone) == 120


async def test_a_bulk_commit_that_removes_the_last_node_leaves_no_rows(stores: Stores, kv: Kv) -> None:
    store = stores(limits=SMALL_BULK)
    await store.commit(REF, op("1"), blueprint([f"n{i}" for i in range(120)]))
    await store.commit(REF, op("2"), blueprint([]))
    assert await kv.run(("EXISTS", keys.node(REF)), ("HLEN", keys.gone(REF))) == [0, 120]
    assert len(await stores().refresh(REF)) == 0


async def test_a_bulk_commit_that_is_overtaken_loses_neither_change(stores: Stores, kv: Kv) -> None:
    # Given a small writer that gets in between, twice
    between, other = Between(kv), stores(limits=SMALL_BULK)
    store = stores(between, limits=SMALL_BULK)
    count = iter(range(10))

    async def overtake() -> None:
        await other.commit(REF, op(f"small-{next(count)}"), increment("small"))

    between.before_commit = times(2, overtake)
    # When
    await store.commit(REF, op("bulk"), blueprint([f"n{i}" for i in range(120)]))
    # Then
    graph = await stores().refresh(REF)
    assert (graph.version, len(graph), count_of(graph, "small")) == (3, 121, 2)
    assert (await kv.run(("SCAN", 0, "MATCH", "hf:{acme/shop}:stage*", "COUNT", 1000)))[0][1] == []


async def test_a_bulk_commit_gets_through_while_others_write_all_the_time(stores: Stores) -> None:
    # Given a small writer that never pauses
    bulky, small = stores(limits=SMALL_BULK), stores(limits=SMALL_BULK)
    stop = asyncio.Event()

    async def write() -> int:
        done = 0
        while not stop.is_set():
            await small.commit(REF, op(f"small-{done}"), increment("small"))
            done += 1
        return done

    writer = asyncio.create_task(write())
    # When very many nodes come, three times
    for i in range(3):
        await bulky.commit(REF, op(f"bulk-{i}"), blueprint([f"n{i}" for i in range(3000)], i))
    stop.set()
    # Then both are there
    done = await writer
    graph = await stores().refresh(REF)
    assert (len(graph), count_of(graph, "small"), count_of(graph, "n7")) == (3001, done, 2)


async def test_a_stage_that_is_gone_at_exec_aborts_the_commit(stores: Stores, kv: Kv, client: Client) -> None:
    # Given somebody who drops what was staged, just before EXEC
    between, thief = Between(kv), client()
    store = stores(between, limits=SMALL_BULK)

    async def drop() -> None:
        ((_, staged),) = await thief.run(("SCAN", 0, "MATCH", "hf:{acme/shop}:stage*", "COUNT", 1000))
        await thief.run(("DEL", *staged))

    between.before_commit = times(1, drop)
    # When / Then it is staged again, and the transaction was never half done
    assert (await store.commit(REF, op("bulk"), blueprint([f"n{i}" for i in range(120)]))).version == 1
    assert len(await stores().refresh(REF)) == 120
    assert len(await store.log(REF)) == 1


async def test_replicas_in_memory_are_bounded(stores: Stores, kv: Kv) -> None:
    # Given a store that keeps two graphs, one of them followed by a feed
    between = Between(kv)
    store = stores(between, max_graphs=2)
    refs = [GraphRef("acme", f"g{i}") for i in range(4)]
    feed = await store.feed(refs[0])
    graph = feed.graph
    # When four are used
    for i, ref in enumerate(refs):
        await store.commit(ref, op(str(i)), add("n"))
    # Then the followed one and the last one are there still, the others are read again when they are needed
    price = []
    for ref in (refs[0], refs[3], refs[1]):
        between.reset()
        assert "n" in await store.refresh(ref)
        price.append(between.round_trips)
    assert price[0] == price[1] == 1
    assert price[2] > 1
    assert (await store.refresh(refs[0])) is graph


async def test_a_failed_load_leaves_no_feed_behind(stores: Stores, kv: Kv) -> None:
    # Given rows that cannot be read
    await kv.run(("HSET", keys.node(REF), "n", "not a row"), ("SET", keys.ver(REF), 1))
    store = stores()
    # When / Then
    with pytest.raises(Permanent, match="cannot be read"):
        await store.feed(REF)
    await kv.run(("DEL", keys.node(REF), keys.ver(REF)))
    assert len(await store.refresh(REF)) == 0
