"""From blueprint to nodes. Pure: data in, pieces and problems out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast_model.errors import Problem

from . import specs
from .blueprint import Blueprint, Corridor
from .specs import CorridorSpec, CreatureSpec, GarrisonSpec, RoomSpec, Spec, StructureSpec, TrapSpec

BUILD, DEFEND = "build", "defend"
UNKNOWN_STRUCTURE = "UNKNOWN_STRUCTURE"


class Piece(msgspec.Struct, frozen=True):
    """One node. ``pointer`` is the place in the blueprint's spec that it comes from."""

    id: str
    type: str
    spec: Spec
    depends_on: tuple[str, ...] = ()
    gating: str = "NONE"
    pointer: str = ""


class Phase(msgspec.Struct, frozen=True):
    """A stage of an expansion: its pieces, and when the next one begins (``all_present`` or ``never``)."""

    id: str
    pieces: tuple[Piece, ...]
    complete_when: str


class Compiled(msgspec.Struct, frozen=True):
    """Everything a blueprint stands for, and everything wrong with it. All of ``phases`` have the ``pieces``."""

    pieces: tuple[Piece, ...]
    phases: tuple[Phase, ...] = ()
    problems: tuple[Problem, ...] = ()


def compile_dungeon(blueprint: Blueprint) -> Compiled:
    """The nodes of a blueprint; nothing of it may be used when there are problems."""
    problems: list[Problem] = []
    phases: tuple[Phase, ...] = ()
    pieces = [
        *(
            Piece(room.id, specs.ROOM, RoomSpec(room.size), pointer=f"/rooms/{i}")
            for i, room in enumerate(blueprint.rooms)
        ),
        *_inhabitants(blueprint, problems),
    ]
    if blueprint.location is not None:
        phases, unknown = expand(blueprint.location, blueprint.structures, blueprint.posture or "")
        problems += unknown
    elif blueprint.structures or blueprint.posture is not None:
        pointer = "/structures" if blueprint.structures else "/posture"
        problems.append(Problem(pointer, "an expansion needs a 'location'"))
    return Compiled(tuple(pieces), phases, tuple(problems))


def expand(
    location: str, structures: Sequence[str], posture: str = ""
) -> tuple[tuple[Phase, ...], tuple[Problem, ...]]:
    """The phases of an expansion: a probe and the structures, each after the one before; then its defence, which lasts:
    the same chain, and a garrison in this ``posture`` ("" = none) as soon as the last of it stands.

    ``problems`` name structures that are none, with the code :data:`UNKNOWN_STRUCTURE` in front.
    """
    chain = [Piece(f"{specs.PROBE}-{location}", specs.PROBE, StructureSpec(location), pointer="/location")]
    problems = []
    for i, structure in enumerate(structures):
        pointer = f"/structures/{i}"
        if structure not in specs.STRUCTURES:
            known = ", ".join(specs.STRUCTURES)
            problems.append(Problem(pointer, f"{UNKNOWN_STRUCTURE}: {structure!r} is none of {known}"))
            continue
        before = (chain[-1].id,)
        chain.append(Piece(f"{structure}-{location}", structure, StructureSpec(location), before, pointer=pointer))
    garrison = garrison_of(location, posture, chain[-1].id)
    defence = (*chain, *garrison)
    return (Phase(BUILD, tuple(chain), "all_present"), Phase(DEFEND, defence, "never")), tuple(problems)


def garrison_of(location: str, posture: str, last: str) -> tuple[Piece, ...]:
    """Who defends a location, behind the last structure there; nobody without a posture."""
    if not posture:
        return ()
    spec = GarrisonSpec(location, posture)
    return (Piece(f"{specs.GARRISON}-{location}", specs.GARRISON, spec, (last,), pointer="/posture"),)


def _inhabitants(blueprint: Blueprint, problems: list[Problem]) -> list[Piece]:
    """What needs rooms to stand in."""
    rooms = {room.id for room in blueprint.rooms}

    def known(room: str, pointer: str) -> str:
        if room not in rooms:
            problems.append(Problem(pointer, f"there is no room {room!r}"))
        return room

    pieces = []
    for i, way in enumerate(blueprint.corridors):
        at = f"/corridors/{i}"
        ends = (known(way.between[0], f"{at}/between/0"), known(way.between[1], f"{at}/between/1"))
        if ends[0] == ends[1]:
            problems.append(Problem(f"{at}/between", "a corridor connects two different rooms"))
        pieces.append(Piece(corridor_id(way), specs.CORRIDOR, CorridorSpec(ends), ends, pointer=at))
    for i, creature in enumerate(blueprint.creatures):
        at = f"/creatures/{i}"
        room = known(creature.room, f"{at}/room")
        # Only letting it in needs a person; a dungeon that is given up must not wait for one.
        gating = "PROVISION_ONLY" if creature.tamed_by == "human" else "NONE"
        kind = CreatureSpec(room, creature.species, creature.strength)
        pieces.append(Piece(creature.id, specs.CREATURE, kind, (room,), gating, at))
    for i, trap in enumerate(blueprint.traps):
        at = f"/traps/{i}"
        room = known(trap.room, f"{at}/room")
        pieces.append(Piece(trap.id, specs.TRAP, TrapSpec(room, trap.effect, trap.damage), (room,), pointer=at))
    return pieces


def corridor_id(way: Corridor) -> str:
    """The id of a corridor's node."""
    return way.id or f"{way.between[0]}--{way.between[1]}"
