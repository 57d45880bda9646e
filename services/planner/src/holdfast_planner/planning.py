"""The planner's own decisions, pure: what a blueprint changes, and what would be done about it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from holdfast_model.blueprint import ANY_OWNER, removes_too_much
from holdfast_model.desired import Change, DesiredGraph
from holdfast_model.errors import Dangling, Invalid, Problem
from holdfast_model.events import Event, Family, GraphEvent
from holdfast_model.manifest import Ladder, is_older
from holdfast_model.names import GraphRef
from holdfast_model.phases import Standing, taken_up
from holdfast_model.renames import Rename, renames_in_force
from holdfast_model.rows import POLICY_OWNER, Declaration
from holdfast_model.staging import Staged, Standings
from holdfast_model.targeting import Target, idle_patterns, select

SHOWN = 100
"""At most so many ids are listed in events and in the log."""

META_PHASE = "phase"
"""Field of ``meta``: how far the blueprints are that come in phases or have a deadline."""

META_DOMAINS = "domains"
"""Field of ``meta``: the domains that blueprints in force name, by owner. Their leftovers are this graph's business."""

META_COMPILED = "compiled"
"""Field of ``meta``: the versions of domains that compiled the blueprints in force, by owner and domain."""

_ADMITTED = "admitted:"

_domains = msgspec.json.Decoder(dict[str, list[str]])
_compiled = msgspec.json.Decoder(dict[str, dict[str, str]])


def admitted_field(owner: str) -> str:
    """The field of ``meta`` that says when the newest blueprint of an owner was admitted; gone when that is deleted."""
    return f"{_ADMITTED}{owner}"


def admitted(meta: Iterable[str]) -> list[str]:
    """The owners of blueprints that are in force, from the fields of ``meta``."""
    return sorted(f.removeprefix(_ADMITTED) for f in meta if f.startswith(_ADMITTED) and f != f"{_ADMITTED}{ANY_OWNER}")


def domains_in(raw: bytes | None) -> frozenset[str]:
    """The domains that the blueprints of a graph name, from the field ``domains`` of its ``meta``."""
    return frozenset(name for names in _domains.decode(raw).values() for name in names) if raw else frozenset()


def domains_field(raw: bytes | None, intake: Intake) -> bytes:
    """That field once an intake is admitted; a blueprint that only observes has nobody's leftovers removed."""
    old = _domains.decode(raw) if raw else {}
    kept = {o: n for o, n in old.items() if not intake.takes_back(o)}
    if intake.domains and not (intake.delete or intake.observe):
        kept[intake.owner] = list(intake.domains)
    return msgspec.json.encode(kept)


def compiled_field(raw: bytes | None, intake: Intake) -> bytes:
    """The field ``compiled`` of ``meta`` once an intake is admitted."""
    old = _compiled.decode(raw) if raw else {}
    kept: dict[str, Mapping[str, str]] = {o: v for o, v in old.items() if not intake.takes_back(o)}
    if intake.versions and not intake.delete:
        kept[intake.owner] = intake.versions
    return msgspec.json.encode(kept)


def outdated(raw: bytes | None, newest: Callable[[str], str]) -> list[dict[str, str]]:
    """Blueprints in force that an older version of a domain compiled than the newest live one ("": none is live)."""
    found = _compiled.decode(raw) if raw else {}
    rows = [(owner, d, version, newest(d)) for owner, known in found.items() for d, version in known.items()]
    keys = ("name", "domain", "compiled_by", "newest")
    return [dict(zip(keys, row, strict=True)) for row in sorted(rows) if is_older(row[2], row[3])]


class SupersededError(Invalid):
    """A newer version of the same owner's blueprint, or a deletion, was admitted before."""


class TooMuchError(Invalid):
    """A version would remove so much that somebody has to say that it is meant. ``size``: of the graph before."""

    def __init__(self, removed: Sequence[str], size: int) -> None:
        text = f"this would remove {len(removed)} of {size} nodes"
        hint = "a person approves it, or 'allow_removals: true' says in the blueprint that it is meant"
        super().__init__(text, [Problem("/allow_removals", text)], hint=hint)
        self.removed = tuple(removed)
        self.size = size


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


def was_admitted(place: Place, meta: Mapping[str, bytes]) -> bool:
    """Whether the newest blueprint of some owner is this very message."""
    floors = [raw for field, raw in meta.items() if field.startswith("floor:")]
    return any(msgspec.json.decode(raw, type=Place) == place for raw in floors)


