"""How a WorkItem is laid out in keys: the commands that write one change, and the index entries of an
item."""

from __future__ import annotations

from datetime import datetime

import msgspec

from holdfast_model.errors import Permanent
from holdfast_model.events import Event
from holdfast_model.work_items import WorkItem
from holdfast_model.work_items_breach import next_deadline
from holdfast_model.work_items_change import Change
from holdfast_model.work_items_queries import AuditEntry

from . import keys
from .kv import Cmd

HISTORY = 100_000
"""About how many lines the tenant's common history keeps; an item's own history is never cut."""
OVERDUE_PAUSE = 3600.0
"""Seconds until a deadline is looked at again that could not be carried out."""


def change_cmds(before: WorkItem | None, change: Change, op: str) -> list[Cmd]:
    """Everything one change writes: the item, its lookups, indexes and deadline, its history, its events."""
    item = change.item
    tenant, id = item.tenancy_id, item.id
    cmds: list[Cmd] = []
    if before is None or before.version != item.version:
        cmds.append((
            "HSET", keys.wi_item(tenant, id),
            "item", msgspec.json.encode(item), "version", item.version, "status", item.status.value,
        ))  # fmt: skip
        cmds += _lookup_cmds(before, item)
        cmds += _index_cmds(before, item)
        cmds.append(due_cmd(item))
    cmds += [cmd for entry in change.audit for cmd in audit_cmds(tenant, entry, op)]
    cmds += [("XADD", keys.wi_out(tenant), "*", "e", msgspec.json.encode(event)) for event in change.events]
    return cmds


def audit_cmds(tenant: str, entry: AuditEntry, op: str) -> list[Cmd]:
    """One line of history: in the item's own (if there is an item) and in the tenant's."""
    text = msgspec.json.encode(entry)
    common: Cmd = ("XADD", keys.wi_audit_all(tenant), "MAXLEN", "~", HISTORY, "*", "e", text, "o", op)
    if not entry.item:
        return [common]
    return [("XADD", keys.wi_audit(tenant, entry.item), "*", "e", text, "o", op), common]


def due_cmd(item: WorkItem, now: datetime | None = None) -> Cmd:
    """Puts the item's running deadline into the schedule, or takes the item off it.

    With ``now``, a deadline that has passed by then is looked at again in an hour.
    """
    score = due_score(item)
    if score is None:
        return ("ZREM", keys.wi_due(item.tenancy_id), item.id)
    if now is not None and score <= now.timestamp():
        score = now.timestamp() + OVERDUE_PAUSE
    return ("ZADD", keys.wi_due(item.tenancy_id), score, item.id)


def due_score(item: WorkItem) -> float | None:
    """When the item's running deadline passes, in seconds since the epoch."""
    due = next_deadline(item)
    return due[1].timestamp() if due else None


def decode_item(raw: bytes, id: str) -> WorkItem:
    """A stored item. Raises Permanent if it cannot be read."""
    try:
        return msgspec.json.decode(raw, type=WorkItem)
    except msgspec.DecodeError as error:
        raise Permanent(f"WorkItem {id} cannot be read: {error}") from error


def decode_event(raw: bytes) -> Event:
    """An event of the outbox. Raises Permanent if it cannot be read."""
    try:
        return msgspec.json.decode(raw, type=Event)
    except msgspec.DecodeError as error:
        raise Permanent(f"an event of the outbox cannot be read: {error}") from error


def _lookup_cmds(before: WorkItem | None, item: WorkItem) -> list[Cmd]:
    tenant, cmds = item.tenancy_id, list[Cmd]()
    if before is None:
        if item.request:
            cmds.append(("SET", keys.wi_request(tenant, item.request), item.id))
        if item.caller_ref:
            cmds.append(("SET", keys.wi_newest(tenant, item.caller_ref), item.id))
    if item.caller_ref:
        active = keys.wi_active(tenant, item.caller_ref)
        if item.status.terminal:
            cmds.append(("DEL", active))
        elif before is None:
            cmds.append(("SET", active, item.id))
    return cmds


def _index_cmds(before: WorkItem | None, item: WorkItem) -> list[Cmd]:
    old, new = _memberships(before) if before else set(), _memberships(item)
    created = item.created_at.timestamp()
    return [
        *(("ZREM", key, item.id) for key in sorted(old - new)),
        *(("ZADD", key, created, item.id) for key in sorted(new - old)),
    ]


def _memberships(item: WorkItem) -> set[str]:
    tenant = item.tenancy_id
    found = {
        keys.wi_all(tenant),
        keys.wi_status(tenant, item.status.value),
        keys.wi_graph(tenant, item.subject_graph),
    }
    if item.assignee_id:
        found.add(keys.wi_assignee(tenant, item.assignee_id))
    if item.status.active:
        found |= {keys.wi_user(tenant, user) for user in item.candidate_users}
        found |= {keys.wi_group(tenant, group) for group in item.candidate_groups}
        if not item.candidate_users and not item.candidate_groups:
            found.add(keys.wi_open(tenant))
    return found
