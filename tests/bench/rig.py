"""The running system as the benchmarks use it: own servers, every service a process, a plain NATS client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from holdfast_bus.connecting import settle
from holdfast_testkit.servers import NatsServer, RedisServer
from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT

from .noop_domain import LOSE

TENANT = "bench"
HERE = Path(__file__).resolve().parent
MODULES = {"noop": "noop_domain"}


def layered(nodes: int, layers: int, edited: int = 0) -> bytes:
    """A raw graph as compact JSON: each node of a layer depends on one of the layer above."""
    width = max(1, nodes // layers)
    return json.dumps(
        {
            "nodes": [
                {"id": f"n{i}", "type": "noop", "spec": {"i": i if i else -edited}, "depends_on": [f"n{i - width}"]}
                if i >= width
                else {"id": f"n{i}", "type": "noop", "spec": {"i": i if i else -edited}}
                for i in range(nodes)
            ]
        },
        separators=(",", ":"),
    ).encode()


class Rig:
    """Servers that sync every write, as shipped; planner, fault-policy, work-items and the no-op domain."""

    def __init__(self, planner_module: str = "") -> None:
        self._nats = NatsServer(sync_interval="always")
        self._redis = RedisServer(appendfsync="always")
        self._planner_module = planner_module
        self._system: System | None = None
        self._client: Client | None = None
        self._heard: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        self._ids: set[str] = set()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(self._nats.start(), self._redis.start())
            path = os.pathsep.join(p for p in (str(HERE), os.environ.get("PYTHONPATH", "")) if p)
            self._system = System(
                self._nats.url, self._redis.url, services=("fault-policy", "work-items", "noop"), modules=MODULES,
                env={"PYTHONPATH": path},
            )  # fmt: skip
            if self._planner_module:
                self._system["planner-0"].module = self._planner_module
            await self._system.__aenter__()
            self._client = await nats.connect(self._nats.url, max_reconnect_attempts=-1)
            for family in ("graph", "node", "fault"):
                await self._client.subscribe(f"{family}.{TENANT}.>", cb=self._hear)
            await settle(self._client)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()
        if self._system is not None:
            await self._system.__aexit__(kind, error, trace)
        self._nats.close()
        self._redis.close()

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    @property
    def pid(self) -> int:
        """Of the planner."""
        assert self._system is not None
        return self._system["planner-0"].pid

    @property
    def peak_memory(self) -> float:
        """The most the planner ever had resident, in MB (Linux; 0 elsewhere)."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return 0.0
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found[1]) / 1024 if found else 0.0

    async def apply(self, graph: str, document: bytes, within: float = 120.0) -> tuple[float, float]:
        """Publish in one message; seconds from there to ``accepted``, and on to ``converged``."""
        accepted, converged = f"graph.{TENANT}.{graph}.accepted", f"graph.{TENANT}.{graph}.converged"
        before = self._count(accepted), self._count(converged)
        began = time.perf_counter()
        await self.client.jetstream(timeout=30).publish(f"blueprint.{TENANT}.{graph}", document)
        first = await self._wait(accepted, before[0], within)
        return first - began, await self._wait(converged, before[1], within) - first

    async def heal(self, graph: str, node: str, within: float = LIMIT) -> float:
        """Lose a node, report it; seconds from the report until the graph has converged again."""
        await self.client.request(LOSE, f"{TENANT}/{graph}/{node}".encode(), timeout=LIMIT)
        converged = f"graph.{TENANT}.{graph}.converged"
        before = self._count(converged)
        began = time.perf_counter()
        await self.client.jetstream().publish(f"state.{TENANT}.{graph}", json.dumps({"node": node}).encode())
        return await self._wait(converged, before, within) - began

    async def ask(self, verb: str, **body: Any) -> dict[str, Any]:
        """A request to the planner."""
        reply = await self.client.request(
            f"rpc.planner.{verb}", json.dumps({"tenant": TENANT, **body}).encode(), timeout=LIMIT
        )
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    def faults(self) -> int:
        """Events on ``fault.>`` so far."""
        return sum(len(heard) for subject, heard in self._heard.items() if subject.startswith("fault."))

    # ---- events

    async def _hear(self, message: Msg) -> None:
        at, event = time.perf_counter(), json.loads(message.data)
        if event["id"] in self._ids:  # published again, as its acknowledgement was late
            return
        self._ids.add(event["id"])
        self._heard.setdefault(message.subject, []).append((at, event.get("data", {})))
        self._news.set()

    def _count(self, subject: str) -> int:
        return len(self._heard.get(subject, ()))

    async def _wait(self, subject: str, before: int, within: float) -> float:
        """When the next event on ``subject`` after the first ``before`` came."""
        try:
            async with asyncio.timeout(within):
                while self._count(subject) <= before:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            told = {s: len(heard) for s, heard in self._heard.items()}
            raise AssertionError(f"{subject} did not come within {within:g} s; heard: {told}") from None
        return self._heard[subject][before][0]
