"""Graphs in phases: one is in force, and the next one follows when it is complete. Pure.

A blueprint is one graph or an ordered list of phases. Completion looks at the phase's own nodes only: what policies
added neither blocks it nor survives it. Durations and times are seconds.

A :class:`Lifecycle` holds its graphs and looks at all of them; a :class:`Standing` is what is kept of a blueprint
while its nodes are counted by whoever runs it. Both move by the same rule, :func:`following`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from .errors import Invalid, Problem
from .graph import Graph, same_node
from .messages import Status


class CompleteWhen(StrEnum):
    ALL_PRESENT = "all_present"
    NEVER = "never"


class GraphPhase(msgspec.Struct, frozen=True):
    """One phase. ``deadline``: how long it may last, in seconds."""

    id: str
    graph: Graph
    complete_when: CompleteWhen = CompleteWhen.ALL_PRESENT
    deadline: float | None = None

    def is_complete(self, observed: Mapping[str, Status]) -> bool:
        """Whether every node of the phase is PRESENT. Missing is not present; an empty graph is complete."""
        if self.complete_when is CompleteWhen.NEVER:
            return False
        return all(observed.get(node) is Status.PRESENT for node in self.graph.nodes)

    def same_as(self, other: GraphPhase) -> bool:
        """Whether both say the same."""
        mine, theirs = self.graph, other.graph
        return (
            (self.id, self.complete_when, self.deadline) == (other.id, other.complete_when, other.deadline)
            and mine.edges == theirs.edges
            and mine.nodes.keys() == theirs.nodes.keys()
            and all(same_node(node, theirs.nodes[id]) for id, node in mine.nodes.items())
        )


class Lifecycle(msgspec.Struct, frozen=True):
    """The phases of a graph and the index of the one in force. Made by :func:`begin`."""

    phases: tuple[GraphPhase, ...]
    index: int = 0

    @property
    def phase(self) -> GraphPhase:
        """The one in force."""
        return self.phases[self.index]

    def next(self, observed: Mapping[str, Status]) -> Lifecycle | None:
        """Where the lifecycle stands once a cycle has observed this: at most one phase further.

        The very same object while the phase is not complete; None when the last one is, and nothing is left to wait
        for: its graph stays desired.
        """
        index = following(self.index, len(self.phases), self.phase.is_complete(observed))
        if index == self.index:
            return self
        return None if index is None else msgspec.structs.replace(self, index=index)


def following(index: int, count: int, complete: bool) -> int | None:
    """The phase after a cycle, of ``count``: the same one, the next one, or None when the last one is complete."""
    if not complete:
        return index
    return index + 1 if index + 1 < count else None


class Term(msgspec.Struct, frozen=True, omit_defaults=True):
    """A phase without its graph, which has ``nodes`` nodes. It is to end ``deadline`` seconds after its start, and at
    ``until``, a time.
    """

    id: str
    complete_when: CompleteWhen = CompleteWhen.ALL_PRESENT
    deadline: float | None = None
    until: float | None = None
    nodes: int = 0


GRAPH = ""
"""Stands for the blueprint as a whole where deadlines of phases are named by the phase's id."""


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one owner's blueprint is. A blueprint without phases is one phase without an id.

    ``digest`` names what was published; ``begun`` and ``started`` are when it was admitted and when the phase in force
    began; ``reached``: all of the last phase was there once; ``passed`` are the deadlines that passed
    (:data:`GRAPH` or a phase's id). ``strategy`` settles conflicts with other owners when a phase is entered.
    """

    terms: tuple[Term, ...]
    digest: str
    begun: float
    started: float
    index: int = 0
    deadline: float | None = None
    until: float | None = None
    reached: bool = False
    passed: tuple[str, ...] = ()
    strategy: str = "last_writer_wins"

    @property
    def term(self) -> Term:
        """The phase in force."""
        return self.terms[self.index]

    @property
    def last(self) -> bool:
        return self.index + 1 == len(self.terms)

    @property
    def complete(self) -> bool:
        """The last phase has come to its end; its graph stays desired."""
        return self.reached and self.term.complete_when is not CompleteWhen.NEVER

    @property
    def graph_due(self) -> float | None:
        """When the whole is out of time; None when nothing limits it (any more)."""
        if self.reached or GRAPH in self.passed:
            return None
        return due(self.begun, self.deadline, self.until)

    @property
    def phase_due(self) -> float | None:
        """When the phase in force is out of time by its own deadline; None when it has none (any more)."""
        if self.complete or self.term.id in self.passed:
            return None
        return due(self.started, self.term.deadline, self.term.until)

    @property
    def next_due(self) -> float | None:
        """What children of the phase in force inherit: the earlier of both."""
        return due(0.0, None, self.graph_due, self.phase_due)

    def after(self, present: bool, now: float) -> Standing:
        """Where it stands once all nodes of the phase are ``present`` or not: at most one phase further."""
        if not present:
            return self
        if self.last:
            return self if self.reached else msgspec.structs.replace(self, reached=True)
        index = following(self.index, len(self.terms), self.term.complete_when is not CompleteWhen.NEVER)
        assert index is not None
        return self if index == self.index else msgspec.structs.replace(self, index=index, started=now)

    def overdue(self, now: float) -> tuple[str, ...]:
        """Deadlines that have passed by ``now`` and were not yet told of: :data:`GRAPH`, a phase's id, or both."""
        dues = ((self.term.id, self.phase_due), (GRAPH, self.graph_due))
        return tuple(dict.fromkeys(name for name, when in dues if when is not None and when <= now))

    def out_of_time(self, names: tuple[str, ...]) -> Standing:
        """These deadlines have passed."""
        return msgspec.structs.replace(self, passed=(*self.passed, *names))


def taken_up(fresh: Standing, before: Standing | None) -> Standing:
    """How far a published blueprint is. The same as before keeps its phase and its clock, unless time had run out:
    then a new version begins to count anew. A changed one starts over.
    """
    if before is None or before.digest != fresh.digest:
        return fresh
    if not before.passed:
        return before
    return msgspec.structs.replace(before, passed=(), begun=fresh.begun, started=fresh.started)


def begin(phases: Sequence[GraphPhase], before: Lifecycle | None = None) -> Lifecycle:
    """The lifecycle of a published list of phases. The same list as ``before`` keeps the phase it has reached, a
    changed one starts over. Raises Invalid for an empty list, an id used twice or a deadline that is no time.
    """
    problems = [] if phases else [Problem("/phases", "there is no phase")]
    seen: set[str] = set()
    for i, phase in enumerate(phases):
        if phase.id in seen:
            problems.append(Problem(f"/phases/{i}/id", f"phase id {phase.id!r} is used twice"))
        seen.add(phase.id)
        if phase.deadline is not None and phase.deadline <= 0:
            problems.append(Problem(f"/phases/{i}/deadline", "a deadline is more than no time"))
    if problems:
        raise Invalid(f"the phases are not valid: {problems[0].message}", problems)
    fresh = Lifecycle(tuple(phases))
    if before is None or len(before.phases) != len(phases):
        return fresh
    unchanged = all(old.same_as(new) for old, new in zip(before.phases, phases, strict=True))
    return before if unchanged else fresh


def due(started: float, deadline: float | None, *parents: float | None) -> float | None:
    """When a phase, graph, child or WorkItem is out of time: by its own deadline (seconds from ``started``) or when a
    parent is, whichever comes first; None when nothing limits it. Parents and the result are times.
    """
    own = None if deadline is None else started + deadline
    return min((t for t in (own, *parents) if t is not None), default=None)
