"""Which phase a node is in: one pure pass over its record, its graph neighbours and its type's options.

The order of the checks is the order in which people are told why nothing happens.
"""

from __future__ import annotations

from holdfast_model.messages import Action, Status
from holdfast_model.names import AI_REVIEW, HUMAN_REVIEW
from holdfast_model.references import parse
from holdfast_model.rows import Gating

from .core import Core
from .failing import quarantined
from .records import GateState, Phase, Unit
from .removing import comes_first

_ABSENT, _UNKNOWN = Status.ABSENT, Status.UNKNOWN
_UNGATED = Gating.NONE
_OPEN, _PASSED, _REFUSED = GateState.OPEN, GateState.PASSED, GateState.REFUSED
# Looking up a member of an enumeration takes longer than all that is done with it here.
_PRESENT_PHASE, _RUNNING, _BLOCKED, _READY = Phase.PRESENT, Phase.RUNNING, Phase.BLOCKED, Phase.READY


def decide(core: Core, unit: Unit) -> Phase:
    """The phase of a unit now; sets ``unit.blocker`` when another node comes first, ``unit.urgent`` when READY."""
    last, unit.blocker = unit.blocker, ""
    if unit.flying:
        return _RUNNING
    if unit.current:
        return _PRESENT_PHASE
    if unit.id in core.flights:  # of another form of this node
        unit.blocker = unit.id
        return _BLOCKED
    if unit.tomb is not None:
        return _removed(core, unit, last)
    rec = unit.rec
    info = core.info(unit)
    if info is None:
        return Phase.NO_PROVISIONER
    if unit.missing:
        unit.blocker = parse(unit.missing)[0]
        return _BLOCKED
    if unit.node is not None and unit.node.observe:
        known = rec.status is not None and rec.status is not _UNKNOWN
        if known or not info.observes:
            return Phase.WATCHED
        return Phase.OBSERVING if info.live else Phase.NO_PROVISIONER
    if info.observes and (rec.status is None or (rec.status is _UNKNOWN and info.on_unknown != "provision")):
        return Phase.OBSERVING if info.live else Phase.NO_PROVISIONER
    if rec.hold and rec.hold_digest == unit.form.digest and rec.decision is None:
        return Phase.REFUSED if rec.refused == unit.form.digest else Phase.HELD
    return _step(core, unit, info.live)


def _removed(core: Core, unit: Unit, last: str) -> Phase:
    rec = unit.rec
    if rec.status is _ABSENT:
        return Phase.FORGET
    if unit.hidden:
        return Phase.FORGET  # it was never known what it should be: it cannot be ours
    info = core.info(unit)
    if info is None:  # nobody has ever claimed its type: what was never seen nor made, nobody can have made
        unmade = rec.status is None and not rec.operation
        return Phase.FORGET if unmade else Phase.NO_PROVISIONER
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
    if rec.quarantined_until > core.now and quarantined(core, unit):
        core.timer(rec.quarantined_until, unit)
        return Phase.QUARANTINED
    if rec.permanent and rec.permanent == form.digest:
        return Phase.FAILED
    if unit.unmet and unit.tomb is None:
        units = core.units
        for target in form.depends_on:
            if not units[target].current:
                unit.blocker = target
                break
        return _BLOCKED
    if rec.next_try > core.now:
        core.timer(rec.next_try, unit)
        return Phase.BACKOFF
    if needs_person(unit):
        gate = rec.gate
        if gate is None or gate.action is not unit.action or gate.digest != form.digest:
            return Phase.WAITING
        if gate.state is not _PASSED:
            return Phase.REFUSED if gate.state is _REFUSED else Phase.WAITING
    approval = rec.approval
    if approval is not None and approval.action is unit.action and approval.digest == form.digest:
        if approval.state is _OPEN:
            return Phase.WAITING
        if approval.state is _REFUSED:
            return Phase.REFUSED
    if unit.type == AI_REVIEW:
        target_info = core.target_info(unit)
        live = target_info is not None and target_info.live
    if not live:
        return Phase.NO_PROVISIONER
    heal = rec.digest == form.digest and unit.action is Action.PROVISION
    unit.urgent = heal or rec.decision is not None or (approval is not None and approval.state is _PASSED)
    return _READY


def needs_person(unit: Unit) -> bool:
    """Whether a step on this node, as it stands now, has to pass a human gate first."""
    form = unit.form
    if form.gating is _UNGATED and form.spec_gating is _UNGATED:
        return unit.type == HUMAN_REVIEW
    return form.needs_human(unit.action) or unit.type == HUMAN_REVIEW
