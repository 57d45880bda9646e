"""The marks of the running system, measured: a large graph, one drift in it, many writers on one graph.

Every figure is the median of several runs. A missed mark is printed and is no error: machines differ.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Sequence

import msgspec

from . import commit_writers
from .rig import Rig, layered

NODES, LAYERS, SMALL = 100_000, 8, 100


class Run(msgspec.Struct):
    """One life of the system: seconds, MB, and one time per healed drift in the large and in the small graph."""

    accepted: float
    converged: float
    edited: float
    memory: float
    large: list[float]
    small: list[float]


class Figure(msgspec.Struct):
    """A measured value beside its mark. ``at_most``: smaller is better."""

    name: str
    value: float
    unit: str
    mark: float | None = None
    at_most: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.mark is None:
            return None
        return self.value <= self.mark if self.at_most else self.value >= self.mark


async def measure(nodes: int = NODES, layers: int = LAYERS, small: int = SMALL, drifts: int = 20) -> Run:
    """Start everything, converge both graphs, lose and heal ``drifts`` nodes of each in turn."""
    dice = random.Random(nodes)
    async with Rig() as rig:
        await rig.apply("small", layered(small, layers))
        accepted, converged = await rig.apply("large", layered(nodes, layers))
        await rig.heal("large", "n0")  # what is loaded on first use is not measured
        await rig.heal("small", "n0")
        times: dict[str, list[float]] = {"large": [], "small": []}
        for _ in range(drifts):
            for graph, size in (("large", nodes), ("small", small)):
                times[graph].append(await rig.heal(graph, f"n{dice.randrange(size)}"))
        edited = sum(await rig.apply("large", layered(nodes, layers, edited=1)))
        return Run(accepted, converged, edited, rig.peak_memory, times["large"], times["small"])


def p95(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(0.95 * len(times)))]


def figures(runs: Sequence[Run], writers: Sequence[commit_writers.Result], nodes: int = NODES) -> list[Figure]:
    """Medians over the runs, with their marks."""
    median = statistics.median
    large, small = median([median(r.large) for r in runs]), median([median(r.small) for r in runs])
    out = [
        Figure("published -> accepted", median([r.accepted for r in runs]), "s", 5.0),
        Figure("accepted -> converged", median([r.converged for r in runs]), "s"),
        Figure("  nodes converged", nodes / median([r.converged for r in runs]), "/s", 10_000, at_most=False),
        Figure("  planner, peak memory", max(r.memory for r in runs), "MB", 400),
        Figure("one edit, published -> converged", median([r.edited for r in runs]), "s"),
        Figure("one drift -> healed, median", large * 1000, "ms", 50),
        Figure("  95th percentile", median([p95(r.large) for r in runs]) * 1000, "ms"),
        Figure("  in a graph of 100, median", small * 1000, "ms"),
        Figure("  95th percentile", median([p95(r.small) for r in runs]) * 1000, "ms"),
        Figure("  large beside small", large / small, "x", 1.5),
    ]
    if writers:
        out += [
            Figure("64 writers on one graph", median([w.grouped for w in writers]), "/s", 5000, at_most=False),
            Figure("  naive WATCH/MULTI", median([w.naive for w in writers]), "/s"),
            Figure("  beside naive", median([w.ratio for w in writers]), "x", 20, at_most=False),
            Figure("  updates lost", sum(w.lost for w in writers), "", 0),
        ]
    return out


def show(figures: Sequence[Figure]) -> None:
    """The table."""
    print(f"{'':34s} {'measured':>12s}      {'mark':>10s}")
    for f in figures:
        digits = 0 if f.value >= 1000 or f.unit == "" else 2 if f.value < 100 else 1
        mark = "" if f.mark is None else f"{'<=' if f.at_most else '>='} {f.mark:,.4g}"
        verdict = {None: "", True: "met", False: "MISSED"}[f.met]
        print(f"{f.name:34s} {f.value:12,.{digits}f} {f.unit:4s} {mark:>10s}  {verdict}")


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    options.add_argument("--runs", type=int, default=3, help="lives of the system (default 3)")
    options.add_argument("--nodes", type=int, default=NODES)
    options.add_argument("--drifts", type=int, default=20, help="drifts healed in each graph and run")
    options.add_argument("--budget", type=float, default=180.0, help="seconds after which no further run begins")
    chosen = options.parse_args(arguments)
    began = time.monotonic()
    load = os.getloadavg()[0]
    print(
        f"{chosen.nodes:,} no-op nodes in {LAYERS} layers, {os.cpu_count()} cores, load before {load:.1f}", flush=True
    )
    runs: list[Run] = []
    writers: list[commit_writers.Result] = []
    for i in range(chosen.runs):
        if runs and time.monotonic() - began > chosen.budget:
            break
        run = asyncio.run(measure(chosen.nodes, drifts=chosen.drifts))
        runs.append(run)
        writers.append(commit_writers.run())
        print(
            f"run {i + 1}: accepted {run.accepted:.2f} s, converged {run.converged:.2f} s, "
            f"drift {statistics.median(run.large) * 1000:.0f} / {statistics.median(run.small) * 1000:.0f} ms, "
            f"{run.memory:.0f} MB, {writers[-1].grouped:,.0f} mutations/s",
            flush=True,
        )
    print(f"\nmedian of {len(runs)} runs, {time.monotonic() - began:.0f} s, load now {os.getloadavg()[0]:.1f}\n")
    show(figures(runs, writers, chosen.nodes))
