"""Gold, first: one SQL query over the inputs, or aggregates of one input by group."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from holdfast_model.errors import Temporary
from holdfast_model.messages import Observation

from .approvals import APPROVED, Published, ask, consented
from .casting import normalised
from .maintenance import keep_pins
from .recomputing import Pin, compared, data, metadata, overwrite, own_folder, pin, versions, without_inputs
from .specs import TransformerSpec
from .tables import Table, content_key, mapped
from .tasks import Context, StageResult
from .wide import Tables, computed


def observe(context: Context, spec: TransformerSpec) -> Observation:
    """PRESENT when the table was made from the inputs as they are now."""
    table = Table.open(own_folder(context).main)
    try:
        pins = pin(context, spec.inputs)
    except Temporary as e:
        return without_inputs(context, table, e.message)
    return compared(context, table, _key(context, pins))


def provision(context: Context, spec: TransformerSpec) -> StageResult:
    """Recompute the table from its pinned inputs, unless that was done already.

    With ``approval_required`` a digest is approved once, with ``each`` every version of the inputs: PendingApproval,
    until exactly the pinned inputs of an approval are published.
    """
    folder = own_folder(context)
    table = Table.open(folder.main)
    pins = pin(context, spec.inputs)
    if table is not None and table.key == _key(context, pins):
        return StageResult(observe(context, spec))
    agreed = consented(context, spec.approval_required, spec.inputs, pins, table, lambda at: _key(context, at))
    try:
        frame = transformed(agreed if agreed is not None else pins, spec)
    except Exception as e:
        raise mapped(e, context.task.node) from e
    if agreed is None:
        raise ask(context, pins, frame, Published(table.scan()) if table is not None else None)
    mark = {APPROVED: context.task.digest} if spec.approval_required else {}
    overwrite(context, folder.main, table, frame, metadata(context, _key(context, agreed), agreed, None, **mark))
    keep_pins(context, folder, {})
    return StageResult(observe(context, spec))


def _key(context: Context, pins: Sequence[Pin]) -> str:
    return content_key(digest=context.task.digest, inputs=versions(pins))


def transformed(pins: Sequence[Pin], spec: TransformerSpec) -> pl.LazyFrame:
    """The result of the query or the aggregation over the pinned inputs, in the types that tables keep. Whole numbers
    that int64 cannot hold are an error when it is computed."""
    tables = {p.input.table: data(p.table.scan()) for p in pins}
    if spec.sql:
        return normalised(computed(spec.sql, tables, lambda given: _queried(given, spec.sql)))
    [frame] = tables.values()
    if spec.group_by or spec.aggregations:
        text = ", ".join(spec.aggregations.values())
        return normalised(computed(text, tables, lambda given: _aggregated(given, spec)))
    return frame


def _queried(tables: Tables, sql: str) -> pl.LazyFrame:
    with pl.SQLContext(tables, eager=False) as context:
        return context.execute(sql)


def _aggregated(tables: Tables, spec: TransformerSpec) -> pl.LazyFrame:
    [frame] = tables.values()
    aggregates = [pl.sql_expr(text).alias(name) for name, text in spec.aggregations.items()]
    return frame.group_by(spec.group_by).agg(aggregates) if spec.group_by else frame.select(aggregates)
