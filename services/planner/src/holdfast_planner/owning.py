"""Which partitions this planner owns, and the graphs and results of those.

Leases only spread the work; what keeps owners apart is the epoch, which every write checks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from holdfast_bus import WorkMessage, WorkQueue
from holdfast_bus.streams import result_durable
from holdfast_model.errors import HoldfastError, Invalid, Temporary
from holdfast_model.messages import ResultBatch
from holdfast_model.names import PARTITIONS, GraphRef, graph_ref
from holdfast_store.leases import Lease, Leases, share

from .hosting import HostedGraph
from .loading import Tools
from .owner_rpc import OwnerRpc
from .resting import META_RESTED, Found, must_wake

log = logging.getLogger("holdfast.planner")

_FETCH = 256
_FETCH_WAIT = 15.0
_PAGE = 200
_AT_ONCE = 64
"""Graphs that are loaded in one go, even when more are loaded than should be."""
_WATCH_EVERY = 1.0
_result = msgspec.json.Decoder(ResultBatch).decode


class Partition:
    """One owned partition: its graphs, and the reader of its results."""

    def __init__(self, lease: Lease, tools: Tools, rpc: OwnerRpc) -> None:
        self.lease = lease
        self._tools = tools
        self._rpc = rpc
        self._queue: WorkQueue | None = None
        self._reader: asyncio.Task[None] | None = None
        self.graphs: dict[GraphRef, HostedGraph] = {}
        self._gone: set[asyncio.Task[None]] = set()
        self._started = False
        self._stopped = False

    async def start(self) -> None:
        """Serve it. To be called until it succeeds: what an earlier call began is gone on with."""
        if self._started:
            return
        if self._queue is None:
            self._queue = self._tools.bus.work_queue(result_durable(self.lease.partition))
            self._reader = asyncio.create_task(self._read(self._queue), name=f"results {self.lease.partition}")
        await self._rpc.open(self.lease.partition, self.host)
        self._started = await self.look(_AT_ONCE) == 0

    async def look(self, room: int) -> int:
        """Load those graphs that have to be, at most ``room`` of them; returns how many were left out."""
        tools, left = self._tools, 0
        asleep = [ref for ref in await tools.store.graphs(self.lease.partition) if ref not in self.graphs]
        for at in range(0, len(asleep), _PAGE):
            page = asleep[at : at + _PAGE]
            for ref, found in zip(page, await tools.store.at_rest(page, META_RESTED), strict=True):
                named = tools.preferences.of(ref.tenant)
                if must_wake(Found(*found), tools.catalog.infos, named, tools.clock()):
                    if room > 0:
                        self.host(ref)
                    room, left = room - 1, left + (room <= 0)
        return left

    async def wake_due(self, room: int) -> int:
        """Load graphs whose time has come, at most ``room``; returns how many."""
        due = await self._tools.store.due(self.lease.partition, self._tools.clock(), max(room, 1))
        for ref in due:
            self.host(ref)
        return len(due)

    async def stop(self) -> None:
        """Stop reading (which gives back what is held) and unload the graphs."""
        self._stopped = True
        await self._rpc.close(self.lease.partition)
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader], timeout=5)
        if self._queue is not None:
            await self._queue.close()
        graphs, self.graphs = list(self.graphs.values()), {}
        await asyncio.gather(*(graph.stop() for graph in graphs))

    def host(self, ref: GraphRef) -> HostedGraph:
        """The graph's host, loaded if it is not yet."""
        graph = self.graphs.get(ref)
        if graph is not None:
            graph.used_at = self._tools.clock()
        if graph is None:
            graph = HostedGraph(ref, self.lease.epoch, self._tools, self._lost)
            self.graphs[ref] = graph
            graph.start()
        return graph

    def _lost(self, ref: GraphRef, fenced: bool) -> None:
        """A host ended by itself: by a failure, after which a fresh one is loaded, or for good: fenced off, or at
        rest."""
        graph = self.graphs.pop(ref, None)
        if graph is not None:
            task = asyncio.create_task(self._replace(graph, again=not fenced))
            self._gone.add(task)
            task.add_done_callback(self._gone.discard)

    async def _replace(self, graph: HostedGraph, *, again: bool) -> None:
        await graph.stop()
        if again and not self._stopped:
            self.host(graph.ref)

    async def _read(self, queue: WorkQueue) -> None:
        while True:
            try:
                messages = await queue.fetch(_FETCH, _FETCH_WAIT)
            except Temporary as error:
                log.warning("results of partition %d cannot be read: %s", self.lease.partition, error)
                await asyncio.sleep(error.retry_after or 1.0)
                continue
            for message in messages:
                try:
                    await self._take(message)
                except HoldfastError as error:
                    log.warning("a result of partition %d comes again: %s", self.lease.partition, error)
                except Exception:  # no message may stop the reader: all graphs of the partition would wait for ever
                    log.exception("a result of partition %d cannot be taken", self.lease.partition)

    async def _take(self, message: WorkMessage) -> None:
        try:
            batch = read_result(message.data, self.lease.partition)
        except Invalid as error:
            await message.dead_letter(error.message)
            return
        self.host(GraphRef(batch.tenant, batch.graph)).results(batch, _quietly(message))


