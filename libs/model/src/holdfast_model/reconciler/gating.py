"""Human gates and approvals: opening them, closing them, and what a WorkItem's end means."""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

import msgspec

from holdfast_model.events import Family, FaultType
from holdfast_model.messages import Action, Decision, Status, StepOutcome
from holdfast_model.names import HUMAN_REVIEW

from .core import Core
from .deciding import needs_person
from .failing import backoff, failed
from .records import ApprovalGate, Gate, GateState, Unit
from .reviewing import attest, decide_target, review_item
from .turn import CloseIntent, ItemIntent

_replace = msgspec.structs.replace


DONE, REJECT = "done", "reject"
"""What a person may answer to a gate. An empty answer means that it is done."""


def human_ref(core: Core, unit: Unit, action: Action) -> str:
    """callerRef of a human gate: ``desiredstate:<tenant>:<node>:<provision|deprovision>``."""
    return f"desiredstate:{core.ref.caller_part}:{quote(unit.id, safe='')}:{action.lower()}"


def approval_ref(core: Core, unit: Unit, action: Action) -> str:
    """callerRef of an approval: ``desiredstate-approval:<tenant>:<node>:<PROVISION|DEPROVISION>``."""
    return f"desiredstate-approval:{core.ref.caller_part}:{quote(unit.id, safe='')}:{action.value}"


def open_gate(core: Core, unit: Unit) -> None:
    """Ask a person for this action on this digest, unless that question is open already."""
    rec, form, action = unit.rec, unit.form, unit.action
    if not needs_person(unit):
        return
    gate = rec.gate
    if gate is not None and gate.action is action and gate.digest == form.digest:
        return
    if gate is not None and gate.state is GateState.OPEN:
        close(core, gate.id, human_ref(core, unit, gate.action), "the node changed")
    fresh = Gate(core.new_id(), action, form.digest, rec.round)
    core.change(unit, gate=fresh)
    verb = action.lower()
    intent = ItemIntent(
        fresh.id, human_ref(core, unit, action), "human", f"{verb} {unit.id}", unit.id, unit.type,
        description=f"{core.ref}: {verb} of {unit.id} ({unit.type}) needs a person",
        payload={"node": unit.id, "type": unit.type, "action": action.value, "spec": msgspec.json.decode(form.spec)},
        outcomes=[DONE, REJECT],
    )  # fmt: skip
    if unit.type == HUMAN_REVIEW:
        intent = review_item(core, unit, intent)
    core.todo(f"o:{fresh.id}", intent)
    waiting: dict[str, object] = {"node": unit.id, "type": unit.type, "request": fresh.id, "for": "human"}
    core.emit(Family.NODE, "waiting", waiting, unit.id)


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
        close(core, old.id, approval_ref(core, unit, old.action), "the plan changed")
    gate = ApprovalGate(core.new_id(), action, digest, outcome.plan, binding, pins)
    core.change(unit, approval=gate)
    intent = ItemIntent(
        gate.id, approval_ref(core, unit, action), "approval", f"approve {action.lower()} of {unit.id}: {outcome.plan}",
        unit.id, unit.type, description=outcome.detail,
        payload={"node": unit.id, "type": unit.type, "action": action.value, "plan": outcome.plan,
                 "summary": outcome.summary or {}, "binding": binding},
        outcomes=["approve", "reject"],
    )  # fmt: skip
    core.todo(f"o:{gate.id}", intent)
    waiting: dict[str, object] = {"node": unit.id, "type": unit.type, "request": gate.id, "for": "approval"}
    core.emit(Family.NODE, "waiting", waiting, unit.id)


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
        close(core, rec.gate.id, human_ref(core, unit, rec.gate.action), reason)
    if rec.approval is not None and rec.approval.state is GateState.OPEN:
        close(core, rec.approval.id, approval_ref(core, unit, rec.approval.action), reason)


def no_longer_needed(core: Core, unit: Unit) -> None:
    """A node is as declared, by whatever route: nobody has to be asked, and what was decided for it is used up."""
    rec = unit.rec
    fields: dict[str, object] = {}
    if unit.type != HUMAN_REVIEW and rec.gate is not None and rec.gate.state is not GateState.REFUSED:
        fields["gate"] = None
        if rec.gate.state is GateState.OPEN:
            close(core, rec.gate.id, human_ref(core, unit, rec.gate.action), "the node is as declared")
    if rec.approval is not None and rec.approval.state is not GateState.REFUSED:
        fields["approval"] = None
        if rec.approval.state is GateState.OPEN:
            close(core, rec.approval.id, approval_ref(core, unit, rec.approval.action), "the node is as declared")
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
        said = end.outcome or end.status.lower()
        core.fault(unit, FaultType.APPROVAL_REJECTED, said, end.note or f"{approval.plan} was not approved ({said})")


def _gate_ended(core: Core, unit: Unit, gate: Gate, end: Ended) -> None:
    # An answer "reject" says the same as a rejected item.
    asked = unit.type != HUMAN_REVIEW
    match "REJECTED" if asked and end.status == "COMPLETED" and end.outcome == REJECT else end.status:
        case "COMPLETED":
            _gate_passed(core, unit, gate, end)
        case "REJECTED":
            core.change(unit, gate=_replace(gate, state=GateState.REFUSED, workitem=end.workitem, by=end.by))
            core.fault(unit, FaultType.APPROVAL_REJECTED, "rejected", end.note or f"{unit.id} was rejected by {end.by}")
        case "EXPIRED" | "ESCALATED":
            _new_round(core, unit)
            core.fault(unit, FaultType.HUMAN_NODE_TIMEOUT, end.status.lower(), end.note or "nobody decided in time")
        case "FAULTED":
            detail, failures = end.note or "the WorkItem faulted", unit.rec.failures + 1
            _new_round(
                core, unit, failures=failures, error_reason="workitem_faulted", error=detail,
                next_try=core.now + backoff(core, unit, failures),
            )  # fmt: skip
            failed(core, unit, gate.action, "workitem_faulted", detail)
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
        core.change(
            unit, gate=None, status=Status.ABSENT, reason="attested", detail=f"removed by {end.by}", digest="", uses=()
        )  # fmt: skip
    else:
        attest(core, unit, None, "attested", f"done by {end.by}")
