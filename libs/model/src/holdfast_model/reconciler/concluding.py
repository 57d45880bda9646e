"""How steps end: outcomes, what they mean for their node and for others, and what a lost answer means."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import msgspec

from holdfast_model.events import FaultType
from holdfast_model.messages import Action, Observation, Outcome, Status, StepOutcome
from holdfast_model.names import AI_REVIEW, BUILT_IN_TYPES

from .core import Core
from .executing import identity, intent_of
from .facts import union
from .failing import backoff, failed
from .gating import ask_approval
from .observing import after_observation, apply_observation, observed, outdate
from .records import Flight, GateState, Record, Unit
from .removing import gone, renewed
from .reviewing import ai_answered, ai_reason, clear, reopen_reviews

DEAD_LETTERED = "dead_lettered"
PENDING = "PENDING"
_PRESENT = Status.PRESENT
_replace = msgspec.structs.replace


def on_outcomes(core: Core, outcomes: Iterable[StepOutcome]) -> int:
    """Take the outcomes of steps in flight; others are late or repeated and say nothing. Returns how many counted.

    Everything that outcomes ``touch`` is applied before anything is decided anew, so that no dependent slips through.
    """
    counted = 0
    touches: list[tuple[str, Observation | None, int]] = []
    for out in outcomes:
        flown = core.flights.get(out.node)
        if flown is None or flown[1].operation != out.operation or flown[1].attempt != out.attempt:
            continue
        counted += 1
        flight = core.end_flight(out.node)
        if not core.knows(flown[0]):  # a review that went while it was answered
            continue
        _concluded(core, flown[0], flight, out)
        touches += [(t.node, t.observation, flight.order) for t in out.touch]
    for name, seen, order in touches:
        unit = core.units.get(name)
        if unit is not None:
            _touched(core, unit, seen if order > unit.tick else None)  # or it may have seen an earlier form
    return counted


def _touched(core: Core, unit: Unit, seen: Observation | None) -> None:
    if seen is None or unit.id in core.flights:
        clear(core, unit)
        core.look(unit)
        return
    clear(core, unit, released=unit.rec.released)  # what was seen says whether it is to be held now
    apply_observation(core, unit, seen)
    unit.min_request = core.request_number


def _concluded(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    core.wave["steps"] += 1
    if out.outcome is not Outcome.EXPIRED:  # counted as in events of the reference: what was tried, not what succeeded
        core.wave["removals" if flight.action is Action.DEPROVISION else "additions"] += 1
        core.wave["faults"] += out.outcome in (Outcome.FAILED, Outcome.REJECTED)
    match out.outcome:
        case Outcome.SUCCEEDED:
            if flight.action is Action.DEPROVISION:
                _removed(core, unit, flight, out)
            elif unit.type == AI_REVIEW:
                _reviewed(core, unit, flight, out)
            else:
                _provisioned(core, unit, flight, out)
        case Outcome.FAILED:
            _failed(core, unit, flight, out)
        case Outcome.PENDING_APPROVAL:
            core.set_record(unit, _tried(unit.rec, flight))
            ask_approval(core, unit, out, flight.action, flight.digest)
        case Outcome.REJECTED:
            core.set_record(unit, _replace(_tried(unit.rec, flight), refused=flight.digest))
            core.fault(unit, FaultType.APPROVAL_REJECTED, out.reason or "rejected", out.detail)
        case Outcome.SKIPPED:
            pause = 30.0 if out.retry_after is None else out.retry_after
            core.set_record(unit, _replace(_tried(unit.rec, flight), next_try=core.now + pause))
        case Outcome.EXPIRED:
            core.set_record(unit, _tried(unit.rec, flight))
    if unit.again:
        core.look(unit)


def _tried(rec: Record, flight: Flight) -> Record:
    """The attempt is over; another one at the same intention belongs to the same operation."""
    return _replace(
        rec, operation=flight.operation, attempt=flight.attempt, unanswered="", doubted=False,
        intent=intent_of(flight.action, flight.digest, flight.token),
    )  # fmt: skip


def _removed(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    seen = out.observation or Observation(Status.ABSENT)
    absent = seen.status is Status.ABSENT
    failures = 0 if absent else unit.rec.failures + 1  # it says so, but it is there: no reason to hurry
    core.change(
        unit, operation=flight.operation, attempt=flight.attempt, intent="", status=seen.status, reason=seen.reason,
        detail=seen.detail, token=seen.token, failures=failures, permanent="", error="", error_reason="",
        next_try=0.0 if absent else core.now + backoff(core, unit, failures),
        digest="" if absent else unit.rec.digest, uses=() if absent else unit.rec.uses, gate=None, approval=None,
        decision=None, episode="", raised=(), outputs=None, info=None, failed_at=(), alone=False,
    )  # fmt: skip
    if absent:
        gone(core, unit)


def _reviewed(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    """An AI review was answered, or is still at it."""
    seen = out.observation or Observation(_PRESENT)
    tried = _tried(unit.rec, flight)
    if seen.reason == PENDING or seen.status is not _PRESENT:
        failures = unit.rec.failures + 1
        pause = backoff(core, unit, failures) if out.retry_after is None else out.retry_after
        later = {"failures": failures, "next_try": core.now + pause}
        core.set_record(unit, _replace(tried, status=Status.ABSENT, reason=seen.reason, **later))
        return
    core.set_record(
        unit,
        _replace(
            tried, intent="", status=_PRESENT, reason=ai_reason(unit, seen), detail=seen.detail, info=seen.info,
            digest=flight.digest, failures=0, next_try=0.0, error="", error_reason="",
        ),
    )  # fmt: skip
    ai_answered(core, unit)


def _provisioned(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    rec = unit.rec
    seen = out.observation or Observation(_PRESENT, outputs=out.outputs)
    carried = bool(flight.carries) and identity(rec.decision) == flight.carries
    fields: dict[str, object] = {
        "operation": flight.operation,
        "attempt": flight.attempt,
        "intent": "",
        "digest": flight.digest,
        "uses": flight.uses,
        "token": "",
        "hold": False,
        "hold_digest": "",
        "released": None,
        "next_try": 0.0,
        "permanent": "",
        "refused": "",
        "approval": None,
        "alone": False,
        "unanswered": "",
        "doubted": False,
    }
    if carried:
        fields["decision"] = None
    elif rec.digest == flight.digest and unit.tomb is None:
        fields |= _healed(core, rec, flight)
    if seen.status is _PRESENT:
        fields |= {"failures": 0, "error": "", "error_reason": "", "failed_at": ()}
    if rec.gate is not None and rec.gate.state is GateState.PASSED and unit.type not in BUILT_IN_TYPES:
        fields["gate"] = None
    new = observed(core, unit, _replace(rec, **fields), seen)
    if out.outputs is not None and new.outputs is None:
        new = _replace(new, outputs=out.outputs)
    core.set_record(unit, new)
    if new.hold and new.decision is None:
        reopen_reviews(core, unit)
    if core.graves and unit.node is not None:
        renewed(core, unit, flight)
    if seen.status is not _PRESENT:
        after_observation(core, unit, seen)
    if unit.below:
        info = core.info(unit)
        if info is not None and info.cascade and unit.node is not None:
            for below in unit.below:
                outdate(core, core.units[below])


def _healed(core: Core, rec: Record, flight: Flight) -> dict[str, object]:
    """Remember when a node was healed from one and the same drift: livelock shows in that."""
    settings = core.settings
    times = rec.heals if rec.heal_token == flight.token else ()
    kept = [t for t in times if core.now - t <= settings.livelock_window][1 - settings.livelock_heals :]
    return {"heals": (*kept, core.now), "heal_token": flight.token}


def _failed(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    if (unit.tomb is None) is not (flight.action is Action.PROVISION):
        # Meanwhile the opposite is wanted. It may have taken effect nevertheless: look before anything else is done.
        # It raises nothing: a removed node raises faults of its removal only, a desired one none of it.
        core.set_record(unit, _replace(_tried(unit.rec, flight), status=None, uses=union(unit.rec.uses, flight.uses)))
        return
    rec = unit.rec
    failures = rec.failures + 1
    carried = bool(flight.carries) and identity(rec.decision) == flight.carries
    pause = backoff(core, unit, failures) if out.retry_after is None else out.retry_after
    singled = out.reason == DEAD_LETTERED and not rec.alone
    fields: dict[str, object] = {
        "failures": failures,
        "error_reason": out.reason,
        "error": out.detail,
        "next_try": 0.0 if singled else core.now + pause,
        "alone": rec.alone or singled,
        "uses": union(rec.uses, flight.uses),
    }
    if out.permanent:
        fields["permanent"] = flight.digest
        if carried:
            fields["decision"] = None
    core.set_record(unit, _replace(_tried(rec, flight), **fields))
    if out.observation is not None:
        apply_observation(core, unit, out.observation)
    failed(core, unit, flight.action, out.reason or "failed", out.detail, permanent=out.permanent)
    if carried or out.permanent:
        reopen_reviews(core, unit)


def deadlines_due(core: Core) -> None:
    """Batches that nobody answered in time: their nodes are UNKNOWN, and looked at before anything else."""
    while core.deadlines and core.deadlines[0][0] <= core.now:
        _, batch = heapq.heappop(core.deadlines)
        for name in tuple(core.batches.get(batch, ())):
            unit = core.flights[name][0]
            flight = core.end_flight(name)
            if not core.knows(unit):
                continue
            core.set_record(
                unit,
                _replace(
                    _tried(unit.rec, flight), uses=union(unit.rec.uses, flight.uses), status=Status.UNKNOWN,
                    reason="no_answer", detail="the step was not answered in time",
                    unanswered=flight.digest if flight.action is Action.PROVISION else "",
                    doubted=bool(flight.carries) and identity(unit.rec.decision) == flight.carries,
                ),
            )  # fmt: skip
            core.look(unit)
