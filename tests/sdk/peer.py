"""The planner's side of the contract, as small as it gets: announce, publish steps, read results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec

from holdfast_bus import subjects
from holdfast_bus.bus import Bus
from holdfast_bus.settings import BusSettings
from holdfast_bus.setup import ensure, ensure_durable
from holdfast_bus.streams import DLQ, RESULTS, STATE, STEPS, result_durable, step_durable
from holdfast_model.errors import HoldfastError
from holdfast_model.manifest import Announcement, AnnounceReply
from holdfast_model.messages import Action, ResultBatch, Step, StepBatch, StepOutcome
from holdfast_sdk import Domain
from holdfast_sdk.runtime import DomainService, RuntimeSettings
from holdfast_testkit.waiting import eventually

PARTITION = 3


class Peer:
    """``newest`` and ``refusal`` are what announcements are answered with; ``heard`` are those that came."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.newest = ""
        self.refusal: HoldfastError | None = None
        self.heard: list[Announcement] = []
        self.parts: list[tuple[float, ResultBatch]] = []
        self._batches = 0

    async def announce(self, data: bytes) -> object:
        announcement = msgspec.json.decode(data, type=Announcement)
        self.heard.append(announcement)
        if self.refusal is not None:
            raise self.refusal
        return AnnounceReply(self.newest or announcement.manifest.version, heartbeat=0.1)

    async def send(self, *steps: Step, start_by: float | None = None, version: str = "1.0") -> str:
        self._batches += 1
        batch = f"batch-{self._batches}"
        content = StepBatch(
            batch, "acme", "shop", "inc-1", PARTITION, 1, version, start_by or time.time() + 60, list(steps)
        )
        await self.raw(msgspec.json.encode(content), steps[0].type)
        return batch

    async def raw(self, body: bytes, type: str = "script") -> None:
        await self.bus.publish(subjects.step("scripted", type), body, stream=STEPS.name)

    @property
    def outcomes(self) -> dict[str, StepOutcome]:
        """The newest outcome of each node."""
        return {o.node: o for _, part in self.parts for o in part.outcomes}

    async def outcome(self, node: str) -> StepOutcome:
        await eventually(lambda: node in self.outcomes, what=f"an outcome of {node}")
        return self.outcomes[node]

    async def unacknowledged(self, type: str = "script") -> int:
        """Steps in the work queue, delivered or not."""
        info = await self.bus.js.consumer_info(STEPS.name, step_durable("scripted", type).name)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def queue_empty(self, type: str = "script") -> None:
        async def empty() -> bool:
            return await self.unacknowledged(type) == 0

        await eventually(empty, what="an empty work queue")

    async def read(self) -> None:
        async with self.bus.work_queue(result_durable(PARTITION)) as queue:
            while True:
                for message in await queue.fetch(64, 5.0):
                    part = msgspec.json.decode(message.data, type=ResultBatch)
                    self.parts.append((time.monotonic(), part))
                    await message.ack()


@asynccontextmanager
async def planner_peer(url: str, *types: str, ack_wait: float = 30.0) -> AsyncIterator[Peer]:
    """A peer whose step consumers exist, with ``ack_wait`` seconds (short: deliveries repeat while steps run)."""
    bus = Bus(BusSettings(nats_url=url), "peer", "0")
    peer = Peer(bus)
    bus.rpc(subjects.rpc_planner("announce"), queue="planner")(peer.announce)
    async with bus:
        await ensure(bus.js, streams=(STEPS, RESULTS, STATE, DLQ), durables=(result_durable(PARTITION),))
        for type in types or ("script",):
            durable = step_durable("scripted", type)
            await ensure_durable(bus.js, replace(durable, ack_wait=ack_wait))
        reader = asyncio.create_task(peer.read())
        try:
            yield peer
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


@asynccontextmanager
async def running(url: str, domain: Domain, *handlers: object) -> AsyncIterator[DomainService]:
    """A domain's service in this process."""
    settings = RuntimeSettings(nats_url=url, graceful_timeout=3.0)
    bus = Bus(settings, domain.name, domain.version)
    service = DomainService(domain, handlers, bus, settings)
    await bus.connect()
    await service.start()
    await bus.start()
    await bus.client.flush()
    try:
        yield service
    finally:
        await service.stop()
        await bus.stop()


def step(node: str, operation: int = 1, attempt: int = 1, type: str = "script", **spec: Any) -> Step:
    """A provisioning step; keywords become the spec."""
    raw = msgspec.Raw(msgspec.json.encode(spec))
    return Step(node, Action.PROVISION, operation, attempt, type, raw, "d1")
