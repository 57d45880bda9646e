"""What is measured beside the plain program: Bronze to Gold, one file on top, many small files."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from tests.bench.quick import Figure

from holdfast_pipeline.worker import Workers

from . import data, plain, stages
from .child import Cost, measured, median

TIME, MEMORY, ONE_FILE = 1.15, 1.2, 1.5
FILES = 10
SIDES = ("ours", "plain")


async def pair(
    workers: Workers, base: Path, out: Sequence[Path], stage: str, other: str = "", *, turned: bool = False
) -> tuple[Cost, Cost]:
    """A step of each side, one after the other; ``turned``: the plain one first."""
    ours, theirs = out
    if turned:
        second = await measured(workers, "plain", other or stage, base, theirs)
        return await measured(workers, "ours", stage, base, ours), second
    first = await measured(workers, "ours", stage, base, ours)
    return first, await measured(workers, "plain", other or stage, base, theirs)


async def whole(workers: Workers, base: Path, rows: int, runs: int, budget: float) -> list[Figure]:
    """All stages, ``runs`` times in turn; the tables of the last run stay, and must be the same on both sides."""
    data.make(base, rows, FILES)
    say(f"\n{rows:,} rows in {FILES} files, Bronze to Gold; seconds (of processors), MB at most")
    head = "".join(f"{ours:>9}{'plain':>9}{'ratio':>7}" for ours in ("ours s", "cpu s", "MB"))
    say(f"{'':8}{head}")
    costs: dict[str, tuple[list[Cost], list[Cost]]] = {stage: ([], []) for stage in stages.STAGES}
    began = time.monotonic()
    done = 0
    while done < runs and (not done or time.monotonic() - began < budget * done / (done + 1)):
        out = fresh(base)
        for stage in stages.STAGES:
            both = await pair(workers, base, out, stage, turned=done % 2 > 0)
            _line(stage, *both)
            for kept, cost in zip(costs[stage], both, strict=True):
                kept.append(cost)
        assert_same(base)
        done += 1
    medians = {stage: (median(ours), median(theirs)) for stage, (ours, theirs) in costs.items()}
    say(f"medians of {done}:")
    for stage, (ours, theirs) in medians.items():
        _line(stage, ours, theirs)
    totals = [
        Cost(sum(m[i].wall for m in medians.values()), sum(m[i].processor for m in medians.values()),
             max(m[i].memory for m in medians.values()))
        for i in (0, 1)
    ]  # fmt: skip
    _line("all", *totals)
    ours, theirs = totals
    return [
        Figure(f"{rows:,} rows, time beside plain", ours.wall / theirs.wall, "x", TIME),
        Figure("  processor time beside plain", ours.processor / theirs.processor, "x"),
        Figure("  peak memory beside plain", ours.memory / theirs.memory, "x", MEMORY),
        Figure("  in the stage that compares worst", max(o.memory / t.memory for o, t in medians.values()), "x"),
        Figure("  rows a second", rows / ours.wall, "/s"),
    ]


async def one_file(workers: Workers, base: Path, rows: int, runs: int) -> list[Figure]:
    """Files of 10,000 rows, one at a time, on top of what :func:`whole` left in Bronze."""
    out = tables(base)
    there = stages.table("raw", base, out[0]).rows()
    costs: tuple[list[Cost], list[Cost]] = ([], [])
    for turn in range(2 * runs + 1):
        data.add(base, f"{FILES + turn:05}.csv", 10_000, rows + turn * 10_000)
        both = await pair(workers, base, out, "raw", "append", turned=turn % 2 > 0)
        if turn:  # the first of each side loads what is loaded once
            for kept, cost in zip(costs, both, strict=True):
                kept.append(cost)
    found = [stages.table("raw", base, out[0]).rows(), plain.count(out[1] / "raw")]
    if found != [there + (2 * runs + 1) * 10_000] * 2:
        raise AssertionError(f"rows are missing or double: {found}")
    ours, theirs = map(median, costs)
    return [
        Figure("10,000 rows on top, beside append", ours.wall / theirs.wall, "x", ONE_FILE),
        Figure("  processor time beside append", ours.processor / theirs.processor, "x"),
        Figure("  ours", ours.wall * 1000, "ms"),
        Figure("  append", theirs.wall * 1000, "ms"),
    ]


async def many_files(workers: Workers, base: Path, files: int, runs: int) -> list[Figure]:
    """Many small files (100 rows each) to Bronze."""
    data.make(base, files * 100, files)
    costs: tuple[list[Cost], list[Cost]] = ([], [])
    for turn in range(runs):
        for kept, cost in zip(
            costs, await pair(workers, base, fresh(base), "raw", "many", turned=turn % 2 > 0), strict=True
        ):
            kept.append(cost)
        assert_same(base, ("raw",))
    ours, theirs = map(median, costs)
    return [
        Figure(f"{files:,} small files, beside plain", ours.wall / theirs.wall, "x", TIME),
        Figure("  processor time beside plain", ours.processor / theirs.processor, "x"),
        Figure("  peak memory beside plain", ours.memory / theirs.memory, "x", MEMORY),
        Figure("  ours", ours.wall * 1000, "ms"),
        Figure("  plain", theirs.wall * 1000, "ms"),
    ]


def tables(base: Path) -> tuple[Path, Path]:
    """Folders of both sides' tables."""
    return base / "warehouse", base / "plain"


def fresh(base: Path) -> tuple[Path, Path]:
    """The same, empty."""
    for folder in tables(base):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    shutil.rmtree(base / "data/out", ignore_errors=True)
    return tables(base)


def assert_same(base: Path, names: Sequence[str] = ("raw", "clean", "geo", "valid", "gold")) -> None:
    """Raise unless both sides have the same rows, as counts and sums tell."""
    ours, theirs = tables(base)
    for name in names:
        found = []
        for frame in (stages.table(name, base, ours).scan(), pl.scan_delta(str(theirs / name))):
            number = pl.col("net" if name == "gold" else "_row").sum().cast(pl.Float64).alias("sum")
            found.append(frame.select(pl.len(), number).collect(engine="streaming").row(0))
        if found[0] != found[1]:
            raise AssertionError(f"{name} differs: {found[0]} here, {found[1]} there")


def _line(name: str, ours: Cost, theirs: Cost) -> None:
    shown = f"{name:8}"
    for figure, digits in (("wall", 2), ("processor", 2), ("memory", 0)):
        a, b = getattr(ours, figure), getattr(theirs, figure)
        shown += f"{a:9.{digits}f}{b:9.{digits}f}{a / b:7.2f}"
    say(shown)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
