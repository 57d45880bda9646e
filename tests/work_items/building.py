"""Items, requests and actors for these tests, with virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from holdfast_model.work_items import CreateWorkItem, Verb, WorkItem, WorkItemCommand, WorkItemStatus
from holdfast_model.work_items_access import Actor
from holdfast_model.work_items_change import Change
from holdfast_model.work_items_create import Defaults, create
from holdfast_model.work_items_lifecycle import apply

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NO_DEADLINES = Defaults(expiry=None, claim=None)
ID = "01jxk2m8q4z7h5c9w3rt"


def after(**span: float) -> datetime:
    return NOW + timedelta(**span)


def request(**fields: Any) -> CreateWorkItem:
    return CreateWorkItem(**{"tenant": "acme", "title": "Look at it", "created_by": "planner"} | fields)


def new(defaults: Defaults = NO_DEADLINES, **fields: Any) -> WorkItem:
    return create(request(**fields), ID, NOW, defaults).item


def person(name: str, *groups: str, operator: bool = False, system: bool = False) -> Actor:
    return Actor(name, frozenset(groups), operator, system)


def do(verb: Verb, item: WorkItem, actor: Actor, now: datetime = NOW, **fields: Any) -> Change:
    command = WorkItemCommand(tenant=item.tenancy_id, id=item.id, actor=actor.name, **fields)
    return apply(verb, item, command, actor, now)


def in_status(status: WorkItemStatus, holder: str = "ann", **fields: Any) -> WorkItem:
    """An item in this status; whoever can act on it is ``holder``."""
    held = {"assignee_id": holder, "assigned_at": NOW}
    changes: dict[WorkItemStatus, dict[str, Any]] = {
        WorkItemStatus.PENDING: {},
        WorkItemStatus.ASSIGNED: held,
        WorkItemStatus.IN_PROGRESS: held | {"started_at": NOW},
        WorkItemStatus.SUSPENDED: held | {"prior_status": WorkItemStatus.IN_PROGRESS, "suspended_at": NOW},
        WorkItemStatus.DELEGATED: held | {"owner": "zoe", "delegation_chain": ("zoe",)},
    }
    return msgspec.structs.replace(new(**fields), status=status, **changes.get(status, {"completed_at": NOW}))