class Intake(msgspec.Struct, frozen=True):
    """A blueprint ready to be declared: its owner's nodes, and what the message said besides.

    ``delete``: the owner's nodes go, or, for the owner ``*``, everything. ``consent``: the nodes whose removal a
    person has agreed to. ``observe``: no step follows from it; what it leaves out is left as it is. ``newer``: owners
    whose nodes a deletion of everything leaves alone, as they were published after it. ``domains``: those it names.
    ``moved``: renames, as the document lists them. ``versions``: of the domains that compiled it.
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
    target: Target = Target()
    ladders: Sequence[Ladder] = ()
    consent: frozenset[str] = frozenset()
    observe: bool = False
    staged: Staged | None = None
    domains: Sequence[str] = ()
    moved: Sequence[Rename] = ()
    versions: Mapping[str, str] = {}
    newer: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether it deletes what everybody declares."""
        return self.delete and self.owner == ANY_OWNER

    def takes_back(self, owner: str) -> bool:
        """Whether what this owner declared before is overtaken by it."""
        return owner not in self.newer if self.everything else owner == self.owner


class Admitted(msgspec.Struct, frozen=True):
    """What an admission did."""

    version: int
    added: tuple[str, ...]
    updated: tuple[str, ...]
    removed: tuple[str, ...]


def in_phase(intake: Intake, stored: Standings, now: float) -> tuple[Intake, Standing | None]:
    """The intake with the nodes of the phase that is in force once it is admitted, and how far it is then; None for a
    blueprint without phases and deadlines.
    """
    plan = intake.staged
    if plan is None:
        return intake, None
    standing = taken_up(plan.standing(now), stored.owners.get(intake.owner))
    places = plan.stages[standing.index].places
    return msgspec.structs.replace(intake, nodes=plan.nodes(standing.index), pointers=places), standing


def try_phases(graph: DesiredGraph, intake: Intake, standing: Standing | None) -> None:
    """Enter every phase that is to come on a copy of the graph. Raises Invalid where one of them does not fit."""
    plan = intake.staged
    if plan is None or standing is None or standing.last:
        return
    trial = graph.draft()
    for index in range(standing.index, len(plan.stages)):
        trial.declare(intake.owner, plan.nodes(index), intake.strategy, plan.stages[index].places)


def phase_rows(standings: Mapping[str, Standing]) -> list[dict[str, Any]]:
    """How far blueprints are, for people to read."""
    return [
        {
            "name": owner,
            "phase": standing.term.id,
            "index": standing.index,
            "phases": [term.id for term in standing.terms],
            "complete": standing.complete,
            "deadline": standing.next_due,
            "timed_out": bool(standing.passed),
        }
        for owner, standing in sorted(standings.items())
    ]


def phase_text(standings: Mapping[str, Standing]) -> str:
    """The same in a few words: ``build`` or, where several blueprints have phases, ``main: build, other: run``."""
    named = {owner: s.term.id for owner, s in sorted(standings.items()) if s.term.id}
    if len(named) == 1:
        return next(iter(named.values()))
    return ", ".join(f"{owner}: {phase}" for owner, phase in named.items())


def declare(graph: DesiredGraph, intake: Intake) -> Change:
    """Apply an intake to the graph. Raises Invalid where it does not fit."""
    if intake.delete:
        return graph.clear(intake.newer) if intake.everything else graph.retract(intake.owner)
    nodes = intake.nodes
    if intake.target:
        nodes = select(nodes, declared(graph, intake.owner), intake.target)
    try:
        return graph.declare(
            intake.owner, nodes, intake.strategy, intake.pointers,
            release=intake.observe, moved=intake.moved, rewrite=intake.target.selects(),
        )  # fmt: skip
    except Dangling as error:
        if intake.target:
            error.hint = f"{error.edge[0]!r} is not selected, so it stays as it was declared: select it too"
        raise


def renames(graph: DesiredGraph, intake: Intake) -> list[Rename]:
    """The renames of an intake that are still to be carried out. Raises Invalid."""
    if intake.delete or not intake.moved:
        return []
    nodes = intake.nodes
    if intake.target:
        nodes = select(nodes, declared(graph, intake.owner), intake.target)
    return renames_in_force(graph, intake.owner, dict(nodes), intake.moved)


def declared(graph: DesiredGraph, owner: str) -> dict[str, Declaration]:
    """What an owner declares now."""
    found = ((node, graph.rows[node].of(owner)) for node in graph.owned.get(owner, ()))
    return {node: d for node, d in found if d is not None}


