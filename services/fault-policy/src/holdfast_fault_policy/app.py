"""The composition root: the only place that constructs clients."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from importlib.metadata import version

from holdfast_bus import Bus, ServiceApp
from holdfast_bus.streams import FAULT_POLICY, FAULT_POLICY_EVENTS
from holdfast_store.domains import Domains
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import KvClient
from holdfast_store.redis_kv import RedisKv

from .catalog import Catalog
from .handlers import Handlers
from .settings import FaultPolicySettings
from .sweeping import Sweep

SERVICE = "fault-policy"


def build_app(settings: FaultPolicySettings) -> ServiceApp:
    """Everything wired, nothing connected."""
    bus = Bus(settings, SERVICE, version("holdfast-fault-policy"))
    kv = RedisKv(settings.redis_url)
    return compose(settings, bus, kv, time.time, lambda: uuid.uuid4().hex, random.Random())


def compose(
    settings: FaultPolicySettings,
    bus: Bus,
    kv: KvClient,
    clock: Callable[[], float],
    new_id: Callable[[], str],
    rng: random.Random,
    monotonic: Callable[[], float] = time.monotonic,
) -> ServiceApp:
    """fault-policy on given clients. ``clock``: seconds since the epoch; ``new_id``: unique texts; ``rng``: jitter;
    ``monotonic``: seconds that never go back.
    """
    store = GraphStore(kv, rng=rng, now=clock)
    catalog = Catalog(Domains(kv, clock), refresh=settings.fault_ladders_refresh, clock=monotonic, now=clock)
    handlers = Handlers(
        store,
        catalog,
        bus,
        now=clock,
        new_id=new_id,
        evaluate_timeout=settings.fault_evaluate_timeout,
    )
    sweep = Sweep(
        store,
        handlers,
        interval=settings.fault_sweep_interval,
        age=settings.fault_sweep_age,
        now=clock,
    )
    bus.consume(FAULT_POLICY, concurrency=settings.fault_concurrency)(handlers.on_fault)
    bus.consume(FAULT_POLICY_EVENTS, concurrency=settings.fault_concurrency)(handlers.on_recovered)
    return bus.app(
        readiness=[kv.ping, sweep.check], on_start=[sweep.start], on_stop=[sweep.stop, store.close, kv.close]
    )
