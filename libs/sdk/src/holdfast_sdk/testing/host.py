"""The planner's side of a test: one graph, its reconciler, and the carrying out of what it asks for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from holdfast_model.blueprint import declarations
from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Invalid, Problem
from holdfast_model.events import Event, Family, Fault
from holdfast_model.fault_engine import Owned
from holdfast_model.manifest import Manifest
from holdfast_model.messages import CompileReply, Observation, ObserveItem, ObserveRequest, StepOutcome
from holdfast_model.names import GraphRef
from holdfast_model.policies import apply_all
from holdfast_model.reconciler import CloseIntent, Dispatch, ItemIntent, Look, Reconciler, Record, Turn, type_infos
from holdfast_model.reconciler.searching import found_in
from holdfast_model.renames import Rename, judge, renames_in_force
from holdfast_model.rows import Declaration, Node, Tombstone
from holdfast_model.staging import parse_deadline, stage_reply
from holdfast_model.targeting import Target
from holdfast_sdk.handlers import Bound
from holdfast_sdk.observing import Observer
from holdfast_sdk.running import Batch, Runner
from holdfast_sdk.worker import slots_of

from .faults import FaultHandling
from .phases import Phases
from .views import WorkItemView, workitem_view

Input = Callable[[], object]

START = 1_767_225_600.0  # a fixed day, so that tests see the same times every time
PATIENCE = 30.0


class Host:
    """Feeds the reconciler and runs handlers. ``now`` is virtual; handlers' own waiting is real."""

    def __init__(self, ref: GraphRef, manifest: Manifest, bound: dict[str, Bound], faults: FaultHandling) -> None:
        self.ref = ref
        self.now = START
        self.graph = DesiredGraph(ref)
        self.graph.tracking = True
        self.incarnation = "incarnation-1"
        self.faults: list[Fault] = []
        self.events: list[Event] = []
        self.workitems: dict[str, WorkItemView] = {}
        self.staged: dict[str, Observation] = {}
        self.wake_at: float | None = None
        self._ids = itertools.count(1)
        self.phases = Phases()
        self._policies = faults
        self._inputs: asyncio.Queue[Input] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._observers = {name: Observer(b, lambda: self.now) for name, b in bound.items()}
        self._runners = {name: Runner(_unhurried(b), lambda: self.now) for name, b in bound.items()}
        self._budget = {(manifest.domain, name): 2 * slots_of(b.type) for name, b in bound.items()}
        self.reconciler = Reconciler(ref, self.incarnation, 1, lambda: f"id-{next(self._ids)}")
        self.reconciler.on_catalog(self.now, type_infos(manifest))

    # ---- driving

    async def publish(
        self,
        owner: str,
        reply: CompileReply,
        places: Mapping[str, str],
        deadline: str | float | None,
        moved: Sequence[Rename] = (),
    ) -> None:
        """Declare what a blueprint compiled to, and settle. Raises Invalid."""
        staged = stage_reply(reply, parse_deadline(deadline, "/deadline"), places)
        nodes: Sequence[tuple[str, Declaration]] = declarations(reply.nodes)
        if staged is not None:
            nodes = staged.nodes(self.phases.index(owner, staged, self.now))
        if moved:
            await self._check_renames(renames_in_force(self.graph, owner, dict(nodes), moved), moved)
        self.graph.declare(owner, nodes, pointers=places, moved=moved, rewrite=Target().selects())
        self.phases.put(owner, staged, self.now)
        await self._change()

    async def _check_renames(self, pairs: Sequence[Rename], moved: Sequence[Rename]) -> None:
        """Look at the things under both names, as the planner does before it renames."""
        for pair in pairs:
            unit = self.reconciler.core.units[pair[0]]
            seen = [await self._see(name, unit.form) for name in pair]
            if why := judge(pair, unit.type, *seen, in_flight=unit.flying):
                raise Invalid(f"a node cannot be renamed: {why}", [Problem(f"/moved/{list(moved).index(pair)}", why)])

    async def _see(self, name: str, form: Node | Tombstone) -> Observation:
        item = ObserveItem(name, form.spec, form.digest, form.depends_on)
        request = ObserveRequest(self.ref.tenant, self.ref.graph, self.incarnation, form.type, [item])
        return (await self._observers[form.type].observe(request)).observations[name]

    async def delete(self, owner: str | None) -> None:
        """Remove everything, or what one owner declared, and settle."""
        if owner is None:
            self.graph.clear()
        else:
            self.graph.retract(owner)
        self.phases.drop(owner)
        await self._change()

    async def _change(self) -> None:
        if not self._regraph():
            self._take_phases()
        await self.settle()

    async def settle(self) -> None:
        """Carry out everything that happens at this moment of virtual time. AssertionError if it never ends."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turn()
                while self._tasks or not self._inputs.empty():
                    (await self._inputs.get())()
                    while not self._inputs.empty():
                        self._inputs.get_nowait()()
                    await self._turn()
        except TimeoutError:
            names = ", ".join(sorted(task.get_name() for task in self._tasks))
            raise AssertionError(f"still busy after {PATIENCE:g} s of real time: {names}") from None

    async def advance(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let virtual time pass, from timer to timer. Stops (True) as soon as ``until`` holds."""
        end = self.now + seconds
        await self.settle()
        while not until():
            due = self.wake_at
            if due is None or due > end:
                self.now = end
                self.reconciler.on_time(self.now)
                await self.settle()
                return until()
            self.now = max(self.now + 0.001, due)
            self.reconciler.on_time(self.now)
            await self.settle()
        return True

    def close(self) -> None:
        """End what still runs."""
        for task in self._tasks:
            task.cancel()

    # ---- one turn

    async def _turn(self) -> None:
        while True:
            turn = self.reconciler.finish(self.now, self._budget)
            self.wake_at = turn.wake_at
            if not await self._commit(turn):
                return

    async def _commit(self, turn: Turn) -> bool:
        """Carry out a turn; True if that fed the reconciler again."""
        self.events += [*turn.heralds, *turn.events]
        self.faults += turn.faults
        for intent in turn.todo.values():
            if isinstance(intent, ItemIntent):
                self._open(intent)
            elif isinstance(intent, CloseIntent):
                self._close(intent)
        for look in turn.look:
            self._spawn(self._look(look), f"observe {look.type}")
        for dispatch in turn.dispatch:
            self._spawn(self._run(dispatch), f"steps of {', '.join(s.node for s in dispatch.batch.steps)}")
        if turn.forget:
            self.graph.forget(turn.forget)
        if turn.adopt:
            self.graph.adopt_leftovers(turn.adopt)
        apply_all(self.graph, [Owned(a.owner, a.mutation) for a in turn.amend])
        if turn.standings is not None:
            self.phases.follow(turn, self.graph)
        for fault in turn.faults:
            await self._policies.handle(fault, self.graph, self._record)
        for event in turn.events:
            if event.family is Family.NODE and event.name == "recovered":
                self._policies.recovered(event.node, str(event.data.get("episode", "")), self.graph)
        changed = self._regraph()
        if turn.enter is not None and not changed:
            self._take_phases()
        items = any(isinstance(i, ItemIntent | CloseIntent) for i in turn.todo.values())
        return changed or items or turn.enter is not None

    def _regraph(self) -> bool:
        if not self.graph.take_delta():
            return False
        self.graph.version += 1
        self.reconciler.version = self.graph.version
        nodes, gone = self.graph.drain()
        self.reconciler.on_graph(self.now, nodes, gone)
        self._take_phases()
        return True

    def _take_phases(self) -> None:
        owners = self.phases.owners
        unknown = self.reconciler.unknown_phases(owners)
        self.reconciler.on_phases(self.now, owners, {o: self.phases.members(o, self.graph) for o in unknown})

    def _record(self, node: str) -> Record | None:
        unit = self.reconciler.core.units.get(node)
        return unit.rec if unit is not None else None

    # ---- effects

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._inputs.put_nowait(lambda: None if task.cancelled() else task.result())

    async def _look(self, look: Look) -> None:
        if look.discover:
            await self._search(look)
            return
        staged = {i.node: self.staged.pop(i.node) for i in look.nodes if i.node in self.staged}
        nodes = [item for item in look.nodes if item.node not in staged]
        request = ObserveRequest(self.ref.tenant, self.ref.graph, self.incarnation, look.type, nodes)
        reply = await self._observers[look.type].observe(request)
        seen = {**reply.observations, **staged}
        self._inputs.put_nowait(lambda: self.reconciler.on_observed(self.now, look, seen))

    async def _search(self, look: Look) -> None:
        request = ObserveRequest(self.ref.tenant, self.ref.graph, self.incarnation, look.type, [], discover=True)
        reply = await self._observers[look.type].observe(request)
        found = found_in(reply)
        self._inputs.put_nowait(lambda: self.reconciler.on_found(self.now, look, found))

    async def _run(self, dispatch: Dispatch) -> None:
        """A batch through the same runner that works in production, its parts handed on as steps end."""
        content = msgspec.json.decode(msgspec.json.encode(dispatch.batch), type=type(dispatch.batch))
        batch = Batch(content)
        self._runners[dispatch.queue].start(batch)
        last = False
        while not last:
            last = await batch.next_part(0)
            self._feed(batch.take())

    def _feed(self, outcomes: Iterable[StepOutcome]) -> None:
        taken = list(outcomes)
        self._inputs.put_nowait(lambda: self.reconciler.on_outcomes(self.now, taken))

    def _open(self, intent: ItemIntent) -> None:
        item = workitem_view(f"wi-{len(self.workitems) + 1}", intent)
        self.workitems[item.id] = item
        self.reconciler.on_item_opened(self.now, intent.request, item.id)

    def _close(self, intent: CloseIntent) -> None:
        for item in self.workitems.values():
            if item.request == intent.request and item.open:
                item.status = "OBSOLETE"
        self.reconciler.on_item_closed(intent.request)


def _unhurried(bound: Bound) -> Bound:
    """Without its rate: it protects a real system from us, and would only make tests slow."""
    return msgspec.structs.replace(bound, type=msgspec.structs.replace(bound.type, rate=0.0))
