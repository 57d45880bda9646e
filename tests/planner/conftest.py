"""A running planner (with work-items and fault-policy) over real servers, and a domain whose world is a folder."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from holdfast_testkit.servers import NatsServer, RedisServer, Server
from holdfast_testkit.system import System
from holdfast_testkit.told import Told

HERE = str(Path(__file__).parent)


class World:
    """The folder of the domain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def things(self) -> dict[str, Any]:
        found = {}
        for path in self.folder.glob("*.json"):
            with suppress(FileNotFoundError):  # it went between the look and the reading
                found[path.stem] = json.loads(path.read_text())["value"]
        return found

    def log(self) -> list[tuple[str, str]]:
        path = self.folder / "log"
        return [tuple(line.split()[:2]) for line in path.read_text().splitlines()] if path.exists() else []  # type: ignore[misc]

    def let(self, name: str) -> None:
        """Let steps go on that take ``until`` this."""
        (self.folder / name).touch()

    def keys(self) -> list[str]:
        path = self.folder / "log"
        return [line.split(" ", 2)[2] for line in path.read_text().splitlines()] if path.exists() else []


def thing(
    id: str, value: Any = 1, *needs: str, type: str = "thing", gating: str = "NONE", **spec: Any
) -> dict[str, Any]:
    """A raw node of the world domain."""
    return {"id": id, "type": type, "gating": gating, "spec": {"value": value, **spec}, "depends_on": list(needs)}


@pytest.fixture
def tenant() -> str:
    """Every test is a tenant of its own, so that tests can share one running system."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture
def world(folder: Path, tenant: str) -> World:
    (folder / tenant).mkdir()
    return World(folder / tenant)


def build(nats_url: str, redis_url: str, folder: Path, planners: int, services: tuple[str, ...], **env: str) -> System:
    return System(
        nats_url, redis_url, planners=planners, services=services, modules={"world": "world_domain"},
        env={"PYTHONPATH": HERE, "WORLD_FOLDER": str(folder), "HOLDFAST_ADOPT_AFTER": "1", **env},
    )  # fmt: skip


EVERYTHING = ("fault-policy", "work-items", "world")


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[tuple[str, str]]:
    """Servers of the shared system, apart from those that single tests wipe."""
    nats_server, redis_server = NatsServer(), RedisServer()
    try:
        nats_server.start_now()
        redis_server.start_now()
        yield nats_server.url, redis_server.url
    finally:
        nats_server.close()
        redis_server.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(shared_servers: tuple[str, str], folder: Path) -> AsyncIterator[System]:
    """One running system for all tests that kill nothing."""
    async with build(*shared_servers, folder, 1, EVERYTHING) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def told(system: System, tenant: str) -> AsyncIterator[Told]:
    """A client of the shared system."""
    client = await nats.connect(system.nats_url)
    listener = Told(client, tenant)
    await listener.listen()
    yield listener
    await client.close()


@pytest.fixture
def make_system(own_nats: Server, own_redis: Server, folder: Path) -> Callable[..., System]:
    """Builds a system of the test's own, to kill and restart."""

    def make(planners: int = 1, services: tuple[str, ...] = EVERYTHING, **env: str) -> System:
        return build(own_nats.url, own_redis.url, folder, planners, services, **env)

    return make


@pytest_asyncio.fixture(loop_scope="session")
async def own_told(own_nats: Server, tenant: str) -> AsyncIterator[Told]:
    """A client of the test's own system; it listens before anything has started."""
    client = await nats.connect(own_nats.url)
    listener = Told(client, tenant)
    await listener.listen()
    yield listener
    await client.close()
