"""Reason codes of the dungeon domain; those of Holdfast and of the SDK come on top."""

from __future__ import annotations

from enum import StrEnum


class DungeonReason(StrEnum):
    """Why a thing is not as declared, or could not be built."""

    DAMAGED = "damaged"
    """NODE_DEGRADED: a raid damaged it; it is mended."""
    WOUNDED = "wounded"
    """NODE_DEGRADED: a raid wounded a creature; it is healed."""
    NO_ROOM = "no_room"
    """PROVISION_FAILED: the room where it belongs is not there (any more)."""
