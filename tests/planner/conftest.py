"""A running planner (with work-items and fault-policy) over real servers, and a domain whose world is a folder."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from holdfast_testkit.servers import Server
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

HERE = str(Path(__file__).parent)


class Told:
    """What a plain NATS client hears of all graphs, and how it talks back."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.events: list[tuple[str, dict[str, Any]]] = []

    async def listen(self) -> None:
        async def hear(message: Any) -> None:
            event = json.loads(message.data)
            self.events.append((message.subject, event["data"]))

        for family in ("graph", "node", "fault", "workitem"):
            await self.client.subscribe(f"{family}.>", cb=hear)
        await self.client.flush()

    def of(self, subject: str) -> list[dict[str, Any]]:
        """Data of the events on a subject so far."""
        return [data for heard, data in self.events if heard == subject]

    async def wait_for(self, subject: str, count: int = 1, within: float = 20.0) -> dict[str, Any]:
        """The ``count``-th event on a subject."""
        await eventually(lambda: len(self.of(subject)) >= count, within=within)
        return self.of(subject)[count - 1]

    async def publish(self, graph: str, document: object, tenant: str = "default", msg_id: str = "") -> int:
        """Publish a blueprint; returns its sequence."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        headers = {"Nats-Msg-Id": msg_id} if msg_id else None
        ack = await self.client.jetstream().publish(f"blueprint.{tenant}.{graph}", body, headers=headers)
        return ack.seq

    async def ask(self, verb: str, service: str = "planner", **body: Any) -> dict[str, Any]:
        """An RPC; the reply as it is."""
        request = {"tenant": "default", **body}
        reply = await self.client.request(f"rpc.{service}.{verb}", json.dumps(request).encode(), timeout=30)
        return json.loads(reply.data)

    async def phases(self, graph: str) -> dict[str, str]:
        reply = await self.ask("get", graph=graph)
        return {row["id"]: row["phase"] for row in reply.get("nodes", [])}


class World:
    """The folder of the domain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def things(self) -> dict[str, Any]:
        return {p.stem: json.loads(p.read_text())["value"] for p in self.folder.glob("*.json")}

    def log(self) -> list[tuple[str, str]]:
        path = self.folder / "log"
        return [tuple(line.split()[:2]) for line in path.read_text().splitlines()] if path.exists() else []  # type: ignore[misc]

    def keys(self) -> list[str]:
        path = self.folder / "log"
        return [line.split(" ", 2)[2] for line in path.read_text().splitlines()] if path.exists() else []


def thing(
    id: str, value: Any = 1, *needs: str, type: str = "thing", gating: str = "NONE", **spec: Any
) -> dict[str, Any]:
    """A raw node of the world domain."""
    return {"id": id, "type": type, "gating": gating, "spec": {"value": value, **spec}, "depends_on": list(needs)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def make_system(
    nats_server: Server, redis_server: Server, nats_url: str, redis_url: str, world: World
) -> Callable[..., System]:
    """Builds a system over the session's wiped servers."""

    def make(
        planners: int = 1, services: tuple[str, ...] = ("fault-policy", "work-items", "world"), **env: str
    ) -> System:
        return System(
            nats_url, redis_url, planners=planners, services=services, modules={"world": "world_domain"},
            env={"PYTHONPATH": HERE, "WORLD_FOLDER": str(world.folder), **env},
        )  # fmt: skip

    return make


@pytest.fixture
async def system(make_system: Callable[..., System]) -> AsyncIterator[System]:
    async with make_system() as running:
        yield running


@pytest.fixture
async def told(nats_url: str) -> AsyncIterator[Told]:
    client = await nats.connect(nats_url)
    listener = Told(client)
    await listener.listen()
    yield listener
    await client.close()
