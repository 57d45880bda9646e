"""Steps: sending them in batches, taking their outcomes, and what a lost answer means."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from zlib import crc32

import msgspec

from holdfast_model.events import Family, FaultType
from holdfast_model.messages import (
    WORK_REASONS,
    Action,
    Approval,
    Observation,
    Outcome,
    Status,
    Step,
    StepBatch,
    StepOutcome,
)
from holdfast_model.names import AI_REVIEW, BUILT_IN_TYPES

from .core import Core, Queue, review_spec, union
from .deciding import decide
from .gating import ask_approval, attest, reopen_reviews
from .observing import apply_observation, cascade
from .records import Flight, GateState, Phase, Record, Unit
from .turn import Dispatch, StepIntent, TypeInfo

MAX_BATCH_BYTES = 1_000_000
DEAD_LETTERED = "dead_lettered"
PENDING = "PENDING"


def dispatch(core: Core, budget: Mapping[tuple[str, str], int]) -> None:
    """Send what is ready, within ``budget``: batches per (domain, queue). Urgent steps go first."""
    for key, queue in core.queues.items():
        room = budget.get(key, 0)
        while room > 0 and len(queue):
            units = _fill(core, queue)
            if not units:
                break
            _send(core, key, units)
            room -= 1


def _fill(core: Core, queue: Queue) -> list[Unit]:
    taken: list[Unit] = []
    limit, size = 1, 0
    for lane in (queue.urgent, queue.bulk):
        while lane and len(taken) < limit:
            unit = next(iter(lane.values()))
            phase = decide(core, unit)
            if phase is not Phase.READY:
                core.set_phase(unit, phase)
                core.mark(unit)
                continue
            if unit.rec.alone and taken:
                return taken
            info = core.info(unit)
            limit = info.batch if info is not None and not unit.rec.alone else 1
            size += len(bytes(unit.form.spec))
            if taken and size > MAX_BATCH_BYTES:
                return taken
            core.set_phase(unit, Phase.RUNNING)
            taken.append(unit)
    return taken


def _send(core: Core, key: tuple[str, str], units: list[Unit]) -> None:
    domain, queue = key
    first = units[0]
    info = core.target_info(first) if first.type == AI_REVIEW else core.info(first)
    assert info is not None
    batch = core.new_id()
    start_by = core.now + core.settings.start_within + info.timeout
    deadline = start_by + info.timeout + core.settings.grace
    steps = [_step(core, unit, batch, deadline) for unit in units]
    heapq.heappush(core.deadlines, (deadline, batch))
    core.turn.todo[f"b:{batch}"] = StepIntent(
        domain, first.type, queue, info.version, core.epoch, start_by, deadline, core.now,
        [(s.node, s.action.value, s.operation, s.attempt, s.digest[:12], s.depends_on) for s in steps],
    )  # fmt: skip
    payload = StepBatch(
        batch,
        core.ref.tenant,
        core.ref.graph,
        core.incarnation,
        core.ref.partition,
        core.epoch,
        info.version,
        start_by,
        steps,
    )
    core.turn.dispatch.append(Dispatch(domain, queue, payload))


def _step(core: Core, unit: Unit, batch: str, deadline: float) -> Step:
    rec, form, action = unit.rec, unit.form, unit.action
    intent = f"{action.value} {form.digest} {rec.token}"
    if rec.intent == intent and rec.operation and rec.operation >= _newest_operation(core, unit):
        operation, attempt = rec.operation, rec.attempt + 1
    else:
        operation, attempt = core.next_number(), 1
    flight = Flight(
        batch, action, operation, attempt, unit.type, form.digest, rec.token, deadline, core.now, form.depends_on
    )
    core.set_flight(unit, flight)
    return build_step(unit, flight)


def _newest_operation(core: Core, unit: Unit) -> int:
    """The highest operation of any form of this node: provisioners take anything below it for an echo."""
    forms = [core.graves[(unit.id, t)] for t in core.grave_types.get(unit.id, ())]
    if not forms:
        return 0
    desired = core.units.get(unit.id)
    return max(f.rec.operation for f in (*forms, *([desired] if desired else [])))


def build_step(unit: Unit, flight: Flight) -> Step:
    """The step of a unit in flight; the same again when a new owner rebuilds a batch from the graph."""
    rec, form = unit.rec, unit.form
    consent = rec.approval
    approval = None
    if consent is not None and consent.state is GateState.PASSED and consent.digest == form.digest:
        approval = Approval(consent.plan, consent.by, consent.at, consent.workitem, consent.pins)
    return Step(
        unit.id, flight.action, flight.operation, flight.attempt, unit.type, form.spec, form.digest,
        form.depends_on, approval, rec.decision,
    )  # fmt: skip


def on_outcomes(core: Core, outcomes: Iterable[StepOutcome]) -> int:
    """Take the outcomes of steps in flight; others are late or repeated and say nothing. Returns how many counted.

    Everything that outcomes ``touch`` is applied before anything is decided anew, so that no dependent slips through.
    """
    counted = 0
    touches: list[tuple[str, Observation | None]] = []
    for out in outcomes:
        flown = core.flights.get(out.node)
        if flown is None or (flown[1].operation, flown[1].attempt) != (out.operation, out.attempt):
            continue
        counted += 1
        _concluded(core, flown[0], core.end_flight(out.node), out)
        touches += [(t.node, t.observation) for t in out.touch]
    for name, seen in touches:
        unit = core.units.get(name)
        if unit is None:
            continue
        core.change(unit, next_try=0.0, quarantined_until=0.0, permanent="")
        if seen is None or name in core.flights:
            core.look(unit)
        else:
            apply_observation(core, unit, seen)
            unit.min_request = core.request_number
    return counted


def _concluded(core: Core, unit: Unit, flight: Flight, out: StepOutcome) -> None:
    base: dict[str, object] = {
        "operation": flight.operation,
        "attempt": flight.attempt,
        "intent": f"{flight.action.value} {flight.digest} {flight.token}",
    }
    core.wave["steps"] += 1
    match out.outcome:
        case Outcome.SUCCEEDED:
            _succeeded(core, unit, flight, out, base)
        case Outcome.FAILED:
            _failed(core, unit, flight, out, base)
        case Outcome.PENDING_APPROVAL:
            core.change(unit, **base)
            ask_approval(core, unit, out, flight.action, flight.digest)
        case Outcome.REJECTED:
            core.change(unit, **base, refused=flight.digest)
            core.fault(unit, FaultType.APPROVAL_REJECTED, out.reason or "rejected", out.detail)
        case Outcome.SKIPPED:
            core.change(unit, **base, next_try=core.now + (out.retry_after or 30.0))
        case Outcome.EXPIRED:
            core.change(unit, **base)
    if unit.again:
        core.look(unit)


def _succeeded(core: Core, unit: Unit, flight: Flight, out: StepOutcome, base: dict[str, object]) -> None:
    rec = unit.rec
    if flight.action is Action.DEPROVISION:
        core.wave["removals"] += 1
        seen = out.observation or Observation(Status.ABSENT)
        base |= {
            "status": seen.status,
            "reason": seen.reason,
            "detail": seen.detail,
            "intent": "",
            "failures": 0,
        }
        base |= {"digest": "", "uses": (), "decision": None, "approval": None, "episode": "", "raised": (), "error": ""}
        if unit.node is not None:  # it is wanted again meanwhile
            base |= {"gate": None}
        core.change(unit, **base)
        return
    seen = out.observation or Observation(Status.PRESENT, outputs=out.outputs)
    if unit.type == AI_REVIEW and seen.reason == PENDING:
        core.change(
            unit,
            **base,
            status=Status.ABSENT,
            reason=PENDING,
            failures=rec.failures + 1,
            next_try=core.now + 5.0,
        )
        return
    core.wave["additions"] += 1
    decided = rec.decision is not None
    held = seen.status is Status.DRIFTED and (seen.hold if seen.hold is not None else True)
    stale = seen.status is Status.DRIFTED and seen.reason in WORK_REASONS
    base |= {
        "digest": flight.digest,
        "uses": flight.uses,
        "intent": "",
        "next_try": 0.0,
        "permanent": "",
        "decision": None,
        "refused": "",
    }
    base |= {"hold": False, "token": "", "hold_digest": "", "approval": None}
    if seen.status is Status.PRESENT:
        base |= {"failures": 0, "error": "", "error_reason": ""}
    if rec.gate is not None and rec.gate.state is GateState.PASSED and unit.type not in BUILT_IN_TYPES:
        base["gate"] = None
    core.change(unit, **base)
    apply_observation(core, unit, seen)
    if out.outputs is not None and seen.outputs is None:
        core.change(unit, outputs=out.outputs)
    if decided and held and not stale:
        reopen_reviews(core, unit)
    if unit.type == AI_REVIEW and seen.status is Status.PRESENT:
        ai_answered(core, unit)
    info = core.info(unit)
    if info is not None and info.cascade:
        for below in unit.below:
            cascade(core, core.units[below])


def ai_answered(core: Core, review: Unit) -> None:
    """Whatever an AI review says, its target gets one attempt at once; its failure moves the ladder."""
    assert review.node is not None
    target = core.units.get(str(review_spec(review.node).get("target", "")))
    if target is not None:
        core.change(target, next_try=0.0, permanent="")


def no_reviewer(core: Core, unit: Unit) -> bool:
    """An AI review whose target's domain does not review is answered at once: UNRESOLVED."""
    target = core.target_info(unit)
    if target is not None and target.reviews:
        return False
    attest(core, unit, None, "UNRESOLVED", "the domain of the target does not review")
    ai_answered(core, unit)
    return True


