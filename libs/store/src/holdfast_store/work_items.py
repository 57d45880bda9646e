"""WorkItems in the store: one WATCH/MULTI for each transition.

A transaction writes the item with its lookups, indexes, deadline, history and outbox, and watches the item
and its own ``active`` and ``request`` keys only, so that items of one tenant never contend with each other.
A round that lost reads the item again and decides again on what it is now; nothing is ever replayed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime

from holdfast_model.errors import Conflict, IllegalState, NotFound
from holdfast_model.events import Event
from holdfast_model.work_items import CreateReply, CreateWorkItem, WorkItem
from holdfast_model.work_items_change import Change
from holdfast_model.work_items_queries import AuditEntry

from . import keys
from .kv import Ambiguous, Changed, Cmd, Kv, Watch
from .work_item_rows import audit_cmds, change_cmds, decode_event, decode_item, due_cmd

ROUNDS = 8
_TAIL = 64
"""How many lines of an item's history are searched for an operation whose outcome is unknown."""

_WITHDRAWN = "-"
"""Stands where the id of a request's item would be; no id looks like it."""
_WITHDRAWN_SECONDS = 86_400

Decide = Callable[[WorkItem], Change]


class WorkItemStore:
    """All WorkItems of all tenants. Raises Unavailable when the store is, Conflict after 8 lost rounds.

    ``rng``: for jitter and the ids of operations.
    """

    def __init__(self, kv: Kv, rng: random.Random | None = None) -> None:
        self._kv = kv
        self._rng = rng or random.Random()

    # Looking up.

    async def find(self, tenant: str, *, id: str = "", request: str = "", caller_ref: str = "") -> WorkItem | None:
        """The item of this id, or else request key, or else the newest of this callerRef, in any status."""
        if not id:
            key = keys.wi_request(tenant, request) if request else keys.wi_newest(tenant, caller_ref)
            id = await self._pointer(key)
        if not id:
            return None
        (raw,) = await self._kv.run(("HGET", keys.wi_item(tenant, id), "item"))
        return decode_item(raw, id) if raw is not None else None

    async def find_active(self, tenant: str, caller_ref: str) -> WorkItem | None:
        """The active item of a callerRef."""
        id = await self._pointer(keys.wi_active(tenant, caller_ref))
        item = await self.find(tenant, id=id) if id else None
        return item if item is not None and item.status.active else None

    async def tenants(self) -> list[str]:
        """Tenants that have, or had, items."""
        (found,) = await self._kv.run(("SMEMBERS", keys.WI_TENANTS))
        return sorted(name.decode() for name in found)

    # Changing.

    async def create(
        self, request: CreateWorkItem, id: str, make: Callable[[], Change], supersede: Decide
    ) -> CreateReply:
        """Write a new item under ``id``, unless its request key or its active callerRef is taken.

        ``make`` decides on the new item, ``supersede`` on the active one that it replaces (if the request
        says so); both are written in one transaction.
        """
        tenant, op = request.tenant, self._new_op()
        own_key, pointers = keys.wi_item(tenant, id), dict[str, str]()
        if request.request:
            pointers["request"] = keys.wi_request(tenant, request.request)
        if request.caller_ref:
            pointers["active"] = keys.wi_active(tenant, request.caller_ref)
        # Written first and on its own: it lives in another slot, and a tenant without items does no harm.
        await self._kv.run(("SADD", keys.WI_TENANTS, tenant))
        rival = await self._pointer(pointers["active"]) if "active" in pointers else ""
        for n in range(ROUNDS):
            await self._pause(n)
            watched = [own_key, *pointers.values(), *([keys.wi_item(tenant, rival)] if rival else [])]
            try:
                async with self._kv.watching(*watched) as watch:
                    own, *texts = await watch.read(
                        ("HGET", own_key, "item"), *(("GET", key) for key in pointers.values())
                    )
                    seen = dict(zip(pointers, map(_text, texts), strict=True))
                    if own is not None:  # a reply of ours was lost, the write was not
                        return CreateReply(decode_item(own, id), True)
                    if seen.get("request") == _WITHDRAWN:
                        raise IllegalState(
                            f"request {request.request} was withdrawn before it arrived",
                            hint="ask again under a new request key",
                        )
                    asked = await self._item(watch, tenant, seen.get("request", ""))
                    if asked is not None:
                        return CreateReply(asked, False)
                    if seen.get("active", "") != rival:
                        rival = seen["active"]
                        continue
                    old = await self._item(watch, tenant, rival)
                    cmds: list[Cmd] = []
                    if old is not None and old.status.active:
                        if not request.replace:
                            return CreateReply(old, False)
                        cmds += change_cmds(old, supersede(old), op)
                    change = make()
                    await watch.commit(*cmds, *change_cmds(None, change, op))
                    return CreateReply(change.item, True)
            except (Changed, Ambiguous):
                continue
        raise _lost(f"creating {request.title!r}")

    async def withdraw(self, tenant: str, request: str) -> bool:
        """Refuse a request that has not arrived yet, for a day; False if it has arrived.

        Without this, a request that its sender gave up could make an item that nobody waits for.
        """
        key = keys.wi_request(tenant, request)
        (refused,) = await self._kv.run(("SET", key, _WITHDRAWN, "NX", "EX", _WITHDRAWN_SECONDS))
        return refused is True

    async def change(self, tenant: str, id: str, decide: Decide) -> WorkItem:
        """Let ``decide`` change the item. Raises NotFound, and whatever ``decide`` raises.

        ``decide`` runs again on the newest item when another transaction came between.
        """
        op, key, unsure = self._new_op(), keys.wi_item(tenant, id), False
        for n in range(ROUNDS):
            await self._pause(n)
            try:
                async with self._kv.watching(key) as watch:
                    item, done = await self._read(watch, tenant, id, op if unsure else "")
                    if item is None:
                        raise NotFound(f"there is no WorkItem {id} in tenant {tenant}")
                    if done:
                        return item
                    change = decide(item)
                    if change.empty:
                        return item
                    await watch.commit(*change_cmds(item, change, op))
                    return change.item
            except Changed:
                continue
            except Ambiguous:
                unsure = True
        raise _lost(f"changing WorkItem {id}")

    async def refuse(self, tenant: str, entry: AuditEntry) -> None:
        """Write a refusal into the history, apart from the command that failed."""
        await self._kv.run(*audit_cmds(tenant, entry, ""))

    # Deadlines.

    async def due(self, tenants: Sequence[str], now: datetime, limit: int = 100) -> list[tuple[str, str]]:
        """(tenant, id) of items whose deadline may have passed: at most ``limit`` a tenant, longest overdue first."""
        found = await self._kv.run(
            *(("ZRANGEBYSCORE", keys.wi_due(t), "-inf", now.timestamp(), "LIMIT", 0, limit) for t in tenants)
        )
        return [(t, id.decode()) for t, ids in zip(tenants, found, strict=True) for id in ids]

    async def tick(self, tenant: str, id: str, now: datetime, decide: Decide) -> Change | None:
        """Let the clock act on one item; what it was due for leaves the schedule in the same transaction.

        Returns what happened, None if nothing did. An entry that is wrong (the item is gone, or its
        deadline is another) is put right.
        """
        op, key, unsure = self._new_op(), keys.wi_item(tenant, id), False
        for n in range(ROUNDS):
            await self._pause(n)
            try:
                async with self._kv.watching(key) as watch:
                    item, done = await self._read(watch, tenant, id, op if unsure else "")
                    if done:
                        return None
                    if item is None:
                        await watch.commit(("ZREM", keys.wi_due(tenant), id))
                        return None
                    change = decide(item)
                    if change.empty:
                        await watch.commit(due_cmd(item, now))
                        return None
                    await watch.commit(*change_cmds(item, change, op), due_cmd(change.item, now))
                    return change
            except Changed:
                continue
            except Ambiguous:
                unsure = True
        raise _lost(f"the deadline of WorkItem {id}")

    async def postpone(self, tenant: str, id: str, until: datetime) -> None:
        """Look at an entry later that cannot be handled now; never brings one back that is gone."""
        await self._kv.run(("ZADD", keys.wi_due(tenant), "XX", until.timestamp(), id))

    # Outbox.

    async def outbox(self, tenant: str, limit: int = 256) -> list[tuple[bytes, Event]]:
        """The oldest events that are committed and not yet taken off, with their entry ids."""
        (entries,) = await self._kv.run(("XRANGE", keys.wi_out(tenant), "-", "+", "COUNT", limit))
        return [(id, decode_event(fields[b"e"])) for id, fields in entries]

    async def waiting(self, tenants: Sequence[str]) -> list[str]:
        """Those of ``tenants`` whose outbox is not empty."""
        lengths = await self._kv.run(*(("XLEN", keys.wi_out(t)) for t in tenants))
        return [t for t, length in zip(tenants, lengths, strict=True) if length]

    async def published(self, tenant: str, entries: Sequence[bytes]) -> None:
        """Take events off the outbox that the bus has stored."""
        if entries:
            await self._kv.run(("XDEL", keys.wi_out(tenant), *entries))

    async def take_relay(self, tenant: str, holder: str, seconds: float) -> bool:
        """Ask to be the one that publishes this tenant's outbox.

        A courtesy between replicas that spares subscribers duplicates; nothing depends on it.
        """
        key = keys.wi_relay(tenant)
        took, now = await self._kv.run(("SET", key, holder, "NX", "PX", int(seconds * 1000)), ("GET", key))
        return took is True or _text(now) == holder

    async def leave_relay(self, tenant: str, holder: str) -> None:
        """Let another replica publish at once."""
        key = keys.wi_relay(tenant)
        try:
            async with self._kv.watching(key) as watch:
                (now,) = await watch.read(("GET", key))
                if _text(now) == holder:
                    await watch.commit(("DEL", key))
        except (Changed, Ambiguous):
            return  # it expires by itself

    def _new_op(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    async def _pause(self, n: int) -> None:
        """Full jitter before every round but the first."""
        if n:
            await asyncio.sleep(self._rng.uniform(0, min(0.2, 0.004 * 2**n)))

    async def _pointer(self, key: str) -> str:
        (raw,) = await self._kv.run(("GET", key))
        return _text(raw)

    async def _item(self, watch: Watch, tenant: str, id: str) -> WorkItem | None:
        if not id:
            return None
        (raw,) = await watch.read(("HGET", keys.wi_item(tenant, id), "item"))
        return decode_item(raw, id) if raw is not None else None

    async def _read(self, watch: Watch, tenant: str, id: str, op: str) -> tuple[WorkItem | None, bool]:
        """The item, and whether ``op`` (if not "") is in its history, which tells that it was written."""
        item = await self._item(watch, tenant, id)
        if not op:
            return item, False
        (lines,) = await watch.read(("XREVRANGE", keys.wi_audit(tenant, id), "+", "-", "COUNT", _TAIL))
        return item, any(fields.get(b"o") == op.encode() for _, fields in lines)


def _lost(what: str) -> Conflict:
    return Conflict(f"{what}: lost {ROUNDS} rounds against other writers; nothing was written")


def _text(raw: bytes | None) -> str:
    return raw.decode() if raw is not None else ""
