"""The real service on real servers, and a graph that fails on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import nats
import pytest
from nats.js import JetStreamContext

from holdfast_bus import Bus, BusSettings, StreamSettings
from holdfast_bus.setup import ensure
from holdfast_bus.streams import FAULT_POLICY, FAULT_POLICY_EVENTS
from holdfast_fault_policy.app import build_app
from holdfast_fault_policy.settings import FaultPolicySettings
from holdfast_model.desired import DesiredGraph
from holdfast_model.events import Event, Family, Fault, FaultType
from holdfast_model.ladders import RESOLVED
from holdfast_model.manifest import Announcement, Ladder, Manifest, NodeType
from holdfast_model.messages import Status
from holdfast_model.mutations import declaration
from holdfast_model.names import GraphRef
from holdfast_model.reconciler.records import Record
from holdfast_model.rows import declare
from holdfast_model.thresholds import Tally, decode_counts
from holdfast_store import keys
from holdfast_store.commits import Extra, Op
from holdfast_store.domains import Domains
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Cmd
from holdfast_store.records import fault_cmds
from holdfast_store.redis_kv import RedisKv
from holdfast_testkit.waiting import LIMIT, eventually

from .ladders_of_pipeline import LADDERS, STAGES

REF = GraphRef("acme", "shop")
NAMESPACE = "pipeline-escalation"


class Declared:
    """What the planner does on admission: one owner's nodes, and the incarnation."""

    watch: tuple[str, ...] = ()
    reads: tuple[Cmd, ...] = ()

    def __init__(self, ref: GraphRef, owner: str, nodes: dict[str, str], incarnation: str) -> None:
        self._ref, self._owner, self._incarnation = ref, owner, incarnation
        self._nodes = [(n, declare(declaration(n, kind))) for n, kind in nodes.items()]

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        graph.declare(self._owner, self._nodes)
        return Extra(cmds=[("HSET", keys.meta(self._ref), "incarnation", self._incarnation)])


class Shop:
    """One graph, seen and changed from the side of the planner."""

    def __init__(self, kv: RedisKv, bus: Bus) -> None:
        self.kv, self.bus, self.ref = kv, bus, REF
        self.store = GraphStore(kv)
        self.domains = Domains(kv, time.time)
        self._number = 0

    async def declare(self, nodes: dict[str, str], owner: str = "main", incarnation: str = "i1") -> int:
        """Apply a blueprint: node id -> type. Returns the version."""
        self._number += 1
        await self.store.register(self.ref)
        op = Op(f"declare-{self._number}", "tester")
        return (await self.store.commit(self.ref, op, Declared(self.ref, owner, nodes, incarnation))).version

    async def announce(self, ladders: list[Ladder] = LADDERS, **more: Any) -> None:
        """A domain says that it is there."""
        types = [NodeType(t) for t in (*STAGES, "schema")]
        await self.domains.announce(
            Announcement(Manifest("pipeline", "1.0", types, ladders=ladders, **more), "one", {})
        )

    async def state(self, node: str, episode: str = "e1", **more: Any) -> None:
        """Write a node's state row, as the planner does."""
        row = Record(episode=episode, **more)
        await self.kv.run(("HSET", keys.state(self.ref), node, msgspec.json.encode(row)))

    async def answer(self, review: str, reason: str = RESOLVED) -> None:
        """An AI review was answered."""
        digest = (await self.graph()).nodes[review].digest
        await self.state(review, episode="", status=Status.PRESENT, reason=reason, digest=digest)

    def fault(self, id: str, node: str = "ingest", **more: Any) -> Fault:
        kind = FaultType(more.pop("type", "PROVISION_FAILED"))
        given = {"incarnation": "i1", "node_type": "ingestion", "time": 1.0, "episode": "e1", "digest": "d1"}
        return Fault(id=id, tenant=self.ref.tenant, graph=self.ref.graph, node=node, type=kind, **(given | more))

    async def keep(self, *faults: Fault) -> None:
        """What a turn writes when it raises faults."""
        await self.kv.run(*[cmd for fault in faults for cmd in fault_cmds(self.ref, fault)])

    async def raise_faults(self, *faults: Fault) -> None:
        """Keep and announce faults."""
        await self.keep(*faults)
        await self.bus.publish_events([fault.event() for fault in faults])

    async def fail(self, times: int = 1, node: str = "ingest", **more: Any) -> None:
        """Raise faults one after the other, and wait until they are handled."""
        for _ in range(times):
            self._number += 1
            await self.raise_faults(self.fault(f"fault-{self._number}", node, **more))
            await self.quiet()

    async def recover(self, node: str = "ingest", episode: str = "e1", now: str = "") -> None:
        """What a turn writes and tells when a node is as declared again; returns when it was heard. ``now``: the
        episode that has begun since."""
        self._number += 1
        await self.state(node, episode=now)
        data = {"node": node, "nodeType": "ingestion", "episode": episode, "failures": 4}
        event = Event(
            f"recovered-{self._number}", Family.NODE, "recovered", self.ref.tenant, self.ref.graph, 2.0, data, node=node
        )  # fmt: skip
        await self.bus.publish_event(event)
        await self.quiet()

    async def quiet(self, within: float = LIMIT) -> None:
        """Wait until the service has acknowledged everything that was announced."""
        await eventually(self._all_acknowledged, within, every=0.005)

    async def _all_acknowledged(self) -> bool:
        js = self.bus.js
        for durable in (FAULT_POLICY, FAULT_POLICY_EVENTS):
            info = await js.consumer_info(durable.stream, durable.name)
            # What waits is counted a moment after it is stored; the floor never runs ahead.
            last = await self.bus.last_on(durable.stream, durable.filters[0] if durable.filters else ">")
            floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
            if info.num_pending or info.num_ack_pending or floor < last:
                return False
        return True

    async def graph(self) -> DesiredGraph:
        return await self.store.refresh(self.ref)

    async def version(self) -> int:
        return await self.store.version(self.ref)

    async def counts(self, node: str = "ingest") -> dict[str, Tally]:
        (found,) = await self.kv.run(("HGET", keys.counts(self.ref), node))
        return decode_counts(found)

    async def count(self, node: str = "ingest", namespace: str = NAMESPACE) -> int:
        tally = (await self.counts(node)).get(namespace)
        return tally.count if tally else 0

    async def unhandled(self) -> list[str]:
        return await self.store.faults(self.ref)

    async def told(self) -> list[Event]:
        """Events that wait in the outbox for the planner to publish."""
        return [event for _, event in await self.store.outbox(self.ref)]


