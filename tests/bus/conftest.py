"""Buses on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import nats
import pytest
from nats.aio.client import Client

from holdfast_bus import Bus, BusSettings, StreamSettings
from holdfast_bus.setup import ensure

SMALL = StreamSettings(max_bytes=64 * 1024 * 1024)

MakeBus = Callable[..., Bus]


@pytest.fixture
async def raw(nats_url: str) -> AsyncIterator[Client]:
    """A plain client on a server with all streams but no result consumers (a test makes what it reads)."""
    client = await nats.connect(nats_url)
    await ensure(client.jetstream(), SMALL, durables=())
    yield client
    await client.close()


@pytest.fixture
async def make_bus(nats_url: str, raw: Client) -> AsyncIterator[MakeBus]:
    """Makes buses, not started; those that were are stopped in the end."""
    made: list[Bus] = []

    def make(service: str = "tester", *, url: str = nats_url) -> Bus:
        bus = Bus(BusSettings(nats_url=url, graceful_timeout=1.0), service, "1.0.0")
        made.append(bus)
        return bus

    yield make
    for bus in made:
        if bus.connected:
            await bus.stop()


@pytest.fixture
async def bus(make_bus: MakeBus) -> Bus:
    """A bus that is connected and reads nothing."""
    made = make_bus()
    await made.start()
    return made
