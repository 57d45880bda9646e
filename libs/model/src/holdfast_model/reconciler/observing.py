"""Observations: asking for them, applying them, and the timers by which they come round."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from zlib import crc32

from holdfast_model.events import Family, FaultType
from holdfast_model.messages import REASON_SPEC_CHANGED, WORK_REASONS, Observation, ObserveItem, Status
from holdfast_model.names import BUILT_IN_TYPES

from .core import Core
from .records import GateState, Phase, Unit
from .turn import Look


def apply_observation(core: Core, unit: Unit, seen: Observation, request: tuple[int, int] | None = None) -> None:
    """Take in what was seen of a node. An observation that says nothing new writes nothing."""
    rec = unit.rec
    drifted = seen.status is Status.DRIFTED
    info = core.info(unit)
    hold = drifted and (seen.hold if seen.hold is not None else info is not None and info.on_drift == "hold")
    if hold and rec.hold_digest == unit.form.digest:
        if rec.hold and rec.token not in ("", seen.token):
            hold = False  # the world changed: the step runs again, and may hold again, in the same episode
        elif not rec.hold and rec.token == seen.token and rec.decision is not None:
            hold = False  # this very hold was decided; the step that carries the decision is still to come
    new: dict[str, object] = {
        "status": seen.status,
        "reason": seen.reason,
        "detail": seen.detail,
        "token": seen.token,
        "hold": hold,
        "outputs": seen.outputs,
        "info": seen.info,
    }
    fields = {name: value for name, value in new.items() if getattr(rec, name) != value}
    if hold:
        fields["hold_digest"] = unit.form.digest
    if seen.status is Status.PRESENT and not rec.digest:
        fields |= {"digest": unit.form.digest, "uses": unit.form.depends_on}  # was there before us: adopted as it is
    if seen.token != rec.token and rec.permanent:
        fields |= {"permanent": "", "next_try": 0.0}  # the world changed: worth another attempt
    if fields:
        if request is not None:
            fields["request"] = request
        core.change(unit, **fields)
    if drifted and seen.reason not in WORK_REASONS:
        _tell_drift(core, unit, seen)
    if seen.status is Status.UNKNOWN:
        core.timer(core.now + core.settings.unknown_retry, unit)
    core.mark(unit)


def _tell_drift(core: Core, unit: Unit, seen: Observation) -> None:
    kind = f"drift:{seen.reason}"
    if kind in unit.rec.raised:
        return
    core.fault(unit, FaultType.NODE_DEGRADED, seen.reason or "drifted", seen.detail or "the node drifted")
    core.change(unit, raised=(*unit.rec.raised, kind))
    data = {
        "node": unit.id,
        "nodeType": unit.type,
        "reason": seen.reason,
        "detail": seen.detail,
        "hold": unit.rec.hold,
    }
    core.emit(Family.NODE, "drifted", {**data, "parentNodeId": None}, unit.id)


def on_observed(core: Core, look: Look, seen: Mapping[str, Observation]) -> None:
    """The answer to a :class:`Look`. Nodes that the answer leaves out are UNKNOWN."""
    for item in look.nodes:
        unit = core.units.get(item.node) if item.present else core.graves.get((item.node, look.type))
        if unit is None or unit.type != look.type:
            continue
        if unit.asked == look.number:
            unit.asked = 0
        began_before_step = look.number <= unit.min_request or unit.id in core.flights
        newest = (core.epoch, look.number) > unit.rec.request
        if began_before_step or not newest or item.digest != unit.form.digest:
            if unit.asked == 0:
                core.mark(unit)
                if unit.id in core.wake_tags or unit.phase is Phase.OBSERVING or unit.again:
                    core.look(unit)
            continue
        missing = Observation(Status.UNKNOWN, reason="not_observed", detail="the observer did not report this node")
        apply_observation(core, unit, seen.get(item.node, missing), (core.epoch, look.number))
        core.looked(unit.id)


def wake(core: Core, nodes: Iterable[str], tag: str = "") -> None:
    """Something happened to these nodes outside: look at them and at their direct dependents.

    ``tag`` is told as served once each named node has been looked at, so that the wake-up can be forgotten.
    """
    known = [n for n in nodes if n in core.units]
    if tag:
        if known:
            core.wakes[tag] = set(known)
            for name in known:
                core.wake_tags.setdefault(name, set()).add(tag)
        else:
            core.turn.served.append(tag)
    for name in known:
        unit = core.units[name]
        core.look(unit)
        for below in unit.below:
            cascade(core, core.units[below])


def cascade(core: Core, unit: Unit) -> None:
    """Look again at a dependent that seems healthy or held; one that needs a step anyway is left alone."""
    if unit.rec.status is Status.PRESENT or unit.rec.hold or unit.id in core.flights:
        core.look(unit)


def resync_due(core: Core) -> None:
    """Ask for the types whose interval has passed. A type's first time is spread over its interval by graph."""
    for name, members in core.by_type.items():
        info = core.catalog.get(name)
        if info is None or not info.observes or name in BUILT_IN_TYPES or not members:
            core.resync_at.pop(name, None)
            continue
        due = core.resync_at.get(name)
        if due is None:
            core.resync_at[name] = core.now + info.resync * (0.5 + crc32(f"{core.ref}{name}".encode()) / 2**33)
        elif due <= core.now:
            core.resync_at[name] = core.now + info.resync
            for unit in members.values():
                if unit.id not in core.flights and not unit.asked:
                    core.look(unit)


def regroup(core: Core) -> None:
    """Intervals changed: no timer may be later than its new interval asks."""
    for name, due in core.resync_at.items():
        info = core.catalog.get(name)
        if info is not None:
            core.resync_at[name] = min(due, core.now + info.resync)


def timers_due(core: Core) -> None:
    """Wake what waited for a time: backoff, quarantine, or another look at what could not be observed."""
    while core.timers and core.timers[0][0] <= core.now:
        _, name, type = heapq.heappop(core.timers)
        unit = core.graves.get((name, type)) if type else core.units.get(name)
        if unit is None:
            continue
        if unit.rec.status is Status.UNKNOWN and not unit.asked:
            core.look(unit)
        core.mark(unit)


def gather_looks(core: Core) -> None:
    """Turn what is to be looked at into numbered requests, by type, in portions."""
    for type, units in core.to_look.items():
        info = core.catalog.get(type)
        if info is None or not info.live:
            core.missing_since.setdefault(type, core.now)
            continue
        members = [u for u in units.values() if u.id not in core.flights]
        units.clear()
        for start in range(0, len(members), core.settings.look_size):
            core.request_number += 1
            items = []
            for unit in members[start : start + core.settings.look_size]:
                unit.asked = core.request_number
                unit.again = False
                form = unit.form
                items.append(ObserveItem(unit.id, form.spec, form.digest, form.depends_on, unit.node is not None))
            core.turn.look.append(Look(core.request_number, info.domain, type, items))


def drift_reason(unit: Unit) -> str:
    """Why a node needs a step, as people are told."""
    rec = unit.rec
    if unit.node is None:
        return "removed"
    if rec.status is Status.PRESENT:
        return REASON_SPEC_CHANGED
    if rec.status is Status.DRIFTED:
        return rec.reason or "drifted"
    return "absent" if rec.status is Status.ABSENT else "unknown"


def waits_for_person(unit: Unit) -> bool:
    """True while a gate or approval of the node is open."""
    rec = unit.rec
    return any(g is not None and g.state is GateState.OPEN for g in (rec.gate, rec.approval))
