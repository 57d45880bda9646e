"""What each type of node is told to be. A spec names the places its thing stands in."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

ROOM, CORRIDOR, CREATURE, TRAP = "room", "corridor", "creature", "trap"
PROBE, NEXUS, PYLON, CANNON = "probe", "nexus", "pylon", "cannon"
GARRISON, WALL = "garrison", "wall"
STRUCTURES = (NEXUS, PYLON, CANNON)
"""What an expansion may list; the probe is implied."""
PATROL, FORTIFY = "PATROL", "FORTIFY"
"""Postures of a garrison that mean something here: it walks about, or it shelters what stands at its location."""


class RoomSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int = 1

    @property
    def places(self) -> tuple[str, ...]:
        return ()


class CorridorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    between: tuple[str, str]

    @property
    def places(self) -> tuple[str, ...]:
        return self.between


class CreatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    room: str
    species: str = "goblin"
    strength: int = 1

    @property
    def places(self) -> tuple[str, ...]:
        return (self.room,)


class TrapSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    room: str
    effect: str = "spikes"
    damage: int = 1

    @property
    def places(self) -> tuple[str, ...]:
        return (self.room,)


class StructureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    location: str

    @property
    def places(self) -> tuple[str, ...]:
        return ()


class GarrisonSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who defends a location, and how."""

    location: str
    posture: str = PATROL

    @property
    def places(self) -> tuple[str, ...]:
        return ()


Spec = RoomSpec | CorridorSpec | CreatureSpec | TrapSpec | StructureSpec | GarrisonSpec

SPEC_OF_TYPE: Mapping[str, type[Spec]] = {
    ROOM: RoomSpec,
    CORRIDOR: CorridorSpec,
    CREATURE: CreatureSpec,
    TRAP: TrapSpec,
    PROBE: StructureSpec,
    NEXUS: StructureSpec,
    PYLON: StructureSpec,
    CANNON: StructureSpec,
    WALL: StructureSpec,
    GARRISON: GarrisonSpec,
}
