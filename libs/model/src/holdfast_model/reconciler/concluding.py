"""How steps end: outcomes, what they mean for their node and for others, and what a lost answer means."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import msgspec

from holdfast_model.events import FaultType
from holdfast_model.ladders import PENDING, UNRESOLVED
from holdfast_model.messages import WORK_REASONS, Action, Observation, Outcome, Status, StepOutcome, concise
from holdfast_model.names import AI_REVIEW, BUILT_IN_TYPES
from holdfast_model.reasons import Reason

from .core import Core
from .executing import identity, intent_of
from .facts import union
from .failing import backoff, failed
from .gating import ask_approval
from .observing import after_observation, apply_observation, observed, outdate
from .records import Flight, GateState, Record, Unit
from .removing import gone, renewed
from .renaming import flown_as
from .reviewing import ai_answer, ai_answered, ai_reason, clear, reopen_reviews

_PRESENT, _ABSENT, _DEPROVISION = Status.PRESENT, Status.ABSENT, Action.DEPROVISION
_replace = msgspec.structs.replace
LEAST_PAUSE = 0.05
"""Each attempt that fails is a fault: without a pause, they would come as fast as messages do."""
LONGEST_PAUSE = 366 * 86_400.0
"""Who says that a step is to be tried again later than in a year has miscalculated."""


def on_outcomes(core: Core, outcomes: Iterable[StepOutcome]) -> int:
    """Take the outcomes of steps in flight; others are late or repeated and say nothing. Returns how many counted.

    Everything that outcomes ``touch`` is applied before anything is decided anew, so that no dependent slips through.
    """
    counted = 0
    touches: list[tuple[str, Observation | None, int]] = []
    for out in outcomes:
        name = flown_as(core, out.node, out.operation, out.attempt)
        if not name:
            continue
        counted += 1
        flown = core.flights[name]
        flight = core.end_flight(name)
        if not core.knows(flown[0]):  # a review that went while it was answered
            continue
        _concluded(core, flown[0], flight, out)
        touches += [(t.node, t.observation, flight.order) for t in out.touch]
    for name, seen, order in touches:
        unit = core.units.get(name) or core.units.get(core.renamed.get(name, ""))
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
    out = concise(out)
    if out.observation is not None and (seen := concise(out.observation)) is not out.observation:
        out = _replace(out, observation=seen)
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
            said = {"error": out.detail, "error_reason": out.reason or Reason.REJECTED}
            core.set_record(unit, _replace(_tried(unit.rec, flight), refused=flight.digest, given_up="", **said))
            core.fault(unit, FaultType.APPROVAL_REJECTED, out.reason or Reason.REJECTED, out.detail)
        case Outcome.SKIPPED:
            pause = _pause(out, 30.0)
            said = {"error": out.detail, "error_reason": out.reason}
            core.set_record(unit, _replace(_tried(unit.rec, flight), next_try=core.now + pause, **said))
        case Outcome.EXPIRED:
            # It may have been run all the same: by somebody who crashed before the answer was out.
            if _opposite(unit, flight) or _back(unit, flight):
                _look_first(core, unit, flight)
            else:
                core.set_record(unit, _tried(unit.rec, flight))
    if unit.again:
        core.look(unit)


def _pause(out: StepOutcome, otherwise: float) -> float:
    """How long the provisioner wants the next attempt put off, within reason."""
    return otherwise if out.retry_after is None else min(max(LEAST_PAUSE, out.retry_after), LONGEST_PAUSE)


def _opposite(unit: Unit, flight: Flight) -> bool:
    """Whether meanwhile the opposite of a step is wanted."""
    return (unit.tomb is None) is not (flight.action is Action.PROVISION)


def _back(unit: Unit, flight: Flight) -> bool:
    """Whether the step was for another form, and what was there before it is wanted again: it may be so no longer."""
    rec, digest = unit.rec, unit.form.digest
    return rec.status is _PRESENT and rec.digest == digest != flight.digest


def _look_first(core: Core, unit: Unit, flight: Flight) -> None:
    """A step may have taken effect, whatever was said of it: nothing is known until somebody has looked."""
    core.set_record(unit, _replace(_tried(unit.rec, flight), status=None, uses=union(unit.rec.uses, flight.uses)))


def _tried(rec: Record, flight: Flight) -> Record:
    """The attempt is over; another one at the same intention belongs to the same operation."""
    return _replace(
        rec, operation=flight.operation, attempt=flight.attempt, first=flight.first, unanswered="", doubted=False,
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
        decision=None, episode="", raised=(), fault="", outputs=None, info=None, failed_at=(), alone=False,
    )  # fmt: skip
    if absent:
        gone(core, unit)


def _reviewed(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    """An AI review was answered, or is still at it."""
    seen = out.observation or Observation(_PRESENT)
    reason = ai_reason(unit, seen)
    if reason != PENDING:
        _answered(core, unit, flight, _replace(seen, reason=reason))
        return
    failures = unit.rec.failures + 1
    pause = _pause(out, backoff(core, unit, failures))
    later = {"failures": failures, "next_try": core.now + pause}
    core.set_record(unit, _replace(_tried(unit.rec, flight), status=Status.ABSENT, reason=reason, **later))


def _answered(core: Core, review: Unit, flight: Flight, seen: Observation) -> None:
    seen, mending = ai_answer(core, review, seen)
    core.set_record(
        review,
        _replace(
            _tried(review.rec, flight), intent="", status=_PRESENT, reason=seen.reason, detail=seen.detail,
            info=seen.info, digest=flight.digest, failures=0, next_try=0.0, permanent="", error="", error_reason="",
        ),
    )  # fmt: skip
    if not mending:
        ai_answered(core, review)


def _provisioned(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    rec = unit.rec
    seen = out.observation or Observation(_PRESENT, outputs=out.outputs)
    if rec is core.blank(unit.type)[1] and seen.status is _PRESENT:
        new = _made(unit, flight, seen, out)
    else:
        new = _made_again(core, unit, flight, seen, out)
    core.set_record(unit, new)
    if core.graves and unit.node is not None:
        renewed(core, unit, flight)
    if seen.status is not _PRESENT:
        after_observation(core, unit, seen)
    if new.hold and unit.rec.decision is None:
        reopen_reviews(core, unit)
    if unit.below and unit.node is not None:
        info = core.info(unit)
        if info is not None and info.cascade:
            units = core.units
            for name in unit.below:
                below = units[name]
                status = below.rec.status
                if (status is not None and status is not _ABSENT) or below.flying:
                    outdate(core, below)


def _made(unit: Unit, flight: Flight, seen: Observation, out: StepOutcome) -> Record:
    """What is known of a thing that was made where nothing was, and nothing had gone wrong: the common case."""
    outputs = out.outputs if seen.outputs is None else seen.outputs
    return Record(
        type=unit.type, status=_PRESENT, reason=seen.reason, detail=seen.detail, token=seen.token, digest=flight.digest,
        operation=flight.operation, attempt=flight.attempt, outputs=outputs, info=seen.info, uses=flight.uses,
    )  # fmt: skip


def _made_again(core: Core, unit: Unit, flight: Flight, seen: Observation, out: StepOutcome) -> Record:
    rec = unit.rec
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
        "given_up": "",
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
    new = observed(core, unit, _replace(rec, **fields), seen, of=flight.digest)
    if out.outputs is not None and new.outputs is None:
        new = _replace(new, outputs=out.outputs)
    if seen.status is not _PRESENT and not new.hold and seen.reason not in WORK_REASONS:
        failures = rec.failures + 1  # it says that it is made, but it is not: no reason to hurry
        new = _replace(new, failures=failures, next_try=core.now + backoff(core, unit, failures))
    return new


def _healed(core: Core, rec: Record, flight: Flight) -> dict[str, object]:
    """Remember when a node was healed from one and the same drift: livelock shows in that."""
    settings = core.settings
    times = rec.heals if rec.heal_token == flight.token else ()
    kept = [t for t in times if core.now - t <= settings.livelock_window][1 - settings.livelock_heals :]
    return {"heals": (*kept, core.now), "heal_token": flight.token}


def _failed(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    if _opposite(unit, flight):
        # It raises nothing: a removed node raises faults of its removal only, a desired one none of it.
        _look_first(core, unit, flight)
        return
    if unit.type == AI_REVIEW and out.permanent:  # there will never be an answer, so a person is to be asked
        failed(core, unit, flight.action, out.reason or Reason.FAILED, out.detail, permanent=True)
        why = f"the reviewer failed: {out.detail or out.reason}"
        _answered(core, unit, flight, Observation(_PRESENT, UNRESOLVED, why))
        return
    rec = unit.rec
    failures = rec.failures + 1
    carried = bool(flight.carries) and identity(rec.decision) == flight.carries
    decided = rec.decision is not None and not carried  # while the step was under way: the next one takes it along
    pause = _pause(out, backoff(core, unit, failures))
    singled = out.reason == Reason.DEAD_LETTERED and not rec.alone
    fields: dict[str, object] = {
        "failures": failures,
        "error_reason": out.reason,
        "error": out.detail,
        "next_try": 0.0 if singled or decided else core.now + pause,
        "alone": rec.alone or singled,
        "uses": union(rec.uses, flight.uses),
    }
    if out.permanent and not decided:
        fields |= {"permanent": flight.digest, "decision": None}
    core.set_record(unit, _replace(_tried(rec, flight), **fields))
    if out.observation is not None:
        apply_observation(core, unit, out.observation, of=flight.digest)
    failed(core, unit, flight.action, out.reason or Reason.FAILED, out.detail, permanent=out.permanent)
    if not decided:
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
                    reason=Reason.NO_ANSWER, detail="the step was not answered in time",
                    unanswered=flight.digest if flight.action is Action.PROVISION else "",
                    doubted=bool(flight.carries) and identity(unit.rec.decision) == flight.carries,
                ),
            )  # fmt: skip
            core.look(unit)
