"""Many graphs at once on real servers: how evenly they share the processes that compute steps.

When half of all steps are done, a fair share is half of every graph's. How near it is, is told by Jain's index: 1 when
all graphs got the same, 1/n when one got everything; 100 graphs that were served one after the other would have 0.5.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.bench.quick import Figure

from holdfast_bus.connecting import settle
from holdfast_model.messages import Outcome, ResultBatch
from holdfast_testkit.servers import NatsServer, RedisServer
from holdfast_testkit.system import System

from . import data
from .scenarios import say

TENANT = "bench"
FAIR = 0.9
LIMIT = 400.0
START = 180.0
"""Seconds for all services to start: the machine may be busy."""
_RESULT = msgspec.json.Decoder(ResultBatch)

BLUEPRINT = {
    "domain": "pipeline",
    "spec": {
        "sources": [{"id": "orders", "uri": "orders/*.csv", "format": "csv", "schema": "orders-schema"}],
        "schemas": [
            {
                "id": "orders-schema",
                "fields": {
                    "order_id": {"type": "int64"},
                    "amount": {"type": "decimal(12,2)"},
                    "country": {"type": "string"},
                },
            }
        ],
        "ingestions": [{"id": "raw", "source": "orders"}],
        "cleansers": [{"id": "clean", "rules": ["trim"], "deduplication": {"keys": ["order_id"]}}],
        "enrichers": [{"id": "net", "derive": {"net": "amount * 0.8"}}],
        "validators": [{"id": "valid", "schema": "orders-schema"}],
        "transformers": [{"id": "gold", "group_by": ["country"], "aggregations": {"net": "sum(net)"}}],
    },
}


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: (sum of x)^2 / (n * sum of x^2)."""
    squares = sum(x * x for x in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def at_half(done: Sequence[str], graphs: Sequence[str]) -> list[int]:
    """Steps of each graph among the first half of all, in the order in which they ended."""
    counted = Counter(done[: len(done) // 2])
    return [counted[g] for g in graphs]


class _Heard:
    """What a plain client hears: ends of steps, and which graphs are as declared."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.converged: dict[str, float] = {}
        self.news = asyncio.Event()

    async def result(self, message: Msg) -> None:
        batch = _RESULT.decode(message.data)
        self.done += [batch.graph for o in batch.outcomes if o.outcome is Outcome.SUCCEEDED]

    async def graph(self, message: Msg) -> None:
        if message.subject.endswith(".converged"):
            self.converged.setdefault(message.subject.split(".")[2], time.perf_counter())
            self.news.set()


async def measure(folder: Path, graphs: int) -> list[Figure]:
    """Publish ``graphs`` equal blueprints at once and wait until all are as declared."""
    data.make(folder, 1000, 2)
    (folder / "tenants").mkdir()
    (folder / "data").rename(folder / "tenants" / TENANT)
    names = [f"g{i}" for i in range(graphs)]
    servers = NatsServer(), RedisServer()
    try:
        await asyncio.gather(*(s.start() for s in servers))
        env = {
            "HOLDFAST_PIPELINE_ROOT": str(folder / "default"),
            "HOLDFAST_PIPELINE_TENANTS": str(folder / "tenants"),
            "HOLDFAST_PIPELINE_WAREHOUSE": str(folder / "warehouse"),
            "HOLDFAST_PIPELINE_SETTLE": "0",
            "HOLDFAST_PIPELINE_RESYNC": "600",
        }
        system = System(servers[0].url, servers[1].url, env=env)
        try:
            await system.start(within=START)
            async with await nats.connect(servers[0].url) as client:
                return await _measured(client, names)
        finally:
            await system.stop()
            for process in system.processes.values():
                process.discard()
    finally:
        for server in servers:
            server.close()


async def _measured(client: Client, names: list[str]) -> list[Figure]:
    heard = _Heard()
    await client.subscribe("result.>", cb=heard.result)
    await client.subscribe(f"graph.{TENANT}.>", cb=heard.graph)
    await settle(client)
    stream = client.jetstream(timeout=30)
    document = json.dumps(BLUEPRINT).encode()
    began = time.perf_counter()
    await asyncio.gather(*(stream.publish(f"blueprint.{TENANT}.{name}", document) for name in names))
    async with asyncio.timeout(LIMIT):
        while len(heard.converged) < len(names):
            heard.news.clear()
            await heard.news.wait()
    ends = sorted(at - began for at in heard.converged.values())
    shares = at_half(heard.done, names)
    say(f"\n{len(names)} graphs: {len(heard.done)} steps; of the first half, graphs got {min(shares)} to {max(shares)}")
    return [
        Figure(f"{len(names)} graphs at once: Jain's index", jain(shares), "of 1", FAIR, at_most=False),
        Figure("  all as declared after", ends[-1], "s"),
        Figure("  the last beside the median", ends[-1] / statistics.median(ends), "x"),
        Figure("  steps a second", len(heard.done) / ends[-1], "/s"),
    ]
