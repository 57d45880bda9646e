"""What a user may declare: a dungeon, an expansion, or both in one blueprint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

Id = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Room(BaseModel, extra="forbid"):
    """A room. ``size`` is how many squares it is wide."""

    id: Id
    size: int = Field(default=1, ge=1, le=9)


class Corridor(BaseModel, extra="forbid"):
    """A way between two rooms; without an ``id`` it is called ``<one>--<other>``."""

    id: Id | None = None
    between: tuple[Id, Id]


class Creature(BaseModel, extra="forbid"):
    """Lives in a room. ``tamed_by: human``: a person must agree before it is let in."""

    id: Id
    room: Id
    species: Id = "goblin"
    strength: int = Field(default=1, ge=1, le=20)
    tamed_by: Literal["human"] | None = None


class Trap(BaseModel, extra="forbid"):
    """Is set in a room."""

    id: Id
    room: Id
    effect: Id = "spikes"
    damage: int = Field(default=1, ge=1, le=20)


class Blueprint(BaseModel, extra="forbid"):
    """A dungeon (``rooms``, ``corridors``, ``creatures``, ``traps``) and an expansion at a ``location``."""

    rooms: list[Room] = Field(default_factory=list)
    corridors: list[Corridor] = Field(default_factory=list)
    creatures: list[Creature] = Field(default_factory=list)
    traps: list[Trap] = Field(default_factory=list)
    location: Id | None = None
    structures: list[str] = Field(default_factory=list)
    """``nexus``, ``pylon`` or ``cannon``, built in this order after a probe that is always sent first."""
    posture: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z_]{0,30}$")] | None = None
    """How a garrison defends the expansion once it stands, ``PATROL`` for one; without it there is no garrison."""
