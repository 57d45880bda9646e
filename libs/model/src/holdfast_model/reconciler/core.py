"""The reconciler's memory: units, what is derived from them, and the turn under way.

Everything derived (unmet dependencies, phases, the ready frontier, counts, indexes) changes only through the methods
here, so that a record put back by :mod:`.undoing` puts back what follows from it too. Each costs O(1) or the degree of
the node at hand, never the size of the graph.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from holdfast_model.messages import Status
from holdfast_model.names import AI_REVIEW, BUILT_IN_TYPES, GraphRef
from holdfast_model.resync import Timers
from holdfast_model.rows import Node, Tombstone

from .facts import discard, lacks, review_spec, union
from .phasing import Stages
from .queues import Queue
from .records import NO_NAMES, Flight, Phase, Record, Unit
from .referring import index_refs
from .searching import Search, searched, was_ours
from .turn import Settings, StepIntent, Turn, TypeInfo
from .undoing import Undo
from .voice import Voice

_BUILT_IN = TypeInfo("", "", True, 0.0, 60.0, 1, observes=False, cascade=False)
_PRESENT, _READY = Status.PRESENT, Phase.READY


class Core(Voice):
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
        self.mourners: dict[str, dict[Unit, None]] = {}  # id -> graves that wait for it
        self.odd: dict[Unit, None] = {}  # graves that may wait for others in an order declared at another time
        self.unsorted: dict[Unit, None] = {}  # graves of which it has just become known that they are there
        self.cuts: dict[Unit, dict[Unit, None]] = {}  # graves -> those they do not wait for, to end a circle
        self.former: dict[str, dict[Unit, None]] = {}  # id -> units made with it that no longer name it
        self.flights: dict[str, tuple[Unit, Flight]] = {}  # by node id: at most one
        self.renamed: dict[str, str] = {}  # former name -> name of a node, for steps that were sent under the former
        self.batches: dict[str, dict[str, None]] = {}  # batch -> node ids still in flight
        self.sent: dict[str, tuple[StepIntent, frozenset[str]]] = {}  # open batches, and whom they were sent for
        self.by_type: dict[str, dict[Unit, None]] = {}
        self.reviews: dict[str, dict[str, None]] = {}  # target -> review node ids
        self.referrers: dict[str, dict[Unit, None]] = {}  # node -> desired units whose specs refer to its outputs
        self.to_resolve: dict[Unit, None] = {}  # those of which a reference may have another value now
        self.gates: dict[str, Unit] = {}  # gates and approvals by request key
        self.queues: dict[tuple[str, str], Queue] = {}
        self.phases: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self.dirty: dict[Unit, None] = {}
        self.catalog: Mapping[str, TypeInfo] = {}
        self.paused = False
        self.counter = 0
        self.request_number = 0
        self.ticks = 0  # counts what happens: units that come to be, steps that are sent
        self.to_look: dict[str, dict[Unit, None]] = {}
        self.doubtful: dict[Unit, None] = {}  # what they are made from has changed; how they are is about to be seen
        self.wakes: dict[str, set[str]] = {}  # tag -> nodes whose observation is still to come
        self.wake_tags: dict[str, set[str]] = {}  # node -> tags
        self.timers: list[tuple[float, str, str]] = []  # (when, id, type): backoff, quarantine, look again
        self.deadlines: list[tuple[float, str]] = []  # (when, batch)
        self.preferences: tuple[Mapping[str, str | int | float], ...] = ()
        self.intervals = Timers()
        self.rounds: dict[float, float] = {}  # interval -> when its types are looked at next
        self.grouped: list[str] = []  # the types that ``intervals`` was made for
        self.regroup = True  # an interval may have changed
        self.slept_until: float | None = None  # unloaded until then: rounds since have not been held
        self.missing_since: dict[str, float] = {}
        self.missing_told: set[str] = set()
        self.stages = Stages()
        self.search = Search()
        self.converged = False
        self.wave: Counter[str] = Counter()
        self.turn = Turn()
        self.undo = Undo(self)
        self._blank: dict[str, tuple[Record, Record]] = {}

    # ---- units

    def info(self, unit: Unit) -> TypeInfo | None:
        """How the unit's type is treated; None when no domain has ever claimed it."""
        info = self.catalog.get(unit.type)
        if info is None and unit.type in BUILT_IN_TYPES:
            return _BUILT_IN
        return info

    def blank(self, type: str) -> tuple[Record, Record]:
        """The records of nodes of which nothing is known, and of those that are known not to be there.

        They are shared, and never written: a new owner finds out again by looking.
        """
        found = self._blank.get(type)
        if found is None:
            found = self._blank[type] = (Record(type=type), Record(type=type, status=Status.ABSENT))
        return found

    def mark(self, unit: Unit) -> None:
        """Decide anew about a unit in this turn."""
        self.dirty[unit] = None

    def add_unit(self, node: Node, rec: Record) -> Unit:
        unit = Unit(rec, node=node)
        self.units[unit.id] = unit
        if unit.type in BUILT_IN_TYPES:
            self.reviews.setdefault(str(review_spec(node).get("target", "")), {})[unit.id] = None
        if self.graves:
            self.mark_graves(unit.id)
        if self.stages.of:
            self.stages.note(unit.id, False)
        if node.refs:
            index_refs(self, unit, (), node.refs)
        return self._entered(unit)

    def add_grave(self, tomb: Tombstone, rec: Record) -> Unit:
        unit = Unit(rec, tomb=tomb)
        self.graves[tomb.key] = unit
        self.grave_types.setdefault(unit.id, {})[unit.type] = None
        return self._entered(unit)

    def next_tick(self) -> int:
        """A place in the order of things."""
        self.ticks += 1
        return self.ticks

    def _entered(self, unit: Unit) -> Unit:
        self.by_type.setdefault(unit.type, {})[unit] = None
        rec = unit.rec
        if rec.gate is not None or rec.approval is not None:
            self._index_gates(unit)
        self.dirty[unit] = None
        self.refresh(unit, uses=True)
        return unit

    def knows(self, unit: Unit) -> bool:
        """False for a unit that has been dropped, e.g. one whose step is still in flight."""
        found = self.graves.get(unit.tomb.key) if unit.tomb else self.units.get(unit.id)
        return found is unit

    def drop(self, unit: Unit) -> None:
        """Take a unit out of everything derived. Its record's field is the caller's business."""
        if unit.current:
            unit.current = False
            self._currency_changed(unit)
        self.set_phase(unit, None)
        for index in (self.by_type, self.to_look):
            index.get(unit.type, {}).pop(unit, None)
        self.dirty.pop(unit, None)
        self.doubtful.pop(unit, None)
        for gate in (unit.rec.gate, unit.rec.approval):
            if gate is not None:
                self.gates.pop(gate.id, None)
        self._enter_former(unit, ())
        if unit.tomb is not None:
            del self.graves[unit.tomb.key]
            types = self.grave_types[unit.id]
            del types[unit.type]
            if not types:
                del self.grave_types[unit.id]
            self.odd.pop(unit, None)
            self.cuts.pop(unit, None)
            for grave in self.mourners.get(unit.id, ()):
                if grave in self.cuts:
                    self.cuts[grave].pop(unit, None)
            self.unsorted.pop(unit, None)
            self.mourn(unit, NO_NAMES)
        else:
            assert unit.node is not None
            del self.units[unit.id]
            self.stages.gone(unit.id)
            if unit.declared.refs:
                index_refs(self, unit, unit.declared.refs, ())
            if unit.type in BUILT_IN_TYPES:
                discard(self.reviews, str(review_spec(unit.node).get("target", "")), unit.id)
        self.mark_graves(unit.id)
        self.looked(unit.id)
        was_ours(self, unit.id)

    def forms_removed(self, node: str) -> list[Unit]:
        """The graves of a node, one for each type it had."""
        types = self.grave_types.get(node)
        return [self.graves[(node, t)] for t in types] if types else []

    def mark_graves(self, node: str) -> None:
        """Decide anew about the removed forms of a node, and about removals that wait for it."""
        for grave in self.forms_removed(node):
            self.dirty[grave] = None
        for grave in self.mourners.get(node, ()):
            if grave.blocker == node or not grave.blocker:
                self.dirty[grave] = None

    def _index_gates(self, unit: Unit) -> None:
        for gate in (unit.rec.gate, unit.rec.approval):
            if gate is not None:
                self.gates[gate.id] = unit

    # ---- who was made with what

    def uses(self, unit: Unit) -> tuple[str, ...]:
        """What a thing was made with: while it is as declared, what it declares; else also what the step under way
        was sent with."""
        if unit.current:
            assert unit.node is not None
            return unit.node.depends_on
        if unit.flying:
            return union(unit.rec.uses, self.flights[unit.id][1].uses)
        return unit.rec.uses

    def index_former(self, unit: Unit) -> None:
        """Bring ``former`` up to date with what a unit was made with and does not name (any more)."""
        node, uses = unit.node, unit.rec.uses
        if node is None:
            wanted = uses
        elif unit.current or not uses or uses is node.depends_on:
            wanted = ()
        else:
            wanted = tuple([t for t in uses if t not in node.depends_on])
        if wanted != unit.former:
            self._enter_former(unit, wanted)

    def _enter_former(self, unit: Unit, wanted: tuple[str, ...]) -> None:
        for target in unit.former:
            if target not in wanted:
                discard(self.former, target, unit)
        for target in wanted:
            self.former.setdefault(target, {})[unit] = None
        unit.former = wanted

    def mourn(self, grave: Unit, names: Mapping[str, None]) -> None:
        """Make ``names`` those for whom a removal waits."""
        for name in grave.below:
            if name not in names:
                discard(self.mourners, name, grave)
        for name in names:
            self.mourners.setdefault(name, {})[grave] = None
        grave.below = dict(names)

    def unmourn(self, grave: Unit, name: str) -> None:
        """A removal waits for ``name`` no longer."""
        self.undo.note_mourned(grave, name)
        grave.leaves(name)
        discard(self.mourners, name, grave)
        self.dirty[grave] = None

    # ---- records

    def set_record(self, unit: Unit, rec: Record, *, write: bool = True) -> None:
        """Replace a record; dependents and waiting removals learn of it when the node's currency changed."""
        old, node, undo = unit.rec, unit.node, self.undo
        if unit not in undo.units:
            undo.note(unit)
        if unit.current and write and rec.uses is old.uses and rec.digest == old.digest:
            assert node is not None
            if rec.uses != node.depends_on and rec.status is not Status.ABSENT:
                rec = msgspec.structs.replace(rec, uses=node.depends_on)
        unit.rec = rec
        if rec.refs is not old.refs and unit.declared.refs:
            unit.resolve()
            node = unit.node
        if self.referrers and rec.outputs is not old.outputs:
            self.to_resolve.update(self.referrers.get(unit.id, ()))
        if old.gate is not rec.gate or old.approval is not rec.approval:
            self._reindex_gates(unit, old)
        now = node is not None and rec.status is _PRESENT and not unit.flying and rec.digest == node.digest
        if now and not unit.current and node is not None and lacks(rec.uses, node.depends_on):
            rec = unit.rec = msgspec.structs.replace(rec, uses=node.depends_on)  # it stands on what it declares now
        if write:
            self.turn.rows[unit.field] = rec
            if undo.keeping:
                undo.kept_rows[unit.field] = None
        self.dirty[unit] = None
        if now is not unit.current or rec.uses is not old.uses:
            self.refresh(unit, uses=True)
            if self.graves:
                self.mark_graves(unit.id)

    def _reindex_gates(self, unit: Unit, old: Record) -> None:
        for gate in (old.gate, old.approval):
            if gate is not None:
                self.gates.pop(gate.id, None)
        self._index_gates(unit)
        if self.graves:
            self.mark_graves(unit.id)

    def write(self, field: str, rec: Record | None) -> None:
        """Write (None: delete) a field of ``state`` with this turn."""
        self.turn.rows[field] = rec
        if self.undo.keeping:
            self.undo.kept_rows[field] = None

    def change(self, unit: Unit, **fields: object) -> None:
        """Replace some fields of a unit's record."""
        self.set_record(unit, msgspec.structs.replace(unit.rec, **fields))

    def refresh(self, unit: Unit, *, uses: bool = False) -> None:
        """Bring ``current``, and what hangs on it, up to date; ``uses``: what it was made with may have changed."""
        node, rec = unit.node, unit.rec
        now = node is not None and rec.status is _PRESENT and not unit.flying and rec.digest == node.digest
        if now is not unit.current:
            unit.current = now
            self._currency_changed(unit)
        elif not uses:
            return
        if unit.former or (rec.uses and not now):
            self.index_former(unit)

    def lose_currency(self, unit: Unit) -> None:
        """A unit is not as declared any more; how it is will be known when its record is set."""
        if unit.current:
            unit.current = False
            self._currency_changed(unit)

    def _currency_changed(self, unit: Unit) -> None:
        units, dirty, name = self.units, self.dirty, unit.id
        if self.stages.of:
            self.stages.note(name, unit.current)
        if unit.current:
            if self.referrers:
                self.to_resolve.update(self.referrers.get(name, ()))
            for below in unit.below:
                other = units[below]
                other.unmet -= 1
                if not other.unmet or other.blocker == name:
                    dirty[other] = None
        else:
            for below in unit.below:
                other = units[below]
                other.unmet += 1
                if other.unmet == 1:
                    dirty[other] = None
        if self.graves:
            self.mark_graves(name)

    def recount(self, unit: Unit) -> None:
        """Count the unmet dependencies of a node whose edges changed."""
        assert unit.node is not None
        unit.unmet = sum([not self.units[d].current for d in unit.node.depends_on])

    # ---- flights

    def set_flight(self, unit: Unit, flight: Flight) -> None:
        """A step is sent: nothing that was asked before says anything about what comes now."""
        undo = self.undo
        if unit not in undo.units:
            undo.note(unit)
        if unit.id not in undo.flights:
            undo.note_flight(unit.id)
        unit.min_request = self.request_number
        unit.asked = 0
        self.put_flight(unit, flight)

    def put_flight(self, unit: Unit, flight: Flight) -> None:
        self.flights[unit.id] = (unit, flight)
        self.batches.setdefault(flight.batch, {})[unit.id] = None
        unit.flying = True
        if unit.current:  # it was edited back and forth while a step was under way
            self.refresh(unit)
        if self.graves:
            self.mark_graves(unit.id)
            if unit.tomb is not None and unit.id in self.units:
                self.dirty[self.units[unit.id]] = None

    def adopt_flight(self, unit: Unit) -> None:
        """A step that is under way belongs to what its node has become."""
        flown = self.flights.get(unit.id)
        if flown is not None and flown[1].type == unit.type:
            self.flights[unit.id] = (unit, flown[1])
            flown[0].flying = False
            unit.flying = True
            self.refresh(unit)

    def end_flight(self, node: str) -> Flight:
        """The step has ended, whatever its outcome. Observations begun before now say nothing any more."""
        unit, flight = self.flights[node]
        undo = self.undo
        if unit not in undo.units:
            undo.note(unit)
        if node not in undo.flights:
            undo.note_flight(node)
        if len(self.batches[flight.batch]) == 1:
            self.undo.sent[flight.batch] = self.sent.get(flight.batch)
            self.todo(f"b:{flight.batch}", None)
        self.take_flight(node)
        unit.min_request = self.request_number
        if not unit.again:
            self.no_doubt(unit)
        return flight

    def take_flight(self, node: str) -> None:
        """Forget a flight. The caller sets the unit's record next: before that, nobody knows how it is."""
        unit, flight = self.flights.pop(node)
        unit.flying = False
        batch = self.batches[flight.batch]
        del batch[node]
        if not batch:
            del self.batches[flight.batch]
            self.sent.pop(flight.batch, None)
        other = self.units.get(node)
        if other is not None:
            self.dirty[other] = None
        if self.graves:
            self.mark_graves(node)

    # ---- phases and the frontier

    def set_phase(self, unit: Unit, phase: Phase | None) -> None:
        old = unit.phase
        if old is phase and phase is not _READY:
            return
        if old is not None:
            self.phases[old] -= 1
            if unit.lane is not None:
                del unit.lane[unit]
                unit.lane = None
        unit.phase = phase
        if phase is not None:
            self.phases[phase] += 1
            if phase is _READY:
                key = self.queue_of(unit)
                queue = self.queues.get(key)
                if queue is None:
                    queue = self.queues[key] = Queue()
                unit.lane = queue.urgent if unit.urgent else queue.bulk
                unit.lane[unit] = None

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
        """All as declared, nothing left to remove, nothing in flight, nothing in doubt, no further phase."""
        present = self.phases[Phase.PRESENT] == len(self.units)
        return present and not (self.graves or self.flights or self.doubtful or self.stages.ahead)

    # ---- observations to ask for

    def look(self, unit: Unit) -> None:
        """Ask for an observation in this turn, or after the step in flight."""
        if unit.id in self.flights:
            unit.again = True
            return
        info = self.info(unit)
        if info is None or unit.hidden or not (info.observes or searched(self, unit)):
            unit.again = unit.suspect = False
            self.no_doubt(unit)
            self.looked(unit.id)
            return
        self.to_look.setdefault(unit.type, {})[unit] = None

    def no_doubt(self, unit: Unit) -> None:
        """It has been seen, or cannot be."""
        if unit in self.doubtful:
            del self.doubtful[unit]
            self.undo.doubts.append(unit)

    def looked(self, node: str) -> None:
        """The observation that wake-ups of this node waited for has been dealt with."""
        if not self.wake_tags:
            return
        for tag in self.wake_tags.pop(node, ()):
            waiting = self.wakes.get(tag)
            if waiting is not None:
                waiting.discard(node)
                if not waiting:
                    del self.wakes[tag]
                    self.turn.served.append(tag)

    def timer(self, when: float, unit: Unit) -> None:
        """Decide anew about a unit at ``when``; an earlier timer that is still to come will see to it."""
        if unit.timer_at <= self.now or when < unit.timer_at:
            unit.timer_at = when
            heapq.heappush(self.timers, (when, unit.id, unit.type if unit.tomb else ""))
