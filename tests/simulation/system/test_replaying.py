"""A seed tells the same story again, event by event, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from tests.simulation.system.world import Broken, World
for seed in sys.argv[1:]:
    world = World(int(seed))
    try:
        world.run()
    except Broken:
        pass
    print("\\n".join(world.trace))
"""
SEEDS = ("3", "5", "8", "21")


def test_a_seed_leaves_the_same_trace_whatever_the_hashes_of_a_process_are() -> None:
    def trace(hashes: str) -> list[str]:
        env = {**os.environ, "PYTHONHASHSEED": hashes}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, *SEEDS], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        return run.stdout.splitlines()

    one, other = trace("1"), trace("2")
    assert len(one) > 200
    for at, (a, b) in enumerate(zip(one, other, strict=True)):
        assert a == b, f"line {at} differs after:\n" + "\n".join(one[max(0, at - 5) : at])
