"""Pytest fixtures: servers for the session, wiped ones for a test, and whole servers of one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import nats
import pytest

from holdfast_bus import Bus, BusSettings, StreamSettings
from holdfast_bus.setup import ensure

from .servers import NatsServer, RedisServer, Server, ServerMissingError, start_nats, start_redis
from .waiting import LIMIT
from .wiping import wipe_nats, wipe_redis

S = TypeVar("S", NatsServer, RedisServer)


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Server]:
    """One NATS server with JetStream for the whole session."""
    yield from _session(start_nats)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """One Redis server for the whole session."""
    yield from _session(start_redis)


@pytest.fixture
async def nats_url(nats_server: Server) -> str:
    """The session's NATS server with no streams on it."""
    await wipe_nats(nats_server.url)
    return nats_server.url


@pytest.fixture
async def nats_streams(nats_url: str) -> str:
    """The session's NATS server, wiped, with every stream and consumer of the set-up job."""
    client = await nats.connect(nats_url)
    try:
        await ensure(client.jetstream(timeout=LIMIT), StreamSettings(max_bytes=64 * 1024 * 1024))
    finally:
        await client.close()
    return nats_url


@pytest.fixture
async def bus(nats_streams: str) -> AsyncIterator[Bus]:
    """A bus named ``tester`` on ``nats_streams``, connected, reading nothing."""
    async with Bus(BusSettings(nats_url=nats_streams, graceful_timeout=1.0), "tester", "0") as connected:
        yield connected


@pytest.fixture
async def redis_url(redis_server: Server) -> str:
    """The session's Redis server with no keys in it."""
    await wipe_redis(redis_server.url)
    return redis_server.url


@pytest.fixture
def own_nats() -> Iterator[NatsServer]:
    """A NATS server of this test alone (30 ms), to restart and kill."""
    yield from _own(NatsServer)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis server of this test alone, with ``appendfsync always``, to restart and kill."""
    yield from _own(RedisServer)


def _session(start: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = start()
    except ServerMissingError as missing:
        pytest.skip(str(missing))
    yield server
    server.close()


def _own(kind: type[S]) -> Iterator[S]:
    try:
        server = kind()
    except ServerMissingError as missing:
        pytest.skip(str(missing))
    try:
        server.start_now()
        yield server
    finally:
        server.close()
