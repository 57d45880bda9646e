"""The reconciler of one graph: what happened goes in, what to do comes out.

Level-triggered: it acts on what it knows now, so a lost message only delays. Incremental: an input touches the nodes
it names, and what follows from them. Pure: time and ids are passed in, commands come back as a :class:`Turn`.

Use: feed any inputs (``on_*``), then take the turn with :meth:`Reconciler.finish`. If the turn could not be committed,
:meth:`rollback`, bring the graph up to date, feed the same inputs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from holdfast_model.events import Family, FaultType
from holdfast_model.messages import Action, Observation, Status, StepBatch, StepOutcome
from holdfast_model.names import AI_REVIEW, GraphRef
from holdfast_model.rows import Node, Tombstone

from . import executing, gating, observing
from .core import Core
from .deciding import decide
from .gating import Ended
from .records import Flight, GateState, Phase, Record, Unit, grave_field, grave_of
from .turn import CloseIntent, ItemIntent, Look, Settings, StepIntent, Turn, TypeInfo

NOBODY = "no_provisioner"
_STUCK = frozenset({Phase.FAILED, Phase.HELD, Phase.WAITING, Phase.REFUSED, Phase.QUARANTINED, Phase.BACKOFF})


class Reconciler:
    """See the module. ``epoch``: the owner's fencing number. ``new_id``: a source of ids never used before."""

    def __init__(
        self,
        ref: GraphRef,
        incarnation: str,
        epoch: int,
        new_id: Callable[[], str],
        settings: Settings | None = None,
    ) -> None:
        self.core = Core(ref, incarnation, epoch, new_id, settings or Settings())

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
        core.now, core.counter, core.paused, core.converged = now, counter, paused, converged
        for node in nodes.values():
            rec = records.get(node.id)
            if rec is None or rec.type != node.type:  # the owner fell before it could write what the change meant
                buried = records.get(grave_field(node.id, node.type))
                if rec is not None or buried is not None:
                    core.turn.rows[node.id] = buried or Record(type=node.type)
                rec = buried or Record(type=node.type)
            core.add_unit(node, rec)
        for node in nodes.values():
            for target in node.depends_on:
                core.units[target].below[node.id] = None
        for unit in core.units.values():
            if unit.node is not None and unit.node.depends_on:
                core.recount(unit)
        for tomb in gone:
            field = grave_field(tomb.id, tomb.type)
            rec = records.get(field)
            if rec is None:
                last = records.get(tomb.id)
                known = last is not None and last.type == tomb.type
                rec = executing.fresh_removed(last) if last is not None and known else Record(type=tomb.type)
                core.turn.rows[field] = rec
            core.add_grave(tomb, rec)
        for field, intent in todo.items():
            if isinstance(intent, StepIntent):
                self._resume(field[2:], intent)
        for unit in core.units.values():
            self._remember_uses(unit)
        for grave in core.graves.values():
            for target in core.uses(grave):
                core.used(grave, target)
        for field in records:
            key = grave_of(field)
            known = key in core.graves if key is not None else field in core.units
            if not known:
                core.turn.rows[field] = None
        for unit in (*core.units.values(), *core.graves.values()):
            if unit.rec.status is Status.UNKNOWN:
                core.look(unit)

    def _resume(self, batch: str, intent: StepIntent) -> None:
        core = self.core
        for node, action, operation, attempt, digest, uses in intent.steps:
            act = Action(action)
            unit = core.units.get(node) if act is Action.PROVISION else core.graves.get((node, intent.type))
            if unit is None or unit.type != intent.type:
                unit = core.graves.get((node, intent.type)) or core.units.get(node)
            if unit is None or (operation, attempt) <= (unit.rec.operation, unit.rec.attempt):
                continue
            form = unit.form
            whole = form.digest if form.digest.startswith(digest) else digest
            flight = Flight(
                batch,
                act,
                operation,
                attempt,
                intent.type,
                whole,
                unit.rec.token,
                intent.deadline,
                intent.sent, uses)
            core.set_flight(unit, flight)
        if batch in core.batches:
            core.deadlines.append((intent.deadline, batch))
            core.deadlines.sort()
        else:
            core.turn.todo[f"b:{batch}"] = None

    def rebuild(self, batch: str, intent: object) -> StepBatch | None:
        """The batch of an open intent, for a new owner to publish again unchanged; None when nothing of it is left.

        A step whose node has changed or left is not rebuilt: it is looked at when it times out.
        """
        core = self.core
        if not isinstance(intent, StepIntent) or batch not in core.batches:
            return None
        steps = []
        for node, _, _, _, digest, _ in intent.steps:
            flown = core.flights.get(node)
            if flown is None or flown[1].batch != batch:
                continue
            unit, flight = flown
            if unit.form.digest.startswith(digest) and unit.action is flight.action:
                steps.append(executing.build_step(unit, flight))
        if not steps:
            return None
        ref = core.ref
        return StepBatch(
            batch, ref.tenant, ref.graph, core.incarnation, ref.partition, intent.epoch, intent.domain_version,
            intent.start_by, steps,
        )  # fmt: skip

    def on_graph(
        self, now: float, nodes: Mapping[str, Node | None], gone: Mapping[tuple[str, str], Tombstone | None]
    ) -> None:
        """The desired graph changed: nodes by id (None = no longer desired) and tombstones (None = forgotten).

        ``nodes`` holds every node whose merge or visible edges changed, as they are now.
        """
        core = self.core
        core.now = now
        core.converged = False
        before: dict[tuple[str, str], tuple[Record, tuple[Unit, Flight] | None]] = {}
        dependents: dict[str, dict[str, None]] = {}
        for id, node in nodes.items():
            unit = core.units.get(id)
            if unit is not None and (node is None or node.type != unit.type):
                rec = msgspec.structs.replace(unit.rec, uses=core.uses(unit))
                before[(id, unit.type)] = (rec, core.flights.get(id))
                dependents[id] = unit.below
                self._remove(unit)
        for key, tomb in gone.items():
            grave = core.graves.get(key)
            if tomb is None and grave is not None:
                before[key] = (grave.rec, core.flights.get(key[0]))
                gating.close_all(core, grave, "no longer to be removed")
                core.turn.rows[grave.field] = None
                core.drop(grave)
            elif tomb is not None and grave is None:
                rec, flown = before.get(key, (Record(type=tomb.type), None))
                grave = core.add_grave(tomb, executing.fresh_removed(rec))
                core.turn.rows[grave.field] = grave.rec
                self._adopt_flight(grave, flown)
        fresh: set[str] = set()
        for node in nodes.values():
            if node is not None and node.id not in core.units:
                fresh.add(node.id)
                rec, flown = before.get((node.id, node.type), (Record(type=node.type), None))
                unit = core.add_unit(node, msgspec.structs.replace(rec, gate=None, approval=None))
                if rec.status is not None or rec.operation:
                    core.turn.rows[node.id] = unit.rec
                    core.look(unit)
                self._adopt_flight(unit, flown)
        for id, node in nodes.items():
            if node is not None:
                self._rewire(core.units[id], node, fresh=id in fresh)
            core.wake_mourners(id)
        for id in fresh & dependents.keys():  # a changed type: dependents that did not change hang on the new form
            for name in dependents[id]:
                other = core.units.get(name)
                if other is not None and other.node is not None and id in other.node.depends_on:
                    core.units[id].below[name] = None
                    core.recount(other)
                    core.mark(other)

    def _remove(self, unit: Unit) -> None:
        core = self.core
        gating.close_all(core, unit, "the node was removed")
        assert unit.node is not None
        for target in core.uses(unit):
            core.used(unit, target)
        for target in unit.node.depends_on:
            if target in core.units:
                core.units[target].below.pop(unit.id, None)
        core.turn.rows[unit.id] = None
        core.drop(unit)

    def _remember_uses(self, unit: Unit) -> None:
        node = unit.node
        if node is not None and (uses := self.core.uses(unit)) != node.depends_on:
            if uses is not unit.rec.uses:  # the step under way was sent with other edges: nothing else remembers them
                self.core.change(unit, uses=uses)
            for target in uses:
                if target not in node.depends_on:
                    self.core.used(unit, target)

    def _adopt_flight(self, unit: Unit, flown: tuple[Unit, Flight] | None) -> None:
        """A step that is under way belongs to what its node has become."""
        if flown is not None and flown[1].type == unit.type and unit.id in self.core.flights:
            self.core.flights[unit.id] = (unit, flown[1])
            self.core.mark(unit)

    def _rewire(self, unit: Unit, node: Node, *, fresh: bool) -> None:
        core = self.core
        old = unit.node
        assert old is not None
        was = unit.current
        if not fresh:
            for target in old.depends_on:
                if target not in node.depends_on and target in core.units:
                    core.units[target].below.pop(unit.id, None)
        unit.node = node
        self._remember_uses(unit)
        for target in node.depends_on:
            core.units[target].below[unit.id] = None
        if not fresh and old.digest != node.digest:
            self._respecified(unit)
        if fresh or old.depends_on != node.depends_on:
            core.recount(unit)
        if not fresh and unit.current != was:
            core.currency_changed(unit, was)
        core.mark(unit)

    def _respecified(self, unit: Unit) -> None:
        """A new digest ends what was decided, refused or failed for the old one, and is looked at first."""
        core = self.core
        gating.close_all(core, unit, "the node changed")
        core.change(
            unit, hold=False, decision=None, permanent="", refused="", next_try=0.0, approval=None, gate=None,
            quarantined_until=0.0, round=unit.rec.round + 1,
        )  # fmt: skip
        core.look(unit)

    def on_catalog(self, now: float, catalog: Mapping[str, TypeInfo]) -> None:
        """Domains came, went or changed: only nodes of types whose treatment changed are decided anew."""
        core = self.core
        core.now = now
        old, core.catalog = core.catalog, catalog
        for name in {*old, *catalog}:
            if old.get(name) != catalog.get(name):
                for unit in core.by_type.get(name, {}).values():
                    core.mark(unit)
                if (info := catalog.get(name)) is not None and info.live:
                    core.missing_since.pop(name, None)
                    core.missing_told.discard(name)
        for name in (AI_REVIEW,):
            for unit in core.by_type.get(name, {}).values():
                core.mark(unit)
        observing.regroup(core)

    def on_observed(self, now: float, look: Look, seen: Mapping[str, Observation]) -> None:
        """The answer to a :class:`Look`."""
        self.core.now = now
        observing.on_observed(self.core, look, seen)

    def on_outcomes(self, now: float, outcomes: Iterable[StepOutcome]) -> int:
        """Outcomes of steps; returns how many belonged to a step in flight."""
        self.core.now = now
        return executing.on_outcomes(self.core, outcomes)

    def on_item_opened(self, now: float, request: str, workitem: str) -> None:
        """work-items has the item of this request."""
        self.core.now = now
        gating.item_opened(self.core, request, workitem)

    def on_item_closed(self, request: str) -> None:
        """work-items has made the item obsolete (or never had it)."""
        self.core.turn.todo[f"c:{request}"] = None

    def on_decision(self, now: float, end: Ended) -> None:
        """A WorkItem came to its end."""
        self.core.now = now
        gating.item_ended(self.core, end)

    def on_wake(self, now: float, nodes: Iterable[str], tag: str = "") -> None:
        """Something happened outside: look at these nodes and their dependents."""
        self.core.now = now
        observing.wake(self.core, nodes, tag)

    def on_reported(self, now: float, node: str, fault: str, detail: str, event: str) -> None:
        """Somebody reports a fault of a node (a ``state`` event); its fault's id derives from the event's."""
        self.core.now = now
        unit = self.core.units.get(node)
        if unit is not None and fault.upper() in FaultType.__members__:
            self.core.fault(unit, FaultType(fault.upper()), "reported", detail, id=f"state-{event}")

    def on_paused(self, now: float, paused: bool, node: str = "") -> None:
        """Pause or resume the graph or one of its nodes: steps stop, observation does not."""
        core = self.core
        core.now = now
        if node:
            if node in core.units:
                core.change(core.units[node], paused=paused)
            return
        core.paused = paused
        for unit in (*core.units.values(), *core.graves.values()):
            core.mark(unit)

    def on_unblock(self, now: float, node: str) -> None:
        """Clear backoff, permanent failure, quarantine, hold and refusals of a node; ask people anew."""
        core = self.core
        core.now = now
        for unit in self._forms(node):
            gate, approval = unit.rec.gate, unit.rec.approval
            more: dict[str, object] = {}
            if gate is not None and gate.state is GateState.REFUSED:
                more |= {"gate": None, "round": unit.rec.round + 1}
            if approval is not None and approval.state is GateState.REFUSED:
                more["approval"] = None
            gating.clear(core, unit, **more)
            core.look(unit)

    def _forms(self, node: str) -> list[Unit]:
        core = self.core
        unit = core.units.get(node)
        graves = [core.graves[(node, t)] for t in core.grave_types.get(node, ())]
        return ([unit] if unit else []) + graves

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
        executing.deadlines_due(core)
        observing.timers_due(core)
        observing.resync_due(core)
        for type, since in list(core.missing_since.items()):
            if type not in core.missing_told and since + core.settings.no_provisioner_after <= now:
                self._nobody(type)

    def _nobody(self, type: str) -> None:
        core = self.core
        core.missing_told.add(type)
        unit = next(iter(core.by_type.get(type, {}).values()), None)
        if unit is not None:
            core.fault(unit, FaultType.PROVISION_FAILED, NOBODY, f"no provisioner for type {type!r} is running")

    # ---- turns

    def finish(self, now: float, budget: Mapping[tuple[str, str], int]) -> Turn:
        """Decide everything that may have changed, send within ``budget``, and return the turn's commands."""
        core = self.core
        core.now = now
        self._settle()
        executing.dispatch(core, budget)
        self._settle()
        observing.gather_looks(core)
        self._tell()
        turn = core.take_turn()
        turn.wake_at = self._wake_at()
        return turn

    def rollback(self, turn: Turn) -> None:
        """The turn was not committed: put back what it changed."""
        self.core.rollback(turn)

    def _settle(self) -> None:
        core = self.core
        while core.dirty:
            batch, core.dirty = core.dirty, {}
            for unit in batch.values():
                self._decide(unit)

    def _decide(self, unit: Unit) -> None:
        core = self.core
        old = unit.phase
        phase = decide(core, unit)
        answerable = unit.type == AI_REVIEW and phase in (Phase.READY, Phase.NO_PROVISIONER)
        if answerable and executing.no_reviewer(core, unit):
            return
        if phase is Phase.WAITING:
            gating.open_gate(core, unit)
        core.set_phase(unit, phase)
        if phase is Phase.PRESENT:
            executing.told(core, unit)
        elif phase is Phase.OBSERVING:
            if not unit.asked and (unit.rec.status is None or old is not phase):
                core.look(unit)
        elif phase is Phase.FORGET and unit.tomb is not None:
            core.turn.forget.append(unit.tomb.key)
        elif phase is Phase.NO_PROVISIONER:
            core.missing_since.setdefault(unit.type, core.now)
        if unit.again and unit.id not in core.flights:
            core.look(unit)
        if phase in _STUCK and phase is not old and unit.node is not None:
            self._blame(unit, phase)
        elif phase is Phase.BLOCKED and unit.node is not None and phase is not old and unit.blocker in core.units:
            blocker = core.units[unit.blocker]
            if blocker.phase in _STUCK:
                self._blame_one(blocker, unit)

    def _blame(self, unit: Unit, phase: Phase) -> None:
        for name in unit.below:
            other = self.core.units[name]
            if other.phase is Phase.BLOCKED:
                self._blame_one(unit, other)

    def _blame_one(self, blocker: Unit, blocked: Unit) -> None:
        """Tell once per episode that a node is blocked by one that failed, is held or waits for a person."""
        core = self.core
        mark = blocker.rec.episode or f"{blocker.phase}:{blocker.id}"
        if mark in blocked.rec.blamed:
            return
        core.change(blocked, blamed=(*blocked.rec.blamed[-7:], mark))
        data: dict[str, object] = {
            "node": blocked.id,
            "nodeType": blocked.type,
            "by": blocker.id,
            "because": str(blocker.phase),
        }
        core.emit(Family.NODE, "blocked", data, blocked.id)
        if blocker.rec.failures and blocker.phase in (Phase.FAILED, Phase.BACKOFF):
            core.fault(
                blocked,
                FaultType.DEPENDENCY_UNAVAILABLE,
                "dependency_failed",
                f"{blocker.id} failed: {blocker.rec.error}",
            )

    def _tell(self) -> None:
        """The graph as a whole: the end of a wave, and convergence, once per transition."""
        core = self.core
        busy = core.flights or any(core.phases[p] for p in (Phase.READY, Phase.OBSERVING, Phase.FORGET))
        if core.wave["steps"] and not busy:
            counts: dict[str, object] = {
                "nodeCount": len(core.units),
                "additionsCount": core.wave["additions"],
                "removalsCount": core.wave["removals"],
                "faultCount": core.wave["faults"],
            }
            core.emit(Family.GRAPH, "reconciled", counts)
            core.wave.clear()
        settled = core.settled
        if settled and self.deleting and not core.units:
            self.deleting = False
            core.converged = True
            core.emit(Family.GRAPH, "deleted", {"version": self.version})
            core.turn.meta["status"] = "deleted"
        elif settled and not core.converged:
            core.converged = True
            core.emit(Family.GRAPH, "converged", {"nodeCount": len(core.units), "version": self.version})
            core.turn.meta["status"] = "converged"
        elif not settled and core.converged:
            core.converged = False
            core.turn.meta["status"] = "reconciling"

    version = 0
    """The version of the desired graph this reconciler has seen; its host sets it."""
    deleting = False
    """The graph was deleted: once nothing is left of it, say so. Its host sets it."""

    def _wake_at(self) -> float | None:
        core = self.core
        times = [t for t, _ in core.deadlines[:1]] + [t for t, *_ in core.timers[:1]] + list(core.resync_at.values())
        times += [
            t + core.settings.no_provisioner_after for n, t in core.missing_since.items() if n not in core.missing_told
        ]
        return min(times, default=None)