def warned(graph: DesiredGraph, intake: Intake) -> list[str]:
    """The warnings of an intake, with what its selection or its name does not find in the graph."""
    if intake.delete and intake.owner != ANY_OWNER and not graph.owned.get(intake.owner):
        others = sorted(o for o, ids in graph.owned.items() if ids and not o.startswith(POLICY_OWNER))
        there = f"; others do: {', '.join(others)}" if others else ""
        return [*intake.warnings, f"no node is declared by a blueprint {intake.owner!r}{there}"]
    if not intake.target:
        return list(intake.warnings)
    return [*intake.warnings, *idle_patterns(intake.nodes, declared(graph, intake.owner), intake.target)]


def check_blast(removed: Sequence[str], before: int, intake: Intake, least: int, share: float) -> None:
    """Raises TooMuchError where a version would remove too much of a graph, and nobody has said that it is meant."""
    if intake.delete or intake.allow_removals or intake.observe:
        return
    if removes_too_much(len(removed), before, least=least, share=share) and not intake.consent.issuperset(removed):
        raise TooMuchError(removed, before)


def check_ladders(intake: Intake, others: Sequence[tuple[str, str]]) -> None:
    """Raises Invalid where a ladder is called as one of another owner. ``others``: owners with names of ladders."""
    taken = {name: owner for owner, name in others}
    problems = [
        Problem(f"/ladders/{i}/name", f"blueprint {taken[ladder.name]!r} has a ladder {ladder.name!r} already")
        for i, ladder in enumerate(intake.ladders)
        if ladder.name in taken
    ]
    if problems:
        raise Invalid(f"not valid: {problems[0].message}", problems)


def moved_rows(change: Change) -> list[dict[str, str]]:
    """The first renames of a change, as blueprints write them."""
    return [{"from": source, "to": target} for source, target in heapq.nsmallest(SHOWN, change.moved)]


def shown(ids: Sequence[str]) -> list[str]:
    """The first ids of a list, in order, for people to read."""
    return heapq.nsmallest(SHOWN, ids)


def tell_admitted(
    intake: Intake,
    change: Change,
    version: int,
    warnings: Sequence[str],
    now: float,
    ids: Sequence[str],
    standing: Standing | None = None,
) -> list[Event]:
    """``accepted``, and ``changed`` if anything did. ``ids``: two ids never used before."""
    ref = intake.ref
    counts = {"added": len(change.added), "updated": len(change.updated), "removed": len(change.removed)}
    if change.moved:
        counts["moved"] = len(change.moved)
    answer: dict[str, Any] = {
        "message": intake.message_id,
        "sequence": intake.sequence.number,
        "name": intake.owner,
        "version": version,
        "changes": counts,
        "warnings": list(warnings),
    }
    if intake.delete:
        answer["delete"] = True
    if standing is not None and standing.term.id:
        answer |= {"phase": standing.term.id, "phases": [term.id for term in standing.terms]}
    events = [Event(ids[0], Family.GRAPH, GraphEvent.ACCEPTED, ref.tenant, ref.graph, now, answer)]
    if change:
        lists: dict[str, Any] = {n: shown(getattr(change, n)) for n in ("added", "updated", "removed")}
        if change.moved:
            lists["moved"] = moved_rows(change)
        data = {"version": version, "name": intake.owner, "counts": counts, **lists}
        events.append(Event(ids[1], Family.GRAPH, GraphEvent.CHANGED, ref.tenant, ref.graph, now, data))
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
    return Event(id, Family.GRAPH, GraphEvent.REJECTED, tenant, graph, now, data)


def tell_waiting(
    ref: GraphRef, missing: Sequence[str], there: Sequence[str], message_id: str, sequence: int, now: float, id: str
) -> Event:
    """``waiting`` for domains that are not running."""
    running = ", ".join(there) or "none"
    named = ", ".join(map(repr, missing))
    what = f"domain {named} is" if len(missing) == 1 else f"domains {named} are"
    data = {
        "message": message_id,
        "sequence": sequence,
        "domain": missing[0],
        "missing": list(missing),
        "domains": list(there),
        "reason": f"{what} not running (running: {running}); the blueprint is kept until then",
    }
    return Event(id, Family.GRAPH, GraphEvent.WAITING, ref.tenant, ref.graph, now, data)


def tell_asking(intake: Intake, error: TooMuchError, request: str, now: float, id: str) -> Event:
    """``waiting`` for a person who agrees to what would be removed."""
    data = {
        "message": intake.message_id,
        "sequence": intake.sequence.number,
        "name": intake.owner,
        "reason": f"{error.message}; it waits until a person approves that",
        "hint": error.hint,
        "removes": len(error.removed),
        "of": error.size,
        "nodes": shown(error.removed),
        "request": request,
    }
    return Event(id, Family.GRAPH, GraphEvent.WAITING, intake.ref.tenant, intake.ref.graph, now, data)
