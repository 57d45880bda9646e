"""Human gates and approvals: opening them, closing them, and what a WorkItem's end means."""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

import msgspec

from holdfast_model.events import Family, FaultType, NodeEvent
from holdfast_model.messages import Action, Decision, Status, StepOutcome
from holdfast_model.names import HUMAN_REVIEW
from holdfast_model.reasons import Reason

from .core import Core
from .deciding import needs_person
from .failing import backoff, failed
from .phasing import due_of
from .records import ApprovalGate, Gate, GateState, Unit
from .reviewing import attest, decide_target, review_item
from .turn import CloseIntent, ItemIntent

_replace = msgspec.structs.replace


DONE, REJECT = "done", Reason.REJECT.value
"""What a person may answer to a gate. An empty answer means that it is done."""
ENDED_AS = {
    "REJECTED": Reason.REJECTED,
    "EXPIRED": Reason.EXPIRED,
    "ESCALATED": Reason.ESCALATED,
    "CANCELLED": Reason.CANCELLED,
    "FAULTED": Reason.FAULTED,
    "OBSOLETE": Reason.OBSOLETE,
}
"""The reason that the end of a WorkItem is, by its status."""


def caller_ref(core: Core, node: str, gate: Gate | ApprovalGate) -> str:
    """callerRef of a gate of ``node``, by the name that it had when the gate was opened.

    Of a human gate ``desiredstate:<tenant>:<node>:<provision|deprovision>``, of an approval
    ``desiredstate-approval:<tenant>:<node>:<PROVISION|DEPROVISION>``.
    """
    name = quote(gate.asked or node, safe="")
    if isinstance(gate, Gate):
        return f"desiredstate:{core.ref.caller_part}:{name}:{gate.action.lower()}"
    return f"desiredstate-approval:{core.ref.caller_part}:{name}:{gate.action.value}"


def open_gate(core: Core, unit: Unit) -> None:
    """Ask a person for this action on this digest, unless that question is open already."""
    rec, form, action = unit.rec, unit.form, unit.action
    if not needs_person(unit):
        return
    gate = rec.gate
    if gate is not None and gate.action is action and gate.digest == form.digest:
        return
    if gate is not None and gate.state is GateState.OPEN:
        close(core, gate.id, caller_ref(core, unit.id, gate), "the node changed")
    fresh = Gate(core.new_id(), action, form.digest, rec.round)
    core.change(unit, gate=fresh)
    verb = action.lower()
    intent = ItemIntent(
        fresh.id, caller_ref(core, unit.id, fresh), "human", f"{verb} {unit.id}", unit.id, unit.type,
        description=f"{core.ref}: {verb} of {unit.id} ({unit.type}) needs a person",
        payload={"node": unit.id, "type": unit.type, "action": action.value, "spec": msgspec.json.decode(form.spec)},
        outcomes=[DONE, REJECT], expires_at=due_of(core, unit),
    )  # fmt: skip
    if unit.type == HUMAN_REVIEW:
        intent = review_item(core, unit, intent)
    core.todo(f"o:{fresh.id}", intent)
    waiting: dict[str, object] = {"node": unit.id, "type": unit.type, "request": fresh.id, "for": "human"}
    core.emit(Family.NODE, NodeEvent.WAITING, waiting, unit.id)


