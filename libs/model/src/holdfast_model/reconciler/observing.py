"""Observations: asking for them, applying them, and looking again at what could not be seen."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

import msgspec

from holdfast_model.events import Family, FaultType, NodeEvent
from holdfast_model.messages import WORK_REASONS, Observation, ObserveItem, Status, concise
from holdfast_model.reasons import Reason

from . import searching
from .core import Core
from .facts import parent_of, union
from .failing import quarantine
from .records import DRIFT, Phase, Record, Unit, reported
from .removing import gone
from .reviewing import reopen_reviews
from .turn import Look
from .watching import tell_difference

_ABSENT, _PRESENT, _DRIFTED, _UNKNOWN = Status.ABSENT, Status.PRESENT, Status.DRIFTED, Status.UNKNOWN
_NOTHING = Observation(Status.ABSENT)
_MISSING = Observation(Status.UNKNOWN, reason=Reason.NOT_OBSERVED, detail="the observer did not report this node")
_replace = msgspec.structs.replace


def apply_observation(
    core: Core, unit: Unit, seen: Observation, request: tuple[int, int] | None = None, *, of: str = ""
) -> None:
    """Take in what was seen of a node. An observation that says nothing new writes nothing. ``of``: as in
    :func:`observed`."""
    core.no_doubt(unit)
    seen = concise(seen)
    rec = unit.rec
    nothing, absent = core.blank(unit.type)
    if rec is nothing and seen == _NOTHING and not unit.watched:
        core.set_record(unit, absent, write=False)
        return
    new = observed(core, unit, rec, seen, of=of)
    if unit.tomb is not None and new.status is not rec.status:
        core.unsorted[unit] = None
    if new is not rec:
        core.set_record(unit, new if request is None else _replace(new, request=request))
    if seen.status is not _PRESENT:
        after_observation(core, unit, seen)
    elif rec is new:
        core.mark(unit)
    if new.hold and not rec.hold and unit.rec.decision is None:
        reopen_reviews(core, unit)


def observed(core: Core, unit: Unit, rec: Record, seen: Observation, *, of: str = "") -> Record:
    """``rec`` with what was seen; the very same object when that is nothing new. ``of``: the digest of the form for
    which a step was sent that has seen it; it says nothing of whether another form is there.
    """
    status = seen.status
    if status is _UNKNOWN:  # says nothing about what is there: what was known last is kept
        if rec.status is status and rec.reason == seen.reason and rec.detail == seen.detail:
            return rec
        return _replace(rec, status=status, reason=seen.reason, detail=seen.detail)
    hold = status is _DRIFTED and not unit.watched and holds(core, unit, rec, seen)
    known = (unit.tomb is not None or not unit.missing) and of in ("", unit.form.digest)
    adopt = known and unit.watched and status is _PRESENT and rec.digest != unit.form.digest
    if (
        not adopt
        and status is rec.status
        and seen.token == rec.token
        and hold == rec.hold
        and seen.reason == rec.reason
        and seen.detail == rec.detail
        and seen.outputs == rec.outputs
        and seen.info == rec.info
    ):
        return rec
    fields: dict[str, object] = {
        "status": status,
        "reason": seen.reason,
        "detail": seen.detail,
        "token": seen.token,
        "hold": hold,
        "outputs": seen.outputs,
        "info": seen.info,
    }
    form = unit.form
    if hold:
        fields |= {"hold_digest": form.digest, "released": None}
    elif status is _DRIFTED and rec.hold and rec.hold_digest == form.digest:
        fields["released"] = seen.token
    elif rec.released is not None and status is not _DRIFTED:
        fields["released"] = None
    if status is _PRESENT and known and (adopt or not rec.digest or rec.unanswered == form.digest):
        # Was there before us, or an attempt made it that failed or was not answered: adopted as it is.
        fields |= {"digest": form.digest, "uses": union(rec.uses, form.depends_on), "unanswered": "", "intent": ""}
    elif status is _ABSENT and not unit.flying:
        fields["uses"] = ()
    if rec.doubted and seen.token != rec.token:  # it did something: perhaps all that the decision was for
        fields |= {"decision": None, "doubted": False}
    if seen.token != rec.token and rec.permanent:
        fields |= {"permanent": "", "next_try": 0.0}  # the world changed: worth another attempt
    return _replace(rec, **fields)


def holds(core: Core, unit: Unit, rec: Record, seen: Observation) -> bool:
    """Whether a drift is left to policies and people.

    Not if this very drift was released: the step that follows from that is still to come. And not if the world has
    changed since it was held: the step runs again, and may hold again, in the same episode. But a drift for another
    reason is another drift.
    """
    asked = seen.hold
    if asked is None:  # ordinary work is never held by default: nobody would be told to decide
        info = core.info(unit)
        asked = info is not None and info.on_drift == "hold" and seen.reason not in WORK_REASONS
    if not asked:
        return False
    if _is_another(rec, seen):
        return True
    if rec.released == seen.token:
        return False
    return not (rec.hold and rec.hold_digest == unit.form.digest and rec.token not in ("", seen.token))


def after_observation(core: Core, unit: Unit, seen: Observation) -> None:
    """What follows from having seen a node that is not as declared."""
    if seen.status is _UNKNOWN:
        core.timer(core.now + core.settings.unknown_retry, unit)
    elif seen.status is _ABSENT:
        if not unit.flying:
            gone(core, unit)
        if unit.watched:
            tell_difference(core, unit, seen)
        _stop_livelock(core, unit)
    else:
        if unit.watched:
            tell_difference(core, unit, seen)
        elif unit.tomb is None and not _is_work(unit, seen):
            _tell_drift(core, unit, seen)
        _stop_livelock(core, unit)
    core.mark(unit)


def _is_work(unit: Unit, seen: Observation) -> bool:
    """Whether a drift is what anybody must expect: ordinary work, or the old form of what has been edited since."""
    edited = bool(unit.rec.digest) and unit.rec.digest != unit.form.digest and not unit.rec.hold
    return edited or seen.reason in WORK_REASONS


def _tell_drift(core: Core, unit: Unit, seen: Observation) -> None:
    kind = f"{DRIFT}{seen.reason}"
    if kind in unit.rec.raised:
        return
    if _is_another(unit.rec, seen):
        _another_episode(core, unit)
    core.fault(unit, FaultType.NODE_DEGRADED, seen.reason or Reason.DRIFTED, seen.detail or "the node drifted")
    core.change(unit, raised=(*unit.rec.raised, kind))
    data = {
        "node": unit.id,
        "nodeType": unit.type,
        "reason": seen.reason,
        "detail": seen.detail,
        "hold": unit.rec.hold,
    }
    core.emit(Family.NODE, NodeEvent.DRIFTED, {**data, "parentNodeId": parent_of(unit)}, unit.id)


def _is_another(rec: Record, seen: Observation) -> bool:
    """Whether it has drifted for another reason than the one that was told in this episode."""
    if not rec.raised or seen.reason in WORK_REASONS:
        return False
    told = [kind for kind in rec.raised if kind.startswith(DRIFT)]
    return bool(told) and f"{DRIFT}{seen.reason}" not in told


def _another_episode(core: Core, unit: Unit) -> None:
    """It drifted for another reason: what was told and decided of the old one says nothing about this."""
    raised = reported(unit.rec.raised)
    core.change(unit, episode="", raised=raised, decision=None, doubted=False)


def _stop_livelock(core: Core, unit: Unit) -> None:
    """A node that was healed time and again from one and the same drift is left alone for a while."""
    rec, limit = unit.rec, core.settings.livelock_heals
    if len(rec.heals) < limit or rec.heal_token != rec.token or rec.quarantined_until > core.now:
        return
    if core.now - rec.heals[-limit] <= core.settings.livelock_window:
        quarantine(core, unit, Reason.LIVELOCK, f"it was healed {limit} times from the same drift")


def on_observed(core: Core, look: Look, seen: Mapping[str, Observation]) -> None:
    """The answer to a :class:`Look`. Nodes that the answer leaves out are UNKNOWN."""
    number, request = look.number, (core.epoch, look.number)
    for item in look.nodes:
        unit = core.units.get(item.node) if item.present else core.graves.get((item.node, look.type))
        if unit is None or unit.type != look.type:
            continue
        if unit.asked == number:
            unit.asked = 0
        outdated = number <= unit.min_request or unit.id in core.flights
        if outdated or item.digest != unit.form.digest:
            if unit.asked == 0:
                core.mark(unit)
                due = unit.again or unit.suspect or unit in core.doubtful
                if due or unit.id in core.wake_tags or unit.phase is Phase.OBSERVING:
                    core.look(unit)
            continue
        unit.suspect = False
        apply_observation(core, unit, seen.get(item.node, _MISSING), request)
        unit.min_request = number
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
    if unit.rec.status is _PRESENT or unit.rec.hold or unit.id in core.flights:
        core.look(unit)


def outdate(core: Core, unit: Unit) -> None:
    """What a node is made from was made anew: until it has been looked at, nobody may say that it is as declared."""
    cascade(core, unit)
    if (unit.again and unit.id in core.flights) or unit in core.to_look.get(unit.type, ()):
        core.doubtful[unit] = None


def timers_due(core: Core) -> None:
    """Wake what waited for a time: backoff, quarantine, or another look at what could not be observed."""
    while core.timers and core.timers[0][0] <= core.now:
        _, name, type = heapq.heappop(core.timers)
        unit = core.graves.get((name, type)) if type else core.units.get(name)
        if unit is None:
            continue
        if unit.rec.status is _UNKNOWN and not unit.asked:
            core.look(unit)
        core.mark(unit)


def gather_looks(core: Core) -> None:
    """Turn what is to be looked at into numbered requests, by type, in portions."""
    for type, units in core.to_look.items():
        info = core.catalog.get(type)
        if not units or info is None or not info.live:
            continue
        members = []
        for unit in units:
            if searching.searched(core, unit):
                searching.ask(core, type)
            elif unit.hidden:  # nobody knows any more what to look for
                core.no_doubt(unit)
                core.looked(unit.id)
            elif unit.id not in core.flights:
                members.append(unit)
            elif unit.id in core.wake_tags or unit.suspect:
                unit.again = True
        units.clear()
        for start in range(0, len(members), core.settings.look_size):
            core.request_number = number = core.request_number + 1
            items = []
            for unit in members[start : start + core.settings.look_size]:
                unit.asked = number
                unit.again = False
                form = unit.form
                items.append(ObserveItem(unit.id, form.spec, form.digest, form.depends_on, unit.tomb is None))
            core.turn.look.append(Look(number, info.domain, type, items))
    searching.gather(core)
