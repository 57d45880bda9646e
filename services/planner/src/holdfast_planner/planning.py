"""The planner's own decisions, pure: what a blueprint changes, and what would be done about it."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast_model.blueprint import DEFAULT_OWNER, removes_too_much
from holdfast_model.desired import Change, DesiredGraph
from holdfast_model.errors import Invalid, Problem
from holdfast_model.events import Event, Family
from holdfast_model.names import GraphRef
from holdfast_model.rows import Declaration

SHOWN = 100
"""At most so many ids are listed in events and in the log."""

ANY_OWNER = "*"


class SupersededError(Invalid):
    """A newer version of the same owner's blueprint, or a deletion, was admitted before."""


class RedeliveredError(Exception):
    """This very message was admitted before: nothing to do, nothing to say."""


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a blueprint stands in its stream. A stream that was made anew starts a new order."""

    created: str
    number: int


class Floor(msgspec.Struct, frozen=True):
    """The newest sequences that were admitted: of one owner, and of deletions of everything."""

    owner: Place | None
    everything: Place | None

    def check(self, mine: Place) -> None:
        """Raises SupersededError below the floor, RedeliveredError at it."""
        for floor in (self.owner, self.everything):
            if floor is None or floor.created < mine.created:
                continue
            if floor == mine:
                raise RedeliveredError
            if mine < floor:
                text = f"superseded: sequence {floor.number} was admitted before sequence {mine.number}"
                raise SupersededError(text, [Problem("", text)])


class Intake(msgspec.Struct, frozen=True):
    """A blueprint ready to be declared: its owner's nodes, and what the message said besides.

    ``delete``: the owner's nodes go, or, for the owner ``*``, everything.
    """

    ref: GraphRef
    owner: str
    nodes: Sequence[tuple[str, Declaration]]
    strategy: str
    sequence: Place
    message_id: str
    pointers: Mapping[str, str]
    allow_removals: bool = False
    delete: bool = False
    warnings: Sequence[str] = ()
    domain: str = ""


class Admitted(msgspec.Struct, frozen=True):
    """What an admission did."""

    version: int
    added: tuple[str, ...]
    updated: tuple[str, ...]
    removed: tuple[str, ...]


def declare(graph: DesiredGraph, intake: Intake, least: int, share: float) -> Change:
    """Apply an intake to the graph. Raises Invalid where it does not fit or would remove too much."""
    if intake.delete:
        return graph.clear() if intake.owner == ANY_OWNER else graph.retract(intake.owner)
    before = len(graph)
    change = graph.declare(intake.owner, intake.nodes, intake.strategy, intake.pointers)
    if not intake.allow_removals:
        check_blast(len(change.removed), before, least, share)
    return change


def check_blast(removed: int, before: int, least: int, share: float) -> None:
    """Raises Invalid where a version would remove too much of a graph without saying that it means it."""
    if removes_too_much(removed, before, least=least, share=share):
        text = f"this would remove {removed} of {before} nodes"
        hint = "add 'allow_removals: true' to the blueprint if that is meant"
        raise Invalid(f"{text}; {hint}", [Problem("/allow_removals", text)], hint=hint)


def shown(ids: Sequence[str]) -> list[str]:
    """The first ids of a list, in order, for people to read."""
    return heapq.nsmallest(SHOWN, ids)


def tell_admitted(intake: Intake, change: Change, version: int, now: float, ids: Sequence[str]) -> list[Event]:
    """``accepted``, and ``changed`` if anything did. ``ids``: two ids never used before."""
    ref = intake.ref
    counts = {"added": len(change.added), "updated": len(change.updated), "removed": len(change.removed)}
    answer: dict[str, Any] = {
        "message": intake.message_id,
        "sequence": intake.sequence.number,
        "name": intake.owner,
        "version": version,
        "changes": counts,
        "warnings": list(intake.warnings),
    }
    if intake.delete:
        answer["delete"] = True
    events = [Event(ids[0], Family.GRAPH, "accepted", ref.tenant, ref.graph, now, answer)]
    if change:
        lists = {name: shown(getattr(change, name)) for name in ("added", "updated", "removed")}
        data = {"version": version, "name": intake.owner, "counts": counts, **lists}
        events.append(Event(ids[1], Family.GRAPH, "changed", ref.tenant, ref.graph, now, data))
    return events


def tell_rejected(
    tenant: str, graph: str, error: Invalid, message_id: str, sequence: int, now: float, id: str
) -> Event:
    """``rejected``, with the place of every problem."""
    data = {
        "message": message_id,
        "sequence": sequence,
        "reason": error.message,
        "hint": error.hint,
        "problems": [{"path": p.path, "message": p.message} for p in error.problems],
        "superseded": isinstance(error, SupersededError),
    }
    return Event(id, Family.GRAPH, "rejected", tenant, graph, now, data)


def tell_waiting(
    ref: GraphRef, domain: str, there: Sequence[str], message_id: str, sequence: int, now: float, id: str
) -> Event:
    """``waiting`` for a domain that is not running."""
    running = ", ".join(there) or "none"
    data = {
        "message": message_id,
        "sequence": sequence,
        "domain": domain,
        "domains": list(there),
        "reason": f"domain {domain!r} is not running (running: {running}); the blueprint is kept until it is",
    }
    return Event(id, Family.GRAPH, "waiting", ref.tenant, ref.graph, now, data)


def owner_of(name: str, delete: bool, named: bool) -> str:
    """A deletion that names nobody is meant for everything."""
    return name if named or not delete else ANY_OWNER if name == DEFAULT_OWNER else name
