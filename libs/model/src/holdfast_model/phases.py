"""Graphs in phases: one is in force, and the next one follows when it is complete. Pure.

A blueprint is one graph or an ordered list of phases. Completion looks at the phase's own nodes only: what policies
added neither blocks it nor survives it. Durations and times are seconds.
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
        if not self.phase.is_complete(observed):
            return self
        if self.index + 1 == len(self.phases):
            return None
        return msgspec.structs.replace(self, index=self.index + 1)


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
