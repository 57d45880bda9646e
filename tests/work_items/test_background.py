"""The relay, the sweeper and the loop they run in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest

from holdfast_model.errors import Permanent, Temporary, Unavailable
from holdfast_model.events import Event
from holdfast_model.work_items import Verb, WorkItemStatus
from holdfast_model.work_items_create import Defaults
from holdfast_store.work_items import WorkItemStore
from holdfast_testkit.waiting import eventually
from holdfast_work_items.looping import Loop
from holdfast_work_items.relay import Relay
from holdfast_work_items.sweeper import Sweeper

from .building import after
from .conftest import Client
from .storing import act, due, make, names

HOUR = Defaults(expiry=3600, claim=None)


class Bus:
    """Collects what is published; ``broken`` is raised instead while it is set."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.broken: Exception | None = None

    async def __call__(self, events: Sequence[Event]) -> None:
        if self.broken is not None:
            raise self.broken
        self.events.extend(events)


async def test_events_of_all_tenants_are_published_in_order(store: WorkItemStore) -> None:
    for tenant in ("acme", "evil"):
        item = (await make(store, tenant=tenant)).item
        await act(store, Verb.COMPLETE, item, "ann")
    bus = Bus()

    await Relay(store, bus, "one").turn()

    for tenant in ("acme", "evil"):
        assert [e.name for e in bus.events if e.tenant == tenant] == ["created", "assigned", "started", "completed"]
    assert await store.waiting(["acme", "evil"]) == []


async def test_events_wait_while_the_bus_is_down(store: WorkItemStore) -> None:
    await make(store)
    bus = Bus()
    bus.broken = Unavailable("no bus")
    relay = Relay(store, bus, "one")
    with pytest.raises(Unavailable):
        await relay.turn()
    assert await names(store) == ["created"]

    bus.broken = None
    await relay.turn()
    assert [e.name for e in bus.events] == ["created"]


async def test_a_stuck_outbox_stops_no_other_tenant(store: WorkItemStore) -> None:
    await make(store, tenant="acme")
    await make(store, tenant="evil")
    published: list[str] = []

    async def publish(events: Sequence[Event]) -> None:
        if events[0].tenant == "acme":
            raise Permanent("too large")
        published.extend(e.tenant for e in events)

    await Relay(store, publish, "one").turn()

    assert published == ["evil"]
    assert await names(store, "acme") == ["created"]


async def test_racing_replicas_publish_each_event_once(client: Client) -> None:
    stores = [WorkItemStore(client()) for _ in range(3)]
    bus = Bus()
    for _ in range(20):
        await make(stores[0])

    await asyncio.gather(*(Relay(s, bus, str(n)).turn() for n, s in enumerate(stores)))

    assert len(bus.events) == len({e.id for e in bus.events}) == 20


def sweeper(store: WorkItemStore, now: datetime, woken: list[int] | None = None) -> Sweeper:
    return Sweeper(store, lambda: now, lambda: (woken if woken is not None else []).append(1))


async def test_everything_due_is_carried_out_whatever_the_batch(store: WorkItemStore) -> None:
    items = [(await make(store, tenant=t, defaults=HOUR)).item for t in ("acme", "evil") for _ in range(120)]
    woken: list[int] = []

    await sweeper(store, after(minutes=59), woken).turn()
    assert woken == []
    await sweeper(store, after(hours=1), woken).turn()

    assert len(woken) == 240
    for item in items:
        found = await store.find(item.tenancy_id, id=item.id)
        assert found is not None
        assert found.status is WorkItemStatus.EXPIRED


async def test_an_unreadable_item_stops_no_other_deadline(client: Client) -> None:
    kv = client()
    store = WorkItemStore(kv)
    bad = (await make(store, defaults=HOUR)).item
    good = (await make(store, defaults=HOUR)).item
    await kv.run(("HSET", f"hf:wi:{{acme}}:{bad.id}", "item", "{"))

    await sweeper(store, after(hours=1)).turn()

    found = await store.find("acme", id=good.id)
    assert found is not None
    assert found.status is WorkItemStatus.EXPIRED
    assert await due(store, after(hours=1)) == []
    assert await due(store, after(hours=2)) == [bad.id]


async def test_a_loop_outlives_its_turns_failures_and_says_so() -> None:
    turns: list[int] = []

    async def turn() -> None:
        turns.append(1)
        if len(turns) in (1, 2):
            raise Unavailable("down") if len(turns) == 1 else KeyError("bug")

    loop = Loop("a loop", turn, interval=60)
    await loop.start()
    try:
        await eventually(lambda: len(turns) == 2)
        with pytest.raises(Temporary, match="2 times"):
            await loop.check()
        await eventually(lambda: len(turns) == 3)
        loop.wake()
        await eventually(lambda: len(turns) == 4)
        await loop.check()
    finally:
        await loop.stop()
