"""A service as a process: health, AsyncAPI, signals, crashes and lost servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import nats
import pytest
from nats.aio.client import Client

from holdfast_bus import StreamSettings
from holdfast_bus.setup import ensure, ensure_durable
from holdfast_bus.streams import DLQ_MOVER, PLANNER_STATE
from holdfast_testkit.processes import ServiceProcess, get
from holdfast_testkit.proxy import TcpProxy
from holdfast_testkit.servers import NatsServer
from holdfast_testkit.waiting import LIMIT, eventually

READS = (PLANNER_STATE, DLQ_MOVER)


class Echo(ServiceProcess):
    def __init__(self, url: str, **env: str) -> None:
        super().__init__(
            "echo_service",
            {
                "HOLDFAST_NATS_URL": url,
                "PYTHONPATH": str(Path(__file__).parent),
                "HOLDFAST_GRACEFUL_TIMEOUT": "1.5",
                **env,
            },
            name="echo",
        )

    async def http(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(get, self.url + path)


@pytest.fixture
async def plain(own_nats: NatsServer) -> AsyncIterator[Client]:
    client = await nats.connect(own_nats.url, max_reconnect_attempts=-1, reconnect_time_wait=cast(int, 0.1))
    await ensure(client.jetstream(), StreamSettings(max_bytes=1_000_000), durables=READS)
    yield client
    await client.close()


async def test_a_service_serves_health_and_asyncapi_and_ends_in_order(own_nats: NatsServer, plain: Client) -> None:
    started = await plain.subscribe("echo.started")
    echoed = await plain.subscribe("echo.state")
    async with Echo(own_nats.url, HOLDFAST_LOG_FORMAT="json", HOLDFAST_GRACEFUL_TIMEOUT="30") as echo:
        assert await echo.http("/healthz") == (200, '{"service": "echo", "version": "1.2.3"}')
        assert await echo.http("/readyz") == (200, '{"ready": true, "problems": []}')
        status, document = await echo.http("/asyncapi.json")
        assert status == 200
        api = json.loads(document)
        assert api["info"]["title"] == "holdfast echo"
        addresses = {channel["address"] for channel in api["channels"].values()}
        assert {"state.>", "rpc.planner.get"} <= addresses
        assert "Says on echo.state what it read." in document
        assert (await echo.http("/asyncapi"))[0] == 200
        assert (await echo.http("/nothing"))[0] == 404

        await plain.jetstream().publish("state.acme.shop", b"slow")
        await started.next_msg(timeout=LIMIT)
        code = await echo.stop()
        assert code == 0
        assert (await echoed.next_msg(timeout=LIMIT)).data == b"slow"  # the handler was let end
        await eventually(lambda: _left(plain, 1))  # what the stop hook published; the slow one is acked
        assert (await plain.jetstream().get_last_msg("STATE", "state.>")).data == b"bye"
        for line in echo.logs.splitlines():
            assert json.loads(line)["service"] == "echo"


async def test_a_service_is_not_ready_while_something_it_needs_is_missing(
    own_nats: NatsServer, plain: Client, tmp_path: Path
) -> None:
    down = tmp_path / "down"
    async with Echo(own_nats.url, ECHO_DOWN=str(down)) as echo:
        down.touch()
        status, body = await echo.http("/readyz")
        assert (status, json.loads(body)["problems"]) == (503, ["store: the store is down"])
        down.unlink()

        await plain.jetstream().delete_consumer(PLANNER_STATE.stream, PLANNER_STATE.name)
        status, body = await echo.http("/readyz")
        assert status == 503
        assert "STATE/planner-state" in body
        assert (await echo.http("/healthz"))[0] == 200

        await ensure_durable(plain.jetstream(), PLANNER_STATE)
        await eventually(lambda: _ready(echo))


async def _ready(echo: Echo) -> bool:
    return (await echo.http("/readyz"))[0] == 200


async def test_a_server_restart_loses_nothing(own_nats: NatsServer, plain: Client) -> None:
    seen: set[bytes] = set()

    async def collect(msg: object) -> None:
        seen.add(msg.data)  # type: ignore[attr-defined]

    await plain.subscribe("echo.state", cb=collect)
    async with Echo(own_nats.url) as echo:
        sent = 0
        for _ in range(2):
            for _ in range(50):
                await eventually(lambda body=b"%d" % sent: _put(plain, body))  # type: ignore[misc]
                sent += 1
            await own_nats.kill()
            await own_nats.start()
        await eventually(lambda: _answers(plain))
        # hints may be lost while the server is down; the queue itself must be worked off
        await eventually(lambda: _left(plain, 0))
        await eventually(lambda: _put(plain, b"last"))
        await eventually(lambda: b"last" in seen)
        await eventually(lambda: _ready(echo))
        assert echo.running


async def _answers(plain: Client) -> bool:
    try:
        await plain.jetstream().stream_info("STATE")
    except (nats.errors.Error, TimeoutError):
        return False
    return True


async def _put(plain: Client, body: bytes) -> bool:
    try:
        await plain.jetstream().publish("state.acme.shop", body)
    except (nats.errors.Error, TimeoutError):
        return False
    return True


async def _left(plain: Client, count: int) -> bool:
    return (await plain.jetstream().stream_info("STATE")).state.messages == count


async def test_a_killed_service_leaves_its_messages_to_the_next(own_nats: NatsServer, plain: Client) -> None:
    started = await plain.subscribe("echo.started")
    echoed = await plain.subscribe("echo.state")
    async with Echo(own_nats.url) as echo:
        await plain.jetstream().publish("state.acme.shop", b"hang")
        await started.next_msg(timeout=LIMIT)
        await echo.kill()
        assert (await plain.jetstream().stream_info("STATE")).state.messages == 1
        await echo.start()
        await plain.jetstream().publish("state.acme.shop", b"next")
        assert (await echoed.next_msg(timeout=LIMIT)).data == b"next"
        await started.next_msg(timeout=LIMIT)


async def test_a_start_that_fails_ends_the_process(own_nats: NatsServer, plain: Client) -> None:
    echo = Echo(own_nats.url, ECHO_BROKEN="no key for the door")
    await echo.start(within=None)
    assert await echo.ended() == 1
    assert "no key for the door" in echo.logs
    assert "Traceback" not in echo.logs
    echo.discard()


async def test_a_service_may_start_before_its_server_and_before_the_set_up(own_nats: NatsServer) -> None:
    await own_nats.stop()
    echo = Echo(own_nats.url)
    await echo.start(within=None)
    await eventually(lambda: echo.url)
    assert (await echo.http("/healthz"))[0] == 200
    assert (await echo.http("/readyz"))[0] == 503
    await own_nats.start()
    await eventually(lambda: _says(echo, "does not exist"))
    client = await nats.connect(own_nats.url)
    await ensure(client.jetstream(), StreamSettings(max_bytes=1_000_000), durables=READS)
    await client.close()
    await echo.ready()
    assert await echo.stop() == 0
    echo.discard()


async def _says(echo: Echo, text: str) -> bool:
    return text in (await echo.http("/readyz"))[1]


async def test_a_service_that_never_connected_can_be_stopped(own_nats: NatsServer) -> None:
    await own_nats.stop()
    echo = Echo(own_nats.url)
    await echo.start(within=None)
    await eventually(lambda: echo.url)
    assert await echo.stop() == 0
    echo.discard()


async def test_a_service_stops_in_time_while_its_server_is_gone(own_nats: NatsServer, plain: Client) -> None:
    async with TcpProxy(own_nats.url) as proxy:
        echo = Echo(proxy.url)
        await echo.start()
        proxy.black_hole()
        began = asyncio.get_running_loop().time()
        await echo.stop(within=2 * LIMIT)
        assert asyncio.get_running_loop().time() - began < LIMIT
        echo.discard()


async def test_a_frozen_loop_ends_the_process(own_nats: NatsServer, plain: Client) -> None:
    echo = Echo(own_nats.url, HOLDFAST_FREEZE_LIMIT="1")
    await echo.start()
    await plain.jetstream().publish("state.acme.shop", b"freeze")
    assert await echo.ended() != 0
    assert "on_state" in echo.logs  # the stack tells where
    echo.discard()


async def test_being_refused_for_good_ends_the_process(own_nats: NatsServer, plain: Client) -> None:
    echo = Echo(own_nats.url)
    await echo.start()
    await plain.close()
    own_nats.extra = "authorization { user: a, password: b }"
    await own_nats.restart()
    assert await echo.ended() == 1
    assert "closed for good" in echo.logs
    assert "Traceback" not in echo.logs.partition("closed for good")[0]
    echo.discard()
