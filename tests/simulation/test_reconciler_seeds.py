"""The reconciler converges, whatever the network and the processes around it do."""

from __future__ import annotations

import os

import pytest

from .world import World

START = int(os.environ.get("START", "0"))
SEEDS = int(os.environ.get("SEEDS", "300"))
CHUNK = 25


@pytest.mark.parametrize("seed", [74479])
def test_a_seed_that_once_was_broken_keeps_the_invariants(seed: int) -> None:
    World(seed, renames=True).run()


@pytest.mark.parametrize("first", range(START, START + SEEDS, CHUNK))
@pytest.mark.parametrize("renames", [False, True], ids=["", "renames"])
def test_every_seed_converges_in_dependency_order_with_one_step_per_node(first: int, renames: bool) -> None:
    for seed in range(first, min(first + CHUNK, START + SEEDS)):
        try:
            World(seed, renames=renames).run()
        except AssertionError as broken:
            pytest.fail(f"seed {seed}: {broken}", pytrace=False)
