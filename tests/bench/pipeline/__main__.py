"""``python -m tests.bench.pipeline [ROWS]``: the engine beside plain polars and deltalake, in the same run.

Each step of either side runs in a child of the service's own forkserver, in turn, so that both meet the same load; each
figure is a median. What counts as the same work is said in :mod:`.plain`. A missed mark is printed and is no error:
machines differ.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.quick import Figure, show

from holdfast_pipeline.worker import Workers

from . import graphs
from .child import TARGET
from .scenarios import many_files, one_file, say, whole

ONLY = ("whole", "one", "many", "objects", "graphs")


async def measure(chosen: argparse.Namespace) -> list[Figure]:
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        base = Path(folder)
        async with Workers(TARGET, limit=1, scratch=base) as workers:
            if "whole" in chosen.only or "one" in chosen.only:
                found += await whole(workers, base / "whole", chosen.rows, chosen.runs, chosen.budget)
            if "one" in chosen.only:
                found += await one_file(workers, base / "whole", chosen.rows, chosen.runs)
            if "many" in chosen.only:
                found += await many_files(workers, base / "many", chosen.files, chosen.runs)
        if "objects" in chosen.only:
            from . import objects  # its libraries take seconds to load

            found += await objects.measure(base / "objects", chosen.objects, chosen.runs)
        if "graphs" in chosen.only:
            found += await graphs.measure(base / "graphs", chosen.graphs)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(prog="python -m tests.bench.pipeline", description=__doc__)
    options.add_argument("rows", nargs="?", type=int, default=10_000_000)
    options.add_argument("--runs", type=int, default=3, help="times that each step is measured (default 3)")
    options.add_argument("--files", type=int, default=1000, help="small files")
    options.add_argument("--objects", type=int, default=200, help="small objects of a store")
    options.add_argument("--graphs", type=int, default=100, help="graphs at once")
    options.add_argument("--budget", type=float, default=400.0, help="seconds for all runs from Bronze to Gold")
    options.add_argument("--only", nargs="+", choices=ONLY, default=ONLY)
    chosen = options.parse_args(arguments)
    began, load = time.monotonic(), os.getloadavg()[0]
    say(f"{os.cpu_count()} cores, load before {load:.1f}")
    found = asyncio.run(measure(chosen))
    say(f"\nmedians, {time.monotonic() - began:.0f} s in all, load now {os.getloadavg()[0]:.1f}\n")
    show(found)


if __name__ == "__main__":
    main()
