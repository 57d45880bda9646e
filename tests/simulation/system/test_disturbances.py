"""What is said to go wrong in these simulations does go wrong, and in every kind of place."""

from __future__ import annotations

from collections import Counter

import pytest

from .seeds import collect, worlds_only
from .world import World

SEEDS = range(100)
CRASHES = 0.01
"""More of them than usual, so that few seeds are enough."""
NAMED = (
    "lost", "doubled", "delayed", "reordered", "delivered again", "result told again",
    "acknowledgement lost", "publication lost", "answer to a publication lost", "published twice",
    "compare-and-set lost", "compare-and-set lost to somebody", "lost before EXEC", "lost after EXEC", "store away",
    "taken from a living owner", "a fenced owner wanted to write",
    "stood still", "stopped",
    "blueprint", "raid", "decision", "pause", "unblock", "reconcile", "decided by hand",
    "phase entered", "removals agreed to", "fix",
    "renamed", "renamed with a step in flight", "renamed while asking", "decided under a former name",
    "name came back", "name taken over",
)  # fmt: skip
RARE = 600
"""An effect that happened so often in all seeds together was the last one before a crash at least once."""


@pytest.fixture(scope="module")
def seen() -> tuple[Counter[str], Counter[str]]:
    """What went wrong, and the effects of processes, in all seeds together."""
    happened: Counter[str] = Counter()
    effects: Counter[str] = Counter()
    with worlds_only():
        for seed in SEEDS:
            world = World(seed)
            world.trouble.crash = CRASHES
            world.run()
            happened.update(world.happened)
            effects.update(world.effects)
            del world
            collect()
    return happened, effects


@pytest.mark.timeout(300)
def test_everything_that_may_go_wrong_does(seen: tuple[Counter[str], Counter[str]]) -> None:
    happened, _ = seen
    assert {name: happened[name] for name in NAMED if not happened[name]} == {}


@pytest.mark.timeout(300)
def test_processes_crash_between_any_two_effects(seen: tuple[Counter[str], Counter[str]]) -> None:
    happened, effects = seen
    assert {kind.split()[0] for kind in effects} == {"planner", "faultpolicy", "workitems", "domain"}
    points = {kind: count for kind, count in effects.items() if count >= RARE}
    crashed = {kind for kind in effects if happened[kind.replace(" ", " crashes ", 1)]}
    assert {kind: count for kind, count in points.items() if kind not in crashed} == {}
    assert len(crashed) >= 20
