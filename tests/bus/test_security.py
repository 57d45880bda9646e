"""Services that prove who they are."""

from __future__ import annotations

from pathlib import Path

import nkeys  # type: ignore[import-untyped]
import pytest

from holdfast_bus import Bus, BusSettings
from holdfast_bus.connecting import connect_once
from holdfast_model.errors import HoldfastError
from holdfast_testkit.servers import NatsServer
from holdfast_testkit.waiting import LIMIT


async def works(settings: BusSettings) -> None:
    async with Bus(settings, "guarded", "1") as bus:
        await bus.hint("planner.1")
    client = await connect_once(settings, "job")
    await client.close()


async def refused(settings: BusSettings) -> None:
    with pytest.raises(HoldfastError):
        await connect_once(settings, "job")
    with pytest.raises(HoldfastError):
        await Bus(settings, "stranger", "1").start(within=5)


async def test_user_and_password(own_nats: NatsServer) -> None:
    own_nats.extra = 'authorization { users: [{ user: "planner", password: "s3cret" }] }'
    await own_nats.restart()
    known = BusSettings(nats_url=own_nats.url, nats_user="planner", nats_password="s3cret", graceful_timeout=1)
    await works(known)
    await refused(BusSettings(nats_url=own_nats.url))
    assert "s3cret" not in repr(known)


async def test_an_nkey_seed_in_a_file(own_nats: NatsServer, tmp_path: Path) -> None:
    seed = nkeys.encode_seed(b"0123456789abcdef0123456789abcdef", nkeys.PREFIX_BYTE_USER)
    key = nkeys.from_seed(seed).public_key.decode()
    file = tmp_path / "planner.nk"
    file.write_bytes(bytes(seed))
    own_nats.extra = f'authorization {{ users: [{{ nkey: "{key}" }}] }}'
    await own_nats.restart()
    await works(BusSettings(nats_url=own_nats.url, nats_nkey_seed=str(file), graceful_timeout=1))
    await refused(BusSettings(nats_url=own_nats.url, nats_user="a", nats_password="b"))


async def test_a_service_needs_no_more_than_its_own_inbox(own_nats: NatsServer) -> None:
    own_nats.extra = """authorization { users: [{ user: "planner", password: "x", permissions: {
        publish: ["$JS.API.INFO"], subscribe: ["_INBOX.planner.>", "rpc.planner.>"] } }] }"""
    await own_nats.restart()
    settings = BusSettings(nats_url=own_nats.url, nats_user="planner", nats_password="x", graceful_timeout=1)
    async with Bus(settings, "planner", "1") as bus:
        assert b"account_info" in await bus.request("$JS.API.INFO", b"", timeout=LIMIT)
