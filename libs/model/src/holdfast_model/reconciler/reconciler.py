"""The reconciler of one graph: what happened goes in, what to do comes out.

Level-triggered: it acts on what it knows now, so a lost message only delays. Incremental: an input touches the nodes
it names, and what follows from them. Pure: time and ids are passed in, commands come back as a :class:`Turn`.

Use: feed any inputs (``on_*``), then take the turn with :meth:`Reconciler.finish`. If the turn could not be committed,
:meth:`rollback`, bring the graph up to date, feed the same inputs again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from holdfast_model.events import Family, FaultType, GraphEvent
from holdfast_model.manifest import OwnedLadder
from holdfast_model.messages import Observation, StepBatch, StepOutcome, brief
from holdfast_model.names import AI_REVIEW, GraphRef
from holdfast_model.phases import Standing
from holdfast_model.reasons import Reason
from holdfast_model.resync import Preference
from holdfast_model.rows import Node, Tombstone

from . import (
    concluding,
    executing,
    gating,
    graphing,
    loading,
    observing,
    phasing,
    removing,
    resyncing,
    reviewing,
    searching,
    telling,
    undoing,
)
from .core import Core
from .deciding import decide
from .gating import Ended
from .records import REPORTED, GateState, Phase, Record, Unit, reported
from .searching import Found
from .turn import PAUSED, CloseIntent, ItemIntent, Look, Settings, StepIntent, Turn, TypeInfo
from .undoing import Undo

_REPORTS_KEPT = 16
_READY, _RUNNING, _PRESENT, _BLOCKED = Phase.READY, Phase.RUNNING, Phase.PRESENT, Phase.BLOCKED
_OBSERVING, _NO_PROVISIONER = Phase.OBSERVING, Phase.NO_PROVISIONER


def reported_fault(event: str) -> str:
    """Id of the fault that a report of somebody outside raises: the same report, the same fault."""
    return f"state-{event}"


class Reconciler:
    """See the module. ``epoch``: the owner's fencing number. ``new_id``: a source of ids never used before."""

    version = 0
    """The version of the desired graph this reconciler has seen; its host sets it."""
    deleted = False
    """The graph was deleted and nothing is left of it: there is nothing to tell until it is made anew."""
    deleting = False
    """The graph was deleted: once nothing is left of it, say so. Its host sets it."""

    def __init__(
        self,
        ref: GraphRef,
        incarnation: str,
        epoch: int,
        new_id: Callable[[], str],
        settings: Settings | None = None,
    ) -> None:
        self.core = Core(ref, incarnation, epoch, new_id, settings or Settings())
        self._last: tuple[Undo, bool] | None = None

    # ---- inputs

    def load(
        self,
        now: float,
        nodes: Mapping[str, Node],
        gone: Iterable[Tombstone],
        records: Mapping[str, Record],
        todo: Mapping[str, StepIntent | ItemIntent | CloseIntent],
        *,
        counter: int,
        paused: bool = False,
        converged: bool = False,
        slept_until: float | None = None,
        leftovers: bytes | None = None,
    ) -> None:
        """Take over a graph from its stored state. Open step intents are in flight, whoever sent them.

        ``slept_until``: it was unloaded, to be loaded again at that time; rounds of observation since are due now.
        ``leftovers``: as the field of that name in ``meta`` says.
        """
        core = self.core
        core.now = now
        core.paused = core.undo.paused = paused
        core.slept_until = core.search.slept_until = slept_until
        core.counter = core.undo.counter = counter
        core.converged = core.undo.converged = converged
        core.undo.keeping = True
        loading.load(core, nodes, gone, records, todo)
        searching.load(core, leftovers)
        core.undo.found, core.undo.stored = core.search.found, core.search.stored
        core.undo.keeping = False

    def rebuild(self, batch: str, intent: object) -> StepBatch | None:
        """The batch of an open intent, for a new owner to publish again unchanged; None when nothing of it is left.

        A step whose node has changed or left is not rebuilt: it is looked at when it times out.
        """
        return loading.rebuild(self.core, batch, intent)

    def on_graph(
        self, now: float, nodes: Mapping[str, Node | None], gone: Mapping[tuple[str, str], Tombstone | None]
    ) -> None:
        """The desired graph changed: nodes by id (None = no longer desired) and tombstones (None = forgotten).

        ``nodes`` holds every node whose merge or visible edges changed, as they are now. To be given before the other
        inputs of a turn: a rollback keeps it.
        """
        core = self.core
        core.now = now
        core.undo.keeping = True
        graphing.on_graph(core, nodes, gone)
        core.undo.keeping = False

    def on_phases(self, now: float, standings: Mapping[str, Standing], members: Mapping[str, Collection[str]]) -> None:
        """How far the owners' blueprints are: those in phases or with a deadline. ``members``: the own nodes of the
        phase in force, for every owner that :meth:`unknown_phases` names. Follows :meth:`on_graph`.
        """
        self.core.now = now
        phasing.on_phases(self.core, standings, members)

    def unknown_phases(self, standings: Mapping[str, Standing]) -> list[str]:
        """Owners of whose phase in force the nodes are not known here."""
        return phasing.unknown(self.core, standings)

    def on_phase_refused(self, owner: str, why: str) -> None:
        """A turn that entered a phase was refused, because its nodes do not fit the graph as it is."""
        phasing.refused(self.core, owner, why)

    def on_catalog(self, now: float, catalog: Mapping[str, TypeInfo]) -> None:
        """Domains came, went or changed: only nodes of types whose treatment changed are decided anew."""
        core = self.core
        core.now = now
        old, core.catalog = core.catalog, catalog
        for name in {**old, **catalog}:
            if old.get(name) != catalog.get(name):
                for unit in core.by_type.get(name, ()):
                    core.mark(unit)
                if (info := catalog.get(name)) is not None and info.live:
                    core.missing_since.pop(name, None)
                    core.missing_told.discard(name)
        for unit in core.by_type.get(AI_REVIEW, ()):
            core.mark(unit)
        core.regroup = True
        searching.types_changed(core)

    def on_preferences(self, now: float, *preferences: Preference) -> None:
        """Preferences by name, the closest first (tenant, platform): timers are regrouped at once."""
        self.core.now = now
        resyncing.set_preferences(self.core, preferences)

    def on_ladders(self, ladders: Sequence[OwnedLadder]) -> None:
        """The ladders that blueprints of this graph brought along: what they look after is not quarantined."""
        core = self.core
        if core.settings.ladders == tuple(ladders):
            return
        core.settings = msgspec.structs.replace(core.settings, ladders=tuple(ladders))
        for unit in (*core.units.values(), *core.graves.values()):
            if unit.phase is Phase.QUARANTINED:
                core.mark(unit)

    def on_observed(self, now: float, look: Look, seen: Mapping[str, Observation]) -> None:
        """The answer to a :class:`Look`."""
        self.core.now = now
        observing.on_observed(self.core, look, seen)

    def on_found(self, now: float, look: Look, found: Found) -> None:
        """The answer to a :class:`Look` that searches for leftovers."""
        self.core.now = now
        observing.on_observed(self.core, look, searching.seen_of(look, found))
        searching.on_found(self.core, look, found)

    def on_domains(self, domains: Collection[str]) -> None:
        """The domains that blueprints in force name: their leftovers are looked for by the interval of their types."""
        self.core.search.domains = frozenset(domains)

    def on_outcomes(self, now: float, outcomes: Iterable[StepOutcome]) -> int:
        """Outcomes of steps; returns how many belonged to a step in flight."""
        self.core.now = now
        return concluding.on_outcomes(self.core, outcomes)

    def on_question(self, now: float, intent: ItemIntent | CloseIntent) -> None:
        """Somebody else wants a person asked about this graph, or a question withdrawn. The answer is not ours."""
        self.core.now = now
        if isinstance(intent, ItemIntent):
            self.core.todo(f"o:{intent.request}", intent)
        else:
            gating.close(self.core, intent.request, intent.caller_ref, intent.reason)

    def on_item_opened(self, now: float, request: str, workitem: str) -> None:
        """work-items has the item of this request."""
        self.core.now = now
        gating.item_opened(self.core, request, workitem)

    def on_item_closed(self, request: str) -> None:
        """work-items has made the item obsolete (or never had it)."""
        self.core.todo(f"c:{request}", None)

    def on_decision(self, now: float, end: Ended) -> None:
        """A WorkItem came to its end."""
        self.core.now = now
        gating.item_ended(self.core, end)

    def on_wake(self, now: float, nodes: Iterable[str], tag: str = "") -> None:
        """Something happened outside: look at these nodes and their dependents."""
        self.core.now = now
        observing.wake(self.core, nodes, tag)

    def on_reported(self, now: float, node: str, fault: str, detail: str, event: str) -> None:
        """Somebody reports a fault of a node (a ``state`` event); its fault's id derives from the event's.

        The same event raises it once in an episode, and the node is looked at before it counts as recovered.
        """
        core = self.core
        core.now = now
        unit, kind = core.units.get(node), f"{REPORTED}{event}"
        if unit is not None and unit.watched:
            unit.suspect = True
            core.look(unit)
            return
        if unit is None or fault.upper() not in FaultType.__members__ or kind in unit.rec.raised:
            return
        core.fault(unit, FaultType(fault.upper()), Reason.REPORTED, brief(detail), id=reported_fault(event))
        raised = unit.rec.raised
        known = [k for k in raised if not k.startswith(REPORTED)]
        latest = reported(raised)[1 - _REPORTS_KEPT :]
        core.change(unit, raised=(*known, *latest, kind))
        unit.suspect = True
        core.look(unit)

    def on_paused(self, now: float, paused: bool, node: str = "") -> None:
        """Pause or resume the graph or one of its nodes: steps stop, observation does not. What is resumed is looked at
        at once."""
        core = self.core
        core.now = now
        if node:
            for unit in self._forms(node):
                core.change(unit, paused=paused)
                if not paused:
                    core.look(unit)
            return
        if core.paused == paused:
            return
        core.emit(Family.GRAPH, GraphEvent.PAUSED if paused else GraphEvent.RESUMED, {"nodeCount": len(core.units)})
        core.paused = paused
        core.turn.meta[PAUSED] = "1" if paused else "0"
        for unit in (*core.units.values(), *core.graves.values()):
            core.mark(unit)
            if not paused:
                core.look(unit)

    def on_unblock(self, now: float, node: str) -> None:
        """Clear backoff, permanent failure, quarantine, hold and refusals of a node; ask people anew."""
        core = self.core
        core.now = now
        for unit in self._forms(node):
            gate, approval = unit.rec.gate, unit.rec.approval
            more: dict[str, object] = {"refused": "", "given_up": "", "failures": 0}
            if gate is not None and gate.state is GateState.REFUSED:
                more |= {"gate": None, "round": unit.rec.round + 1}
            if approval is not None and approval.state is GateState.REFUSED:
                more["approval"] = None
            reviewing.clear(core, unit, **more)
            core.look(unit)

    def _forms(self, node: str) -> list[Unit]:
        core = self.core
        unit = core.units.get(node)
        return ([unit] if unit else []) + core.forms_removed(node)

    def on_reconcile(self, now: float) -> None:
        """Look at everything (``holdfast reconcile``)."""
        core = self.core
        core.now = now
        for unit in (*core.units.values(), *core.graves.values()):
            core.look(unit)
        searching.ask_all(core)

    def on_time(self, now: float) -> None:
        """Let time pass: deadlines, backoff, resync."""
        core = self.core
        core.now = now
        concluding.deadlines_due(core)
        observing.timers_due(core)
        resyncing.regroup(core)
        resyncing.rounds_due(core)
        telling.nobody_there(core)
        phasing.deadlines_due(core)

    # ---- turns

    @property
    def undecided(self) -> int:
        """How many nodes there are to decide about, before anything is sent."""
        return len(self.core.dirty)

    @property
    def at_rest(self) -> bool:
        """Nothing is in flight, ready to be sent, to be decided or to be looked at: until time passes or something is
        told, every turn would be empty. What was asked of observers is for the host to know.
        """
        core = self.core
        waits = core.batches or core.dirty or core.to_resolve or core.unsorted or core.wakes
        return not waits and not any(len(queue) for queue in core.queues.values())

    def settle(self) -> None:
        """Decide what may have changed. :meth:`finish` does it too; a host may have it done aside when it is much."""
        self._settle()

    def finish(self, now: float, budget: Mapping[tuple[str, str], int]) -> Turn:
        """Decide everything that may have changed, send within ``budget``, and return the turn's commands."""
        core = self.core
        core.now = now
        self._settle()
        # What a turn itself changes of the graph, a phase that is left or a fix, steps of the same turn would not know.
        if not phasing.move_on(core) and not core.turn.amend:
            executing.dispatch(core, budget)
            self._settle()
        searching.rounds_due(core, not (self.deleting or self.deleted))
        observing.gather_looks(core)
        resyncing.regroup(core)
        deleting = self.deleting
        self.deleting = telling.tell(core, self.version, deleting, self.deleted)
        turn, undo = undoing.take_turn(core)
        self._last = (undo, deleting)
        turn.wake_at = self._wake_at()
        return turn

    def rollback(self, turn: Turn) -> None:
        """The turn was not committed: put back what it changed. Its inputs must be given again, a graph need not."""
        assert self._last is not None
        undo, self.deleting = self._last
        undoing.rollback(self.core, turn, undo)

    def _settle(self) -> None:
        core = self.core
        if core.unsorted:
            removing.untangle(core)
        while core.dirty or core.to_resolve:
            if core.to_resolve:
                graphing.resolve(core)
            batch, core.dirty = core.dirty, {}
            for unit in batch:
                self._decide(unit)

    def _decide(self, unit: Unit) -> None:
        core = self.core
        before, blocker = unit.phase, unit.blocker
        phase = decide(core, unit)
        if phase is not before or phase is _READY:
            if (
                unit.type == AI_REVIEW
                and (phase is _READY or phase is _NO_PROVISIONER)
                and reviewing.no_reviewer(core, unit)
            ):
                return
            core.set_phase(unit, phase)
        if unit.again and unit.id not in core.flights:
            core.look(unit)
        if phase is _READY or phase is _RUNNING:
            return
        if phase is _PRESENT:
            rec = unit.rec
            if rec.episode or rec.blamed or rec.gate or rec.approval or rec.decision:
                telling.well_again(core, unit)
        elif phase is _BLOCKED:
            if (unit.blocker != blocker or before is not phase) and unit.tomb is None:
                other = core.units.get(unit.blocker)
                if other is not None and other.phase in telling.STUCK:
                    telling.blame_one(core, other, unit)
        elif phase is _OBSERVING:
            if not unit.asked and (unit.rec.status is None or before is not phase):
                core.look(unit)
        elif phase is _NO_PROVISIONER:
            core.missing_since.setdefault(unit.type, core.now)
        elif unit.tomb is not None and phase is Phase.FORGET:
            core.turn.forget.append(unit.tomb.key)
        else:
            if phase is Phase.WAITING:
                gating.open_gate(core, unit)
            if phase is not before and unit.below and unit.tomb is None and phase in telling.STUCK:
                telling.blame(core, unit)

    def _wake_at(self) -> float | None:
        core = self.core
        times = [t for t, _ in core.deadlines[:1]] + [t for t, *_ in core.timers[:1]] + list(core.rounds.values())
        times += [
            t + core.settings.no_provisioner_after for n, t in core.missing_since.items() if n not in core.missing_told
        ]
        return min((*times, *phasing.next_due(core), *searching.next_due(core)), default=None)
