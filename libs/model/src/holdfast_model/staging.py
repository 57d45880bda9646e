"""A blueprint in phases as it is kept, and how the desired graph enters a phase. Pure.

Nodes of a phase that is not in force are kept beside the graph, as declarations; what every phase has (``common``) is
kept once, and no phase waits for it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from .blueprint import declarations
from .desired import LAST_WRITER, Change, DesiredGraph
from .durations import parse_duration
from .errors import Invalid, Problem
from .merged import review_target
from .messages import CompiledPhase, CompileReply
from .mutations import RemoveNode
from .names import BUILT_IN_TYPES
from .phases import CompleteWhen, Standing, Term
from .rows import POLICY_OWNER, Declaration

Declared = Sequence[tuple[str, Declaration]]

MAX_PHASES = 100

_decode = msgspec.json.Decoder(list[tuple[str, Declaration]]).decode
_encode = msgspec.json.Encoder().encode


class Deadline(msgspec.Struct, frozen=True):
    """Seconds from a start, or a time; at most one of them."""

    after: float | None = None
    at: float | None = None


NO_DEADLINE = Deadline()
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Well before the end of what calendars can say in any time zone."""


def parse_deadline(value: object, path: str) -> Deadline:
    """A deadline as people write it: a duration (``10m``, ``PT10M``) or an instant (RFC 3339). Raises Invalid."""
    if value is None:
        return NO_DEADLINE
    if isinstance(value, str) and "T" in value[1:] and value[:1].isdigit():
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            when = datetime.min
        if when.tzinfo is None:
            text = f"{value!r} is not an instant with its offset from UTC; write it like 2026-01-31T12:00:00Z"
            raise Invalid(text, [Problem(path, text)])
        if when > _LATEST:
            text = f"{value!r} is too far away for a deadline; at the latest {_LATEST.isoformat()}"
            raise Invalid(text, [Problem(path, text)])
        return Deadline(at=when.timestamp())
    after = parse_duration(value if isinstance(value, str | int | float) else repr(value), path)
    if after <= 0:
        raise Invalid("a deadline is more than no time", [Problem(path, "a deadline is more than no time")])
    return Deadline(after)


class Stage(msgspec.Struct, frozen=True):
    """One phase of a compiled blueprint. ``places``: where its nodes stand in the document."""

    id: str
    nodes: Declared
    complete_when: CompleteWhen = CompleteWhen.ALL_PRESENT
    deadline: Deadline = NO_DEADLINE
    places: Mapping[str, str] = {}


class Staged(msgspec.Struct, frozen=True):
    """A compiled blueprint in phases, or with a deadline. Made by :func:`staged`."""

    stages: tuple[Stage, ...]
    common: Declared
    deadline: Deadline
    strategy: str
    digest: str

    def nodes(self, index: int) -> Declared:
        """Everything that is declared while a phase is in force."""
        return [*self.common, *self.stages[index].nodes]

    def standing(self, now: float) -> Standing:
        """Where it stands when it is admitted for the first time."""
        terms = tuple(
            Term(s.id, s.complete_when, s.deadline.after, s.deadline.at, len(s.nodes) + len(self.common))
            for s in self.stages
        )
        return Standing(
            terms, self.digest, now, now, deadline=self.deadline.after, until=self.deadline.at, strategy=self.strategy
        )

    def parts(self, owner: str) -> dict[str, bytes]:
        """What is kept beside the graph, by field: the phases that are to come, and what all have."""
        later = list(enumerate(self.stages))[1:]
        kept = {part_field(owner, i): _encode(list(stage.nodes)) for i, stage in later}
        return {**kept, common_field(owner): _encode(list(self.common))} if self.common else kept


def stage_reply(
    reply: CompileReply,
    deadline: Deadline = NO_DEADLINE,
    places: Mapping[str, str] | None = None,
    strategy: str = LAST_WRITER,
) -> Staged | None:
    """What a compiler answered, where it answered phases or there is a deadline; None for one graph without any.

    Raises Invalid, with pointers below ``/phases`` of the reply.
    """
    if not reply.phases:
        if deadline == NO_DEADLINE:
            return None
        return staged([Stage("", declarations(reply.nodes), places=places or {})], (), deadline, strategy)
    stages = compiled_stages(reply.phases, "/phases")
    return staged(stages, declarations(reply.nodes), deadline, strategy)


def compiled_stages(phases: Sequence[CompiledPhase], path: str) -> list[Stage]:
    """Phases as a compiler answered them; problems are named below ``path``."""
    return [
        Stage(
            phase.id,
            declarations(phase.nodes, f"{path}/{i}/nodes"),
            complete_when_of(phase.complete_when, f"{path}/{i}/complete_when"),
            parse_deadline(phase.deadline, f"{path}/{i}/deadline"),
        )
        for i, phase in enumerate(phases)
    ]


def complete_when_of(value: str, path: str) -> CompleteWhen:
    """``all_present`` or ``never``; raises Invalid with ``path`` for anything else."""
    try:
        return CompleteWhen(value)
    except ValueError:
        text = f"complete_when {value!r} is none of {', '.join(CompleteWhen)}"
        raise Invalid(text, [Problem(path, text)]) from None


