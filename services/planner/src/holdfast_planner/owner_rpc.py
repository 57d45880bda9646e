"""Requests that need the reconciler: answered by the owner of the graph's partition, under subjects of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from holdfast_bus import Bus, subjects
from holdfast_model.errors import Invalid, Unavailable
from holdfast_model.names import GraphRef

from .hosting import HostedGraph

log = logging.getLogger("holdfast.planner")

Host = Callable[[GraphRef], HostedGraph]
Verb = Callable[[HostedGraph, bytes], Awaitable[object]]
_LOAD_LIMIT = 20.0
_AT_ONCE = 32


class Named(msgspec.Struct, frozen=True):
    """The part of every request that names its graph."""

    tenant: str
    graph: str


class OwnerRpc:
    """Opens and closes the subjects of owned partitions. ``verbs`` answer on a loaded graph."""

    def __init__(self, bus: Bus, verbs: dict[str, Verb]) -> None:
        self._bus = bus
        self._verbs = verbs
        self._open: dict[int, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def open(self, partition: int, host: Host) -> None:
        """Answer requests about the partition's graphs; does nothing when that is done already."""
        if partition in self._open:
            return

        async def receive(message: Msg) -> None:
            task = asyncio.create_task(self._serve(message, host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._open[partition] = await self._bus.client.subscribe(subjects.rpc_owner_all(partition), cb=receive)

    async def close(self, partition: int) -> None:
        subscription = self._open.pop(partition, None)
        if subscription is not None and self._bus.connected and self._bus.client.is_connected:
            await subscription.unsubscribe()

    async def _serve(self, message: Msg, host: Host) -> None:
        async with self._room:
            await self._answer(message, host)

    async def _answer(self, message: Msg, host: Host) -> None:
        verb = self._verbs.get(message.subject.rpartition(".")[2])

        async def handle(body: bytes) -> object:
            if verb is None:
                raise Invalid(f"no such request: {message.subject}")
            ref = GraphRef(*msgspec.structs.astuple(msgspec.json.decode(body, type=Named)))
            graph = host(ref)
            try:
                async with asyncio.timeout(_LOAD_LIMIT):
                    await graph.loaded.wait()
            except TimeoutError as error:
                raise Unavailable(f"graph {ref} is still being loaded", retry_after=1.0) from error
            return await verb(graph, body)

        reply, headers = await self._bus.answer(handle, message.subject, message.data, message.headers)
        await self._bus.client.publish(message.reply, reply, headers=headers)
