"""Situations: several faults in one zone within a time, told once and answered once. Pure.

A :class:`Situation` is data in a manifest. Its conditions are CEL, compiled once. What is kept of a zone is bounded:
the newest faults of its window, and the nodes they concern. Drift that is mere work (``stale``, ``spec_changed``)
raises no fault, so it never counts; and a fault with such a reason would not be taken either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cel
import msgspec

from .desired import DesiredGraph
from .errors import HoldfastError, Invalid, Problem
from .events import Event, Family, Fault, FaultType, GraphEvent
from .fault_engine import Owned, PolicyFailure, failed, merge
from .manifest import Situation
from .messages import WORK_REASONS
from .mutations import AddNode, declaration
from .named_rules import compile_each, problems_of
from .names import BUILT_IN_TYPES, check_node_id, check_type
from .rows import Gating, Node

WINDOW, RECOVERY = "window", "recovery"
MAX_COUNT = 64
"""Faults of one zone that are remembered; a situation may not ask for more."""
MAX_NODES = 100
MAX_ZONES = 256
"""Zones of one graph in which something is counted at a time."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A fault that counts: when it was raised (seconds since the epoch), its id and its node."""

    time: float
    fault: str
    node: str


class Zone(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of one situation in one zone. ``begun`` is when it began, 0 while it has not; ``afflicted`` are
    nodes that have not recovered. ``within`` and ``until`` are the situation's, for whoever ends it.
    """

    seen: tuple[Seen, ...] = ()
    begun: float = 0.0
    last: float = 0.0
    afflicted: tuple[str, ...] = ()
    within: float = 60.0
    until: str = WINDOW

    def is_over(self, now: float) -> bool:
        """Whether nothing of it matters any more: its window has passed."""
        return now - self.last > self.within

    def without(self, node: str) -> Zone | None:
        """The zone once a node has recovered; None when that ends the situation."""
        left = tuple(n for n in self.afflicted if n != node)
        if self.begun and self.until == RECOVERY and not left:
            return None
        return self if left == self.afflicted else msgspec.structs.replace(self, afflicted=left)


_zone = msgspec.json.Decoder(Zone).decode


def decode_zone(raw: bytes | None) -> Zone | None:
    """From the stored form."""
    return _zone(raw) if raw else None


def zone_field(situation: str, zone: str) -> str:
    """Where a zone is kept: a field of the graph's situations."""
    return msgspec.json.encode([situation, zone]).decode()


def parse_zone_field(field: str) -> tuple[str, str]:
    """The situation and zone of a field."""
    name, zone = msgspec.json.decode(field, type=tuple[str, str])
    return name, zone


def owner_of(situation: str, zone: str) -> str:
    """Who declares what a situation adds in a zone."""
    return f"policy:{situation}/{zone}"


class CompiledSituation:
    """A situation whose conditions are compiled. Raises Invalid, with pointers below ``path``."""

    def __init__(self, situation: Situation, path: str = "") -> None:
        self.situation = situation
        self.path = path
        problems = _shape(situation, path)
        self._programs: dict[str, cel.Program] = {}
        for name, source in (("zone", situation.zone), ("when", situation.when)):
            if source:
                try:
                    self._programs[name] = cel.compile(source)
                except ValueError as e:
                    problems.append(Problem(f"{path}/{name}", f"situation {situation.name!r}: {e}"))
        if problems:
            raise Invalid(f"situation {situation.name!r} is not valid: {problems[0].message}", problems)

    @property
    def name(self) -> str:
        return self.situation.name

    def covers(self, fault: Fault) -> bool:
        """Whether a fault of this type, of a node of this type, may count. Cheap."""
        situation = self.situation
        return (
            fault.type.value in situation.faults
            and fault.node_type not in BUILT_IN_TYPES
            and (not situation.node_types or fault.node_type in situation.node_types)
            and fault.reason not in WORK_REASONS
        )

    def zone(self, fault: Fault, node: Node) -> str:
        """The zone in which a fault counts, "" for none. Raises Invalid when a condition cannot be evaluated."""
        context = cel.Context(
            {
                "fault": {f: msgspec.to_builtins(getattr(fault, f)) for f in Fault.__struct_fields__},
                "node": {"id": node.id, "type": node.type, "spec": msgspec.json.decode(node.spec)},
            }
        )
        if "when" in self._programs and self._evaluate("when", context, bool) is not True:
            return ""
        return str(self._evaluate("zone", context, str))[:256]

    def _evaluate(self, name: str, context: cel.Context, kind: type) -> Any:
        try:
            value = self._programs[name].execute(context)
        except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError) as e:
            text = f"situation {self.name!r}, {name}: {type(e).__name__}: {e}"
            raise Invalid(text, [Problem(f"{self.path}/{name}", text)]) from e
        if not isinstance(value, kind):
            text = f"situation {self.name!r}, {name}: {value!r} is not a {'text' if kind is str else 'true or false'}"
            raise Invalid(text, [Problem(f"{self.path}/{name}", text)])
        return value

    def count(self, zone: Zone | None, fault: Fault) -> tuple[Zone, bool]:
        """The zone with this fault counted, and whether the situation begins with it.

        One whose window had passed before this fault begins to count anew. Faults may come in any order.
        """
        situation = self.situation
        if zone is None or (fault.time - zone.last > situation.within):
            zone = Zone()
        last = max(zone.last, fault.time)
        seen = sorted({*zone.seen, Seen(fault.time, fault.id, fault.node)}, key=lambda s: (s.time, s.fault))
        recent = [s for s in seen if last - s.time <= situation.within][-MAX_COUNT:]
        begins = not zone.begun and len(recent) >= situation.count
        afflicted = dict.fromkeys((*zone.afflicted, fault.node))
        counted = Zone(
            tuple(recent),
            last if begins else zone.begun,
            last,
            tuple(list(afflicted)[-MAX_NODES:]),
            situation.within,
            situation.until,
        )
        return counted, begins

    def event(self, zone: str, state: Zone, fault: Fault, now: float) -> Event:
        """Tells that the situation has begun. Its id derives from the fault's that completed it."""
        data: dict[str, Any] = {
            "name": self.name,
            "zone": zone,
            "nodes": sorted({s.node for s in state.seen}),
            "faults": [s.fault for s in state.seen],
            "count": len(state.seen),
            "within": self.situation.within,
            "since": state.seen[0].time,
        }
        return Event(
            f"{fault.id}.situation.{self.name}", Family.GRAPH, GraphEvent.SITUATION, fault.tenant, fault.graph, now,
            data,
        )  # fmt: skip

    def answer(self, zone: str, graph: DesiredGraph) -> list[Owned]:
        """The nodes it asks for in a zone. Raises Invalid where one of them is there as something else."""
        asked: list[Owned] = []
        for i, add in enumerate(self.situation.add):
            at = f"{self.path}/add/{i}"
            node = check_node_id(_fill(add.id, zone), f"{at}/id")
            there = graph.nodes.get(node)
            if there is not None and there.type != add.type:
                text = f"situation {self.name!r}: node {node!r} is a {there.type}, not a {add.type}"
                raise Invalid(text, [Problem(f"{at}/type", text)])
            new = declaration(node, add.type, _filled(add.spec, zone), add.gating)
            edges = tuple(_fill(target, zone) for target in add.depends_on)
            asked.append(Owned(owner_of(self.name, zone), AddNode(msgspec.structs.replace(new, depends_on=edges))))
        return asked


