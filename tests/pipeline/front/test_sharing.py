"""Graphs share the processes of a replica by what they used; virtual time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

import pytest
from tests.bench.pipeline.graphs import jain

from holdfast_pipeline.sharing import PATIENCE, Line, Slots, Turn, lanes


def _served(line: Line, until: int, cost: dict[str, float], again: dict[str, int]) -> list[str]:
    """Serve one after the other; ``again``: steps that a graph still has after each of its own."""
    order: list[str] = []
    now = 0.0
    while len(order) < until and (turn := line.next(now)) is not None:
        order.append(turn.graph)
        now += cost[turn.graph]
        line.leave(turn, cost[turn.graph])
        if again.get(turn.graph, 0):
            again[turn.graph] -= 1
            line.enter(turn.graph, now)
    return order


def test_a_graph_with_many_steps_takes_no_more_than_its_share() -> None:
    # Given: one graph that waits with fifty steps, then ten with one at a time
    line, small = Line(), [f"g{i}" for i in range(10)]
    first = line.next(0) if line.enter("large", 0.0) else None
    assert isinstance(first, Turn)
    line.leave(first, 1.0)  # what a step usually takes is known from here on
    for graph in ["large"] * 50 + small:
        line.enter(graph, 0.0)
    # When
    order = _served(line, 44, dict.fromkeys([*small, "large"], 1.0), dict.fromkeys(small, 3))
    # Then: after four rounds everybody had four, but for the one that had begun before
    counted = Counter(order)
    assert [counted[g] for g in small] == [4] * 10
    assert 3 <= counted["large"] <= 4


def test_time_is_shared_and_not_steps() -> None:
    line = Line()
    cost = {"slow": 4.0, "quick": 1.0}
    for graph in cost:
        line.enter(graph, 0.0)
    counted = Counter(_served(line, 100, cost, dict.fromkeys(cost, 1000)))
    assert counted["quick"] * 1.0 == pytest.approx(counted["slow"] * 4.0, rel=0.1)


def test_who_comes_later_gets_its_share_from_then_on() -> None:
    line = Line()
    line.enter("old", 0.0)
    _served(line, 100, {"old": 1.0}, {"old": 100})
    line.enter("new", 100.0)
    counted = Counter(_served(line, 40, {"old": 1.0, "new": 1.0}, {"old": 100, "new": 100}))
    assert abs(counted["old"] - counted["new"]) <= 2


def test_nobody_waits_longer_than_patience_while_others_keep_coming() -> None:
    line = Line()
    line.leave(_entered(line, "served"), 1000.0)
    line.enter("served", 1.0)
    line.enter("fresh", 1.0)
    assert _next(line, 2.0) == "fresh"
    line.enter("fresher", 2.0)
    assert _next(line, PATIENCE + 2.0) == "served"


def _at_half(graphs: int, lanes_of_a_type: int, *, processes: int = 2, types: int = 5) -> list[int]:
    """Steps of each of many equal graphs, when half of all are done. A step takes 0.3 s, give or take half of it; the
    next of its type comes 5 ms after it ends, the graph's next one after 50 ms."""
    line, chance = Line(), random.Random(1)
    outside: list[deque[str]] = [deque() for _ in range(types)]
    under_way = [0] * types
    events: list[tuple[float, int, Callable[[], None]]] = []
    type_of: dict[Turn, int] = {}
    done: list[str] = []
    number = itertools.count()
    now, free = 0.0, processes

    def at(when: float, what: Callable[[], None]) -> None:
        heapq.heappush(events, (when, next(number), what))

    def come(type: int, graph: str | None = None) -> None:
        if graph is not None:
            outside[type].append(graph)
        while outside[type] and under_way[type] < lanes_of_a_type:
            under_way[type] += 1
            type_of[line.enter(outside[type].popleft(), now)] = type
        call()

    def call() -> None:
        nonlocal free
        while free and (turn := line.next(now)) is not None:
            free -= 1
            seconds = chance.uniform(0.15, 0.45)
            at(now + seconds, partial(end, turn, seconds))

    def end(turn: Turn, seconds: float) -> None:
        nonlocal free
        type = type_of.pop(turn)
        free += 1
        line.leave(turn, seconds)
        done.append(turn.graph)
        call()
        at(now + 0.005, partial(replace, type))
        if type + 1 < types:
            at(now + 0.05, partial(come, type + 1, turn.graph))

    def replace(type: int) -> None:
        under_way[type] -= 1
        come(type)

    for i in range(graphs):
        come(0, str(i))
    while events:
        now, _, what = heapq.heappop(events)
        what()
    assert len(done) == graphs * types
    counted = Counter(done[: len(done) // 2])
    return [counted[str(i)] for i in range(graphs)]


def test_many_graphs_that_come_at_once_go_forward_abreast() -> None:
    assert jain(_at_half(100, lanes(2))) > 0.9  # 0.96 is the most that five steps in a row can have
    assert jain(_at_half(100, 2)) < 0.9  # were there no more lanes than processes


def _entered(line: Line, graph: str) -> Turn:
    line.enter(graph, 0.0)
    turn = line.next(0.0)
    assert turn is not None
    return turn


def _next(line: Line, now: float) -> str:
    turn = line.next(now)
    assert turn is not None
    return turn.graph


async def test_slots_are_given_back_by_whoever_ends_gives_up_or_is_cancelled() -> None:
    loop = asyncio.get_running_loop()
    slots = Slots(1, loop.time)
    release = asyncio.Event()
    held: list[str] = []

    async def hold(graph: str, seconds: float) -> None:
        async with slots.slot(graph, loop.time() + seconds):
            held.append(graph)
            await release.wait()

    first = asyncio.create_task(hold("a", 20))
    await asyncio.sleep(0)
    late, cancelled, last = (asyncio.create_task(hold(g, s)) for g, s in (("b", 0.01), ("c", 20), ("d", 20)))
    with pytest.raises(TimeoutError):
        await late
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    release.set()
    await asyncio.wait_for(asyncio.gather(first, last), 10)
    assert held == ["a", "d"]
    await asyncio.wait_for(hold("e", 5), 10)
