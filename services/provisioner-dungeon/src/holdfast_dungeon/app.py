"""The composition root: the only place that makes clients of the dungeon service."""

from __future__ import annotations

from holdfast_bus import subjects
from holdfast_bus.bus import Bus
from holdfast_bus.service import ServiceApp
from holdfast_bus.streams import STATE
from holdfast_sdk.runtime import DomainService
from holdfast_store.redis_kv import RedisKv

from .domain import NAME, VERSION, Builder, make_domain
from .handlers import Handlers
from .settings import Settings
from .world import World


def build_app(settings: Settings) -> ServiceApp:
    """The service, ready to run."""
    kv = RedisKv(settings.world_url)
    world = World(kv)
    bus = Bus(settings, NAME, VERSION)
    domain = make_domain(
        settings.dungeon_resync, settings.dungeon_pace, settings.dungeon_alarm, settings.dungeon_leftovers
    )
    domain.on_shutdown(kv.close)
    service = DomainService(domain, (Builder(world, settings.dungeon_pace),), bus, settings)

    async def tell(tenant: str, graph: str, body: bytes, msg_id: str) -> None:
        await bus.publish(subjects.state(tenant, graph), body, stream=STATE.name, msg_id=msg_id)

    handlers = Handlers(world, tell)
    bus.rpc(subjects.rpc_domain(NAME, "raid"), queue=NAME)(handlers.raid)
    bus.rpc(subjects.rpc_domain(NAME, "map"), queue=NAME)(handlers.map)
    return bus.app(readiness=[service.announced, kv.ping], on_start=[service.start], on_stop=[service.stop])
