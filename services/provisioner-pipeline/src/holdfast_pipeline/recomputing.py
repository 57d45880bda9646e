"""What stages after Bronze have in common: pin the inputs, compare the content key, recompute and overwrite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.messages import REASON_SPEC_CHANGED, REASON_STALE, Observation, Status

from .casting import data_columns
from .folders import StageFolder, stage_folder
from .maintenance import AS_OF, keep_pins
from .objects import Location
from .reasons import PipelineReason
from .specs import Input
from .tables import ADDED, AT, DIGEST, KEY, DataVersion, Table, write
from .tasks import Context

INFO = "holdfast_info"
INPUTS = "holdfast_inputs"
STARTED = "holdfast_started"
"""Commit metadata: what the computation counted, as JSON, shown to people; which tables at which versions it read, as
JSON (``[[node, type, table id, version], ...]``); when it began (epoch seconds)."""


@dataclass(frozen=True)
class Pin:
    """One input at one version. ``table`` reads exactly that version."""

    input: Input
    table: Table

    @property
    def version(self) -> DataVersion:
        return self.table.data_version


def own_folder(context: Context) -> StageFolder:
    """The folder of the task's stage."""
    task = context.task
    return stage_folder(context.settings, task.tenant, task.graph, task.node, task.type)


def pin(context: Context, inputs: Iterable[Input], at: Mapping[str, DataVersion] | None = None) -> list[Pin]:
    """The inputs at their newest data version, or at the versions in ``at``.

    Raises Temporary when one is not there or cannot be read at its version.
    """
    task = context.task
    pins = []
    for wanted in inputs:
        folder = stage_folder(context.settings, task.tenant, task.graph, wanted.node, wanted.type).main
        table = Table.open(folder)
        if table is None:
            raise Temporary(f"input {wanted.node!r} is not there yet", reason=PipelineReason.INPUT_MISSING)
        version = at[wanted.node] if at is not None else _wanted(wanted, table)
        if version.table != table.metadata_id:
            raise Temporary(f"input {wanted.node!r} was made anew; plan again", reason=PipelineReason.INPUT_MOVED)
        if version != table.data_version:  # maintenance commits have the same rows
            table = Table.open(folder, version.version)
        if table is None or not table.commit:
            raise Temporary(f"input {wanted.node!r} has no content yet")
        if wanted.as_of >= 0 and not all(p.exists() for p in table.paths()):
            raise _not_kept(wanted)
        pins.append(Pin(wanted, table))
    return pins


def keep_as_of(context: Context, inputs: Iterable[Input]) -> None:
    """Have the versions that a spec names kept for as long as it names them."""
    named = pin(context, [i for i in inputs if i.as_of >= 0])
    keep_pins(context, own_folder(context), {p.input.node: p.version for p in named}, AS_OF)


def _wanted(wanted: Input, table: Table) -> DataVersion:
    """The newest version, or the one that the spec names."""
    if wanted.as_of < 0:
        return table.data_version
    if wanted.as_of > table.version:
        raise _not_kept(wanted)
    return DataVersion(table.metadata_id, wanted.as_of)


def _not_kept(wanted: Input) -> Permanent:
    text = f"version {wanted.as_of} of input {wanted.node!r} is not kept (see `holdfast pipeline lineage`)"
    return Permanent(text, reason=PipelineReason.VERSION_NOT_KEPT)


def versions(pins: Iterable[Pin]) -> list[tuple[str, str, int]]:
    """The pinned versions as part of a content key."""
    return [(p.input.node, *p.version) for p in pins]


def data(frame: pl.LazyFrame) -> pl.LazyFrame:
    """``frame`` without lineage and ``_errors``: what SQL and targets see."""
    return frame.select(data_columns(frame.collect_schema().names()))


def compared(context: Context, table: Table | None, key: str) -> Observation:
    """What is there against the content key that its inputs ask for now."""
    if table is None:
        return Observation(Status.ABSENT)
    if table.key == key:
        return Observation(Status.PRESENT, token=key, info=info_of(table))
    if table.digest != context.task.digest:
        return Observation(Status.DRIFTED, REASON_SPEC_CHANGED, token=key)
    detail = "somebody else wrote to the table" if table.foreign else "its inputs changed"
    return Observation(Status.DRIFTED, REASON_STALE, detail, token=key)


def without_inputs(context: Context, table: Table | None, why: str) -> Observation:
    """What is there while an input is not."""
    if table is None:
        return Observation(Status.ABSENT)
    if table.digest != context.task.digest:
        return Observation(Status.DRIFTED, REASON_SPEC_CHANGED, why, token=context.task.digest)
    return Observation(Status.DRIFTED, REASON_STALE, why, token=context.task.digest)


def info_of(table: Table) -> dict[str, object]:
    """What was counted when the table was written, with its number of rows, and how fast they came."""
    counted = json.loads(table.commit.get(INFO, "{}"))
    return {"rows": table.rows(), **pace(table.commit), **counted}


def pace(commit: Mapping[str, str]) -> dict[str, object]:
    """``seconds`` that a data commit took and its rows a second; nothing where the commit does not tell."""
    try:
        seconds = float(commit[AT]) / 1000 - float(commit[STARTED])
        added = int(commit[ADDED])
    except (KeyError, ValueError):
        return {}
    if seconds <= 0:
        return {}
    return {"seconds": round(seconds, 3), "rows_per_second": round(added / seconds)}


def metadata(
    context: Context, key: str, pins: Iterable[Pin], info: Mapping[str, object] | None = None, **more: str
) -> dict[str, str]:
    """The commit metadata of a stage's table that was made from ``pins``."""
    return {
        KEY: key,
        DIGEST: context.task.digest,
        INPUTS: json.dumps([[p.input.node, p.input.type, *p.version] for p in pins]),
        STARTED: str(context.started),
        **({INFO: json.dumps(info, sort_keys=True)} if info else {}),
        **more,
    }


def overwrite(
    context: Context, folder: Location, table: Table | None, frame: pl.LazyFrame, meta: dict[str, str]
) -> Table:
    """Replace the whole content of a stage's own table."""
    own_folder(context).claim()
    return write(context, folder, table, frame, meta)
