"""Approval of what Gold publishes: what a person is shown, and which inputs the consent was about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from holdfast_model.errors import Permanent, Temporary

from .maintenance import keep_pins
from .recomputing import Pin, own_folder, pin
from .specs import Approval, Input
from .tables import KEY, DataVersion, Table, collected
from .tasks import Context, PendingApproval

APPROVED = "holdfast_approved"
"""Commit metadata: the digest that a person approved."""

_SAMPLE = 5
_COMPARED = 1_000_000
"""Most rows that a difference is computed over; beyond it only their numbers are shown."""


@dataclass(frozen=True)
class Published:
    """What is published now."""

    rows: pl.LazyFrame


def plan_of(node: str) -> str:
    """The plan a person approves."""
    return f"gold-tier:{node}"


def approved_before(context: Context, table: Table | None) -> bool:
    """Whether this digest was approved by an earlier publication. ``table``: where that was recorded."""
    return table is not None and table.commit.get(APPROVED) == context.task.digest


def approved_pins(context: Context, inputs: Sequence[Input]) -> list[Pin] | None:
    """The inputs that the approval of this task is about; None when there is none, or it cannot be carried out
    because an input was made anew or its version is gone (then a person is asked again)."""
    approval = context.task.approval
    if approval is None or approval.plan != plan_of(context.task.node):
        return None
    at: dict[str, DataVersion] = {}
    found = (approval.pins or {}).get("inputs")
    for node, version in (found if isinstance(found, dict) else {}).items():
        if isinstance(version, list | tuple) and len(version) == 2:
            at[str(node)] = DataVersion(str(version[0]), int(version[1]))
    if set(at) != {i.node for i in inputs}:
        return None
    try:
        return pin(context, inputs, at)
    except Temporary:
        return None


def consented(
    context: Context,
    required: Approval,
    inputs: Sequence[Input],
    pins: list[Pin],
    last: Table | None,
    key_of: Callable[[Sequence[Pin]], str],
) -> list[Pin] | None:
    """The inputs that may be published: ``pins``, those of the approval that came along, or None: a person is asked.

    ``last`` is where publications are recorded, by the content keys that ``key_of`` makes. What was approved and
    published is put back without a question. With ``each`` an approval is good for one publication.
    """
    if not required or (required is True and approved_before(context, last)):
        return pins
    if last is not None and last.commit.get(KEY) == key_of(pins):
        return pins
    agreed = approved_pins(context, inputs)
    if agreed is not None and required == "each" and last is not None and last.commit.get(KEY) == key_of(agreed):
        return None
    return agreed


def ask(context: Context, pins: Sequence[Pin], frame: pl.LazyFrame, there: Published | None) -> PendingApproval:
    """The question: rows, schema, difference to what is published, a sample; bound to the pinned versions, which are
    kept until it is answered."""
    name = context.task.node
    rows = int(collected(frame.select(pl.len()), name).item())
    schema = frame.collect_schema()
    sample = collected(frame.head(_SAMPLE), name)
    summary: dict[str, object] = {
        "rows": rows,
        "schema": {column: str(dtype) for column, dtype in schema.items()},
        "sample": [{k: _plain(v) for k, v in row.items()} for row in sample.iter_rows(named=True)],
        "difference": _difference(frame, rows, there, name),
    }
    versions: dict[str, object] = {p.input.node: list(p.version) for p in pins}
    keep_pins(context, own_folder(context), {p.input.node: p.version for p in pins})
    return PendingApproval(plan_of(name), summary, {"inputs": versions})


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _difference(frame: pl.LazyFrame, rows: int, there: Published | None, name: str) -> dict[str, object]:
    if there is None:
        return {"rows_before": 0, "added": rows, "removed": 0}
    before = int(collected(there.rows.select(pl.len()), name).item())
    new, old = frame.collect_schema(), there.rows.collect_schema()
    found: dict[str, object] = {
        "rows_before": before,
        "columns_added": [c for c in new if c not in old],
        "columns_removed": [c for c in old if c not in new],
    }
    if dict(new) == dict(old) and rows + before <= _COMPARED:
        columns = new.names()
        counted = pl.concat(
            [frame.select(*columns, pl.lit(1).alias("_n")), there.rows.select(*columns, pl.lit(-1).alias("_n"))]
        )
        net = counted.group_by(columns).agg(pl.col("_n").sum())
        try:
            more = collected(
                net.select(
                    pl.col("_n").filter(pl.col("_n") > 0).sum().alias("added"),
                    (-pl.col("_n").filter(pl.col("_n") < 0).sum()).alias("removed"),
                ),
                name,
            )
        except Permanent:
            return found  # rows of nested values cannot be grouped
        found |= {k: int(v) for k, v in more.row(0, named=True).items()}
    return found
