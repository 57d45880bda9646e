"""Which phase a node is in: one pure pass over its record, its graph neighbours and its type's options.

The order of the checks is the order in which people are told why nothing happens.
"""

from __future__ import annotations

from holdfast_model.messages import Action, Status
from holdfast_model.names import AI_REVIEW, HUMAN_REVIEW

from .core import Core
from .records import GateState, Phase, Unit


def decide(core: Core, unit: Unit) -> Phase:
    """The phase of a unit now; sets ``unit.blocker`` when another node comes first."""
    unit.blocker = ""
    flown = core.flights.get(unit.id)
    if flown is not None:
        if flown[0] is unit:
            return Phase.RUNNING
        unit.blocker = unit.id
        return Phase.BLOCKED
    return _desired(core, unit) if unit.node is not None else _removed(core, unit)


def _desired(core: Core, unit: Unit) -> Phase:
    rec, node = unit.rec, unit.node
    assert node is not None
    info = core.info(unit)
    if rec.status is Status.PRESENT and rec.digest == node.digest:
        return Phase.PRESENT
    if info is None:
        return Phase.NO_PROVISIONER
    if rec.status is None and info.observes:
        return Phase.OBSERVING
    if rec.status is Status.UNKNOWN and info.on_unknown != "provision":
        return Phase.OBSERVING
    if rec.hold and rec.hold_digest == node.digest and rec.decision is None:
        return Phase.REFUSED if rec.refused == node.digest else Phase.HELD
    return _step(core, unit, info.live)


def _removed(core: Core, unit: Unit) -> Phase:
    rec, tomb = unit.rec, unit.tomb
    assert tomb is not None
    info = core.info(unit)
    if rec.status is Status.ABSENT:
        return Phase.FORGET
    blocker = _comes_first(core, unit)
    if blocker:
        unit.blocker = blocker
        return Phase.BLOCKED
    if info is None:
        return Phase.NO_PROVISIONER
    if not info.observes and rec.status is None:
        if not rec.operation:
            return Phase.FORGET
    elif rec.status is None or rec.status is Status.UNKNOWN:
        return Phase.OBSERVING
    return _step(core, unit, info.live)


def _comes_first(core: Core, unit: Unit) -> str:
    """A removal waits for the new form of its node, for its dependents' removals, and for those not yet renewed."""
    tomb = unit.tomb
    assert tomb is not None
    successor = core.units.get(unit.id)
    if successor is not None and not successor.current:
        return unit.id
    names: dict[str, None] = dict.fromkeys((*tomb.dependents, *core.former.get(unit.id, ())))
    for name in names:
        for type in core.grave_types.get(name, ()):
            grave = core.graves[(name, type)]
            if unit.id in grave.form.depends_on or unit.id in core.uses(grave):
                return name
        other = core.units.get(name)
        if other is not None and not other.current and (name in tomb.dependents or unit.id in core.uses(other)):
            return name
    return ""


def _step(core: Core, unit: Unit, live: bool) -> Phase:
    """A step is needed: what, if anything, stands in its way?"""
    rec, form = unit.rec, unit.form
    if core.paused or rec.paused:
        return Phase.PAUSED
    if rec.refused == form.digest:
        return Phase.REFUSED
    if rec.quarantined_until > core.now:
        core.timer(rec.quarantined_until, unit)
        return Phase.QUARANTINED
    if rec.permanent == form.digest and rec.decision is None:
        return Phase.FAILED
    if unit.node is not None and unit.unmet:
        unit.blocker = next((d for d in unit.node.depends_on if not core.units[d].current), "")
        return Phase.BLOCKED
    if rec.next_try > core.now:
        core.timer(rec.next_try, unit)
        return Phase.BACKOFF
    if form.needs_human(unit.action) or unit.type == HUMAN_REVIEW:
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
        or (rec.digest and unit.action is Action.PROVISION)
    )
    return Phase.READY