class Reply(msgspec.Struct, frozen=True):
    """What a fault means for the situations it counts in: zones to write, events, mutations, and what failed.

    ``ended``: owners of what situations had added that were over before this fault.
    """

    zones: Mapping[str, Zone]
    events: tuple[Event, ...] = ()
    mutations: tuple[Owned, ...] = ()
    failures: tuple[PolicyFailure, ...] = ()
    ended: tuple[str, ...] = ()


def consider(
    concerned: Sequence[tuple[CompiledSituation, str]],
    zones: Mapping[str, Zone],
    room: int,
    fault: Fault,
    graph: DesiredGraph,
    accepted: Sequence[Owned],
    now: float,
) -> Reply:
    """Count a fault in every situation and zone that it ``concerned``.

    ``zones`` by field as stored, ``room``: how many new ones may be kept, ``accepted``: what other policies ask for on
    the same fault. A situation whose answer fails, or conflicts with these, is told all the same; only its own
    mutations are dropped.
    """
    kept: dict[str, Zone] = {}
    events: list[Event] = []
    wanted = [("", owned) for owned in accepted]
    mine: list[Owned] = []
    failures: list[PolicyFailure] = []
    ended: list[str] = []
    for situation, zone in concerned:
        field = zone_field(situation.name, zone)
        before = zones.get(field)
        if before is None and len(kept) >= room:
            text = f"situation {situation.name!r}: {MAX_ZONES} zones are counted already; {zone!r} is not"
            failures += _failure(situation, text)
            continue
        if before is not None and before.begun and fault.time - before.last > before.within:
            ended.append(owner_of(situation.name, zone))
        kept[field], begins = situation.count(before, fault)
        if not begins:
            continue
        events.append(situation.event(zone, kept[field], fault, now))
        try:
            asked = situation.answer(zone, graph)
        except HoldfastError as error:
            failures += _failure(situation, error.message)
            continue
        merged = merge([*wanted, *((situation.name, owned) for owned in asked)])
        if merged.failure is not None:
            failures.append(merged.failure)
        else:
            wanted += [(situation.name, owned) for owned in asked]
            mine += asked
    return Reply(kept, tuple(events), tuple(mine), tuple(failures), tuple(ended))


