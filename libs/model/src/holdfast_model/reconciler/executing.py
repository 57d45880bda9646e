"""Sending steps: in batches, urgent ones first, at most one per node."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import islice

from holdfast_model.messages import Action, Approval, Decision, Step, StepBatch
from holdfast_model.names import AI_REVIEW
from holdfast_model.phases import due

from .core import Core
from .deciding import decide
from .phasing import due_of
from .queues import Queue
from .records import Flight, GateState, Phase, Record, Unit
from .turn import Dispatch, StepIntent

MAX_BATCH_BYTES = 1_000_000
_PROVISION = Action.PROVISION


def dispatch(core: Core, budget: Mapping[tuple[str, str], int]) -> None:
    """Send what is ready, within ``budget``: batches per (domain, queue). Urgent steps go first."""
    for key, queue in core.queues.items():
        room = budget.get(key, 0) if len(queue) else 0
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
            # Several at a time: to find the first of a dict costs what was deleted before it.
            for unit in list(islice(lane, limit - len(taken))):
                if unit.id in core.flights:  # another form of this node has just been sent
                    core.set_phase(unit, decide(core, unit))
                    continue
                alone = unit.rec.alone
                if not taken:
                    info = core.info(unit)
                    limit = info.batch if info is not None and not alone else 1
                size += memoryview(unit.form.spec).nbytes
                if taken and (alone or size > MAX_BATCH_BYTES):
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
    steps: list[Step] = []
    sent: list[tuple[str, str, int, int, str, tuple[str, ...], str]] = []
    for unit in units:
        flight = _flight(core, unit, batch, deadline)
        core.set_flight(unit, flight)
        if unit.id in core.grave_types:
            _supersede(core, unit)
        steps.append(build_step(unit, flight, due_of(core, unit)))
        short = flight.digest[:12]
        sent.append((unit.id, str(flight.action), flight.operation, flight.attempt, short, flight.uses, flight.carries))
    heapq.heappush(core.deadlines, (deadline, batch))
    intent = StepIntent(domain, first.type, queue, info.version, core.epoch, start_by, deadline, core.now, sent)
    core.todo(f"b:{batch}", intent)
    core.sent[batch] = (intent, frozenset(core.batches[batch]))
    ref = core.ref
    payload = StepBatch(
        batch, ref.tenant, ref.graph, core.incarnation, ref.partition, core.epoch, info.version, start_by, steps
    )
    core.turn.dispatch.append(Dispatch(domain, queue, payload))


def _flight(core: Core, unit: Unit, batch: str, deadline: float) -> Flight:
    rec, form, action = unit.rec, unit.form, unit.action
    operation, attempt = rec.operation, 1
    again = rec.intent and rec.intent == intent_of(action, form.digest, rec.token)
    if again:
        attempt = rec.attempt + 1
    if not again or operation <= rec.since:  # as which another node may have been known by this name
        operation = core.next_number()
    return Flight(
        batch, action, operation, attempt, unit.type, form.digest, rec.token, deadline, core.now,
        form.depends_on if action is _PROVISION else (), identity(rec.decision), core.next_tick(),
        first_of(rec, action, form.digest, operation),
    )  # fmt: skip


def first_of(rec: Record, action: Action, digest: str, operation: int) -> int:
    """The operation as which the intention of a step began; 0 = as its own."""
    if not rec.intent or rec.intent != intent_of(action, digest, rec.token):
        return 0
    return rec.first or (rec.operation if rec.operation != operation else 0)


def intent_of(action: Action, digest: str, token: str) -> str:
    """What one operation is for: while this stays the same, further steps are attempts at it."""
    return f"{action} {digest} {token}"


def identity(decision: Decision | None) -> str:
    """Names a decision, so that exactly the one that travelled with a step is used up by it. "" = none."""
    return (decision.workitem or f"{decision.outcome}@{decision.at}") if decision is not None else ""


def _supersede(core: Core, sent: Unit) -> None:
    """Provisioners take an operation below the highest they know of a node for an echo: other forms of this node, whose
    operations are older now, start new ones."""
    forms = core.forms_removed(sent.id)
    if sent.id in core.units:
        forms.append(core.units[sent.id])
    for unit in forms:
        if unit is not sent and unit.rec.intent:
            core.change(unit, intent="")


def build_step(unit: Unit, flight: Flight, parents: float | None = None) -> Step:
    """The step of a unit in flight; the same again when a new owner rebuilds a batch from the graph.

    ``parents``: when the phase or blueprint it belongs to is out of time. The step's own limit may come first.
    """
    rec, form = unit.rec, unit.form
    consent, approval = rec.approval, None
    if (
        consent is not None
        and consent.state is GateState.PASSED
        and consent.digest == flight.digest
        and consent.action is flight.action
    ):
        approval = Approval(consent.plan, consent.by, consent.at, consent.workitem, consent.pins)
    decision = rec.decision if flight.carries and identity(rec.decision) == flight.carries else None
    return Step(
        unit.id, flight.action, flight.operation, flight.attempt, unit.type, form.spec, form.digest,
        form.depends_on, approval, decision, rec.refs if form.refs else None,
        due(0.0, None, flight.deadline, parents) if parents else None, flight.first,
    )  # fmt: skip
