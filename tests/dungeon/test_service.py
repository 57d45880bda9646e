"""The dungeon service with planner, fault policy and work-items over real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest

from holdfast_dungeon.world import World
from holdfast_model.names import GraphRef
from holdfast_store.redis_kv import RedisKv
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually
from holdfast_testkit.watching import Watcher

from .lairs import LAIR

pytestmark = pytest.mark.timeout(90)

REF = GraphRef("acme", "lair")
ROOMS = [f"room-{n}" for n in range(6)]


@pytest.fixture
async def system(nats_url: str, redis_url: str) -> AsyncIterator[System]:
    services = ("fault-policy", "work-items", "dungeon")
    modules = {"dungeon": "holdfast_dungeon"}
    # Looks are rare, so that what is repaired soon is repaired because the raid was reported.
    slow = {"dungeon": {"HOLDFAST_DUNGEON_RESYNC": "60", "HOLDFAST_DUNGEON_PACE": "0.05"}}
    async with System(nats_url, redis_url, services=services, modules=modules, env_of=slow) as running:
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


async def ask(told: Watcher, subject: str, timeout: float = 10.0, **body: Any) -> dict[str, Any]:
    request = {"tenant": REF.tenant, "graph": REF.graph, **body}
    reply = await told.client.request(subject, json.dumps(request).encode(), timeout=timeout)
    return json.loads(reply.data)


async def approve(told: Watcher, item: Any) -> None:
    request = {"tenant": REF.tenant, "id": item.data["id"], "actor": "ann", "outcome": "approve"}
    answer = await told.client.request("rpc.workitems.complete", json.dumps(request).encode(), timeout=10)
    reply = json.loads(answer.data)
    assert "error" not in reply, (reply, item.data)


async def test_a_raided_room_is_told_rebuilt_and_recovered_and_its_dragon_waits_for_a_person(
    told: Watcher, world: World
) -> None:
    # Given a dungeon whose dragon somebody agreed to
    await publish(told, LAIR)
    (asked,) = await told.wait_for("workitem.acme.lair.created", within=30)
    await approve(told, asked)
    await told.wait_for("graph.acme.lair.converged", within=30)

    # When its room is destroyed
    raid = await ask(told, "rpc.domain.dungeon.raid", kind="destroy", target="crypt", seed=1)

    # Then every loss is a fault, and everything but the dragon comes back by itself
    lost = {victim["node"] for victim in raid["victims"]}
    assert lost == {"crypt", "hall--crypt", "dragon"}
    for node in lost:
        await told.wait_for("fault.acme.lair.node_destroyed", within=20, nodeId=node)
    await told.wait_for("node.acme.lair.recovered", within=20, node="crypt")
    again = (await told.wait_for("workitem.acme.lair.created", 2, within=20))[1]
    assert "dragon" not in await world.things(REF)

    # And the dragon does when somebody agrees again
    await approve(told, again)
    await told.wait_for("node.acme.lair.recovered", within=20, node="dragon")
    await told.wait_for("graph.acme.lair.converged", 2, within=20)
    assert await world.times_built(REF, "dragon") == 2
    assert await world.times_built(REF, "hall") == 1


async def test_a_service_killed_during_raids_loses_none_and_repeats_none(
    system: System, told: Watcher, world: World
) -> None:
    # Given rooms that stand
    await publish(told, {"rooms": [{"id": id} for id in ROOMS]})
    await told.wait_for("graph.acme.lair.converged", within=30)

    async def raid(room: str) -> dict[str, Any]:
        body = {"kind": "destroy", "target": room, "id": f"raid-{room}"}
        return await ask(told, "rpc.domain.dungeon.raid", timeout=1.0, **body)

    async def insist(room: str) -> bool:
        try:
            return "victims" in await raid(room)
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
            return False

    # When every room is raided while the service is killed, and who got no answer asks again
    raids = [asyncio.create_task(insist(room)) for room in ROOMS]
    await raids[0]
    await system["dungeon"].kill()
    await asyncio.gather(*raids)
    await system["dungeon"].start()
    for room in ROOMS:
        await eventually(lambda room=room: insist(room), within=20, what=f"an answer about {room}")

    # Then each fell once and was built once more
    for room in ROOMS:
        await told.wait_for("fault.acme.lair.node_destroyed", within=30, nodeId=room)

    async def stands() -> bool:
        return set(await world.things(REF)) == set(ROOMS)

    await eventually(stands, within=30)
    assert [await world.times_built(REF, room) for room in ROOMS] == [2] * len(ROOMS)


async def test_what_makes_no_sense_is_answered_and_changes_nothing(told: Watcher, world: World) -> None:
    await publish(told, {"rooms": [{"id": "hall"}]})
    await told.wait_for("graph.acme.lair.converged", within=30)

    nobody = await ask(told, "rpc.domain.dungeon.raid", kind="kill")
    nowhere = await ask(told, "rpc.domain.dungeon.raid", kind="destroy", target="attic")
    strange = await ask(told, "rpc.domain.dungeon.raid", kind="befriend")
    other = await ask(told, "rpc.domain.dungeon.raid", kind="destroy", target="hall", tenant="globex")
    map = await ask(told, "rpc.domain.dungeon.map")

    assert [reply["error"]["code"] for reply in (nobody, nowhere, strange, other)] == [
        "illegal_state", "not_found", "invalid", "not_found",
    ]  # fmt: skip
    assert [thing["id"] for thing in map["things"]] == ["hall"]
