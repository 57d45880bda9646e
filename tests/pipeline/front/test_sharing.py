"""Graphs share the processes of a replica by what they used; virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from holdfast_pipeline.sharing import PATIENCE, Line, Slots, Turn


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
