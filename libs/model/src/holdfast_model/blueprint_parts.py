"""What a blueprint may say besides its nodes: parts and how they compose, a target, renames, ladders, a mode.

The checks here need nothing but the document; every problem has its JSON pointer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec
from msgspec import Raw

from .errors import Invalid, Problem
from .ladders import ladder_problems
from .manifest import Ladder
from .messages import NodeDeclaration
from .names import check_label, check_node_id
from .phases import CompleteWhen

MAX_NODES = 1_000_000
MAX_PARTS = 100
MAX_LADDERS = 100
MAX_PHASES = 100
MAX_PATTERNS = 1_000
MAX_MOVES = 100_000


class Compose(StrEnum):
    """How parts become one graph. ``connect``: every leaf of a part depends on every root of the next one."""

    OVERLAY = "overlay"
    CONNECT = "connect"


COMPOSITIONS = frozenset(c.value for c in Compose)


class Mode(StrEnum):
    """Whether the nodes of a blueprint are made so, or only looked at."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


MODES = frozenset(m.value for m in Mode)


class RawNode(NodeDeclaration, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node as people write it: a misspelt key is an error."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source of nodes: a domain's blueprint or a raw graph."""

    domain: str = ""
    spec: Raw = Raw(b"")
    nodes: list[RawNode] | None = None


class PhasePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One phase: its ``graph`` (or ``domain`` and ``spec``), when it is complete, and how long it may last."""

    id: str
    graph: Part | None = None
    domain: str = ""
    spec: Raw = Raw(b"")
    complete_when: str = CompleteWhen.ALL_PRESENT.value
    deadline: str | float | None = None

    def source(self, place: str) -> tuple[str, Part]:
        """Where its nodes come from, with the place of that in the document."""
        return (f"{place}/graph", self.graph) if self.graph is not None else (place, Part(self.domain, self.spec))


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from", "target": "to"}):
    """A rename: what was called ``from`` is called ``to``, and stays what it is."""

    source: str
    target: str


def part_problems(part: Part, place: str) -> list[Problem]:
    """What is wrong with a part that stands at ``place``."""
    if (part.nodes is None) == (not part.domain):
        return [Problem(place, "give either 'domain' with 'spec', or 'nodes'")]
    if part.nodes is not None:
        if bytes(part.spec):
            return [Problem(f"{place}/spec", "a raw graph has no 'spec'")]
        if len(part.nodes) > MAX_NODES:
            return [Problem(f"{place}/nodes", f"{len(part.nodes)} nodes; at most {MAX_NODES}")]
        return []
    problems = _refused(check_label, part.domain, "domain", f"{place}/domain")
    if not bytes(part.spec):
        problems.append(Problem(f"{place}/spec", "a domain's blueprint needs a 'spec'"))
    return problems


def parts_problems(parts: Sequence[Part], compose: str) -> list[Problem]:
    """What is wrong with a list of parts."""
    problems: list[Problem] = []
    if compose not in COMPOSITIONS:
        problems.append(Problem("/compose", f"{compose!r} is not one of {', '.join(sorted(COMPOSITIONS))}"))
    if not 1 <= len(parts) <= MAX_PARTS:
        problems.append(Problem("/parts", f"{len(parts)} parts; 1 to {MAX_PARTS}"))
    for i, part in enumerate(parts):
        problems += part_problems(part, f"/parts/{i}")
    if (total := sum(len(part.nodes or ()) for part in parts)) > MAX_NODES:
        problems.append(Problem("/parts", f"{total} nodes; at most {MAX_NODES}"))
    return problems


def phases_problems(phases: Sequence[PhasePart]) -> list[Problem]:
    """What is wrong with a list of phases."""
    problems: list[Problem] = []
    if not 1 <= len(phases) <= MAX_PHASES:
        problems.append(Problem("/phases", f"{len(phases)} phases; 1 to {MAX_PHASES}"))
    for i, phase in enumerate(phases):
        place = f"/phases/{i}"
        if phase.graph is not None and (phase.domain or bytes(phase.spec)):
            problems.append(Problem(place, "give either 'graph', or 'domain' with 'spec'"))
        at, part = phase.source(place)
        problems += part_problems(part, at)
        if not phase.id:
            problems.append(Problem(f"{place}/id", "a phase needs an id"))
    if (total := sum(len(p.source("")[1].nodes or ()) for p in phases)) > MAX_NODES:
        problems.append(Problem("/phases", f"{total} nodes; at most {MAX_NODES}"))
    return problems


def pattern_problems(patterns: Sequence[str], place: str) -> list[Problem]:
    """What is wrong with a list of ids, globs and ``type:<type>``."""
    if len(patterns) > MAX_PATTERNS:
        return [Problem(place, f"{len(patterns)} patterns; at most {MAX_PATTERNS}")]
    return [Problem(f"{place}/{i}", "an empty pattern") for i, pattern in enumerate(patterns) if not pattern]


def moves_problems(moves: Sequence[Move]) -> list[Problem]:
    """What is wrong with a list of renames: every name stands in it once, so that their order says nothing."""
    if len(moves) > MAX_MOVES:
        return [Problem("/moved", f"{len(moves)} renames; at most {MAX_MOVES}")]
    problems: list[Problem] = []
    sources: dict[str, int] = {}
    targets: dict[str, int] = {}
    for i, move in enumerate(moves):
        place = f"/moved/{i}"
        problems += _refused(check_node_id, move.source, f"{place}/from")
        problems += _refused(check_node_id, move.target, f"{place}/to")
        if move.source == move.target:
            problems.append(Problem(place, f"{move.source!r} is moved to itself"))
        if sources.setdefault(move.source, i) != i:
            problems.append(Problem(f"{place}/from", f"{move.source!r} is moved twice"))
        if targets.setdefault(move.target, i) != i:
            problems.append(Problem(f"{place}/to", f"two nodes are moved to {move.target!r}"))
    return problems or _chained(moves, sources)


def _chained(moves: Sequence[Move], sources: dict[str, int]) -> list[Problem]:
    """Renames that hang together: a cycle, or a chain, which is to be said in one rename."""
    problems: list[Problem] = []
    for i, move in enumerate(moves):
        if move.target not in sources:
            continue
        way = [move.source, move.target]
        while way[-1] in sources and way[-1] != way[0] and len(way) <= len(moves):
            way.append(moves[sources[way[-1]]].target)
        kind = "a cycle" if way[-1] == way[0] else "a chain"
        hint = "give one of them another name first" if kind == "a cycle" else f"write {way[0]!r} -> {way[-1]!r}"
        problems.append(Problem(f"/moved/{i}/to", f"renames form {kind}: {' -> '.join(way)}; {hint}"))
    return problems


def policy_problems(ladders: Sequence[Ladder]) -> list[Problem]:
    """What is wrong with the ladders of a blueprint."""
    if len(ladders) > MAX_LADDERS:
        return [Problem("/ladders", f"{len(ladders)} ladders; at most {MAX_LADDERS}")]
    return ladder_problems(ladders, "/ladders") if ladders else []


def _refused(check: Callable[..., str], *arguments: str) -> list[Problem]:
    """The problems for which a check of names refuses a name."""
    try:
        check(*arguments)
    except Invalid as error:
        return list(error.problems)
    return []
