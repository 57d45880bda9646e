"""The composition root: the only place that constructs clients."""

from __future__ import annotations

import asyncio
import time
import uuid
from importlib.metadata import version

from holdfast_bus import Bus, ServiceApp, attach_mover
from holdfast_model.errors import HoldfastError
from holdfast_model.names import GraphRef
from holdfast_store.domains import Domains
from holdfast_store.graphs import GraphStore
from holdfast_store.leases import Leases
from holdfast_store.redis_kv import RedisKv

from .admission import Admission
from .catalog import Budget, Catalog
from .handlers import Handlers, changer
from .hosting import Tools
from .keeping import Keeper
from .owner_rpc import OwnerRpc
from .owning import Ownership
from .rpc import PlannerRpc
from .settings import PlannerSettings

SERVICE = "planner"


def build_app(settings: PlannerSettings) -> ServiceApp:
    """Everything wired, nothing connected."""
    bus = Bus(settings, SERVICE, version("holdfast-planner"))
    kv = RedisKv(settings.redis_url)
    store = GraphStore(kv)
    domains = Domains(kv, time.time)
    catalog = Catalog(domains, time.time)
    tools = Tools(bus, store, catalog, Budget(catalog), settings, time.time, _new_id)

    def hinted(ref: GraphRef) -> None:
        host = ownership.hosted(ref)
        if host is not None:
            host.hint()
            host.kick_relay()

    changed = changer(bus, lambda ref: ownership.hosted(ref))
    admission = Admission(bus, store, catalog, settings, time.time, _new_id, changed)
    rpc = PlannerRpc(bus, store, domains, catalog, admission, settings, time.time, _new_id, changed)
    instance = uuid.uuid4().hex
    ownership = Ownership(
        Leases(kv, instance, time.time, settings.lease_ttl), tools, OwnerRpc(bus, rpc.owner_verbs()), settings.lease_ttl
    )
    keeper = Keeper(catalog, ownership, admission, settings)

    rpc.register()
    Handlers(bus, store, admission, changed, hinted).register()
    attach_mover(bus)

    async def first_look() -> None:
        """Know the domains before anything is planned; an outage only delays."""
        while True:
            try:
                await catalog.refresh()
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
