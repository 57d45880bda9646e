"""Requests on ``rpc.workitems.<verb>``: decode, decide (in the model), commit, answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from holdfast_bus import Bus, subjects
from holdfast_model.errors import Forbidden, HoldfastError, Invalid, NotFound, Problem
from holdfast_model.names import check_label
from holdfast_model.work_items import (
    SYSTEM,
    CreateReply,
    CreateWorkItem,
    Verb,
    WorkItem,
    WorkItemCommand,
)
from holdfast_model.work_items_access import Actor
from holdfast_model.work_items_change import Change
from holdfast_model.work_items_create import Defaults, create
from holdfast_model.work_items_lifecycle import apply, refusal
from holdfast_model.work_items_queries import (
    MAX_BULK,
    AuditPage,
    AuditQuery,
    BulkCommand,
    BulkReply,
    BulkResult,
    ItemPage,
    ListWorkItems,
    Summary,
    WorkItemQuery,
)
from holdfast_store.work_item_queries import WorkItemQueries
from holdfast_store.work_items import WorkItemStore

from .directory import Directory
from .ids import well_formed

CONCURRENCY = 32
MAX_PAGE = 1000


@dataclass(frozen=True)
class Handlers:
    """One method for each verb; each takes a request's body and returns the reply.

    ``changed`` is called after each commit, so that its events are published at once. ``new_id`` makes an item's id
    from the time.
    """

    store: WorkItemStore
    queries: WorkItemQueries
    directory: Directory
    clock: Callable[[], datetime]
    new_id: Callable[[datetime], str]
    changed: Callable[[], None]
    defaults: Defaults
    operators: frozenset[str]
    operator_group: str

    def register(self, bus: Bus) -> None:
        """Answer every verb on this bus; replicas share the requests."""
        verbs: dict[str, Callable[[bytes], Awaitable[object]]] = {
            "create": self.create,
            "get": self.get,
            "find_active": self.find_active,
            "list": self.list,
            "inbox": self.inbox,
            "summary": self.summary,
            "audit": self.audit,
            "bulk": self.bulk,
            "obsolete": self.obsolete,
            **{verb.value: self._handler_of(verb) for verb in Verb if verb is not Verb.OBSOLETE},
        }
        for name, handler in verbs.items():
            bus.rpc(subjects.rpc_workitems(name), queue=bus.service, concurrency=CONCURRENCY)(handler)

    # Changing.

    async def create(self, body: bytes) -> CreateReply:
        request = msgspec.json.decode(body, type=CreateWorkItem)
        check_label(request.tenant, "tenant", "/tenant")
        id = self.new_id(self.clock())
        try:
            reply = await self.store.create(
                request,
                id,
                lambda: create(request, id, self.clock(), self.defaults),
                lambda old: self._supersede(old, request),
            )
        except Forbidden as error:
            await self._refused(request.tenant, "create", "", request.created_by, error)
            raise
        if reply.created:
            self.changed()
        return reply

    async def command(self, verb: Verb, body: bytes) -> WorkItem:
        command = msgspec.json.decode(body, type=WorkItemCommand)
        check_label(command.tenant, "tenant", "/tenant")
        if not command.id:
            raise Invalid("a command needs an item", [Problem("/id", "must name a WorkItem")])
        return await self._carry_out(verb, command)

    async def obsolete(self, body: bytes) -> WorkItem | None:
        command = msgspec.json.decode(body, type=WorkItemCommand)
        check_label(command.tenant, "tenant", "/tenant")
        if command.id:
            return await self._carry_out(Verb.OBSOLETE, command)
        item = await self._named_by_caller(command)
        if item is None or item.status.terminal:
            return item
        return await self._carry_out(Verb.OBSOLETE, msgspec.structs.replace(command, id=item.id))

    async def bulk(self, body: bytes) -> BulkReply:
        bulk = msgspec.json.decode(body, type=BulkCommand)
        check_label(bulk.tenant, "tenant", "/tenant")
        if not 1 <= len(bulk.ids) <= MAX_BULK:
            text = f"between 1 and {MAX_BULK} items at once, not {len(bulk.ids)}"
            raise Invalid(text, [Problem("/ids", text)])
        results = []
        for id in bulk.ids:
            command = WorkItemCommand(tenant=bulk.tenant, id=id, actor=bulk.actor, groups=bulk.groups, note=bulk.note)
            try:
                await self._carry_out(Verb(bulk.verb.value), command)
            except HoldfastError as error:
                results.append(BulkResult(id, False, error.code, error.message))
            else:
                results.append(BulkResult(id, True))
        return BulkReply(tuple(results))

    # Reading.

    async def get(self, body: bytes) -> WorkItem:
        query = msgspec.json.decode(body, type=WorkItemQuery)
        check_label(query.tenant, "tenant", "/tenant")
        if not (query.id or query.request or query.caller_ref):
            raise Invalid("which item?", [Problem("/id", "needs an id, a request or a callerRef")])
        item = None
        if not query.id or well_formed(query.id):
            item = await self.store.find(query.tenant, id=query.id, request=query.request, caller_ref=query.caller_ref)
        if item is None:
            raise _not_found(query.tenant, query.id or query.request or query.caller_ref)
        return item

    async def find_active(self, body: bytes) -> WorkItem | None:
        query = msgspec.json.decode(body, type=WorkItemQuery)
        check_label(query.tenant, "tenant", "/tenant")
        if not query.caller_ref:
            raise Invalid("which callerRef?", [Problem("/callerRef", "must not be empty")])
        return await self.store.find_active(query.tenant, query.caller_ref)

    async def list(self, body: bytes) -> ItemPage:
        return await self.queries.page(_list_query(body))

    async def inbox(self, body: bytes) -> ItemPage:
        query = _list_query(body)
        if not query.actor:
            raise Invalid("whose inbox?", [Problem("/actor", "must say whose")])
        return await self.queries.inbox(query, await self._actor(query.tenant, query.actor, query.groups))

    async def summary(self, body: bytes) -> Summary:
        query = _list_query(body)
        actor = await self._actor(query.tenant, query.actor, query.groups) if query.actor else None
        return await self.queries.summary(query, actor, self.clock())

    async def audit(self, body: bytes) -> AuditPage:
        query = msgspec.json.decode(body, type=AuditQuery)
        check_label(query.tenant, "tenant", "/tenant")
        _check_limit(query.limit)
        if query.id and not well_formed(query.id):
            raise _not_found(query.tenant, query.id)
        return await self.queries.audit(query)

    # Pieces.

    def _handler_of(self, verb: Verb) -> Callable[[bytes], Awaitable[WorkItem]]:
        async def handler(body: bytes) -> WorkItem:
            return await self.command(verb, body)

        handler.__name__ = verb.value  # AsyncAPI shows it
        return handler

    async def _carry_out(self, verb: Verb, command: WorkItemCommand) -> WorkItem:
        if not well_formed(command.id):
            raise _not_found(command.tenant, command.id)
        name = command.actor or (SYSTEM if verb in (Verb.OBSOLETE, Verb.FAULT) else "")
        actor = await self._actor(command.tenant, name, command.groups, command.system)
        try:
            item = await self.store.change(
                command.tenant, command.id, lambda item: apply(verb, item, command, actor, self.clock())
            )
        except Forbidden as error:
            await self._refused(command.tenant, verb.value, command.id, command.actor, error)
            raise
        self.changed()
        return item

    async def _actor(self, tenant: str, name: str, groups: tuple[str, ...], system: bool = False) -> Actor:
        """Callers may vouch for groups, but nobody becomes an operator by their own word."""
        known = await self.directory.groups_of(tenant, name) if name else frozenset[str]()
        operator = name in self.operators or self.operator_group in known
        return Actor(name, known | frozenset(groups), operator, system)

    async def _named_by_caller(self, command: WorkItemCommand) -> WorkItem | None:
        """The item a caller means by request key, by callerRef, or by both, which must agree."""
        if not command.request and not command.caller_ref:
            raise Invalid("which item?", [Problem("/id", "needs an id, a request or a callerRef")])
        if command.request:
            item = await self.store.find(command.tenant, request=command.request)
            if item is None and not await self.store.withdraw(command.tenant, command.request):
                item = await self.store.find(command.tenant, request=command.request)
            agrees = item is not None and command.caller_ref in ("", item.caller_ref)
            return item if agrees else None
        return await self.store.find_active(command.tenant, command.caller_ref)

    def _supersede(self, old: WorkItem, request: CreateWorkItem) -> Change:
        command = WorkItemCommand(
            tenant=old.tenancy_id,
            id=old.id,
            note=f"replaced by request {request.request}" if request.request else "replaced",
        )
        actor = Actor(request.created_by or SYSTEM, system=True)
        return apply(Verb.OBSOLETE, old, command, actor, self.clock())

    async def _refused(self, tenant: str, verb: str, id: str, actor: str, error: HoldfastError) -> None:
        entry = refusal(verb, id, actor, error, self.clock())
        if entry is not None:
            await self.store.refuse(tenant, entry)


def _list_query(body: bytes) -> ListWorkItems:
    query = msgspec.json.decode(body, type=ListWorkItems)
    check_label(query.tenant, "tenant", "/tenant")
    _check_limit(query.limit)
    if query.offset < 0:
        raise Invalid("the offset is negative", [Problem("/offset", "must be 0 or more")])
    return query


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        text = f"a limit is 1 to {MAX_PAGE}, not {limit}"
        raise Invalid(text, [Problem("/limit", text)])


def _not_found(tenant: str, what: str) -> NotFound:
    return NotFound(f"there is no WorkItem {what} in tenant {tenant}", hint="list them: holdfast get workitems")