def _failure(situation: CompiledSituation, text: str) -> list[PolicyFailure]:
    failure = failed(situation.name, text).failure
    return [failure] if failure is not None else []


def withdraw(graph: DesiredGraph, owners: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take back what situations declared; returns the nodes that went, and why something has to stay."""
    removed: list[str] = []
    stays: list[str] = []
    for owner in owners:
        try:
            removed += graph.retract(owner).removed
        except Invalid as error:
            stays.append(f"{owner}: {error.message}")
    return tuple(removed), tuple(stays)


def compile_situations(situations: Sequence[Situation], path: str = "/situations") -> tuple[CompiledSituation, ...]:
    """Compile the situations of one manifest. Raises Invalid with the problems of all of them."""
    return compile_each(situations, path, CompiledSituation, "two situations are called {name}")


def situation_problems(situations: Sequence[Situation], path: str = "/situations") -> list[Problem]:
    """Everything that is wrong with these situations; empty when they are valid."""
    return problems_of(lambda: compile_situations(situations, path))


def _shape(situation: Situation, path: str) -> list[Problem]:
    problems: list[Problem] = []
    known = {t.value for t in FaultType}

    def wrong(place: str, text: str) -> None:
        problems.append(Problem(f"{path}/{place}", text))

    if not situation.name or "/" in situation.name:
        wrong("name", "a situation needs a name, without '/'")
    if not situation.faults:
        wrong("faults", f"situation {situation.name!r} names no faults")
    for i, fault in enumerate(situation.faults):
        if fault not in known:
            wrong(f"faults/{i}", f"unknown fault type {fault!r}; one of {', '.join(sorted(known))}")
    if not situation.zone:
        wrong("zone", f"situation {situation.name!r} does not say what a zone is")
    if not 1 <= situation.count <= MAX_COUNT:
        wrong("count", f"count is {situation.count}; 1 to {MAX_COUNT}")
    if situation.within <= 0:
        wrong("within", "within is more than no time")
    if situation.until not in (WINDOW, RECOVERY):
        wrong("until", f"until is {WINDOW!r} or {RECOVERY!r}")
    for i, add in enumerate(situation.add):
        try:
            check_type(add.type, f"{path}/add/{i}/type")
            check_node_id(_fill(add.id, "z"), f"{path}/add/{i}/id")
        except HoldfastError as e:
            wrong(f"add/{i}", e.message)
        if add.type in BUILT_IN_TYPES:
            wrong(f"add/{i}/type", f"type {add.type!r} is built in; ladders add reviews")
        if add.gating not in Gating.__members__:
            wrong(f"add/{i}/gating", f"gating {add.gating!r}; one of {', '.join(Gating.__members__)}")
    return problems


def _fill(template: str, zone: str) -> str:
    return template.replace("{zone}", zone)


def _filled(value: Any, zone: str) -> Any:
    """A spec with ``{zone}`` replaced in every text of it."""
    if isinstance(value, str):
        return _fill(value, zone)
    if isinstance(value, dict):
        return {key: _filled(item, zone) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, zone) for item in value]
    return value
