"""Whether a step may be sent at all, by the record of its node alone, and whether people said what they are said to."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_model.messages import Action, Approval, Decision
from holdfast_model.reconciler import Record
from holdfast_model.reconciler.records import GateState
from holdfast_model.rows import Gating
from holdfast_model.work_items import WorkItem, WorkItemStatus

SOON = 0.001
_GATED = {
    Action.PROVISION: frozenset({Gating.ALL, Gating.PROVISION_ONLY}),
    Action.DEPROVISION: frozenset({Gating.ALL, Gating.DEPROVISION_ONLY}),
}


def in_the_way(record: Record, action: Action, digest: str, gating: Gating, now: float, *, paused: bool) -> str:
    """What forbids a step of this action on this content (the beginning of its digest); "" = nothing."""

    def same(text: str) -> bool:
        return bool(text) and text.startswith(digest)

    gate, approval = record.gate, record.approval
    passed = gate is not None and gate.state is GateState.PASSED and gate.action is action and same(gate.digest)
    refused = approval is not None and approval.state is not GateState.PASSED and approval.action is action
    told = {
        "it is paused": paused or record.paused,
        "it has failed for ever": same(record.permanent),
        "a person refused it": same(record.refused),
        "it is too early": record.next_try > now + SOON,
        "it is quarantined": record.quarantined_until > now + SOON,
        "it is held": action is Action.PROVISION
        and record.hold
        and same(record.hold_digest)
        and record.decision is None,
        "a person has to agree first": gating in _GATED[action] and not passed,
        "its plan is not approved": refused and approval is not None and same(approval.digest),
    }
    return ", ".join(text for text, stands in told.items() if stands)


def misquoted(items: Mapping[str, WorkItem], approval: Approval | None, decision: Decision | None) -> str:
    """What a step carries that nobody has said; "" = nothing."""
    for said, outcomes in ((approval, ("", "approve")), (decision, None)):
        if said is None or not said.workitem:
            continue
        item = items.get(said.workitem)
        if item is None or item.status is not WorkItemStatus.COMPLETED:
            return f"{said} rests on {item and item.status}"
        if outcomes is not None and item.outcome not in outcomes:
            return f"{said} rests on the answer {item.outcome!r}"
        if decision is said and item.outcome != decision.outcome:
            return f"{said} rests on the answer {item.outcome!r}"
    return ""
