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
from holdfast_model.errors import HoldfastError, Temporary
from holdfast_model.messages import ResultBatch
from holdfast_model.names import PARTITIONS, GraphRef
from holdfast_store.leases import Lease, Leases, share

from .hosting import HostedGraph, Tools
from .owner_rpc import OwnerRpc

log = logging.getLogger("holdfast.planner")

_FETCH = 256
_FETCH_WAIT = 15.0
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
        self._stopped = False

    async def start(self) -> None:
        for ref in await self._tools.store.graphs(self.lease.partition):
            self.host(ref)
        self._queue = self._tools.bus.work_queue(result_durable(self.lease.partition))
        self._reader = asyncio.create_task(self._read(self._queue), name=f"results {self.lease.partition}")
        await self._rpc.open(self.lease.partition, self.host)

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
        if graph is None:
            graph = HostedGraph(ref, self.lease.epoch, self._tools, self._lost)
            self.graphs[ref] = graph
            graph.start()
        return graph

    def _lost(self, ref: GraphRef, fenced: bool) -> None:
        """A host ended by itself: by a failure, after which a fresh one is loaded, or because it was fenced off."""
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
                await self._take(message)

    async def _take(self, message: WorkMessage) -> None:
        try:
            batch = _result(message.data)
        except msgspec.DecodeError as error:
            await message.dead_letter(f"not a result batch: {error}")
            return
        self.host(GraphRef(batch.tenant, batch.graph)).results(batch, _quietly(message))


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
        self._task: asyncio.Task[None] | None = None

    @property
    def graphs(self) -> list[HostedGraph]:
        return [graph for owned in self._owned.values() for graph in owned.graphs.values()]

    def hosted(self, ref: GraphRef) -> HostedGraph | None:
        """The host of a graph whose partition is owned here (loading it), else None."""
        owned = self._owned.get(ref.partition)
        return owned.host(ref) if owned is not None else None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="ownership")

    async def stop(self) -> None:
        """Give everything back, so that others need not wait for the leases to expire."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=5)
        owned, self._owned = list(self._owned.values()), {}
        await asyncio.gather(*(partition.stop() for partition in owned))
        try:
            await self._leases.leave()
            await asyncio.gather(*(self._leases.release(partition.lease) for partition in owned))
        except HoldfastError as error:
            log.info("leases were left to expire: %s", error)

    async def check(self) -> None:
        """For readiness: leases are kept up."""
        if self._task is None or self._task.done():
            raise Temporary("the keeper of the partitions is not running")

    async def _run(self) -> None:
        while True:
            try:
                await self._keep()
            except HoldfastError as error:
                log.warning("leases cannot be kept up: %s", error)
            await asyncio.sleep(self._ttl / 3)

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
                await owned.start()
