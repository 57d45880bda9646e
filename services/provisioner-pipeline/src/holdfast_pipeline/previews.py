"""Rows of a table for people: some of them, and what changed between two versions. Bounded in rows and bytes."""

from __future__ import annotations

from datetime import date, datetime
from math import isfinite
from typing import Any

import msgspec
import polars as pl

from holdfast_model.errors import Invalid, NotFound, Problem

from .casting import data_columns
from .folders import QUARANTINE
from .object_targets import target_of
from .objects import Location, scan_options
from .shelves import Shelf, Shelves, committed_at
from .sinks import DESTINATION, FORMAT
from .specs import SINK
from .tables import Table, collected, mapped
from .tasks import Context, StageTask

MOST = 1000
"""Rows that one reply holds at most."""
LONGEST = 500
"""Characters of one value that are shown."""
COMPARED = 5_000_000
"""Rows of both versions together that are compared; beyond it only their numbers are told."""
_TEXT = 24 * 1024 * 1024


class Column(msgspec.Struct, frozen=True):
    name: str
    type: str


class Preview(msgspec.Struct, frozen=True):
    """``rows``: lists of values in the order of ``columns``; numbers, text, true/false or null. ``total``: how many
    rows there are. ``version`` is None for a target that keeps none."""

    graph: str
    stage: str
    version: int | None
    at: str
    total: int
    columns: list[Column]
    rows: list[list[Any]]


class Difference(msgspec.Struct, frozen=True):
    """What ``after`` has that ``before`` has not (``added``), and the other way round, counting copies. None where
    columns differ or the tables are too large to compare; ``samples`` are rows of each."""

    graph: str
    stage: str
    before: int
    after: int
    before_at: str
    after_at: str
    rows_before: int
    rows_after: int
    columns_added: list[str]
    columns_removed: list[str]
    columns_changed: list[str]
    added: int | None
    removed: int | None
    columns: list[Column]
    added_rows: list[list[Any]]
    removed_rows: list[list[Any]]
    note: str = ""


def preview(shelves: Shelves, stage: str, *, as_of: str, limit: int, quarantine: bool, now: float) -> Preview:
    """The first rows of a stage's table, of its quarantine, or of what a sink published."""
    if not 1 <= limit <= MOST:
        text = f"limit {limit} is not between 1 and {MOST}"
        raise Invalid(text, [Problem("/limit", text)])
    shelf = shelves.stage(stage)
    if shelf.type == SINK and not quarantine:
        return _target(shelves, shelf, as_of, limit)
    if quarantine:
        table = Table.open(shelf.folder.side(QUARANTINE))
        if table is None:
            raise NotFound(f"stage {stage!r} has no quarantine: only validators have one")
        if as_of:
            text = "the quarantine is shown as it is now"
            raise Invalid(text, [Problem("/as_of", text)])
    else:
        table = shelf.as_of(as_of, now)
    columns, rows = _rows(table.scan(), limit, stage)
    return Preview(shelves.graph, stage, table.data_version.version, committed_at(table), table.rows(), columns, rows)


def _target(shelves: Shelves, shelf: Shelf, as_of: str, limit: int) -> Preview:
    """What the sink published, judged by the roots again: a link may have been put there since."""
    if as_of:
        text = "a sink's target is shown as it is now; its input keeps versions"
        raise Invalid(text, [Problem("/as_of", text)])
    ledger = shelf.newest()
    kind, destination = ledger.commit.get(FORMAT, ""), ledger.commit.get(DESTINATION, "")
    task = StageTask(shelves.tenant, shelves.graph, shelf.stage, shelf.type, msgspec.Raw(b"{}"), "")
    target = target_of(Context(shelves.settings, task, lambda: 0.0), destination)
    target.kind()
    frame = _csv(target.file(kind)) if kind == "csv" else target.published(kind)
    if frame is None:
        raise NotFound(f"what {shelf.stage!r} published is not there any more")
    columns, rows = _rows(frame, limit, shelf.stage)
    total = int(collected(frame.select(pl.len()), shelf.stage).item())
    return Preview(shelves.graph, shelf.stage, None, committed_at(ledger), total, columns, rows)


def _csv(path: Location) -> pl.LazyFrame | None:
    if not path.exists():
        return None
    return pl.scan_csv(str(path), infer_schema=False, glob=False, **scan_options(path))


def difference(shelves: Shelves, stage: str, before: str, after: str, limit: int, now: float) -> Difference:
    """What changed in a stage's table from one version to another ("" = the newest)."""
    shelf = shelves.stage(stage)
    if shelf.type == SINK:
        raise NotFound(f"{stage!r} is a sink, and targets are not compared", hint="compare the stage that it publishes")
    old, new = shelf.as_of(before, now), shelf.as_of(after, now)
    there, given = _data(old), _data(new)
    was, is_now = there.collect_schema(), given.collect_schema()
    rows = old.rows(), new.rows()
    added = removed = None
    columns: list[Column] = []
    samples: tuple[list[list[Any]], list[list[Any]]] = ([], [])
    note = ""
    if dict(was) != dict(is_now):
        note = "the columns differ, so rows are not compared"
    elif sum(rows) > COMPARED:
        note = f"more than {COMPARED:,} rows, so only their numbers are told"
    else:
        net = _net(there, given)
        try:
            sums = net.select(
                pl.col("_n").filter(pl.col("_n") > 0).sum().alias("added"),
                (-pl.col("_n").filter(pl.col("_n") < 0).sum()).alias("removed"),
            )
            found = collected(sums, stage)
        except Exception as e:
            raise mapped(e, stage) from e
        added, removed = (int(v) for v in found.row(0))
        columns, more = _rows(net.filter(pl.col("_n") > 0).drop("_n"), limit, stage)
        samples = more, _rows(net.filter(pl.col("_n") < 0).drop("_n"), limit, stage)[1]
    return Difference(
        shelves.graph, stage, old.data_version.version, new.data_version.version, committed_at(old), committed_at(new),
        *rows,
        [c for c in is_now if c not in was], [c for c in was if c not in is_now],
        [c for c in is_now if c in was and was[c] != is_now[c]],
        added, removed, columns, *samples, note,
    )  # fmt: skip


def _data(table: Table) -> pl.LazyFrame:
    frame = table.scan()
    return frame.select(data_columns(frame.collect_schema().names()))


def _net(there: pl.LazyFrame, given: pl.LazyFrame) -> pl.LazyFrame:
    """Distinct rows with how many copies came (positive) or went (negative)."""
    columns = given.collect_schema().names()
    both = pl.concat([given.with_columns(pl.lit(1).alias("_n")), there.with_columns(pl.lit(-1).alias("_n"))])
    return both.group_by(columns).agg(pl.col("_n").sum()).filter(pl.col("_n") != 0)


def _rows(frame: pl.LazyFrame, limit: int, name: str) -> tuple[list[Column], list[list[Any]]]:
    found = collected(frame.head(limit), name)
    columns = [Column(c, str(t)) for c, t in found.schema.items()]
    rows: list[list[Any]] = []
    room = _TEXT
    for row in found.iter_rows():
        shown = [_plain(v) for v in row]
        room -= sum(len(v) for v in shown if isinstance(v, str)) + 8 * len(shown)
        if room < 0:
            break
        rows.append(shown)
    return columns, rows


def _plain(value: object) -> Any:
    """JSON keeps whole numbers below 2**53, no exact fractions, and neither infinity nor what is no number: what would
    be bent is told as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
