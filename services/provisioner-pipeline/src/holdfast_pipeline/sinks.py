"""Gold, last: publish the input as a file or a Delta table, and keep a ledger of what was published.

The ledger (a Delta table in the stage's folder) has one row per publication. It is written after the target, so a
crash in between publishes the same content again and records it then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.messages import REASON_SPEC_CHANGED, REASON_STALE, Observation, Status

from .approvals import APPROVED, Published, ask, consented
from .folders import StageFolder
from .maintenance import keep_pins
from .object_targets import target_of
from .recomputing import INFO, Pin, data, metadata, own_folder, pin, versions, without_inputs
from .specs import SinkSpec
from .tables import Table, content_key, write
from .targets import Target
from .tasks import Context, StageResult

TARGET = "holdfast_target"
FORMAT = "holdfast_format"
TAG = "holdfast_tag"
DESTINATION = "holdfast_destination"
_ROW = ("key", "target", "format", "sha", "approved", "at")


@dataclass(frozen=True)
class _State:
    folder: StageFolder
    ledger: Table | None
    target: Target

    def intact(self, kind: str) -> bool:
        """Whether the target still is what the ledger's newest entry says."""
        commit = self.ledger.commit if self.ledger is not None else {}
        if (commit.get(TARGET), commit.get(FORMAT)) != (str(self.target.folder), kind):
            return False
        return commit.get(TAG, "") == self.target.tag(kind)


def observe(context: Context, spec: SinkSpec) -> Observation:
    """PRESENT when the input as it is now is what was published last, and nobody changed the target since."""
    state = _state(context, spec)
    ledger = state.ledger
    if ledger is None:
        return Observation(Status.ABSENT)
    try:
        key = _key(context, pin(context, [spec.input]))
    except Temporary as e:
        return without_inputs(context, ledger, e.message)
    if ledger.key == key:
        if not state.intact(spec.format):
            return Observation(Status.DRIFTED, REASON_STALE, "somebody changed what was published", token=key)
        counted = json.loads(ledger.commit.get(INFO, "{}"))
        info: dict[str, object] = {**counted, "target": ledger.commit.get(TARGET, "")}
        return Observation(Status.PRESENT, token=key, info=info)
    if ledger.digest != context.task.digest:
        return Observation(Status.DRIFTED, REASON_SPEC_CHANGED, token=key)
    return Observation(Status.DRIFTED, REASON_STALE, "its input changed", token=key)


def provision(context: Context, spec: SinkSpec) -> StageResult:
    """Publish the pinned input, unless that was done already.

    With ``approval_required`` a digest is approved once, with ``each`` every version of the input: PendingApproval,
    until exactly the pinned input of an approval is published.
    """
    state = _state(context, spec)
    pins = pin(context, [spec.input])
    if state.ledger is not None and state.ledger.key == _key(context, pins) and state.intact(spec.format):
        return StageResult(observe(context, spec))
    agreed = consented(context, spec.approval_required, [spec.input], pins, state.ledger, lambda at: _key(context, at))
    if agreed is None:
        state.target.kind()  # a target that is not ours fails before a person is asked
        there = state.target.published(spec.format)
        frame = state.target.content(data(pins[0].table.scan()), spec)
        raise ask(context, pins, frame, Published(there) if there is not None else None)
    with state.folder.alone():
        state = _state(context, spec)
        if state.ledger is None or state.ledger.key != _key(context, agreed) or not state.intact(spec.format):
            _publish(context, spec, state, agreed)
    keep_pins(context, state.folder, {})
    return StageResult(observe(context, spec), outputs={"target": str(state.target.folder)})


def deprovision(context: Context, spec: SinkSpec) -> None:
    """Remove the ledger, and before it the marked target where ``on_delete`` is ``drop``."""
    if spec.on_delete == "drop":
        target_of(context, spec.destination).drop()
    own_folder(context).remove()


def _state(context: Context, spec: SinkSpec) -> _State:
    folder = own_folder(context)
    return _State(folder, Table.open(folder.main), target_of(context, spec.destination))


def _key(context: Context, pins: Sequence[Pin]) -> str:
    return content_key(digest=context.task.digest, inputs=versions(pins))


def _publish(context: Context, spec: SinkSpec, state: _State, pins: list[Pin]) -> None:
    key = _key(context, pins)
    frame = data(pins[0].table.scan())
    context.in_time()
    sha = state.target.publish(context, frame, spec, key)
    _drop_moved(context, spec, state)
    approved = context.task.digest if spec.approval_required else ""
    row = {
        "key": key,
        "target": str(state.target.folder),
        "format": spec.format,
        "sha": sha,
        "approved": approved,
        "at": str(context.now()),
    }
    meta = metadata(context, key, pins, {"rows": pins[0].table.rows(), "sha": sha}) | {
        TARGET: str(state.target.folder),
        DESTINATION: spec.destination,
        FORMAT: spec.format,
        TAG: state.target.tag(spec.format),
    }
    if approved:
        meta[APPROVED] = approved
    entry = pl.LazyFrame({c: [row[c]] for c in _ROW}, schema=dict.fromkeys(_ROW, pl.String))
    write(context, state.folder.main, state.ledger, entry, meta, mode="append")


def _drop_moved(context: Context, spec: SinkSpec, state: _State) -> None:
    """A sink that publishes elsewhere now removes its former target, where ``on_delete`` is ``drop``."""
    if state.ledger is None or spec.on_delete != "drop":
        return
    former = state.ledger.commit.get(DESTINATION)
    if former is None or former == spec.destination:
        return
    try:
        old = target_of(context, former)
        if old.folder != state.target.folder:
            old.drop()
    except Permanent:
        return  # not ours any more, or not in the roots any more: nothing to remove