Service = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture
async def js(nats_url: str) -> AsyncIterator[JetStreamContext]:
    """All streams, and the two durables of the service."""
    client = await nats.connect(nats_url)
    context = client.jetstream()
    await ensure(context, StreamSettings(max_bytes=64 * 1024 * 1024), durables=(FAULT_POLICY, FAULT_POLICY_EVENTS))
    yield context
    await client.close()


@pytest.fixture
async def shop(nats_url: str, redis_url: str, js: JetStreamContext) -> AsyncIterator[Shop]:
    """A graph with one ingestion, whose domain is running."""
    kv = RedisKv(redis_url)
    async with Bus(BusSettings(nats_url=nats_url, graceful_timeout=1.0), "tester", "1") as bus:
        shop = Shop(kv, bus)
        await shop.announce()
        await shop.declare({"ingest": "ingestion", "gate": "validator"})
        await shop.state("ingest")
        yield shop
    await shop.store.close()
    await kv.close()


@pytest.fixture
def service(nats_url: str, redis_url: str) -> Service:
    """Runs a replica of the service inside the test; keywords are settings."""

    @asynccontextmanager
    async def run(**more: Any) -> AsyncIterator[None]:
        given = {"graceful_timeout": 1.0, "fault_ladders_refresh": 0.0} | more
        app = build_app(FaultPolicySettings(nats_url=nats_url, redis_url=redis_url, **given))
        up, over = asyncio.Event(), asyncio.Event()

        async def live() -> None:  # its context must be left by the task that entered it
            async with app.asgi.start_lifespan_context():
                up.set()
                await over.wait()

        task = asyncio.create_task(live())
        await asyncio.wait({task, asyncio.create_task(up.wait())}, return_when=asyncio.FIRST_COMPLETED)
        yield
        over.set()
        await task

    return run


@pytest.fixture
async def running(shop: Shop, service: Service) -> AsyncIterator[None]:
    """One replica is up."""
    async with service():
        yield
