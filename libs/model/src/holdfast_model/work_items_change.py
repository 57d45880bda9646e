"""One change of a WorkItem: its transitions, collected, and the pieces they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from .errors import HoldfastError, IllegalState
from .events import Event, Family, ItemEvent
from .work_items import (
    BreachDecision,
    WorkItem,
    WorkItemCommand,
    WorkItemEvent,
    decide_command,
)
from .work_items import WorkItemStatus as S
from .work_items_queries import AuditEntry


class WrongState(IllegalState):
    """The item's status does not allow the verb. Travels as ``conflict`` with the item as ``current``."""

    code = "conflict"


@dataclass(frozen=True)
class Change:
    """What one command does. Nothing is to be written when ``events`` and ``audit`` are both empty."""

    item: WorkItem
    events: tuple[Event, ...] = ()
    audit: tuple[AuditEntry, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.events and not self.audit


class Draft:
    """Collects the transitions of one change. The version is raised once, at the first of them."""

    def __init__(self, item: WorkItem, actor: str, now: datetime, command: WorkItemCommand | None = None) -> None:
        self.item = item
        self.actor = actor
        self.now = now
        self.command = command
        self.breach: BreachDecision | None = None
        self._version = item.version + 1
        self._events: list[Event] = []
        self._audit: list[AuditEntry] = []

    def step(self, name: ItemEvent, detail: str = "", **changes: Any) -> None:
        self.item = msgspec.structs.replace(self.item, version=self._version, updated_at=self.now, **changes)
        self._events.append(self._event(name, detail))
        self.record(name.upper(), detail)

    def record(self, event: str, detail: str) -> None:
        """A line of history without an event."""
        item = self.item
        self._audit.append(
            AuditEntry(
                item=item.id,
                event=event,
                actor=self.actor,
                time=self.now,
                detail=detail,
                version=item.version,
            )
        )

    def change(self) -> Change:
        return Change(self.item, tuple(self._events), tuple(self._audit))

    def _event(self, name: ItemEvent, detail: str) -> Event:
        item, command = self.item, self.command
        data = WorkItemEvent(
            id=item.id,
            status=item.status,
            version=item.version,
            tenant=item.tenancy_id,
            graph=item.graph,
            caller_ref=item.caller_ref,
            request=item.request,
            actor=self.actor,
            title=item.title,
            priority=item.priority,
            types=item.types,
            assignee_id=item.assignee_id,
            candidate_users=item.candidate_users,
            candidate_groups=item.candidate_groups,
            outcome=item.outcome,
            note=command.note if command else "",
            detail=detail,
            plan_ref=item.plan_ref,
            resolution=item.resolution,
            data=command.data if command else None,
            permitted_outcomes=tuple(o.name for o in item.permitted_outcomes),
            claim_deadline=item.claim_deadline,
            expires_at=item.expires_at,
            breach=self.breach,
            decide=decide_command(item) if name is ItemEvent.CREATED else "",
        )
        return Event(
            f"{item.id}-{item.version}-{name}", Family.WORKITEM, name, item.tenancy_id, item.subject_graph,
            self.now.timestamp(), msgspec.to_builtins(data), node=item.id,
        )  # fmt: skip


def assign(draft: Draft, to: str, detail: str) -> None:
    """Out of the pool: the time spent there is banked, and its clock stops."""
    item = draft.item
    waited = (draft.now - (item.last_returned_to_pool_at or item.created_at)).total_seconds()
    draft.step(
        ItemEvent.ASSIGNED,
        words(f"to {to}", detail),
        status=S.ASSIGNED,
        assignee_id=to,
        assigned_at=draft.now,
        claim_deadline=None,
        accumulated_unclaimed_seconds=item.accumulated_unclaimed_seconds + max(0.0, waited),
    )


def pooled(draft: Draft) -> dict[str, Any]:
    """Back to the pool with what is left of the time to claim."""
    item = draft.item
    left = None
    if item.claim_budget_seconds is not None:
        left = draft.now + timedelta(seconds=max(0.0, item.claim_budget_seconds - item.accumulated_unclaimed_seconds))
    return awake(draft) | {
        "status": S.PENDING,
        "assignee_id": "",
        "assigned_at": None,
        "started_at": None,
        "last_returned_to_pool_at": draft.now,
        "claim_deadline": left,
    }


def awake(draft: Draft) -> dict[str, Any]:
    """Ends a suspension: the expiry moves by as long as it lasted."""
    item = draft.item
    if item.suspended_at is None:
        return {}
    until = item.expires_at + (draft.now - item.suspended_at) if item.expires_at is not None else None
    return {"prior_status": None, "suspended_at": None, "expires_at": until}


def fresh_claim(draft: Draft, seconds: float | None) -> dict[str, Any]:
    """New people get the whole time to claim again (or ``seconds``)."""
    budget = seconds if seconds is not None else draft.item.claim_budget_seconds
    return {
        "claim_deadline": draft.now + timedelta(seconds=budget) if budget is not None else None,
        "claim_budget_seconds": budget,
        "accumulated_unclaimed_seconds": 0.0,
    }


def ended(draft: Draft) -> dict[str, Any]:
    return {"completed_at": draft.now, "claim_deadline": None, "prior_status": None, "suspended_at": None}


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Without blanks and repetitions, in the order given."""
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def words(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def about(item: WorkItem, error: HoldfastError) -> HoldfastError:
    error.current = item
    return error
