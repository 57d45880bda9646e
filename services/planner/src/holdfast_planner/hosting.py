"""One loaded graph: feeds its reconciler, commits its turns, carries out what they say.

Inputs queue up and are taken together. A turn is written first; then steps are published, observations asked for,
WorkItems opened, and what brought the inputs is acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Conflict, Fenced, Invalid, Temporary, Unavailable
from holdfast_model.manifest import OwnedLadder
from holdfast_model.messages import Observation, ResultBatch
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import (
    CloseIntent,
    Dispatch,
    Ended,
    Found,
    ItemIntent,
    Look,
    Reconciler,
    StepIntent,
    Turn,
)
from holdfast_model.reconciler.records import GateState
from holdfast_store import keys
from holdfast_store.commits import Op
from holdfast_store.kv import Changed, Cmd
from holdfast_store.records import META_LADDERS
from holdfast_store.replica import Feed

from . import planning
from .catalog import QueueKey, Room
from .effects import Effects
from .inbox import Reports, read_entry
from .loading import NOTHING, Tools, aside, load
from .phasing import Phases
from .relay import Relay
from .resting import META_RESTED, note_of
from .writing import GraphTurn, MovedOnError, turn_cmds

log = logging.getLogger("holdfast.planner")

T = TypeVar("T")
Input = Callable[[Reconciler, float], object]
_ladders = msgspec.json.Decoder(tuple[OwnedLadder, ...]).decode
_RETRY = 0.25
_INBOX_PAGE = 500


class HostedGraph:
    """See the module. ``lost`` is called when the host ends by itself: for good (fenced off, or at
    rest: True) or by a failure (False)."""

    def __init__(self, ref: GraphRef, epoch: int, tools: Tools, lost: Callable[[GraphRef, bool], None]) -> None:
        self.ref = ref
        self.epoch = epoch
        self._tools = tools
        self._lost = lost
        self._inputs: list[Input] = []
        self._acks: list[Callable[[], Awaitable[None]]] = []
        self._woken = asyncio.Event()
        self._stale = True
        self._wake_at: float | None = None
        self._inbox_after = ""
        self._unserved: set[str] = set()
        self._reports = Reports()
        self._done: list[str] = []
        self._batches: dict[str, QueueKey] = {}
        self._summary = b""
        self._effects = Effects(self, tools)
        self._relay = Relay(ref, tools.store, tools.bus)
        self._room = Room(tools.budget, self.wake)
        self._phases = Phases(ref, tools.store)
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._marked = False  # the store may say that the graph is at rest
        self._resting = False
        self.used_at = tools.clock()
        self.reconciler: Reconciler | None = None
        self.loaded = asyncio.Event()

    # ---- life

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"graph {self.ref}")
        self._relay.start()

    async def stop(self) -> None:
        """Stop at once: everything that matters is stored. Acknowledgements that are due are not sent."""
        tasks = [t for t in (self._task,) if t is not None and t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await self._effects.stop()
        await self._relay.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        self._tools.budget.leave(self.wake)
        for key in self._batches.values():
            self._tools.budget.give_back(key)
        self._batches.clear()
        self._close_feed()

    def _close_feed(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()

    # ---- rest

    @property
    def nodes(self) -> int:
        """How many nodes and tombstones it holds in memory."""
        core = self.reconciler.core if self.reconciler is not None else None
        return len(core.units) + len(core.graves) if core is not None else 0

    @property
    def idle(self) -> bool:
        """Nothing came, nothing is under way: it may be unloaded."""
        inward = self._inputs or self._acks or self._stale or self._unserved or self._done or self._woken.is_set()
        outward = self._effects.busy or self._batches
        return self.loaded.is_set() and not inward and not outward

    def rest(self) -> None:
        """Unload it, unless something comes in between."""
        self._resting = True
        self.wake()

    async def _rest(self) -> bool:
        """Note that the graph is at rest, and end. What came meanwhile (or failed) keeps it loaded; then the note goes
        with its next turn."""
        self._resting = False
        tools, reconciler = self._tools, self.reconciler
        note = note_of(reconciler, self._wake_at, tools.clock()) if reconciler is not None and self.idle else None
        if note is None:
            return False
        self._marked = True
        written: Cmd = ("HSET", keys.meta(self.ref), META_RESTED, msgspec.json.encode(note))
        try:
            await tools.store.turn(
                self.ref, epoch=self.epoch, cmds=[written], at_version=note.version, turn_id=tools.new_id()
            )
            if note.wake_at is not None:
                await tools.store.set_due(self.ref, note.wake_at)
            pending = await tools.store.pending(self.ref)
            ((_, version, letters),) = await tools.store.at_rest([self.ref], META_RESTED)
        except (Changed, Temporary):
            self.hint()
            return False
        if pending or letters or version != note.version or not self.idle:
            self.hint()
            return False
        self._close_feed()
        self._lost(self.ref, True)
        return True

    async def _run(self) -> None:
        try:
            await self._load_until_done()
            await self._turn()  # nobody is answered before everything is decided
            self.loaded.set()
            self.ask_after_items()
            while True:
                await self._wait()
                await self._turn()
                if self._resting and await self._rest():
                    return
        except Fenced as error:
            log.warning("%s", error)
            self._lost(self.ref, True)
        except asyncio.CancelledError:
            raise
        except Exception:
            # Whatever it was, a fresh start from the store is right: nothing but memory is lost.
            log.exception("the host of graph %s failed; it is loaded again", self.ref)
            await asyncio.sleep(1.0)
            self._lost(self.ref, False)

    async def _wait(self) -> None:
        if self._woken.is_set():
            self._woken.clear()
            return
        settings = self._tools.settings
        pause = settings.poll_interval
        for at in (self._wake_at, self._reports.due):
            if at is not None:
                pause = min(pause, max(0.0, at - self._tools.clock()))
        try:
            async with asyncio.timeout(pause):
                await self._woken.wait()
            self._woken.clear()
        except TimeoutError:
            self._stale = self._stale or pause >= settings.poll_interval

    # ---- inputs

    def wake(self) -> None:
        """Have a turn."""
        self._woken.set()

    def hint(self) -> None:
        """The graph's version or inbox may have moved."""
        self.used_at = self._tools.clock()
        self._stale = True
        self._woken.set()

    def give(self, feed: Input, ack: Callable[[], Awaitable[None]] | None = None) -> None:
        """Queue an input; ``ack`` is called once the turn that took it is committed."""
        self._inputs.append(feed)
        self.used_at = self._tools.clock()
        if ack is not None:
            self._acks.append(ack)
        self._woken.set()

    def results(self, batch: ResultBatch, ack: Callable[[], Awaitable[None]]) -> None:
        """Outcomes from a provisioner. Those of another incarnation of the graph mean nothing."""

        def feed(reconciler: Reconciler, now: float) -> None:
            if batch.incarnation == reconciler.core.incarnation:
                reconciler.on_outcomes(now, batch.outcomes)

        self.give(feed, ack)

    def observed(self, look: Look, seen: Mapping[str, Observation]) -> None:
        self.give(lambda r, now: r.on_observed(now, look, seen))

    def found(self, look: Look, found: Found) -> None:
        self.give(lambda r, now: r.on_found(now, look, found))

    async def search(self, type: str) -> Found:
        """What is there of a type that this graph does not know of; for people, nothing follows from it."""
        return await self._effects.search(type)

    def catalog_changed(self) -> None:
        self.give(lambda r, now: r.on_catalog(now, self._tools.catalog.infos))

    def preferences_changed(self) -> None:
        self.give(lambda r, now: r.on_preferences(now, *self._tools.preferences.of(self.ref.tenant)))

    def item_opened(self, request: str, workitem: str) -> None:
        self.give(lambda r, now: r.on_item_opened(now, request, workitem))

    def item_closed(self, request: str) -> None:
        self.give(lambda r, now: r.on_item_closed(request))

    def item_ended(self, end: Ended) -> None:
        self.give(lambda r, now: r.on_decision(now, end))

    # ---- loading

    async def _load_until_done(self) -> None:
        while True:
            try:
                async with self._tools.loading:
                    await self._load()
                return
            except Unavailable as error:
                log.warning("graph %s cannot be loaded yet: %s", self.ref, error)
                await asyncio.sleep(error.retry_after or 1.0)

    async def _load(self) -> None:
        tools, ref, store = self._tools, self.ref, self._tools.store
        await store.raise_epoch(ref, self.epoch)
        if self._feed is None:
            self._feed = await store.feed(ref)
        loaded = await load(tools, ref, self.epoch, self._feed, self._phases)
        self._marked = loaded.rested
        self.reconciler = loaded.reconciler
        for field, intent in loaded.todo.items():
            self._resume(loaded.reconciler, field, intent)
        self._stale = True
        self._woken.set()

    def _resume(self, reconciler: Reconciler, field: str, intent: StepIntent | ItemIntent | CloseIntent) -> None:
        """Carry out an intent of an earlier owner again, with the same ids."""
        if isinstance(intent, StepIntent):
            batch = reconciler.rebuild(field[2:], intent)
            if batch is not None:
                self._sent(batch.batch, (intent.domain, intent.queue))
                self._effects.publish(Dispatch(intent.domain, intent.queue, batch))
        else:
            self._effects.item(intent)

    # ---- turns

    async def _turn(self) -> None:
        tools, reconciler = self._tools, self.reconciler
        assert reconciler is not None
        inputs, self._inputs = self._inputs, []
        acks, self._acks = self._acks, []
        if self._stale:
            self._stale = False
            inputs += await self._patiently(self._look_for_news)
        inputs += self._reports.ready(tools.clock())
        while True:
            now = tools.clock()
            await self._take_graph(reconciler, now)
            for feed in inputs:
                feed(reconciler, now)
            reconciler.on_time(now)
            await aside(reconciler.undecided, reconciler.settle)
            turn = reconciler.finish(now, self._room)
            try:
                if turn.writes or turn.served or self._done:
                    await self._commit(reconciler, turn)
            except (Changed, MovedOnError):
                reconciler.rollback(turn)
                await self._patiently(self._refresh)
                continue
            except Invalid as error:
                if turn.enter is None:
                    raise
                log.warning("graph %s cannot enter the next phase of %r yet: %s", self.ref, turn.enter.owner, error)
                reconciler.rollback(turn)
                reconciler.on_phase_refused(turn.enter.owner, error.message)
                await self._patiently(self._refresh)
                continue
            break
        self._done = []
        self._wake_at = turn.wake_at
        self._carry_out(reconciler, turn)
        for ack in acks:
            await ack()

    async def _patiently(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do it until the store answers; nothing else can be done meanwhile."""
        while True:
            try:
                return await work()
            except Temporary as error:
                log.warning("graph %s waits for the store: %s", self.ref, error)
                await asyncio.sleep(error.retry_after or _RETRY)

    async def _refresh(self) -> None:
        await self._tools.store.refresh(self.ref)

    async def _look_for_news(self) -> list[Input]:
        """Catch up with the graph and read the inbox."""
        await self._refresh()
        await self._read_standing()
        entries = await self._tools.store.inbox(self.ref, self._inbox_after, _INBOX_PAGE)
        inputs: list[Input] = []
        known: set[str] = set()
        read = [(entry, read_entry(entry, known)) for entry in entries]
        known |= await self._tools.store.faults_known(self.ref, [f for _, t in read for f in t.faults])
        for entry, taken in read:
            self._inbox_after = entry.id
            if taken.feed is not None and taken.deferred:
                self._reports.arrived(taken.feed)
            elif taken.feed is not None:
                inputs.append(taken.feed)
            if taken.deferred:
                self._unserved.add(entry.id)
            else:
                self._done.append(entry.id)
        if len(entries) == _INBOX_PAGE:
            self.hint()
        return inputs

    async def _read_standing(self) -> None:
        """An admission may have begun a deletion, ended one, created the graph anew, or brought ladders."""
        reconciler = self.reconciler
        assert reconciler is not None
        fields = ("status", "incarnation", META_LADDERS, planning.META_DOMAINS)
        (found,) = await self._tools.store.kv.run(("HMGET", keys.meta(self.ref), *fields))
        reconciler.deleting = found[0] == b"deleting"
        reconciler.deleted = found[0] in NOTHING
        if found[1] is not None:
            reconciler.core.incarnation = found[1].decode()
        reconciler.on_ladders(_ladders(found[2]) if found[2] else ())
        reconciler.on_domains(planning.domains_in(found[3]))

    async def _take_graph(self, reconciler: Reconciler, now: float) -> None:
        assert self._feed is not None
        graph: DesiredGraph = self._feed.graph
        self._feed.take()
        if graph.version == reconciler.version:
            return
        while True:
            standings, members = await self._patiently(partial(self._phases.read, graph, reconciler, self._refresh))
            at = graph.version
            await self._patiently(self._read_standing)  # the version may be that of a deletion
            if graph.version == at:  # or the phases are those of an older one
                break
        self._feed.take()
        nodes, gone = self._feed.drain()
        reconciler.version = graph.version
        await aside(len(nodes) + len(gone), partial(reconciler.on_graph, now, nodes, gone))
        reconciler.on_phases(now, standings, members)

    async def _commit(self, reconciler: Reconciler, turn: Turn) -> None:
        tools, ref = self._tools, self.ref
        served = [tag for tag in turn.served if tag in self._unserved]
        summary = self._summarise(reconciler)
        phased_at = reconciler.version + 1 if turn.enter is not None else self._phases.version
        make = partial(turn_cmds, ref, turn, [*self._done, *served], summary, phased_at)
        cmds = await aside(len(turn.rows), make)
        turn_id = tools.new_id()
        if not turn.changes_graph and not cmds:
            return
        if self._marked:
            cmds.append(("HDEL", keys.meta(ref), META_RESTED))

        async def write() -> None:
            if turn.changes_graph:
                change = GraphTurn(ref, self.epoch, reconciler.version, turn, cmds, turn_id, tools.clock())
                await tools.store.commit(ref, Op(turn_id, *turn.reason), change, weight=turn.weight)
            else:
                at = reconciler.version if turn.fenced_by_version else None
                await tools.store.turn(ref, epoch=self.epoch, cmds=cmds, at_version=at, turn_id=turn_id)

        while True:
            try:
                await write()
                break
            except (Fenced, Changed):
                raise
            except (Unavailable, Conflict, Temporary) as error:
                log.warning("a turn of graph %s cannot be written yet: %s", ref, error)
                await asyncio.sleep(error.retry_after or _RETRY)
        self._marked = False
        self._unserved.difference_update(served)
        if summary is not None:
            self._summary = summary
        if turn.changes_graph:
            self.wake()

    def _summarise(self, reconciler: Reconciler) -> bytes | None:
        core = reconciler.core
        phases = {str(p): n for p, n in core.phases.items() if n > 0}
        summary = msgspec.json.encode({"nodes": len(core.units), "removing": len(core.graves), "phases": phases})
        return summary if summary != self._summary else None

    def _sent(self, batch: str, key: QueueKey) -> None:
        self._batches[batch] = key
        self._tools.budget.take(key)

    def _carry_out(self, reconciler: Reconciler, turn: Turn) -> None:
        budget = self._tools.budget
        for sent in turn.dispatch:
            self._sent(sent.batch.batch, (sent.domain, sent.queue))
            self._effects.publish(sent)
        for batch in [b for b in self._batches if b not in reconciler.core.batches]:
            budget.give_back(self._batches.pop(batch))
        for look in turn.look:
            self._effects.observe(look)
        for field, intent in turn.todo.items():
            if intent is None and field.startswith("o:"):
                self._effects.call_off(field[2:])
            elif isinstance(intent, ItemIntent | CloseIntent):
                self._effects.item(intent)
        if turn.events or turn.faults or turn.heralds:
            self._relay.kick()
        budget.share(self.wake)

    def ask_after_items(self) -> None:
        """Poll open WorkItems: the net under lost events."""
        if self.reconciler is None:
            return
        for unit in list(self.reconciler.core.gates.values()):
            for gate in (unit.rec.gate, unit.rec.approval):
                if gate is not None and gate.workitem and gate.state is GateState.OPEN:
                    self._effects.poll(gate.workitem)

    def kick_relay(self) -> None:
        """Another process put events into the outbox."""
        self._relay.kick()