def ask_approval(core: Core, unit: Unit, outcome: StepOutcome, action: Action, digest: str) -> None:
    """A provisioner wants its plan approved. The same plan for the same content is asked, and refused, once."""
    if action is not unit.action or digest != unit.form.digest:
        return  # for something that is not wanted any more
    pins = outcome.pins
    binding = bind(core.incarnation, unit.id, action, digest, outcome.plan, pins)
    old = unit.rec.approval
    if old is not None and old.binding == binding and old.state is not GateState.PASSED:
        return
    if old is not None and old.state is GateState.OPEN:
        close(core, old.id, caller_ref(core, unit.id, old), "the plan changed")
    gate = ApprovalGate(core.new_id(), action, digest, outcome.plan, binding, pins)
    core.change(unit, approval=gate)
    intent = ItemIntent(
        gate.id, caller_ref(core, unit.id, gate), "approval", f"approve {action.lower()} of {unit.id}: {outcome.plan}",
        unit.id, unit.type, description=outcome.detail,
        payload={"node": unit.id, "type": unit.type, "action": action.value, "plan": outcome.plan,
                 "summary": outcome.summary or {}, "binding": binding},
        outcomes=["approve", "reject"], expires_at=due_of(core, unit),
    )  # fmt: skip
    core.todo(f"o:{gate.id}", intent)
    waiting: dict[str, object] = {"node": unit.id, "type": unit.type, "request": gate.id, "for": "approval"}
    core.emit(Family.NODE, NodeEvent.WAITING, waiting, unit.id)


def bind(incarnation: str, node: str, action: Action, digest: str, plan: str, pins: object) -> str:
    """What exactly an approval is for, as one hash."""
    body = msgspec.json.encode([incarnation, node, action.value, digest, plan, pins], order="deterministic")
    return sha256(body).hexdigest()


def close(core: Core, request: str, caller_ref: str, reason: str) -> None:
    """Let work-items make an item obsolete; its opening, if still to be done, is called off."""
    core.todo(f"o:{request}", None)
    core.todo(f"c:{request}", CloseIntent(request, caller_ref, reason))


def close_all(core: Core, unit: Unit, reason: str) -> None:
    """Close what is open for a unit that goes or no longer needs it."""
    rec = unit.rec
    if rec.gate is not None and rec.gate.state is GateState.OPEN:
        close(core, rec.gate.id, caller_ref(core, unit.id, rec.gate), reason)
    if rec.approval is not None and rec.approval.state is GateState.OPEN:
        close(core, rec.approval.id, caller_ref(core, unit.id, rec.approval), reason)


def no_longer_needed(core: Core, unit: Unit) -> None:
    """A node is as declared, by whatever route: nobody has to be asked, and what was decided for it is used up."""
    rec = unit.rec
    fields: dict[str, object] = {}
    if unit.type != HUMAN_REVIEW and rec.gate is not None and rec.gate.state is not GateState.REFUSED:
        fields["gate"] = None
        if rec.gate.state is GateState.OPEN:
            close(core, rec.gate.id, caller_ref(core, unit.id, rec.gate), "the node is as declared")
    if rec.approval is not None and rec.approval.state is not GateState.REFUSED:
        fields["approval"] = None
        if rec.approval.state is GateState.OPEN:
            close(core, rec.approval.id, caller_ref(core, unit.id, rec.approval), "the node is as declared")
    if rec.decision is not None:
        fields["decision"] = None
    if fields:
        core.change(unit, **fields)


class Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    """A WorkItem's end, or that it was opened (status "" with its id)."""

    request: str
    workitem: str
    status: str = ""
    outcome: str = ""
    by: str = ""
    note: str = ""
    data: dict[str, object] | None = None
    at: float = 0.0


def item_opened(core: Core, request: str, workitem: str) -> None:
    """work-items has the item: remember its id and close the intent."""
    core.todo(f"o:{request}", None)
    unit = core.gates.get(request)
    if unit is None:
        return
    gate, approval = unit.rec.gate, unit.rec.approval
    if gate is not None and gate.id == request and not gate.workitem:
        core.change(unit, gate=_replace(gate, workitem=workitem))
    elif approval is not None and approval.id == request and not approval.workitem:
        core.change(unit, approval=_replace(approval, workitem=workitem))


