"""The reconciler of one graph: what happened goes in, what to do comes out.

Level-triggered: it acts on what it knows now, so a lost message only delays. Incremental: an input touches the nodes
it names, and what follows from them. Pure: time and ids are passed in, commands come back as a :class:`Turn`.

Use: feed any inputs (``on_*``), then take the turn with :meth:`Reconciler.finish`. If the turn could not be committed,
:meth:`rollback`, bring the graph up to date, feed the same inputs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from holdfast_model.events import Family, FaultType
from holdfast_model.messages import Observation, StepBatch, StepOutcome
from holdfast_model.names import AI_REVIEW, GraphRef
from holdfast_model.rows import Node, Tombstone

from . import concluding, executing, gating, graphing, loading, observing, removing, reviewing, telling, undoing
from .core import Core
from .deciding import decide
from .gating import Ended
from .records import REPORTED, GateState, Phase, Record, Unit, reported
from .turn import CloseIntent, ItemIntent, Look, Settings, StepIntent, Turn, TypeInfo
from .undoing import Undo

_REPORTS_KEPT = 16


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
    ) -> None:
        """Take over a graph from its stored state. Open step intents are in flight, whoever sent them."""
        core = self.core
        core.now, core.counter, core.paused = now, counter, paused
        core.converged = core.undo.converged = converged
        core.undo.keeping = True
        loading.load(core, nodes, gone, records, todo)
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

    def on_catalog(self, now: float, catalog: Mapping[str, TypeInfo]) -> None:
        """Domains came, went or changed: only nodes of types whose treatment changed are decided anew."""
        core = self.core
        core.now = now
        old, core.catalog = core.catalog, catalog
        for name in {*old, *catalog}:
            if old.get(name) != catalog.get(name):
                for unit in core.by_type.get(name, ()):
                    core.mark(unit)
                if (info := catalog.get(name)) is not None and info.live:
                    core.missing_since.pop(name, None)
                    core.missing_told.discard(name)
        for unit in core.by_type.get(AI_REVIEW, ()):
            core.mark(unit)
        observing.regroup(core)

    def on_observed(self, now: float, look: Look, seen: Mapping[str, Observation]) -> None:
        """The answer to a :class:`Look`."""
        self.core.now = now
        observing.on_observed(self.core, look, seen)

    def on_outcomes(self, now: float, outcomes: Iterable[StepOutcome]) -> int:
        """Outcomes of steps; returns how many belonged to a step in flight."""
        self.core.now = now
        return concluding.on_outcomes(self.core, outcomes)

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
        if unit is None or fault.upper() not in FaultType.__members__ or kind in unit.rec.raised:
            return
        core.fault(unit, FaultType(fault.upper()), "reported", detail, id=f"state-{event}")
        raised = unit.rec.raised
        known = [k for k in raised if not k.startswith(REPORTED)]
        latest = reported(raised)[1 - _REPORTS_KEPT :]
        core.change(unit, raised=(*known, *latest, kind))
        unit.suspect = True
        core.look(unit)

    def on_paused(self, now: float, paused: bool, node: str = "") -> None:
        """Pause or resume the graph or one of its nodes: steps stop, observation does not."""
        core = self.core
        core.now = now
        if node:
            for unit in self._forms(node):
                core.change(unit, paused=paused)
            return
        if core.paused != paused:
            core.emit(Family.GRAPH, "paused" if paused else "resumed", {"nodeCount": len(core.units)})
        core.paused = paused
        for unit in (*core.units.values(), *core.graves.values()):
            core.mark(unit)

    def on_unblock(self, now: float, node: str) -> None:
        """Clear backoff, permanent failure, quarantine, hold and refusals of a node; ask people anew."""
        core = self.core
        core.now = now
        for unit in self._forms(node):
            gate, approval = unit.rec.gate, unit.rec.approval
            more: dict[str, object] = {"refused": "", "failures": 0}
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

    def on_time(self, now: float) -> None:
        """Let time pass: deadlines, backoff, resync."""
        core = self.core
        core.now = now
        concluding.deadlines_due(core)
        observing.timers_due(core)
        observing.resync_due(core)
        telling.nobody_there(core)

    # ---- turns

    @property
    def undecided(self) -> int:
        """How many nodes there are to decide about, before anything is sent."""
        return len(self.core.dirty)

    def settle(self) -> None:
        """Decide what may have changed. :meth:`finish` does it too; a host may have it done aside when it is much."""
        self._settle()

    def finish(self, now: float, budget: Mapping[tuple[str, str], int]) -> Turn:
        """Decide everything that may have changed, send within ``budget``, and return the turn's commands."""
        core = self.core
        core.now = now
        self._settle()
        executing.dispatch(core, budget)
        self._settle()
        observing.gather_looks(core)
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
        while core.dirty:
            batch, core.dirty = core.dirty, {}
            for unit in batch:
                self._decide(unit)

    def _decide(self, unit: Unit) -> None:
        core = self.core
        before, blocker = unit.phase, unit.blocker
        phase = decide(core, unit)
        if phase is not before or phase is Phase.READY:
            if (
                unit.type == AI_REVIEW
                and phase in (Phase.READY, Phase.NO_PROVISIONER)
                and reviewing.no_reviewer(core, unit)
            ):
                return
            core.set_phase(unit, phase)
        if unit.again and unit.id not in core.flights:
            core.look(unit)
        match phase:
            case Phase.PRESENT:
                rec = unit.rec
                if rec.episode or rec.blamed or rec.gate or rec.approval or rec.decision:
                    telling.well_again(core, unit)
            case Phase.OBSERVING:
                if not unit.asked and (unit.rec.status is None or before is not phase):
                    core.look(unit)
            case Phase.BLOCKED:
                if unit.blocker != blocker or before is not phase:
                    other = core.units.get(unit.blocker)
                    if other is not None and other.phase in telling.STUCK and unit.node is not None:
                        telling.blame_one(core, other, unit)
            case Phase.FORGET:
                assert unit.tomb is not None
                core.turn.forget.append(unit.tomb.key)
            case Phase.NO_PROVISIONER:
                core.missing_since.setdefault(unit.type, core.now)
            case Phase.WAITING:
                gating.open_gate(core, unit)
        if phase in telling.STUCK and phase is not before and unit.below and unit.node is not None:
            telling.blame(core, unit)

    def _wake_at(self) -> float | None:
        core = self.core
        times = [t for t, _ in core.deadlines[:1]] + [t for t, *_ in core.timers[:1]] + list(core.resync_at.values())
        times += [
            t + core.settings.no_provisioner_after for n, t in core.missing_since.items() if n not in core.missing_told
        ]
        return min(times, default=None)
