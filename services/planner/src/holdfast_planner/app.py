"""The composition root: the only place that constructs clients."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from importlib.metadata import version

from holdfast_bus import Bus, ServiceApp, attach_mover
from holdfast_model.errors import HoldfastError
from holdfast_model.names import GraphRef
from holdfast_store.domains import Domains, Preferences
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import KvClient
from holdfast_store.leases import Leases
from holdfast_store.redis_kv import RedisKv

from .admission import Admission
from .catalog import Budget, Catalog
from .effects import Looks
from .handlers import Handlers, changer
from .keeping import Keeper
from .loading import Tools
from .owner_rpc import OwnerRpc
from .owning import Ownership
from .preferences import PreferenceBook, PreferenceRpc
from .rpc import PlannerRpc
from .settings import PlannerSettings

SERVICE = "planner"


def build_app(settings: PlannerSettings) -> ServiceApp:
    """Everything wired, nothing connected."""
    bus = Bus(settings, SERVICE, version("holdfast-planner"))
    app = compose(settings, bus, RedisKv(settings.redis_url), time.time, _new_id, random.Random())
    attach_mover(bus)
    return app


def compose(
    settings: PlannerSettings,
    bus: Bus,
    kv: KvClient,
    clock: Callable[[], float],
    new_id: Callable[[], str],
    rng: random.Random,
) -> ServiceApp:
    """The planner on given clients. ``clock``: seconds since the epoch; ``new_id``: unique texts; ``rng``: jitter."""
    store = GraphStore(kv, rng=rng, now=clock)
    domains = Domains(kv, clock)
    catalog = Catalog(domains, clock)
    stored = Preferences(kv)
    preferences = PreferenceBook(stored)
    tools = Tools(
        bus, store, catalog, Budget(catalog), preferences, Looks(), settings, clock, new_id, asyncio.Semaphore(16)
    )

    def hinted(ref: GraphRef) -> None:
        host = ownership.hosted(ref)
        if host is not None:
            host.hint()
            host.kick_relay()

    changed = changer(bus, lambda ref: ownership.hosted(ref))
    admission = Admission(bus, store, catalog, settings, clock, new_id, changed)
    rpc = PlannerRpc(bus, store, domains, catalog, admission, settings, clock, new_id, changed)
    ownership = Ownership(
        Leases(kv, new_id(), clock, settings.lease_ttl), tools, OwnerRpc(bus, rpc.owner_verbs()), settings.lease_ttl
    )
    keeper = Keeper(catalog, preferences, ownership, admission, settings)

    rpc.register()
    PreferenceRpc(bus, stored, preferences, lambda: catalog.infos).register()
    Handlers(bus, store, admission, changed, hinted).register()

    async def first_look() -> None:
        """Know domains and preferences before anything is planned; an outage only delays."""
        while True:
            try:
                await catalog.refresh()
                await preferences.refresh()
                return
            except HoldfastError:
                await asyncio.sleep(0.5)

    return bus.app(
        readiness=[kv.ping, ownership.check],
        on_start=[first_look, keeper.start, ownership.start],
        on_stop=[keeper.stop, ownership.stop, store.close, kv.close],
    )


def _new_id() -> str:
    return uuid.uuid4().hex
