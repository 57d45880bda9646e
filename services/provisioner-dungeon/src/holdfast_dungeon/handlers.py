"""Requests to the dungeon beside what every domain answers: raids, and the map of what stands."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable

import msgspec

from holdfast_model.names import graph_ref

from .raiding import Kind, Raid
from .things import Thing
from .world import World

Tell = Callable[[str, str, bytes, str], Awaitable[None]]
"""Publishes a ``state`` report: tenant, graph, body, message id. Returns when it is stored."""


class RaidRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``id`` makes a request safe to repeat; ``seed`` chooses a target where none is named."""

    tenant: str
    graph: str
    kind: Kind
    target: str = ""
    seed: int | None = None
    id: str = ""
    actor: str = ""


class MapRequest(msgspec.Struct, frozen=True):
    tenant: str
    graph: str


class Map(msgspec.Struct, frozen=True):
    """What really stands, whatever is desired."""

    things: list[Thing]


class Report(msgspec.Struct, frozen=True):
    """Tells the planner that a node changed outside."""

    node: str
    fault: str
    detail: str


_raid_request = msgspec.json.Decoder(RaidRequest).decode
_map_request = msgspec.json.Decoder(MapRequest).decode


class Handlers:
    """Decode, decide and commit (the world does both at once), publish, answer."""

    def __init__(self, world: World, tell: Tell) -> None:
        self._world = world
        self._tell = tell

    async def raid(self, data: bytes) -> Raid:
        """``rpc.domain.dungeon.raid``. A reply means: it happened, and the planner will hear of it.

        A raid whose reply was lost may be asked for again under its id: the reports are published again, too.
        """
        request = _raid_request(data)
        ref = graph_ref(request.tenant, request.graph)
        id = request.id or uuid.uuid4().hex
        seed = request.seed if request.seed is not None else uuid.uuid4().int & 0x7FFF_FFFF
        raid = await self._world.raid(ref, id, request.kind, seed, request.target)
        for victim in raid.victims:
            report = Report(victim.node, victim.fault, f"{victim.fate} in a raid")
            await self._tell(ref.tenant, ref.graph, msgspec.json.encode(report), f"raid-{ref}-{id}-{victim.node}")
        return raid

    async def map(self, data: bytes) -> Map:
        """``rpc.domain.dungeon.map``."""
        request = _map_request(data)
        things = await self._world.things(graph_ref(request.tenant, request.graph))
        return Map(list(things.values()))