def _failed(core: Core, unit: Unit, flight: Flight, out: StepOutcome, base: dict[str, object]) -> None:
    rec = unit.rec
    failures = rec.failures + 1
    info = core.info(unit)
    base |= {
        "failures": failures,
        "error_reason": out.reason,
        "error": out.detail,
        "next_try": _next_try(core, unit, info, out, failures),
    }
    base["uses"] = union(rec.uses, flight.uses)
    if out.permanent:
        base["permanent"] = flight.digest
    if out.reason == DEAD_LETTERED:
        base |= {"alone": True, "next_try": 0.0}
    gone = unit.tomb is not None and flight.action is Action.PROVISION
    if gone:  # it may have taken effect nevertheless: look before it is forgotten
        base |= {"status": None, "failures": 0, "next_try": 0.0, "permanent": ""}
    core.change(unit, **base)
    if out.observation is not None:
        apply_observation(core, unit, out.observation)
    kind = FaultType.PROVISION_FAILED if flight.action is Action.PROVISION else FaultType.DEPROVISION_FAILED
    if not gone:  # a removed node raises faults of its removal only
        core.fault(unit, kind, out.reason or "failed", out.detail, permanent=out.permanent, attempt=failures)
    if rec.decision is not None:
        reopen_reviews(core, unit)


