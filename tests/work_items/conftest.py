"""A store for WorkItems: over the real server and over the in-memory twin."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import pytest

from holdfast_store.kv import Kv
from holdfast_store.memory_kv import MemoryKv, MemoryServer
from holdfast_store.redis_kv import RedisKv
from holdfast_store.work_items import WorkItemStore

Client = Callable[[], Kv]


@pytest.fixture(params=["redis", "memory"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """Makes clients of one empty store, each with connections of its own."""
    if request.param == "memory":
        server = MemoryServer(time.time)
        yield lambda: MemoryKv(server)
        return
    url: str = request.getfixturevalue("redis_server").url
    opened: list[RedisKv] = []

    def connect() -> Kv:
        opened.append(RedisKv(url))
        return opened[-1]

    await connect().run(("FLUSHALL",))
    yield connect
    for kv in opened:
        await kv.close()


@pytest.fixture
def store(client: Client) -> WorkItemStore:
    return WorkItemStore(client())
