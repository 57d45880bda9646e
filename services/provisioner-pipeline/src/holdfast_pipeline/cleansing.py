"""Silver, first: trim, cast by the schema, apply the rules, fill or drop nulls, keep one of each duplicate.

Casts never raise. Every row that is dropped is counted in the commit under the rule that dropped it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.messages import Observation

from .casting import data_columns, layout, literal, with_casts
from .duplicates import Places, deduplicated
from .recomputing import compared, metadata, overwrite, own_folder, pin, versions, without_inputs
from .specs import CleanserSpec, Deduplication, Rule
from .tables import Table, collected, content_key, mapped
from .tasks import Context, StageResult

_FEW = 50
_NULLS = "\x00nulls"  # a name no column can have


def observe(context: Context, spec: CleanserSpec) -> Observation:
    """PRESENT when the table was made from the input as it is now."""
    table = Table.open(own_folder(context).main)
    try:
        return compared(context, table, _key(context, spec))
    except Temporary as e:
        return without_inputs(context, table, e.message)


def provision(context: Context, spec: CleanserSpec) -> StageResult:
    """Recompute the table from its pinned input, unless that was done already."""
    folder = own_folder(context)
    [pinned] = pins = pin(context, [spec.input])
    key = content_key(digest=context.task.digest, inputs=versions(pins))
    table = Table.open(folder.main)
    if table is None or table.key != key:
        try:
            frame, dropped = cleansed(pinned.table.scan(), spec, pinned.table.rows())
        except Exception as e:
            raise mapped(e, context.task.node) from e
        overwrite(context, folder.main, table, frame, metadata(context, key, pins, {"dropped": dropped}))
    return StageResult(observe(context, spec))


def _key(context: Context, spec: CleanserSpec) -> str:
    return content_key(digest=context.task.digest, inputs=versions(pin(context, [spec.input])))


@dataclass
class _Counted:
    """Rows after each step that can drop some: a frame that is still to be counted, or the number.

    ``source``: the ``rows`` rows before any step."""

    source: pl.LazyFrame
    rows: int
    steps: list[tuple[str, pl.LazyFrame | int, pl.LazyFrame | int]] = field(default_factory=list)

    @cached_property
    def places(self) -> Places:
        return Places.of(self.source)

    def dropped(self) -> dict[str, int]:
        """Step -> rows that it dropped. Frames are counted together, in one go."""
        asked = {id(f): f for _, *pair in self.steps for f in pair if isinstance(f, pl.LazyFrame)}
        counts = pl.collect_all([f.select(pl.len()) for f in asked.values()], engine="streaming") if asked else []
        found = {k: int(c.item()) for k, c in zip(asked, counts, strict=True)}

        def number(of: pl.LazyFrame | int) -> int:
            return of if isinstance(of, int) else found[id(of)]

        return {name: number(before) - number(after) for name, before, after in self.steps}


def cleansed(frame: pl.LazyFrame, spec: CleanserSpec, rows: int | None = None) -> tuple[pl.LazyFrame, dict[str, int]]:
    """The cleansed rows of a Bronze frame, and how many rows each rule dropped. ``rows``: how many the frame has."""
    rows = rows if rows is not None else int(collected(frame.select(pl.len()), "rows").item())
    counted = _Counted(frame, rows)
    if spec.fields:
        names = frame.collect_schema().names()
        wanted = {f.name for f in spec.fields}
        frame = frame.drop([c for c in data_columns(names) if c not in wanted])
    for rule in spec.rules:
        if rule.kind == "trim":
            frame = _text(frame, rule, lambda c: c.str.strip_chars())
    frame = with_casts(frame, spec.fields)
    before: pl.LazyFrame | int = rows
    fill: dict[str, object] = {}
    for number, rule in enumerate(spec.rules, start=1):
        name = f"{number} {rule.kind}"
        if rule.kind == "fill_null" and rule.columns and fill.keys().isdisjoint(rule.columns):
            fill |= dict.fromkeys(rule.columns, rule.value)
            continue
        frame, fill = _filled(frame, fill), {}
        if rule.kind == "drop_duplicates":
            frame, before = _counted_once(frame, Deduplication(rule.columns), counted, name)
            continue
        changed = _apply(frame, rule)
        if changed is not frame:
            frame = changed
            if rule.kind in ("filter", "drop_nulls"):
                counted.steps.append((name, before, frame))
                before = frame
    frame = _filled(_filled(frame, fill), spec.fill)
    if spec.drop_nulls:
        frame = _without_nulls(frame, _columns(frame, () if spec.drop_nulls == ("*",) else spec.drop_nulls))
        counted.steps.append(("drop_nulls", before, frame))
    if spec.deduplication is not None:
        frame, _ = _counted_once(frame, spec.deduplication, counted, "deduplication")
    return layout(frame), counted.dropped()


def _counted_once(frame: pl.LazyFrame, how: Deduplication, counted: _Counted, name: str) -> tuple[pl.LazyFrame, int]:
    keys = _columns(frame, how.keys)
    if how.order_by:
        _columns(frame, how.order_by)
    frame, given, kept = deduplicated(frame, how, keys, counted.places, counted.rows)
    if counted.steps and isinstance(counted.steps[-1][2], pl.LazyFrame):
        last, before, _ = counted.steps.pop()
        counted.steps.append((last, before, given))  # what went in was counted on the way
    counted.steps.append((name, given, kept))
    return frame, kept


def _columns(frame: pl.LazyFrame, columns: Sequence[str]) -> list[str]:
    names = data_columns(frame.collect_schema().names())
    unknown = [c for c in columns if c not in names]
    if unknown:
        raise Permanent(f"a rule names columns that are not there: {', '.join(unknown)}")
    return list(columns) or names


def _text(frame: pl.LazyFrame, rule: Rule, change: object) -> pl.LazyFrame:
    schema = frame.collect_schema()
    columns = [c for c in _columns(frame, rule.columns) if schema[c] == pl.String]
    if not callable(change) or not columns:
        return frame
    return frame.with_columns(change(pl.col(c)) for c in columns)


def _apply(frame: pl.LazyFrame, rule: Rule) -> pl.LazyFrame:
    if rule.kind == "filter":
        return frame.filter(pl.sql_expr(rule.expression))
    if rule.kind == "lower":
        return _text(frame, rule, lambda c: c.str.to_lowercase())
    if rule.kind == "upper":
        return _text(frame, rule, lambda c: c.str.to_uppercase())
    if rule.kind == "drop_nulls":
        return _without_nulls(frame, _columns(frame, rule.columns))
    if rule.kind == "fill_null":
        return _filled(frame, dict.fromkeys(_columns(frame, rule.columns), rule.value), every=not rule.columns)
    return frame


def _without_nulls(frame: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
    """``frame`` without rows that have a null in one of ``columns``. Of many they are counted first: a filter over
    them takes time by the cube of their number."""
    if len(columns) <= _FEW:
        return frame.drop_nulls(columns)
    nulls = pl.sum_horizontal(pl.col(c).is_null() for c in columns)
    return frame.with_columns(nulls.alias(_NULLS)).filter(pl.col(_NULLS) == 0).drop(_NULLS)


def _filled(frame: pl.LazyFrame, values: Mapping[str, object], *, every: bool = False) -> pl.LazyFrame:
    """``frame`` with ``values`` where these columns are null. In one go: a frame of frames takes time by the cube of
    their number. ``every``: columns that cannot hold their value are left as they are, else they are Permanent."""
    if not values:
        return frame
    _columns(frame, list(values))
    schema = frame.collect_schema()
    filled = []
    for column, value in values.items():
        try:
            filled.append(pl.col(column).fill_null(literal(value, schema[column], column)))
        except Permanent:
            if not every:
                raise
    return frame.with_columns(filled)
