"""Which phase a node is in: one pure pass over its record, its graph neighbours and its type's options.

The order of the checks is the order in which people are told why nothing happens.
"""

from __future__ import annotations

from holdfast_model.messages import Action, Status
from holdfast_model.names import AI_REVIEW, HUMAN_REVIEW
from holdfast_model.rows import Gating

from .core import Core
from .records import GateState, Phase, Unit
from .removing import comes_first

_ABSENT, _UNKNOWN = Status.ABSENT, Status.UNKNOWN
_UNGATED = Gating.NONE


def decide(core: Core, unit: Unit) -> Phase:
    """The phase of a unit now; sets ``unit.blocker`` when another node comes first, ``unit.urgent`` when READY."""
    last, unit.blocker = unit.blocker, ""
    if unit.flying:
        return Phase.RUNNING
    if unit.current:
        return Phase.PRESENT
    if unit.id in core.flights:  # of another form of this node
        unit.blocker = unit.id
        return Phase.BLOCKED
    return _desired(core, unit) if unit.tomb is None else _removed(core, unit, last)


def _desired(core: Core, unit: Unit) -> Phase:
    rec, node = unit.rec, unit.node
    assert node is not None
    info = core.info(unit)
    if info is None:
        return Phase.NO_PROVISIONER
    if info.observes and (rec.status is None or (rec.status is _UNKNOWN and info.on_unknown != "provision")):
        return Phase.OBSERVING if info.live else Phase.NO_PROVISIONER
    if rec.hold and rec.hold_digest == node.digest and rec.decision is None:
        return Phase.REFUSED if rec.refused == node.digest else Phase.HELD
    return _step(core, unit, info.live)


def _removed(core: Core, unit: Unit, last: str) -> Phase:
    rec = unit.rec
    if rec.status is _ABSENT:
        return Phase.FORGET
    info = core.info(unit)
    if info is None:
        return Phase.NO_PROVISIONER
    if rec.status is None or rec.status is _UNKNOWN:
        if info.observes:
            return Phase.OBSERVING if info.live else Phase.NO_PROVISIONER
        if rec.status is None and not rec.operation:
            return Phase.FORGET
    unit.blocker = comes_first(core, unit, last)
    if unit.blocker:
        return Phase.BLOCKED
    if _being_asked(core, unit):
        unit.blocker = unit.id
        return Phase.BLOCKED
    return _step(core, unit, info.live)


def _being_asked(core: Core, grave: Unit) -> bool:
    """Whether people are asked about the removal of another form of this node: the question would be the same."""
    types = core.grave_types[grave.id]
    if len(types) == 1:
        return False
    others = [core.graves[(grave.id, t)].rec for t in types if t != grave.type]
    return any(g is not None and g.state is GateState.OPEN for rec in others for g in (rec.gate, rec.approval))


def _step(core: Core, unit: Unit, live: bool) -> Phase:
    """A step is needed: what, if anything, stands in its way?"""
    rec, form = unit.rec, unit.form
    if core.paused or rec.paused:
        return Phase.PAUSED
    if rec.refused and rec.refused == form.digest:
        return Phase.REFUSED
    if rec.quarantined_until > core.now:
        core.timer(rec.quarantined_until, unit)
        return Phase.QUARANTINED
    if rec.permanent and rec.permanent == form.digest:
        return Phase.FAILED
    if unit.unmet and unit.node is not None:
        units = core.units
        unit.blocker = next((d for d in unit.node.depends_on if not units[d].current), "")
        return Phase.BLOCKED
    if rec.next_try > core.now:
        core.timer(rec.next_try, unit)
        return Phase.BACKOFF
    if needs_person(unit):
        gate = rec.gate
        if gate is None or gate.action is not unit.action or gate.digest != form.digest:
            return Phase.WAITING
        if gate.state is not GateState.PASSED:
            return Phase.REFUSED if gate.state is GateState.REFUSED else Phase.WAITING
    approval = rec.approval
    if approval is not None and approval.action is unit.action and approval.digest == form.digest:
        if approval.state is GateState.OPEN:
            return Phase.WAITING
        if approval.state is GateState.REFUSED:
            return Phase.REFUSED
    if unit.type == AI_REVIEW:
        target = core.target_info(unit)
        live = target is not None and target.live
    if not live:
        return Phase.NO_PROVISIONER
    unit.urgent = bool(
        rec.decision
        or (rec.approval and rec.approval.state is GateState.PASSED)
        or (rec.digest == form.digest and unit.action is Action.PROVISION)
    )
    return Phase.READY


def needs_person(unit: Unit) -> bool:
    """Whether a step on this node, as it stands now, has to pass a human gate first."""
    form = unit.form
    if form.gating is _UNGATED and form.spec_gating is _UNGATED:
        return unit.type == HUMAN_REVIEW
    return form.needs_human(unit.action) or unit.type == HUMAN_REVIEW
