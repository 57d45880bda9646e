"""Human gates and approvals: opening them, what a WorkItem's end means, decisions and whom they clear."""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

import msgspec

from holdfast_model.events import Family, FaultType
from holdfast_model.messages import Action, Decision, Status, StepOutcome
from holdfast_model.names import AI_REVIEW, HUMAN_REVIEW

from .core import Core, review_spec
from .records import ApprovalGate, Gate, GateState, Record, Unit
from .turn import CloseIntent, ItemIntent

DEFAULT_OUTCOMES = ["retry", "give-up"]
GIVE_UP = "give-up"


def human_ref(core: Core, unit: Unit, action: Action) -> str:
    """callerRef of a human gate: ``desiredstate:<tenant>:<node>:<provision|deprovision>``."""
    return f"desiredstate:{core.ref.caller_part}:{quote(unit.id, safe='')}:{action.lower()}"


def approval_ref(core: Core, unit: Unit, action: Action) -> str:
    """callerRef of an approval: ``desiredstate-approval:<tenant>:<node>:<PROVISION|DEPROVISION>``."""
    return f"desiredstate-approval:{core.ref.caller_part}:{quote(unit.id, safe='')}:{action.value}"


def open_gate(core: Core, unit: Unit) -> None:
    """Ask a person for this action on this digest, unless that question is open already."""
    rec, form, action = unit.rec, unit.form, unit.action
    if not (form.needs_human(action) or unit.type == HUMAN_REVIEW):
        return
    gate = rec.gate
    if gate is not None and gate.action is action and gate.digest == form.digest:
        return
    if gate is not None and gate.state is GateState.OPEN:
        close(core, unit, gate.id, human_ref(core, unit, gate.action), "the node changed")
    fresh = Gate(core.new_id(), action, form.digest, rec.round)
    core.change(unit, gate=fresh)
    verb = action.lower()
    intent = ItemIntent(
        fresh.id, human_ref(core, unit, action), "human", f"{verb} {unit.id}", unit.id, unit.type,
        description=f"{core.ref}: {verb} of {unit.id} ({unit.type}) needs a person",
        payload={"node": unit.id, "type": unit.type, "action": action.value, "spec": msgspec.json.decode(form.spec)},
    )  # fmt: skip
    if unit.type == HUMAN_REVIEW:
        intent = _review_item(core, unit, intent)
    core.turn.todo[f"o:{fresh.id}"] = intent
    core.emit(
        Family.NODE,
        "waiting",
        {"node": unit.id, "type": unit.type, "request": fresh.id, "for": "human"},
        unit.id,
    )


def _review_item(core: Core, unit: Unit, intent: ItemIntent) -> ItemIntent:
    assert unit.node is not None
    spec = review_spec(unit.node)
    name = str(spec.get("target", ""))
    target = core.units.get(name)
    info = core.info(target) if target is not None else None
    reason = str(spec.get("reason", ""))
    payload: dict[str, object] = {"review": unit.id, **spec}
    if target is not None:
        rec = target.rec
        reason = rec.reason if rec.hold else rec.error_reason or reason
        payload |= {"reason": reason, "error": rec.detail if rec.hold else rec.error or spec.get("error", "")}
        payload |= {"status": rec.status.value if rec.status else None, "info": rec.info, "type": target.type}
        advice = core.units.get(f"{AI_REVIEW}-{name}")
        if advice is not None and advice.rec.info:
            payload["advice"] = {"reason": advice.rec.reason, "detail": advice.rec.detail, **advice.rec.info}
    known = info.outcomes if info else {}
    outcomes = known.get(reason) or known.get("*") or DEFAULT_OUTCOMES
    return msgspec.structs.replace(
        intent,
        title=f"review {name}: {reason or 'failed'}",
        description=str(payload.get("error") or ""),
        payload=payload,
        outcomes=list(outcomes),
    )


