"""Every test of the store runs over the real server and over the in-memory twin."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Kv
from holdfast_store.memory_kv import MemoryKv, MemoryServer
from holdfast_store.redis_kv import RedisKv

Client = Callable[[], Kv]
Stores = Callable[..., GraphStore]


@pytest.fixture(params=["redis", "memory"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """Makes clients of one empty store, each with connections of its own."""
    if request.param == "memory":
        server = MemoryServer(time.time)
        yield lambda: MemoryKv(server)
        return
    url = await wiped(request)
    opened: list[RedisKv] = []

    def connect() -> Kv:
        opened.append(RedisKv(url))
        return opened[-1]

    yield connect
    for kv in opened:
        await kv.close()


async def wiped(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("redis_server").url
    kv = RedisKv(url)
    await kv.run(("FLUSHALL",))
    await kv.close()
    return url


@pytest.fixture
def kv(client: Client) -> Kv:
    return client()


@pytest.fixture
async def stores(client: Client) -> AsyncIterator[Stores]:
    """Makes stores over one server, as separate processes would."""
    made: list[GraphStore] = []

    def make(kv: Kv | None = None, **options: Any) -> GraphStore:
        made.append(GraphStore(kv or client(), rng=random.Random(len(made)), **options))
        return made[-1]

    yield make
    for store in made:
        await store.close()
