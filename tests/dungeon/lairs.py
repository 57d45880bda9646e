"""Blueprints and worlds that several tests of the dungeon share."""

from __future__ import annotations

from typing import Any

from holdfast_dungeon.world import World
from holdfast_model.names import GraphRef
from holdfast_store.memory_kv import MemoryKv, MemoryServer

REF = GraphRef("default", "main")

LAIR: dict[str, Any] = {
    "rooms": [{"id": "hall", "size": 2}, {"id": "crypt"}],
    "corridors": [{"between": ["hall", "crypt"]}],
    "creatures": [{"id": "grub", "room": "hall"}, {"id": "dragon", "room": "crypt", "tamed_by": "human"}],
    "traps": [{"id": "spikes", "room": "hall"}],
}
TAME: dict[str, Any] = {**LAIR, "creatures": LAIR["creatures"][:1]}


def memory_world() -> World:
    """A world on the in-memory twin of the store."""
    return World(MemoryKv(MemoryServer(lambda: 0.0)))