def ask_approval(core: Core, unit: Unit, outcome: StepOutcome, action: Action, digest: str) -> None:
    """A provisioner wants its plan approved. The same plan for the same content is asked, and refused, once."""
    pins = outcome.pins
    binding = bind(core.incarnation, unit.id, action, digest, outcome.plan, pins)
    old = unit.rec.approval
    if old is not None and old.binding == binding and old.state is not GateState.PASSED:
        return
    if old is not None and old.state is GateState.OPEN:
        close(core, unit, old.id, approval_ref(core, unit, old.action), "the plan changed")
    gate = ApprovalGate(core.new_id(), action, digest, outcome.plan, binding, pins)
    core.change(unit, approval=gate)
    core.turn.todo[f"o:{gate.id}"] = ItemIntent(
        gate.id, approval_ref(core, unit, action), "approval", f"approve {action.lower()} of {unit.id}: {outcome.plan}",
        unit.id, unit.type, description=outcome.detail,
        payload={"node": unit.id, "type": unit.type, "action": action.value, "plan": outcome.plan,
                 "summary": outcome.summary or {}, "binding": binding},
        outcomes=["approve", "reject"],
    )  # fmt: skip
    core.emit(
        Family.NODE,
        "waiting",
        {"node": unit.id, "type": unit.type, "request": gate.id, "for": "approval"},
        unit.id,
    )


def bind(incarnation: str, node: str, action: Action, digest: str, plan: str, pins: object) -> str:
    """What exactly an approval is for, as one hash."""
    body = msgspec.json.encode([incarnation, node, action.value, digest, plan, pins], order="deterministic")
    return sha256(body).hexdigest()


def close(core: Core, unit: Unit, request: str, caller_ref: str, reason: str) -> None:
    """Let work-items make an item obsolete; its opening, if still to be done, is called off."""
    core.turn.todo[f"o:{request}"] = None
    core.turn.todo[f"c:{request}"] = CloseIntent(request, caller_ref, reason)


def close_all(core: Core, unit: Unit, reason: str) -> None:
    """Close what is open for a unit that goes or no longer needs it."""
    rec = unit.rec
    if rec.gate is not None and rec.gate.state is GateState.OPEN:
        close(core, unit, rec.gate.id, human_ref(core, unit, rec.gate.action), reason)
    if rec.approval is not None and rec.approval.state is GateState.OPEN:
        close(core, unit, rec.approval.id, approval_ref(core, unit, rec.approval.action), reason)


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
    core.turn.todo[f"o:{request}"] = None
    unit = core.gates.get(request)
    if unit is None:
        return
    gate, approval = unit.rec.gate, unit.rec.approval
    if gate is not None and gate.id == request and not gate.workitem:
        core.change(unit, gate=msgspec.structs.replace(gate, workitem=workitem))
    elif approval is not None and approval.id == request and not approval.workitem:
        core.change(unit, approval=msgspec.structs.replace(approval, workitem=workitem))


def item_ended(core: Core, end: Ended) -> None:
    """Apply the end of a WorkItem. Ends of other requests than the open one say nothing."""
    unit = core.gates.get(end.request)
    if unit is None:
        return
    core.turn.todo.setdefault(f"o:{end.request}", None)
    gate, approval = unit.rec.gate, unit.rec.approval
    if gate is not None and gate.id == end.request:
        if gate.state is GateState.OPEN:
            _gate_ended(core, unit, gate, end)
    elif approval is not None and approval.id == end.request and approval.state is GateState.OPEN:
        _approval_ended(core, unit, approval, end)


def _approval_ended(core: Core, unit: Unit, approval: ApprovalGate, end: Ended) -> None:
    agreed = end.status == "COMPLETED" and end.outcome in ("", "approve")
    state = GateState.PASSED if agreed else GateState.REFUSED
    done = msgspec.structs.replace(approval, state=state, workitem=end.workitem, by=end.by, at=end.at)
    core.change(unit, approval=done)
    if not agreed:
        said = end.outcome or end.status.lower()
        core.fault(unit, FaultType.APPROVAL_REJECTED, said, end.note or f"{approval.plan} was not approved ({said})")


