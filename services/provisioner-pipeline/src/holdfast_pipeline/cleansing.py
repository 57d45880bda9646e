"""Silver, first: trim, cast by the schema, apply the rules, fill or drop nulls, keep one of each duplicate.

Casts never raise. Every row that is dropped is counted in the commit under the rule that dropped it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.messages import Observation

from .casting import data_columns, layout, literal, with_casts
from .recomputing import compared, metadata, overwrite, own_folder, pin, versions, without_inputs
from .specs import CleanserSpec, Deduplication, Rule
from .tables import Table, collected, content_key, mapped
from .tasks import Context, StageResult

BUCKET = 2_000_000
"""Rows that are compared at a time to find duplicates: some 300 MB."""
_PLACE = "\x00place"  # a name no column can have


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
        overwrite(context, folder.main, table, frame, metadata(context, key, {"dropped": dropped}))
    return StageResult(observe(context, spec))


def _key(context: Context, spec: CleanserSpec) -> str:
    return content_key(digest=context.task.digest, inputs=versions(pin(context, [spec.input])))


@dataclass
class _Counted:
    """Rows after each step that can drop some: a frame that is still to be counted, or the number."""

    rows: int | None
    steps: list[tuple[str, pl.LazyFrame | int, pl.LazyFrame | int]] = field(default_factory=list)

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
    counted = _Counted(rows)
    if spec.fields:
        names = frame.collect_schema().names()
        wanted = {f.name for f in spec.fields}
        frame = frame.drop([c for c in data_columns(names) if c not in wanted])
    for rule in spec.rules:
        if rule.kind == "trim":
            frame = _text(frame, rule, lambda c: c.str.strip_chars())
    frame = with_casts(frame, spec.fields)
    before: pl.LazyFrame | int = frame if rows is None else rows
    for number, rule in enumerate(spec.rules, start=1):
        name = f"{number} {rule.kind}"
        if rule.kind == "drop_duplicates":
            frame, before = _counted_once(frame, Deduplication(rule.columns), counted, name)
            continue
        changed = _apply(frame, rule)
        if changed is not frame:
            frame = changed
            if rule.kind in ("filter", "drop_nulls"):
                counted.steps.append((name, before, frame))
                before = frame
    for column, value in spec.fill.items():
        frame = _fill(frame, column, value)
    if spec.drop_nulls:
        frame = frame.drop_nulls(_columns(frame, () if spec.drop_nulls == ("*",) else spec.drop_nulls))
        counted.steps.append(("drop_nulls", before, frame))
    if spec.deduplication is not None:
        frame, _ = _counted_once(frame, spec.deduplication, counted, "deduplication")
    return layout(frame), counted.dropped()


def _counted_once(frame: pl.LazyFrame, how: Deduplication, counted: _Counted, name: str) -> tuple[pl.LazyFrame, int]:
    frame, given, kept = deduplicated(frame, how, counted.rows)
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
        return frame.drop_nulls(_columns(frame, rule.columns))
    if rule.kind == "fill_null":
        named = bool(rule.columns)
        for column in _columns(frame, rule.columns):
            try:
                frame = _fill(frame, column, rule.value)
            except Permanent:
                if named:
                    raise
    return frame


def _fill(frame: pl.LazyFrame, column: str, value: object) -> pl.LazyFrame:
    _columns(frame, [column])
    dtype = frame.collect_schema()[column]
    return frame.with_columns(pl.col(column).fill_null(literal(value, dtype, column)))


def deduplicated(
    frame: pl.LazyFrame, how: Deduplication, rows: int | None = None, bucket: int = BUCKET
) -> tuple[pl.LazyFrame, int, int]:
    """One row of each set that agrees in the keys; also how many rows there were, and how many are kept.

    ``rows``: at least as many as ``frame`` has. Only what is compared is looked at, about ``bucket`` rows at a time:
    rows that agree fall into one bucket by the hash of their keys. What is kept of that is one bit per row, at its
    place in ``frame``, whose order is that of the table.
    """
    keys = _columns(frame, how.keys)
    order = [*_columns(frame, how.order_by)] if how.order_by else []
    if rows is None:
        rows = int(collected(frame.select(pl.len()), "deduplication").item())
    placed = frame.with_row_index(_PLACE)
    narrow = placed.select(list(dict.fromkeys([*keys, *order, "_file", "_row", _PLACE])))
    schema = narrow.collect_schema()
    plain = [k for k in keys if not schema[k].is_nested()]
    buckets = max(1, -(-rows // bucket)) if plain else 1
    hashed = pl.struct(plain).hash() % buckets if plain else pl.lit(0)
    chosen = pl.Series([False]).new_from_index(0, rows)
    given = 0
    for number in range(buckets):
        part = collected(narrow if buckets == 1 else narrow.filter(hashed == number), "deduplication")
        given += part.height
        # Sorted by what the rows say of themselves, the outcome does not depend on when or where they arrived.
        ordered = part.sort([*order, "_file", "_row"], nulls_last=False, maintain_order=True)
        places = ordered.unique(subset=keys, keep=how.keep, maintain_order=True)[_PLACE]
        if places.len():
            chosen = chosen.scatter(places, True)
    at = pl.col(_PLACE).map_batches(chosen.gather, return_dtype=pl.Boolean, is_elementwise=True)
    return placed.filter(at).drop(_PLACE), given, int(chosen.sum() or 0)
