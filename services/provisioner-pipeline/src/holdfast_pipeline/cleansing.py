"""Silver, first: trim, cast by the schema, apply the rules, fill or drop nulls, keep one of each duplicate.

Casts never raise. Every row that is dropped is counted in the commit under the rule that dropped it.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.messages import Observation

from .casting import data_columns, layout, literal, with_casts
from .recomputing import compared, metadata, overwrite, own_folder, pin, versions, without_inputs
from .specs import CleanserSpec, Deduplication, Rule
from .tables import Table, collected, content_key, mapped
from .tasks import Context, StageResult


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
            frame, dropped = cleansed(pinned.table.scan(), spec)
        except Exception as e:
            raise mapped(e, context.task.node) from e
        overwrite(context, folder.main, table, frame, metadata(context, key, {"dropped": dropped}))
    return StageResult(observe(context, spec))


def _key(context: Context, spec: CleanserSpec) -> str:
    return content_key(digest=context.task.digest, inputs=versions(pin(context, [spec.input])))


def cleansed(frame: pl.LazyFrame, spec: CleanserSpec) -> tuple[pl.LazyFrame, dict[str, int]]:
    """The cleansed rows of a Bronze frame, and how many rows each rule dropped."""
    if spec.fields:
        names = frame.collect_schema().names()
        wanted = {f.name for f in spec.fields}
        frame = frame.drop([c for c in data_columns(names) if c not in wanted])
    for rule in spec.rules:
        if rule.kind == "trim":
            frame = _text(frame, rule, lambda c: c.str.strip_chars())
    frame = with_casts(frame, spec.fields)
    steps: list[tuple[str, pl.LazyFrame]] = [("", frame)]
    for number, rule in enumerate(spec.rules, start=1):
        changed = _apply(frame, rule)
        if changed is not frame:
            frame = changed
            if rule.kind in ("filter", "drop_nulls", "drop_duplicates"):
                steps.append((f"{number} {rule.kind}", frame))
    for column, value in spec.fill.items():
        frame = _fill(frame, column, value)
    if spec.drop_nulls:
        frame = frame.drop_nulls(_columns(frame, () if spec.drop_nulls == ("*",) else spec.drop_nulls))
        steps.append(("drop_nulls", frame))
    if spec.deduplication is not None:
        frame = _deduplicated(frame, spec.deduplication)
        steps.append(("deduplication", frame))
    dropped: dict[str, int] = {}
    if len(steps) > 1:
        counts = [int(c.item()) for c in pl.collect_all([f.select(pl.len()) for _, f in steps])]
        dropped = {steps[i][0]: counts[i - 1] - counts[i] for i in range(1, len(steps))}
    return layout(frame), dropped


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
    if rule.kind == "drop_duplicates":
        return _deduplicated(frame, Deduplication(rule.columns))
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


def _deduplicated(frame: pl.LazyFrame, how: Deduplication) -> pl.LazyFrame:
    keys = _columns(frame, how.keys)
    order = [*_columns(frame, how.order_by)] if how.order_by else []
    # Sorted by what the rows say of themselves, the outcome does not depend on when or in which files they arrived.
    # Only what is compared is sorted; the chosen rows are then looked up by their place.
    narrow = frame.select(list(dict.fromkeys([*keys, *order, "_file", "_row"])))
    ordered = narrow.sort([*order, "_file", "_row"], nulls_last=False, maintain_order=True)
    chosen = ordered.unique(subset=keys, keep=how.keep, maintain_order=True).select("_file", "_row")
    chosen = collected(chosen, "deduplication").lazy()  # counted and written: computed once for both
    return frame.join(chosen, on=["_file", "_row"], how="semi")
