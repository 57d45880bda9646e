"""The composition root: the only place that constructs clients."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

from holdfast_bus import Bus, ServiceApp
from holdfast_model.work_items_create import Defaults
from holdfast_store.kv import KvClient
from holdfast_store.redis_kv import RedisKv
from holdfast_store.work_item_queries import WorkItemQueries
from holdfast_store.work_items import WorkItemStore

from .directory import Directory, EmptyDirectory, FileDirectory
from .handlers import Handlers
from .ids import new_id
from .looping import Loop
from .relay import Relay
from .settings import WorkItemsSettings
from .sweeper import Sweeper

SERVICE = "work-items"


def build_app(settings: WorkItemsSettings) -> ServiceApp:
    """Everything wired, nothing connected."""
    bus = Bus(settings, SERVICE, version("holdfast-work-items"))
    kv = RedisKv(settings.redis_url)
    return compose(settings, bus, kv, _now, new_id, uuid.uuid4().hex, random.Random())


def compose(
    settings: WorkItemsSettings,
    bus: Bus,
    kv: KvClient,
    clock: Callable[[], datetime],
    new_id: Callable[[datetime], str],
    instance: str,
    rng: random.Random,
) -> ServiceApp:
    """work-items on given clients. ``new_id`` makes the id of an item; ``instance`` is unique to this process."""
    store = WorkItemStore(kv, rng)
    relay = Loop("the relay of events", Relay(store, bus.publish_events, instance).turn, settings.relay_interval)
    sweeper = Loop("the sweep of deadlines", Sweeper(store, clock, relay.wake).turn, settings.sweep_interval)

    on_start = [relay.start, sweeper.start]
    directory: Directory = EmptyDirectory()
    if settings.directory_file:
        file = FileDirectory(settings.directory_file, time.monotonic)
        on_start.insert(0, file.load)
        directory = file

    Handlers(
        store=store,
        queries=WorkItemQueries(kv),
        directory=directory,
        clock=clock,
        new_id=new_id,
        changed=relay.wake,
        defaults=Defaults(expiry=settings.work_item_expiry or None, claim=settings.work_item_claim or None),
        operators=frozenset(name.strip() for name in settings.operators.split(",") if name.strip()),
        operator_group=settings.operator_group,
    ).register(bus)
    return bus.app(
        readiness=[kv.ping, relay.check, sweeper.check],
        on_start=on_start,
        on_stop=[sweeper.stop, relay.stop, kv.close],
    )


def _now() -> datetime:
    return datetime.now(UTC)