def item_ended(core: Core, end: Ended) -> None:
    """Apply the end of a WorkItem. Ends of other requests than the open one say nothing."""
    if not end.status:
        item_opened(core, end.request, end.workitem)
        return
    unit = core.gates.get(end.request)
    if unit is None:
        return
    gate, approval = unit.rec.gate, unit.rec.approval
    if gate is not None and gate.id == end.request:
        if end.status == "COMPLETED" and core.info(unit) is None:
            return  # what follows depends on a type that is not known (yet); open items are asked after again
        if gate.state is GateState.OPEN:
            core.todo(f"o:{end.request}", None)
            _gate_ended(core, unit, gate, end)
    elif approval is not None and approval.id == end.request and approval.state is GateState.OPEN:
        core.todo(f"o:{end.request}", None)
        _approval_ended(core, unit, approval, end)


def _approval_ended(core: Core, unit: Unit, approval: ApprovalGate, end: Ended) -> None:
    agreed = end.status == "COMPLETED" and end.outcome in ("", "approve")
    state = GateState.PASSED if agreed else GateState.REFUSED
    core.change(unit, approval=_replace(approval, state=state, workitem=end.workitem, by=end.by, at=end.at))
    if not agreed:
        ended, outcome = ENDED_AS.get(end.status, end.status.lower()), end.outcome.strip()
        how = f"{ended}: {outcome}" if outcome else ended
        detail = end.note or f"{approval.plan} was not approved ({how})"
        core.fault(unit, FaultType.APPROVAL_REJECTED, outcome or ended, detail)


def _gate_ended(core: Core, unit: Unit, gate: Gate, end: Ended) -> None:
    # An answer "reject" says the same as a rejected item.
    asked = unit.type != HUMAN_REVIEW
    match "REJECTED" if asked and end.status == "COMPLETED" and end.outcome == REJECT else end.status:
        case "COMPLETED":
            _gate_passed(core, unit, gate, end)
        case "REJECTED":
            core.change(unit, gate=_replace(gate, state=GateState.REFUSED, workitem=end.workitem, by=end.by))
            core.fault(
                unit, FaultType.APPROVAL_REJECTED, Reason.REJECTED, end.note or f"{unit.id} was rejected by {end.by}"
            )
        case "EXPIRED" | "ESCALATED":
            _new_round(core, unit)
            core.fault(unit, FaultType.HUMAN_NODE_TIMEOUT, ENDED_AS[end.status], end.note or "nobody decided in time")
        case "FAULTED":
            detail, failures = end.note or "the WorkItem faulted", unit.rec.failures + 1
            _new_round(
                core, unit, failures=failures, error_reason=Reason.WORKITEM_FAULTED, error=detail,
                next_try=core.now + backoff(core, unit, failures),
            )  # fmt: skip
            failed(core, unit, gate.action, Reason.WORKITEM_FAULTED, detail)
        case _:
            _new_round(core, unit)


def _new_round(core: Core, unit: Unit, **more: object) -> None:
    """Ask again, with a fresh gate, if a person is still needed."""
    core.change(unit, gate=None, round=unit.rec.round + 1, **more)


def _gate_passed(core: Core, unit: Unit, gate: Gate, end: Ended) -> None:
    info = core.info(unit)
    decision = Decision(
        end.outcome,
        by=end.by,
        note=end.note,
        data=end.data,
        reason=unit.rec.reason,
        workitem=end.workitem,
        at=end.at,
    )
    passed = _replace(gate, state=GateState.PASSED, workitem=end.workitem, by=end.by)
    if unit.type == HUMAN_REVIEW:
        attest(core, unit, passed, end.outcome, f"{end.outcome or 'done'} by {end.by}")
        decide_target(core, unit, decision)
    elif info is not None and info.after_human:
        core.change(unit, gate=passed, decision=decision, decided=gate.digest)
    elif gate.action is Action.DEPROVISION:
        by = f"removed by {end.by}"
        core.change(unit, gate=None, status=Status.ABSENT, reason=Reason.ATTESTED, detail=by, digest="", uses=())
    else:
        attest(core, unit, None, Reason.ATTESTED, f"done by {end.by}")