def staged(
    stages: Sequence[Stage], common: Declared = (), deadline: Deadline = NO_DEADLINE, strategy: str = LAST_WRITER
) -> Staged:
    """A checked list of phases. Raises Invalid for none, too many, an id used twice or missing, a node in two."""
    problems: list[Problem] = []
    if not 1 <= len(stages) <= MAX_PHASES:
        problems.append(Problem("/phases", f"{len(stages)} phases; 1 to {MAX_PHASES}"))
    seen: set[str] = set()
    shared = {node for node, _ in common}
    for i, stage in enumerate(stages):
        if len(stages) > 1 and not stage.id:
            problems.append(Problem(f"/phases/{i}/id", "a phase needs an id"))
        if stage.id in seen:
            problems.append(Problem(f"/phases/{i}/id", f"phase id {stage.id!r} is used twice"))
        seen.add(stage.id)
        twice = next((node for node, _ in stage.nodes if node in shared), None)
        if twice is not None:
            problems.append(Problem(f"/phases/{i}", f"node {twice!r} is in this phase and in all of them"))
    if problems:
        raise Invalid(f"the phases are not valid: {problems[0].message}", problems)
    digest = _digest(stages, common, deadline, strategy)
    return Staged(tuple(stages), common, deadline, strategy, digest)


def _digest(stages: Sequence[Stage], common: Declared, deadline: Deadline, strategy: str) -> str:
    """Names what is published, whatever the order of nodes and the spelling of specs."""
    whole = sha256(_encode([strategy, deadline.after, deadline.at]))
    for stage in stages:
        whole.update(_encode([stage.id, stage.complete_when, stage.deadline.after, stage.deadline.at]))
        _feed(whole, stage.nodes)
    _feed(whole, common)
    return whole.hexdigest()[:32]


def _feed(whole: object, nodes: Declared) -> None:
    for node, d in sorted(nodes, key=lambda pair: pair[0]):
        said = [node, d.type, d.digest, sorted(d.depends_on), d.gating, d.spec_gating, d.observe]
        whole.update(_encode(said))  # type: ignore[attr-defined]


# ---- as kept


class Standings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far every owner's blueprint is. ``version``: of the graph, when a blueprint or phase last began.

    Read after the graph, it belongs to it if and only if its version is not above the graph's.
    """

    version: int = 0
    owners: dict[str, Standing] = {}


_standings = msgspec.json.Decoder(Standings).decode


def decode_standings(raw: bytes | None) -> Standings:
    """From the stored form; None stands for none."""
    return _standings(raw) if raw else Standings()


def encode_standings(standings: Standings) -> bytes:
    """The stored form."""
    return _encode(standings)


def part_field(owner: str, index: int) -> str:
    """Where the nodes of a phase are kept. Owners are labels, so this is unambiguous."""
    return f"{owner}/{index}"


def common_field(owner: str) -> str:
    """Where the nodes that every phase has are kept."""
    return f"{owner}/+"


def kept_fields(owner: str, standing: Standing) -> list[str]:
    """Every field that may be kept of a blueprint."""
    return [common_field(owner), *(part_field(owner, i) for i in range(len(standing.terms)))]


def decode_part(raw: bytes | None) -> list[tuple[str, Declaration]]:
    """The nodes of a part; None stands for none."""
    return _decode(raw) if raw else []


# ---- entering a phase


def enter(graph: DesiredGraph, owner: str, nodes: Declared, strategy: str) -> Change:
    """Make ``nodes`` what ``owner`` declares, and leave behind what policies added to the phase before.

    Nodes that are in both phases stay as they are. Raises Invalid where the phase does not fit the graph.
    """
    before = frozenset(graph.owned.get(owner, ()))
    left = [graph.apply(RemoveNode(node), policy) for node, policy in left_behind(graph, owner, before)]
    observed = any(d.observe for _, d in nodes)  # nothing is done to what such a blueprint leaves behind
    change = graph.declare(owner, nodes, strategy, release=observed)
    return Change(change.added, change.updated, (*change.removed, *(n for c in left for n in c.removed)))


def left_behind(graph: DesiredGraph, owner: str, before: Container[str]) -> Iterable[tuple[str, str]]:
    """Nodes (with their owner) that only policies declare, and that belong to a phase with the nodes ``before``.

    Where no other blueprint declares anything, that is all of them; else those that review, use or serve its nodes.
    """
    policies = [name for name, ids in graph.owned.items() if name.startswith(POLICY_OWNER) and ids]
    alone = not any(ids for name, ids in graph.owned.items() if name != owner and not name.startswith(POLICY_OWNER))
    found: dict[str, str] = {}
    for policy in policies:
        for node in graph.owned[policy]:
            if all(o.startswith(POLICY_OWNER) for o, _ in graph.rows[node].declarations) and (
                alone or _belongs(graph, node, before)
            ):
                found[node] = policy
    return list(found.items())


def _belongs(graph: DesiredGraph, node: str, before: Container[str]) -> bool:
    seen = graph.nodes.get(node)
    if seen is None:
        return False
    if seen.type in BUILT_IN_TYPES:
        return review_target(seen.spec) in before
    return any(other in before for other in (*seen.depends_on, *graph.dependents(node)))
