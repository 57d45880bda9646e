"""Reading many WorkItems: lists, a person's inbox, counts, and the history.

The narrowest index gives the ids, the other filters run over the items. Names are matched whole, never in parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from holdfast_model.errors import Permanent
from holdfast_model.work_items import ACTIVE, NO_GRAPH, WorkItem, WorkItemStatus
from holdfast_model.work_items_access import Actor, candidate
from holdfast_model.work_items_breach import next_deadline
from holdfast_model.work_items_queries import AuditEntry, AuditPage, AuditQuery, ItemPage, ListWorkItems, Summary

from . import keys
from .kv import Cmd, Kv
from .work_item_rows import decode_item

SCAN = 10_000
"""Most entries of one index that a query looks at, the newest first."""
_CHUNK = 500


class WorkItemQueries:
    """Read side of the WorkItems. Raises Unavailable when the store is."""

    def __init__(self, kv: Kv) -> None:
        self._kv = kv

    async def page(self, query: ListWorkItems) -> ItemPage:
        """Items of the tenant: active ones by priority and deadline, then ended ones, the newest first."""
        ids = await self._members(await self._narrowest(query))
        return _page(await self._items(query.tenant, ids), query)

    async def inbox(self, query: ListWorkItems, actor: Actor) -> ItemPage:
        """What is assigned to the actor, and active items that are offered to them. Active ones unless asked."""
        items = await self._inbox(query, actor)
        if not query.status:
            items = [item for item in items if item.status.active]
        return _page(items, query)

    async def summary(self, query: ListWorkItems, actor: Actor | None, now: datetime) -> Summary:
        """Counts over the tenant, or over the actor's inbox."""
        if actor is not None:
            return _summary((await self.inbox(msgspec.structs.replace(query, limit=SCAN), actor)).items, now)
        tenant = query.tenant
        counts = await self._kv.run(*(("ZCARD", keys.wi_status(tenant, s.value)) for s in WorkItemStatus))
        by_status = {s.value: n for s, n in zip(WorkItemStatus, counts, strict=True) if n}
        ids = await self._members([keys.wi_status(tenant, s.value) for s in sorted(ACTIVE)])
        open_items = _summary(await self._items(tenant, ids), now)
        return msgspec.structs.replace(open_items, total=sum(counts), by_status=by_status)

    async def audit(self, query: AuditQuery) -> AuditPage:
        """Lines of history that match, oldest first; ``next`` continues after the last line looked at."""
        key = keys.wi_audit(query.tenant, query.id) if query.id else keys.wi_audit_all(query.tenant)
        found: list[AuditEntry] = []
        position = query.after
        while len(found) < query.limit:
            (lines,) = await self._kv.run(("XRANGE", key, f"({position}" if position else "-", "+", "COUNT", _CHUNK))
            for line, fields in lines:
                position = line.decode()
                entry = _decode_entry(fields[b"e"])
                if _wanted(entry, query):
                    found.append(entry)
                    if len(found) == query.limit:
                        return AuditPage(entries=tuple(found), next=position)
            if len(lines) < _CHUNK:
                break
        return AuditPage(entries=tuple(found))

    async def _inbox(self, query: ListWorkItems, actor: Actor) -> list[WorkItem]:
        tenant = query.tenant
        indexes = [
            keys.wi_assignee(tenant, actor.name),
            keys.wi_user(tenant, actor.name),
            keys.wi_open(tenant),
            *(keys.wi_group(tenant, group) for group in sorted(actor.groups)),
        ]
        items = await self._items(tenant, await self._members(indexes))
        return [i for i in items if i.assignee_id == actor.name or (i.status.active and candidate(i, actor))]

    async def _narrowest(self, query: ListWorkItems) -> Sequence[str]:
        tenant = query.tenant
        options: list[list[str]] = [[keys.wi_all(tenant)]]
        if query.status:
            options.append([keys.wi_status(tenant, s.value) for s in dict.fromkeys(query.status)])
        if query.assignee_id:
            options.append([keys.wi_assignee(tenant, query.assignee_id)])
        if query.graph is not None:
            options.append([keys.wi_graph(tenant, query.graph or NO_GRAPH)])
        sizes = await self._kv.run(*(("ZCARD", key) for option in options for key in option))
        remaining = iter(sizes)
        totals = [sum(next(remaining) for _ in option) for option in options]
        return options[totals.index(min(totals))]

    async def _members(self, indexes: Sequence[str]) -> list[str]:
        found = await self._kv.run(*(("ZRANGE", key, -SCAN, -1) for key in indexes))
        return list(dict.fromkeys(id.decode() for members in found for id in members))

    async def _items(self, tenant: str, ids: Sequence[str]) -> list[WorkItem]:
        items: list[WorkItem] = []
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            cmds: list[Cmd] = [("HGET", keys.wi_item(tenant, id), "item") for id in chunk]
            for id, raw in zip(chunk, await self._kv.run(*cmds), strict=True):
                if raw is not None:
                    items.append(decode_item(raw, id))
        return items


def _page(items: Iterable[WorkItem], query: ListWorkItems) -> ItemPage:
    found = sorted((item for item in items if _matches(item, query)), key=_order)
    return ItemPage(items=tuple(found[query.offset : query.offset + query.limit]), total=len(found))


def _matches(item: WorkItem, query: ListWorkItems) -> bool:
    return (
        (not query.status or item.status in query.status)
        and (query.graph is None or item.graph == query.graph)
        and (not query.assignee_id or item.assignee_id == query.assignee_id)
        and (not query.caller_ref or item.caller_ref == query.caller_ref)
        and (query.priority is None or item.priority is query.priority)
        and (not query.outcome or item.outcome == query.outcome)
        and (not query.types or any(_below(t, wanted) for t in item.types for wanted in query.types))
    )


def _below(type: str, wanted: str) -> bool:
    return type == wanted or type.startswith(wanted.rstrip("/") + "/")


def _order(item: WorkItem) -> tuple[object, ...]:
    if item.status.terminal:
        return 1, -item.updated_at.timestamp(), 0.0, item.id
    due = next_deadline(item)
    when = due[1].timestamp() if due else float("inf")
    return 0, item.priority.rank, when, item.created_at.timestamp(), item.id


def _summary(items: Iterable[WorkItem], now: datetime) -> Summary:
    items = list(items)
    active = [item for item in items if item.status.active]
    dues = [due for due in map(next_deadline, active) if due is not None]
    return Summary(
        total=len(items),
        active=len(active),
        overdue=sum(1 for _, at in dues if at <= now),
        by_status=dict(Counter(item.status.value for item in items)),
        by_priority=dict(Counter(item.priority.value for item in active)),
    )


def _wanted(entry: AuditEntry, query: AuditQuery) -> bool:
    return (
        (not query.actor or entry.actor == query.actor)
        and (not query.event or entry.event == query.event)
        and (query.since is None or entry.time >= query.since)
        and (query.until is None or entry.time <= query.until)
    )


def _decode_entry(raw: bytes) -> AuditEntry:
    try:
        return msgspec.json.decode(raw, type=AuditEntry)
    except msgspec.DecodeError as error:
        raise Permanent(f"a line of history cannot be read: {error}") from error