def _gate_ended(core: Core, unit: Unit, gate: Gate, end: Ended) -> None:
    if end.status == "COMPLETED":
        _gate_passed(core, unit, gate, end)
    elif end.status == "REJECTED":
        refused = msgspec.structs.replace(gate, state=GateState.REFUSED, workitem=end.workitem, by=end.by)
        core.change(unit, gate=refused)
        core.fault(unit, FaultType.APPROVAL_REJECTED, "rejected", end.note or f"{unit.id} was rejected by {end.by}")
    else:
        new_round(core, unit)
        if end.status in ("EXPIRED", "ESCALATED"):
            core.fault(unit, FaultType.HUMAN_NODE_TIMEOUT, end.status.lower(), end.note or "nobody decided in time")
        elif end.status == "FAULTED":
            kind = FaultType.PROVISION_FAILED if gate.action is Action.PROVISION else FaultType.DEPROVISION_FAILED
            core.fault(unit, kind, "workitem_faulted", end.note or "the WorkItem faulted")


def new_round(core: Core, unit: Unit) -> None:
    """Ask again, with a fresh gate."""
    core.change(unit, gate=None, round=unit.rec.round + 1)


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
    passed = msgspec.structs.replace(gate, state=GateState.PASSED, workitem=end.workitem, by=end.by)
    if unit.type == HUMAN_REVIEW:
        attest(core, unit, passed, end.outcome, f"{end.outcome or 'done'} by {end.by}")
        decide_target(core, unit, decision)
    elif info is not None and info.after_human:
        core.change(unit, gate=passed, decision=decision)
    elif gate.action is Action.DEPROVISION:
        core.change(unit, gate=passed, status=Status.ABSENT, reason="attested", detail=f"removed by {end.by}")
    else:
        attest(core, unit, passed, "attested", f"done by {end.by}")


def attest(core: Core, unit: Unit, gate: Gate | None, reason: str, detail: str) -> None:
    """Take a person's word (or a review's answer): PRESENT for this digest until a newer observation says otherwise."""
    core.change(
        unit, status=Status.PRESENT, reason=reason, detail=detail, digest=unit.form.digest, hold=False, gate=gate,
        failures=0, next_try=0.0, permanent="",
    )  # fmt: skip


def decide_target(core: Core, review: Unit, decision: Decision) -> None:
    """A review was answered: clear its target and send the decision along with the target's next step."""
    assert review.node is not None
    spec = review_spec(review.node)
    target = core.units.get(str(spec.get("target", "")))
    if target is None or not _still_about(target, spec):
        return
    if decision.outcome == GIVE_UP:
        core.change(target, refused=target.form.digest, decision=None)
        return
    clear(core, target, decision=msgspec.structs.replace(decision, reason=target.rec.reason or decision.reason))
    if target.current:
        core.change(target, decision=None)


def _still_about(target: Unit, spec: dict[str, object]) -> bool:
    digest, episode = spec.get("digest") or spec.get("target_digest"), spec.get("episode")
    return (not digest or digest == target.form.digest) and (not episode or episode == target.rec.episode)


def clear(core: Core, unit: Unit, **more: object) -> None:
    """End backoff, permanence, refusal, hold and quarantine of a node."""
    cleared: dict[str, object] = {"next_try": 0.0, "permanent": "", "refused": "", "hold": False}
    core.change(unit, **cleared | {"quarantined_until": 0.0, "heals": ()} | more)


def reopen_reviews(core: Core, target: Unit) -> None:
    """The step that carried a decision did not help: ask again, with the latest detail."""
    for name in tuple(core.reviews.get(target.id, ())):
        review = core.units[name]
        if review.type == HUMAN_REVIEW and review.rec.gate is not None and review.rec.gate.state is GateState.PASSED:
            rec = review.rec
            fresh = Record(type=rec.type, round=rec.round + 1, operation=rec.operation, attempt=rec.attempt)
            core.set_record(review, msgspec.structs.replace(fresh, status=Status.ABSENT))