def _next_try(core: Core, unit: Unit, info: TypeInfo | None, out: StepOutcome, failures: int) -> float:
    """When the next attempt may start: what the provisioner says, else exponential backoff with full jitter.

    Jitter as in M. Brooker, "Exponential Backoff And Jitter" (AWS, 2015), drawn from the attempt's identity, so that
    the model needs no dice.
    """
    if out.retry_after is not None:
        return core.now + out.retry_after
    base, cap = (info.backoff_base, info.backoff_cap) if info is not None else (1.0, 300.0)
    dice = crc32(f"{core.incarnation} {unit.id} {unit.rec.operation} {failures}".encode()) / 2**32
    pause: float = min(cap, base * 2.0 ** min(failures - 1, 30))
    return core.now + pause * (0.1 + 0.9 * dice)


def deadlines_due(core: Core) -> None:
    """Batches that nobody answered in time: their nodes are UNKNOWN, and looked at before anything else."""
    while core.deadlines and core.deadlines[0][0] <= core.now:
        _, batch = heapq.heappop(core.deadlines)
        for name in tuple(core.batches.get(batch, ())):
            unit, flight = core.flights[name]
            core.end_flight(name)
            core.change(
                unit, operation=flight.operation, attempt=flight.attempt,
                intent=f"{flight.action.value} {flight.digest} {flight.token}",
                uses=union(unit.rec.uses, flight.uses),
                status=Status.UNKNOWN, reason="no_answer", detail="the step was not answered in time",
            )  # fmt: skip
            core.look(unit)


def fresh_removed(rec: Record) -> Record:
    """The record of a node that has just been removed: tried but not known to be there means look first."""
    keep = msgspec.structs.replace(
        rec, gate=None, approval=None, decision=None, hold=False, refused="", permanent="", next_try=0.0, failures=0,
        quarantined_until=0.0, blamed=(), round=rec.round + 1, intent="",
    )  # fmt: skip
    if keep.operation and keep.status is not Status.PRESENT:
        keep = msgspec.structs.replace(keep, status=None)
    return keep


def told(core: Core, unit: Unit) -> None:
    """A node is as declared again: end its episode, tell of the recovery, clear what failures left behind."""
    rec = unit.rec
    if rec.episode:
        data = {"node": unit.id, "nodeType": unit.type, "episode": rec.episode, "failures": rec.failures}
        core.emit(Family.NODE, "recovered", {**data, "parentNodeId": None}, unit.id)
        core.change(
            unit,
            episode="",
            raised=(),
            failures=0,
            error="",
            error_reason="",
            quarantined_until=0.0,
            alone=False,
        )
    if rec.blamed:
        core.change(unit, blamed=())
