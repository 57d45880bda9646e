"""A link: what asks and publishes without a service around it."""

from __future__ import annotations

import asyncio
import json

import pytest

from holdfast_bus import Bus, BusSettings, linked
from holdfast_bus.setup import ensure
from holdfast_model.errors import HoldfastError, Unavailable
from holdfast_testkit.servers import NatsServer, free_port
from holdfast_testkit.waiting import eventually

from .conftest import SMALL


async def answering(url: str) -> Bus:
    """A service that answers one request."""
    bus = Bus(BusSettings(nats_url=url, graceful_timeout=1.0), "planner", "1")

    @bus.rpc("rpc.planner.list", queue="planner")
    async def list_(body: bytes) -> object:
        return {"graphs": []}

    await bus.start()
    return bus


async def test_a_link_goes_on_when_its_server_is_back_after_a_while(own_nats: NatsServer) -> None:
    service = await answering(own_nats.url)
    async with linked(BusSettings(nats_url=own_nats.url), "tester") as link:
        await ensure(link.js, SMALL, durables=())
        assert json.loads(await link.request("rpc.planner.list", b"", timeout=30)) == {"graphs": []}

        await own_nats.stop()
        await asyncio.sleep(2)  # an outage of several tries
        await own_nats.start()

        async def answered() -> bool:
            try:
                return json.loads(await link.request("rpc.planner.list", b"", timeout=2)) == {"graphs": []}
            except Unavailable:
                return False

        await eventually(answered)
        ack = await link.publish("state.acme.shop", b"{}", stream="STATE")
        assert ack.stream == "STATE"
    await service.stop()


async def test_a_link_to_nobody_is_refused() -> None:
    with pytest.raises(HoldfastError, match="connecting to"):
        async with linked(BusSettings(nats_url=f"nats://127.0.0.1:{free_port()}"), "tester"):
            pass
