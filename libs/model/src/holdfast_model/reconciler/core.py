"""The reconciler's memory: units, what is derived from them, and the turn under way.

Everything derived (unmet dependencies, phases, the ready frontier, counts) changes only through the methods here, so
that a record put back by :meth:`Core.rollback` puts back what follows from it too. Each costs O(1) or the degree of
the node at hand, never the size of the graph.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from holdfast_model.events import Event, Family, Fault, FaultType
from holdfast_model.names import AI_REVIEW, BUILT_IN_TYPES, GraphRef
from holdfast_model.rows import Node, Tombstone

from .records import Flight, Phase, Record, Unit, grave_of
from .turn import CloseIntent, Settings, Turn, TypeInfo

_BUILT_IN = TypeInfo("", "", True, 0.0, 60.0, 1, observes=False, cascade=False)


class Queue:
    """Ready units of one step queue: urgent ones (heals, decisions) before bulk, each in order of arrival."""

    def __init__(self) -> None:
        self.urgent: dict[tuple[str, str], Unit] = {}
        self.bulk: dict[tuple[str, str], Unit] = {}

    def __len__(self) -> int:
        return len(self.urgent) + len(self.bulk)


class Core:
    """State of one graph's reconciler; see the module. ``new_id`` gives ids that were never used before."""

    def __init__(
        self, ref: GraphRef, incarnation: str, epoch: int, new_id: Callable[[], str], settings: Settings
    ) -> None:
        self.ref = ref
        self.incarnation = incarnation
        self.epoch = epoch
        self.new_id = new_id
        self.settings = settings
        self.now = 0.0
        self.units: dict[str, Unit] = {}
        self.graves: dict[tuple[str, str], Unit] = {}
        self.grave_types: dict[str, dict[str, None]] = {}  # id -> types of its graves
        self.mourners: dict[str, dict[tuple[str, str], None]] = {}  # id -> graves that wait for it
        self.former: dict[str, dict[str, None]] = {}  # id -> nodes provisioned against it that no longer name it
        self.flights: dict[str, tuple[Unit, Flight]] = {}  # by node id: at most one
        self.batches: dict[str, dict[str, None]] = {}  # batch -> node ids still in flight
        self.by_type: dict[str, dict[tuple[str, str], Unit]] = {}
        self.reviews: dict[str, dict[str, None]] = {}  # target -> review node ids
        self.gates: dict[str, Unit] = {}  # open gates and approvals by request key
        self.queues: dict[tuple[str, str], Queue] = {}
        self.phases: Counter[Phase] = Counter()
        self.dirty: dict[tuple[str, str], Unit] = {}
        self.catalog: Mapping[str, TypeInfo] = {}
        self.paused = False
        self.counter = 0
        self.request_number = 0
        self.to_look: dict[str, dict[tuple[str, str], Unit]] = {}
        self.wakes: dict[str, set[str]] = {}  # tag -> nodes whose observation is still to come
        self.wake_tags: dict[str, set[str]] = {}  # node -> tags
        self.timers: list[tuple[float, str, str]] = []  # (when, id, type): back-off, quarantine, look again
        self.deadlines: list[tuple[float, str]] = []  # (when, batch)
        self.resync_at: dict[str, float] = {}
        self.missing_since: dict[str, float] = {}
        self.missing_told: set[str] = set()
        self.converged = False
        self.wave: Counter[str] = Counter()
        self.turn = Turn()
        self._undo = Undo(False, Counter())
        self._last = self._undo

    # ---- units

    def info(self, unit: Unit) -> TypeInfo | None:
        """How the unit's type is treated; None when no domain has ever claimed it."""
        if unit.type in BUILT_IN_TYPES:
            return _BUILT_IN
        return self.catalog.get(unit.type)

    def mark(self, unit: Unit) -> None:
        self.dirty[(unit.id, unit.type if unit.tomb else "")] = unit

    def add_unit(self, node: Node, rec: Record) -> Unit:
        unit = Unit(node.id, node.type, rec)
        unit.node = node
        self.units[node.id] = unit
        self.by_type.setdefault(node.type, {})[(node.id, "")] = unit
        self._index_gates(unit, rec)
        self._index_review(unit, True)
        self.mark(unit)
        return unit

    def add_grave(self, tomb: Tombstone, rec: Record) -> Unit:
        unit = Unit(tomb.id, tomb.type, rec)
        unit.tomb = tomb
        self.graves[tomb.key] = unit
        self.grave_types.setdefault(tomb.id, {})[tomb.type] = None
        self.by_type.setdefault(tomb.type, {})[tomb.key] = unit
        for other in (tomb.id, *tomb.dependents, *self.former.get(tomb.id, ())):
            self.mourners.setdefault(other, {})[tomb.key] = None
        self._index_gates(unit, rec)
        self.mark(unit)
        return unit

    def drop(self, unit: Unit) -> None:
        """Take a unit out of everything derived. Its record's field is the caller's business."""
        key = (unit.id, unit.type if unit.tomb else "")
        self.set_phase(unit, None)
        self.by_type.get(unit.type, {}).pop(key, None)
        self.to_look.get(unit.type, {}).pop(key, None)
        self.dirty.pop(key, None)
        for gate in (unit.rec.gate, unit.rec.approval):
            if gate is not None:
                self.gates.pop(gate.id, None)
        if unit.tomb is not None:
            del self.graves[unit.tomb.key]
            self.grave_types[unit.id].pop(unit.type, None)
            for other in (unit.id, *unit.tomb.dependents, *self.former.get(unit.id, ())):
                self.mourners.get(other, {}).pop(unit.tomb.key, None)
            self.wake_mourners(unit.id)
            for target in dict.fromkeys((*unit.tomb.depends_on, *self.uses(unit))):
                self.wake_mourners(target)
                for type in self.grave_types.get(target, ()):
                    self.mark(self.graves[(target, type)])
        else:
            del self.units[unit.id]
            self._index_review(unit, False)
            self.wake_mourners(unit.id)
        if unit.id not in self.flights:
            self.looked(unit.id)

    def _index_gates(self, unit: Unit, rec: Record) -> None:
        for gate in (rec.gate, rec.approval):
            if gate is not None:
                self.gates[gate.id] = unit

    def _index_review(self, unit: Unit, there: bool) -> None:
        if unit.type in BUILT_IN_TYPES and unit.node is not None:
            target = review_spec(unit.node).get("target")
            if isinstance(target, str):
                if there:
                    self.reviews.setdefault(target, {})[unit.id] = None
                else:
                    self.reviews.get(target, {}).pop(unit.id, None)

    def uses(self, unit: Unit) -> tuple[str, ...]:
        """What a node was made with, or may have been made with by the step that is under way."""
        flown = self.flights.get(unit.id)
        if flown is None or flown[1].type != unit.type:
            return unit.rec.uses
        return union(unit.rec.uses, flown[1].uses)

    def used(self, unit: Unit, target: str) -> None:
        """Remember that a node in its present form was made with ``target``, which it no longer names."""
        self.former.setdefault(target, {})[unit.id] = None
        for type in self.grave_types.get(target, ()):
            self.mourners.setdefault(unit.id, {})[(target, type)] = None
            self.mark(self.graves[(target, type)])

    def wake_mourners(self, node: str) -> None:
        for key in self.mourners.get(node, ()):
            if key in self.graves:
                self.mark(self.graves[key])

    # ---- records and flights

    def set_record(self, unit: Unit, rec: Record, *, log: bool = True) -> None:
        """Replace a record; dependents and waiting removals learn of it when the node's currency changed."""
        if log and id(unit) not in self._undo.units:
            self._undo.units[id(unit)] = (unit, unit.rec, unit.min_request)
        was = unit.current
        old = unit.rec
        unit.rec = rec
        if old.gate is not rec.gate or old.approval is not rec.approval:
            for gate in (old.gate, old.approval):
                if gate is not None:
                    self.gates.pop(gate.id, None)
            self._index_gates(unit, rec)
        self.turn.rows[unit.field] = rec
        self.mark(unit)
        if unit.current != was:
            self.currency_changed(unit, was)

    def change(self, unit: Unit, **fields: object) -> None:
        """Replace some fields of a unit's record."""
        self.set_record(unit, msgspec.structs.replace(unit.rec, **fields))

    def currency_changed(self, unit: Unit, was: bool) -> None:
        step = 1 if was else -1
        for name in unit.below:
            other = self.units[name]
            other.unmet += step
            if other.unmet == (1 if was else 0) or other.phase is Phase.BLOCKED:
                self.mark(other)
        self.wake_mourners(unit.id)

    def recount(self, unit: Unit) -> None:
        """Count the unmet dependencies of a node whose edges changed."""
        assert unit.node is not None
        unit.unmet = sum(not self.units[d].current for d in unit.node.depends_on)

    def set_flight(self, unit: Unit, flight: Flight) -> None:
        self._undo.flights.setdefault(unit.id, self.flights.get(unit.id))
        self._undo.units.setdefault(id(unit), (unit, unit.rec, unit.min_request))
        self.flights[unit.id] = (unit, flight)
        self.batches.setdefault(flight.batch, {})[unit.id] = None
        unit.min_request = self.request_number
        unit.asked = 0
        self.mark(unit)

    def end_flight(self, node: str) -> Flight:
        """The step has ended, whatever its outcome. Observations begun before now say nothing any more."""
        unit, flight = self.flights.pop(node)
        self._undo.flights.setdefault(node, (unit, flight))
        self._undo.units.setdefault(id(unit), (unit, unit.rec, unit.min_request))
        batch = self.batches.get(flight.batch)
        if batch is not None:
            batch.pop(node, None)
            if not batch:
                del self.batches[flight.batch]
                self.turn.todo[f"b:{flight.batch}"] = None
        unit.min_request = self.request_number
        self.mark(unit)
        for type in self.grave_types.get(node, ()):
            self.mark(self.graves[(node, type)])
        other = self.units.get(node)
        if other is not None:
            self.mark(other)
        return flight

    # ---- phases and the frontier

    def set_phase(self, unit: Unit, phase: Phase | None) -> None:
        old = unit.phase
        if old is phase and phase is not Phase.READY:
            return
        if old is not None:
            self.phases[old] -= 1
            if old is Phase.READY:
                self._unready(unit)
        unit.phase = phase
        if phase is not None:
            self.phases[phase] += 1
            if phase is Phase.READY:
                key = (unit.id, unit.type if unit.tomb else "")
                queue = self.queues.setdefault(self.queue_of(unit), Queue())
                (queue.urgent if unit.urgent else queue.bulk)[key] = unit

    def _unready(self, unit: Unit) -> None:
        key = (unit.id, unit.type if unit.tomb else "")
        for queue in (self.queues.get(self.queue_of(unit)), *self.queues.values()):
            if queue is not None:
                queue.urgent.pop(key, None)
                queue.bulk.pop(key, None)

    def queue_of(self, unit: Unit) -> tuple[str, str]:
        """(domain, queue) to which steps of a unit go: its type's, or the target's domain for an AI review."""
        if unit.type == AI_REVIEW and unit.node is not None:
            info = self.target_info(unit)
            return (info.domain if info else "", AI_REVIEW)
        info = self.info(unit)
        return (info.domain if info else "", unit.type)

    def target_info(self, review: Unit) -> TypeInfo | None:
        """How the type of a review's target is treated, if the target is there."""
        assert review.node is not None
        target = self.units.get(str(review_spec(review.node).get("target", "")))
        return self.info(target) if target is not None else None

    @property
    def settled(self) -> bool:
        """All as declared, nothing left to remove, nothing in flight."""
        return self.phases[Phase.PRESENT] == len(self.units) and not self.graves and not self.flights

    # ---- observations to ask for

    def look(self, unit: Unit) -> None:
        """Ask for an observation in this turn, or after the step in flight."""
        if unit.id in self.flights:
            unit.again = True
            return
        info = self.info(unit)
        if unit.type in BUILT_IN_TYPES or info is None or not info.observes:
            self.looked(unit.id)
            return
        self.to_look.setdefault(unit.type, {})[(unit.id, unit.type if unit.tomb else "")] = unit

    def looked(self, node: str) -> None:
        """The observation that wake-ups of this node waited for has been dealt with."""
        for tag in self.wake_tags.pop(node, ()):
            waiting = self.wakes.get(tag)
            if waiting is not None:
                waiting.discard(node)
                if not waiting:
                    del self.wakes[tag]
                    self.turn.served.append(tag)

    def timer(self, when: float, unit: Unit) -> None:
        heapq.heappush(self.timers, (when, unit.id, unit.type if unit.tomb else ""))

    # ---- telling

    def emit(self, family: Family, name: str, data: dict[str, object], node: str = "") -> None:
        self.turn.events.append(
            Event(self.new_id(), family, name, self.ref.tenant, self.ref.graph, self.now, data, node=node)
        )

    def next_number(self) -> int:
        """The next operation number of this graph: never reused, also not after deletion."""
        self.counter += 1
        self.turn.meta["counter"] = str(self.counter)
        return self.counter

    def fault(
        self,
        unit: Unit,
        type: FaultType,
        reason: str,
        detail: str,
        *,
        id: str = "",
        permanent: bool = False,
        attempt: int = 0,
    ) -> str:
        """Raise a fault, opening the node's episode if none is open; returns the episode."""
        rec = unit.rec
        episode = rec.episode or f"e{self.next_number()}"
        if not rec.episode:
            self.change(unit, episode=episode)
        context: dict[str, object] = {
            "failures": rec.failures,
            "status": rec.status.value if rec.status else None,
        }
        if rec.info:
            context["info"] = rec.info
        fault = Fault(
            id or self.new_id(), self.incarnation, self.ref.tenant, self.ref.graph, unit.id, type, unit.type, self.now,
            reason=reason, detail=detail, permanent=permanent, attempt=attempt, operation=rec.operation,
            digest=unit.form.digest, episode=episode, context=context,
        )  # fmt: skip
        self.turn.faults.append(fault)
        self.wave["faults"] += 1
        return episode

    # ---- turns

    def take_turn(self) -> Turn:
        """The finished turn. It can be rolled back until the next one is taken."""
        turn, self.turn = self.turn, Turn()
        self._last, self._undo = self._undo, Undo(self.converged, Counter(self.wave))
        return turn

    def rollback(self, turn: Turn) -> None:
        """Put back what the last turn changed, because it could not be committed; its inputs must be given again.

        What followed from a changed graph is kept: rows are written again with their present value.
        """
        undo = self._last
        for node, before in undo.flights.items():
            now = self.flights.pop(node, None)
            if now is not None:
                batch = self.batches.get(now[1].batch, {})
                batch.pop(node, None)
                if not batch:
                    self.batches.pop(now[1].batch, None)
            if before is not None:
                self.flights[node] = before
                self.batches.setdefault(before[1].batch, {})[node] = None
        self._undo = Undo(undo.converged, Counter(undo.wave))
        self.converged, self.wave = undo.converged, Counter(undo.wave)
        self.turn = Turn(
            todo={f: t for f, t in turn.todo.items() if isinstance(t, CloseIntent)},
            meta=turn.meta,
            served=turn.served,
        )
        for unit, rec, min_request in undo.units.values():
            unit.min_request = min_request
            if self._known(unit):
                self.set_record(unit, rec, log=False)
        for field in turn.rows:
            key = grave_of(field)
            found = self.graves.get(key) if key else self.units.get(field)
            self.turn.rows[field] = found.rec if found is not None else None
        for look in turn.look:
            for item in look.nodes:
                found = self.units.get(item.node) if item.present else self.graves.get((item.node, look.type))
                if found is not None:
                    found.asked = 0
                    self.look(found)
        for key in turn.forget:
            if key in self.graves:
                self.mark(self.graves[key])

    def _known(self, unit: Unit) -> bool:
        return (self.graves.get(unit.tomb.key) if unit.tomb else self.units.get(unit.id)) is unit


class Undo:
    """First-touch copies of what a turn changes."""

    def __init__(self, converged: bool, wave: Counter[str]) -> None:
        self.converged = converged
        self.wave = wave
        self.units: dict[int, tuple[Unit, Record, int]] = {}
        self.flights: dict[str, tuple[Unit, Flight] | None] = {}


def union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Both without repetition; the very same object where the second adds nothing."""
    return first if set(second) <= set(first) else tuple(dict.fromkeys((*first, *second)))


def review_spec(node: Node) -> dict[str, object]:
    """The spec of a built-in review node."""
    spec = msgspec.json.decode(node.spec)
    return spec if isinstance(spec, dict) else {}