def read_result(body: bytes, partition: int) -> ResultBatch:
    """A batch of results of a graph of this partition. Raises Invalid: a host of another graph would fence off its
    owner."""
    try:
        batch = _result(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"not a result batch: {error}") from error
    found = graph_ref(batch.tenant, batch.graph).partition
    if found != partition:
        raise Invalid(f"graph {batch.tenant}/{batch.graph} is of partition {found}, not {partition}")
    return batch


def _quietly(message: WorkMessage) -> Callable[[], Awaitable[None]]:
    """Acknowledge; an acknowledgement that is lost only means that the result comes again."""

    async def ack() -> None:
        try:
            await message.ack()
        except HoldfastError as error:
            log.info("a result will come again: %s", error)

    return ack


class Ownership:
    """Takes and keeps this planner's share of the partitions."""

    def __init__(self, leases: Leases, tools: Tools, rpc: OwnerRpc, ttl: float) -> None:
        self._leases = leases
        self._tools = tools
        self._rpc = rpc
        self._ttl = ttl
        self._owned: dict[int, Partition] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stirred = False
        self._looked_at = float("-inf")

    @property
    def graphs(self) -> list[HostedGraph]:
        return [graph for owned in self._owned.values() for graph in owned.graphs.values()]

    def hosted(self, ref: GraphRef) -> HostedGraph | None:
        """The host of a graph whose partition is owned here (loading it), else None."""
        owned = self._owned.get(ref.partition)
        return owned.host(ref) if owned is not None else None

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(), name="ownership"),
            asyncio.create_task(self._watch(), name="graphs at rest"),
        ]

    def stir(self) -> None:
        """Domains or preferences changed: look after the graphs that are not loaded."""
        self._stirred = True

    async def stop(self) -> None:
        """Give everything back, so that others need not wait for the leases to expire."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        owned, self._owned = list(self._owned.values()), {}
        await asyncio.gather(*(partition.stop() for partition in owned))
        try:
            await self._leases.leave()
            await asyncio.gather(*(self._leases.release(partition.lease) for partition in owned))
        except HoldfastError as error:
            log.info("leases were left to expire: %s", error)

    async def check(self) -> None:
        """For readiness: leases are kept up."""
        if not self._tasks or any(task.done() for task in self._tasks):
            raise Temporary("the keeper of the partitions is not running")

    async def _run(self) -> None:
        while True:
            try:
                await self._keep()
            except HoldfastError as error:
                log.warning("leases cannot be kept up: %s", error)
            except Exception:
                log.exception("keeping up leases failed; it is tried again")
            await asyncio.sleep(self._ttl / 3)

    async def _watch(self) -> None:
        """Load what has to be, unload what is at rest and too much."""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            try:
                self._unload()
                await self._wake()
            except HoldfastError as error:
                log.warning("graphs at rest cannot be looked after: %s", error)
            except Exception:
                log.exception("looking after graphs at rest failed; it is tried again")

    async def _wake(self) -> None:
        settings, now = self._tools.settings, self._tools.clock()
        # Always some, whatever is loaded: graphs that are busy for long must not keep out the others.
        room = max(_AT_ONCE, settings.loaded_graphs - len(self.graphs))
        for partition in list(self._owned.values()):
            room -= await partition.wake_due(min(room, _AT_ONCE))
        if self._stirred or now - self._looked_at >= settings.rest_poll_interval:
            self._stirred, self._looked_at, left = False, now, 0
            for partition in list(self._owned.values()):
                before = len(partition.graphs)
                left += await partition.look(room)
                room -= len(partition.graphs) - before
            self._stirred = self._stirred or left > 0

    def _unload(self) -> None:
        settings, now = self._tools.settings, self._tools.clock()
        graphs = self.graphs
        many, nodes = len(graphs) - settings.loaded_graphs, sum(g.nodes for g in graphs) - settings.loaded_nodes
        for graph in sorted(graphs, key=lambda g: g.used_at):
            if (many <= 0 and nodes <= 0) or now - graph.used_at < settings.rest_after:
                return
            if graph.idle:
                graph.rest()
                many, nodes = many - 1, nodes - graph.nodes

    async def _keep(self) -> None:
        live = await self._leases.announce()
        kept = await asyncio.gather(*(self._leases.renew(p.lease) for p in self._owned.values()))
        for partition, mine in zip(list(self._owned), kept, strict=True):
            if not mine:
                log.warning("partition %d has another owner now", partition)
                await self._owned.pop(partition).stop()
        most = share(live)
        for partition in list(self._owned)[most:]:
            owned = self._owned.pop(partition)
            await owned.stop()
            await self._leases.release(owned.lease)
        for owned in list(self._owned.values()):
            await owned.start()
        if len(self._owned) < most:
            await self._take_free(most)

    async def _take_free(self, most: int) -> None:
        taken = await self._leases.owners()
        free = [p for p in range(PARTITIONS) if p not in taken and p not in self._owned]
        for partition in free:
            if len(self._owned) >= most:
                return
            lease = await self._leases.acquire(partition)
            if lease is not None:
                self._owned[partition] = owned = Partition(lease, self._tools, self._rpc)
                await owned.start()  # one that fails is started in the next round: see _keep
