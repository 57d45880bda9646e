"""Creating and changing items in a store as the service does, with virtual time."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

from holdfast_model.work_items import CreateReply, CreateWorkItem, Verb, WorkItem, WorkItemCommand
from holdfast_model.work_items_access import Actor
from holdfast_model.work_items_change import Change
from holdfast_model.work_items_create import Defaults, create
from holdfast_model.work_items_deadlines import breach
from holdfast_model.work_items_lifecycle import apply
from holdfast_store.work_items import WorkItemStore

from .building import NO_DEADLINES, NOW, person, request

_numbers = itertools.count(1)


def fresh_id() -> str:
    return f"item{next(_numbers):08d}"


async def make(
    store: WorkItemStore, now: datetime = NOW, defaults: Defaults = NO_DEADLINES, **fields: Any
) -> CreateReply:
    wanted: CreateWorkItem = request(**fields)
    id = fresh_id()

    def supersede(old: WorkItem) -> Change:
        command = WorkItemCommand(tenant=old.tenancy_id, id=old.id, note="replaced")
        return apply(Verb.OBSOLETE, old, command, Actor("planner", system=True), now)

    return await store.create(wanted, id, lambda: create(wanted, id, now, defaults), supersede)


async def act(
    store: WorkItemStore, verb: Verb, item: WorkItem, actor: Actor | str, now: datetime = NOW, **fields: Any
) -> WorkItem:
    who = person(actor) if isinstance(actor, str) else actor
    command = WorkItemCommand(tenant=item.tenancy_id, id=item.id, actor=who.name, **fields)
    return await store.change(item.tenancy_id, item.id, lambda i: apply(verb, i, command, who, now))


async def tick(store: WorkItemStore, item: WorkItem, now: datetime) -> Change | None:
    return await store.tick(item.tenancy_id, item.id, now, lambda i: breach(i, now))


async def names(store: WorkItemStore, tenant: str = "acme") -> list[str]:
    return [event.name for _, event in await store.outbox(tenant, 1000)]


async def due(store: WorkItemStore, now: datetime, tenant: str = "acme") -> list[str]:
    return [id for _, id in await store.due([tenant], now)]
