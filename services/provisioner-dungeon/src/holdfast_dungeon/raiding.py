"""Deciding what a raid does. Pure: the same things, kind, target and seed give the same raid."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from holdfast_model.errors import IllegalState, NotFound
from holdfast_model.events import FaultType

from .reasons import DungeonReason
from .specs import CREATURE, FORTIFY, GARRISON
from .things import Thing


class Kind(StrEnum):
    """``destroy`` what is built, with everything in it; ``degrade`` what is whole; ``kill`` a creature."""

    DESTROY = "destroy"
    DEGRADE = "degrade"
    KILL = "kill"


WOUNDS = {CREATURE: DungeonReason.WOUNDED}


class Victim(msgspec.Struct, frozen=True):
    """What happened to one node, and the fault that stands for it."""

    node: str
    type: str
    fate: str
    fault: str


class Raid(msgspec.Struct, frozen=True):
    """A raid that has happened. ``victims[0]`` is the target."""

    id: str
    kind: str
    seed: int
    victims: tuple[Victim, ...]


def choose(things: Mapping[str, Thing], kind: Kind, seed: int) -> str:
    """A target for a raid that names none. Raises IllegalState when there is nothing left for it."""
    fitting = sorted(id for id, thing in things.items() if _fits(thing, kind))
    if not fitting:
        raise IllegalState(f"nothing is left to {kind}")
    return random.Random(seed).choice(fitting)


def plan(id: str, kind: Kind, seed: int, target: str, things: Mapping[str, Thing]) -> Raid:
    """What the raid does to ``target`` and to what stands in it.

    Raises NotFound for a target that is not there, IllegalState for one that cannot suffer this.
    """
    thing = things.get(target)
    if thing is None:
        raise NotFound(f"{target!r} is not there", hint="what stands is told by rpc.domain.dungeon.map")
    if not _fits(thing, kind):
        state = thing.damage or "whole"
        raise IllegalState(f"cannot {kind} the {thing.type} {target!r}, which is {state}")
    if kind is Kind.DEGRADE:
        fate = WOUNDS.get(thing.type, DungeonReason.DAMAGED)
        return Raid(id, kind, seed, (Victim(target, thing.type, fate, FaultType.NODE_DEGRADED),))
    if sheltered(thing, things):
        return Raid(id, kind, seed, (Victim(target, thing.type, DungeonReason.DAMAGED, FaultType.NODE_DEGRADED),))
    lost = [thing, *_inside(target, things)]
    return Raid(id, kind, seed, tuple(Victim(t.id, t.type, _end(t), FaultType.NODE_DESTROYED) for t in lost))


def sheltered(thing: Thing, things: Mapping[str, Thing]) -> bool:
    """Whether a garrison in the posture FORTIFY keeps it from falling: it is only damaged. Not the garrison itself."""
    if thing.type == GARRISON or not thing.location:
        return False
    return any(t.type == GARRISON and t.posture == FORTIFY and t.location == thing.location for t in things.values())


def after(victim: Victim, thing: Thing) -> Thing | None:
    """The thing as the raid leaves it; None when nothing is left."""
    if victim.fault == FaultType.NODE_DESTROYED:
        return None
    return msgspec.structs.replace(thing, damage=victim.fate, wounds=thing.wounds + 1)


def _fits(thing: Thing, kind: Kind) -> bool:
    match kind:
        case Kind.DESTROY:
            return thing.type != CREATURE
        case Kind.DEGRADE:
            return not thing.damage
        case Kind.KILL:
            return thing.type == CREATURE


def _inside(place: str, things: Mapping[str, Thing]) -> Sequence[Thing]:
    return sorted((t for t in things.values() if place in t.places), key=lambda t: t.id)


def _end(thing: Thing) -> str:
    return "killed" if thing.type == CREATURE else "destroyed"
