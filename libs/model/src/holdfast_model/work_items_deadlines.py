"""What the clock does to a WorkItem: carries out the decision on a missed deadline."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from .errors import Invalid
from .events import ItemEvent
from .work_items import SYSTEM, EscalateTo, Extend, Fail, WorkItem
from .work_items import WorkItemStatus as S
from .work_items_breach import Deadline, decide, next_deadline
from .work_items_change import Change, Draft, distinct, ended, fresh_claim, pooled
from .work_items_queries import AuditEntry

ESCALATION_SECONDS = 86_400.0
"""How long an escalation lasts when nothing says otherwise."""


def breach(item: WorkItem, now: datetime) -> Change:
    """What the clock does to the item: nothing unless its running deadline has passed.

    A policy that cannot be carried out changes nothing but the history.
    """
    due = next_deadline(item)
    if due is None or due[1] > now:
        return Change(item)
    deadline, _ = due
    draft = Draft(item, SYSTEM, now)
    try:
        decision = decide(item, deadline)
    except Invalid as error:
        entry = AuditEntry(
            item=item.id, event="BREACH_POLICY_MISCONFIGURED", actor=SYSTEM, time=now, detail=error.message,
            version=item.version,
        )  # fmt: skip
        return Change(item, audit=(entry,))
    draft.breach = decision
    if isinstance(decision, Fail):
        reason = decision.reason or f"the {deadline} deadline passed"
        if deadline is Deadline.CLAIM:
            draft.step(ItemEvent.CLAIM_EXPIRED, reason, status=S.EXPIRED, resolution=reason, **ended(draft))
        draft.step(ItemEvent.EXPIRED, reason, status=S.EXPIRED, resolution=reason, **ended(draft))
    elif isinstance(decision, EscalateTo):
        _escalate(draft, decision, deadline)
    elif isinstance(decision, Extend):
        _push(draft, decision, deadline)
    else:
        reason = decision.reason or f"the {deadline} deadline passed and nothing more can be done"
        draft.step(ItemEvent.ESCALATED, reason, status=S.ESCALATED, resolution=reason, **ended(draft))
    return draft.change()


def _escalate(draft: Draft, decision: EscalateTo, deadline: Deadline) -> None:
    seconds = decision.deadline
    changes = pooled(draft) | {"candidate_groups": distinct(decision.groups)}
    if deadline is Deadline.EXPIRY:
        changes |= fresh_claim(draft, None)
        changes["expires_at"] = draft.now + timedelta(seconds=seconds or ESCALATION_SECONDS)
    else:
        changes |= fresh_claim(draft, seconds)
    detail = f"the {deadline} deadline passed; to " + ", ".join(decision.groups)
    draft.step(ItemEvent.SLA_REASSIGNED, detail, **changes)


def _push(draft: Draft, decision: Extend, deadline: Deadline) -> None:
    until = draft.now + timedelta(seconds=decision.by)
    if deadline is Deadline.EXPIRY:
        changes: dict[str, Any] = {"expires_at": until}
    else:
        waited = (draft.now - (draft.item.last_returned_to_pool_at or draft.item.created_at)).total_seconds()
        spent = draft.item.accumulated_unclaimed_seconds + max(0.0, waited)
        changes = {"claim_deadline": until, "claim_budget_seconds": spent + decision.by}
    draft.step(ItemEvent.SLA_EXTENDED, f"the {deadline} deadline passed; moved to {until.isoformat()}", **changes)
