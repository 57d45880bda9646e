"""The planner's side of a test: one graph, its reconciler, and the carrying out of what it asks for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.events import Event, Family, Fault
from holdfast_model.manifest import Manifest
from holdfast_model.messages import Observation, ObserveRequest, StepOutcome
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import CloseIntent, Dispatch, ItemIntent, Look, Reconciler, Record, Turn, TypeInfo
from holdfast_sdk.handlers import Bound
from holdfast_sdk.observing import Observer
from holdfast_sdk.running import Batch, Runner
from holdfast_sdk.worker import slots_of

from .faults import FaultHandling
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
        self._policies = faults
        self._inputs: asyncio.Queue[Input] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._observers = {name: Observer(b, lambda: self.now) for name, b in bound.items()}
        self._runners = {name: Runner(_unhurried(b), lambda: self.now) for name, b in bound.items()}
        self._budget = {(manifest.domain, name): 2 * slots_of(b.type) for name, b in bound.items()}
        self.reconciler = Reconciler(ref, self.incarnation, 1, lambda: f"id-{next(self._ids)}")
        self.reconciler.on_catalog(self.now, _catalog(manifest))

    # ---- driving

    async def change(self) -> None:
        """The desired graph was changed: let the reconciler know, and settle."""
        self._regraph()
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
        self.events += turn.events
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
        for fault in turn.faults:
            await self._policies.handle(fault, self.graph, self._record)
        for event in turn.events:
            if event.family is Family.NODE and event.name == "recovered":
                self._policies.recovered(event.node, str(event.data.get("episode", "")), self.graph)
        return self._regraph() or any(isinstance(i, ItemIntent | CloseIntent) for i in turn.todo.values())

    def _regraph(self) -> bool:
        if not self.graph.take_delta():
            return False
        self.graph.version += 1
        self.reconciler.version = self.graph.version
        nodes, gone = self.graph.drain()
        self.reconciler.on_graph(self.now, nodes, gone)
        return True

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
        staged = {i.node: self.staged.pop(i.node) for i in look.nodes if i.node in self.staged}
        nodes = [item for item in look.nodes if item.node not in staged]
        request = ObserveRequest(self.ref.tenant, self.ref.graph, self.incarnation, look.type, nodes)
        reply = await self._observers[look.type].observe(request)
        seen = {**reply.observations, **staged}
        self._inputs.put_nowait(lambda: self.reconciler.on_observed(self.now, look, seen))

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


def _catalog(manifest: Manifest) -> dict[str, TypeInfo]:
    return {
        t.name: TypeInfo(
            manifest.domain, manifest.version, True, t.resync, t.timeout, t.batch, t.on_drift.value, t.on_unknown.value,
            t.observes, t.cascade, t.after_human, t.backoff.base, t.backoff.cap, manifest.reviews, t.outcomes,
        )
        for t in manifest.types
    }  # fmt: skip


def _unhurried(bound: Bound) -> Bound:
    """Without its rate: it protects a real system from us, and would only make tests slow."""
    return msgspec.structs.replace(bound, type=msgspec.structs.replace(bound.type, rate=0.0))
