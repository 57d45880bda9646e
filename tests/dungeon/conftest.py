"""The dungeon service with planner, fault policy and work-items over real servers, and a client of all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast_dungeon.world import World
from holdfast_model.names import GraphRef
from holdfast_store.redis_kv import RedisKv
from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT
from holdfast_testkit.watching import Watcher

REF = GraphRef("acme", "lair")


@pytest.fixture
async def system(nats_url: str, redis_url: str) -> AsyncIterator[System]:
    services = ("fault-policy", "work-items", "dungeon")
    modules = {"dungeon": "holdfast_dungeon"}
    quick = {"HOLDFAST_DUNGEON_RESYNC": "2", "HOLDFAST_DUNGEON_PACE": "0.05", "HOLDFAST_DUNGEON_ALARM": "30"}
    # Looks whose replica was killed are given up early, to be asked for again; what is over is noticed at once.
    env = {"HOLDFAST_OBSERVE_TIMEOUT": "3", "HOLDFAST_FAULT_SWEEP_INTERVAL": "1"}
    async with System(
        nats_url, redis_url, services=services, modules=modules, env=env, env_of={"dungeon": quick}
    ) as running:
        yield running


@pytest.fixture
async def told(system: System) -> AsyncIterator[Watcher]:
    async with Watcher(system.nats_url) as watcher:
        yield watcher


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    kv = RedisKv(redis_url)
    yield World(kv)
    await kv.close()


async def publish(told: Watcher, spec: dict[str, Any]) -> None:
    body = {"domain": "dungeon", "spec": spec}
    await told.client.jetstream().publish(f"blueprint.{REF.tenant}.{REF.graph}", json.dumps(body).encode())


async def ask(told: Watcher, subject: str, timeout: float = LIMIT, **body: Any) -> dict[str, Any]:
    request = {"tenant": REF.tenant, "graph": REF.graph, **body}
    reply = await told.client.request(subject, json.dumps(request).encode(), timeout=timeout)
    return json.loads(reply.data)
