"""One running system for all scenarios; every test is a tenant (or several) of its own, seen by a plain NATS client."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from holdfast_testkit.servers import NatsServer, RedisServer
from holdfast_testkit.system import System
from holdfast_testkit.told import Told
from holdfast_testkit.waiting import eventually

HERE = str(Path(__file__).parent)
Tenant = Callable[[], Awaitable["Stage"]]


class Stage(Told):
    """One tenant: what is told of its graphs, its requests, and the folder of its things."""

    folder: Path

    def things(self) -> dict[str, Any]:
        """What is really there: node -> value."""
        found = {}
        for path in self.folder.glob("*.json"):
            with suppress(FileNotFoundError):  # it went between the look and the reading
                found[path.stem] = json.loads(path.read_text())
        return found

    def lines(self, file: str = "log") -> list[str]:
        """``log``: effects; ``steps``: attempts; ``looks``: observations; ``reviews``: targets reviewed."""
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    async def fall_sick(self, node: str, reason: str = "sick", graph: str = "g", **more: Any) -> None:
        """Have a node drift, and say that something happened to it."""
        scratch = self.folder / f"{node}.scratch"
        scratch.write_text(json.dumps({"reason": reason, **more}))
        scratch.rename(self.folder / f"{node}.sick")
        await self.report(graph, node=node)

    async def heal(self, node: str, graph: str = "g") -> None:
        """It got well by itself."""
        (self.folder / f"{node}.sick").unlink()
        await self.report(graph, node=node)

    async def item(self, count: int = 1, graph: str = "g") -> dict[str, Any]:
        """The ``count``-th WorkItem that was created, as work-items has it now."""
        created = await self.wait_for(f"workitem.default.{graph}.created", count)
        return await self.ask("get", "workitems", id=created["id"])

    def items(self, graph: str = "g") -> int:
        """How many WorkItems were created so far."""
        return len(self.of(f"workitem.default.{graph}.created"))

    async def complete(self, item: dict[str, Any], outcome: str = "", **more: Any) -> dict[str, Any]:
        return await self.ask("complete", "workitems", id=item["id"], actor="ann", outcome=outcome, **more)

    async def phase_is(self, node: str, phase: str, graph: str = "g") -> None:
        async def it_is() -> bool:
            return (await self.phases(graph)).get(node) == phase

        await eventually(it_is, what=f"{node} is {phase}")

    async def explain(self, node: str, graph: str = "g") -> dict[str, Any]:
        return await self.ask("explain", graph=graph, node=node)

    async def converged(self, count: int = 1, graph: str = "g") -> None:
        await self.wait_for(f"graph.default.{graph}.converged", count)


def part(id: str, value: Any = 1, *needs: str, type: str = "prop", gating: str = "NONE", **spec: Any) -> dict[str, Any]:
    """A raw node of the stage domain."""
    return {"id": id, "type": type, "gating": gating, "spec": {"value": value, **spec}, "depends_on": list(needs)}


def graph(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), **more}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[System, Path]]:
    folder = tmp_path_factory.mktemp("stage")
    nats_server, redis_server = NatsServer(), RedisServer()
    try:
        nats_server.start_now()
        redis_server.start_now()
        system = System(
            nats_server.url, redis_server.url, services=("fault-policy", "work-items", "stage"),
            modules={"stage": "stage_domain"}, env={"PYTHONPATH": HERE, "WORLD_FOLDER": str(folder)},
        )  # fmt: skip
        async with system:
            yield system, folder
    finally:
        nats_server.close()
        redis_server.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(stage_system: tuple[System, Path]) -> AsyncIterator[Tenant]:
    """Makes tenants."""
    system, folder = stage_system
    made: list[Stage] = []

    async def make() -> Stage:
        stage = Stage(await nats.connect(system.nats_url), f"t{uuid.uuid4().hex[:10]}")
        stage.folder = folder / stage.tenant
        stage.folder.mkdir()
        await stage.listen()
        made.append(stage)
        return stage

    yield make
    for stage in made:
        await stage.client.close()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(tenant: Tenant) -> Stage:
    """A tenant."""
    return await tenant()
