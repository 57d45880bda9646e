"""The reconciler converges, whatever the network and the processes around it do."""

from __future__ import annotations

import os

import pytest

from .world import World

START = int(os.environ.get("START", "0"))
SEEDS = int(os.environ.get("SEEDS", "300"))
CHUNK = 25


@pytest.mark.parametrize("first", range(START, START + SEEDS, CHUNK))
def test_every_seed_converges_in_dependency_order_with_one_step_per_node(first: int) -> None:
    for seed in range(first, min(first + CHUNK, START + SEEDS)):
        try:
            World(seed).run()
        except AssertionError as broken:
            pytest.fail(f"seed {seed}: {broken}", pytrace=False)
