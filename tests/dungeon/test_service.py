"""The dungeon service with planner, fault policy and work-items over real servers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats

from holdfast_dungeon.world import World
from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT, eventually
from holdfast_testkit.watching import Watcher

from .conftest import REF, ask, publish
from .lairs import LAIR

ROOMS = [f"room-{n}" for n in range(6)]


async def agree(told: Watcher, item: Any) -> None:
    """Complete a WorkItem with the first thing it offers, which is to go on."""

    async def call(verb: str, **body: Any) -> dict[str, Any]:
        request = json.dumps({"tenant": REF.tenant, "id": item.data["id"], **body}).encode()
        reply = json.loads((await told.client.request(f"rpc.workitems.{verb}", request, timeout=LIMIT)).data)
        assert "error" not in reply, reply
        return reply

    first = (await call("get"))["permittedOutcomes"][0]
    await call("complete", actor="ann", outcome=first["name"] if isinstance(first, dict) else first)


async def test_a_raided_room_is_told_rebuilt_and_recovered_and_its_dragon_waits_for_a_person(
    told: Watcher, world: World
) -> None:
    # Given a dungeon whose dragon somebody agreed to
    await publish(told, LAIR)
    (asked,) = await told.wait_for("workitem.acme.lair.created")
    await agree(told, asked)
    await told.wait_for("graph.acme.lair.converged")

    # When its room is destroyed
    raid = await ask(told, "rpc.domain.dungeon.raid", kind="destroy", target="crypt", seed=1)

    # Then every loss is a fault, and everything but the dragon comes back by itself
    lost = {victim["node"] for victim in raid["victims"]}
    assert lost == {"crypt", "hall--crypt", "dragon"}
    for node in lost:
        await told.wait_for("fault.acme.lair.node_destroyed", node=node)
    await told.wait_for("node.acme.lair.recovered", node="crypt")
    again = (await told.wait_for("workitem.acme.lair.created", 2))[1]
    assert "dragon" not in await world.things(REF)

    # And the dragon does when somebody agrees again
    await agree(told, again)
    await told.wait_for("node.acme.lair.recovered", node="dragon")
    await told.wait_for("graph.acme.lair.converged", 2)
    assert await world.times_built(REF, "dragon") == 2
    assert await world.times_built(REF, "hall") == 1


async def test_a_service_killed_during_raids_loses_none_and_repeats_none(
    system: System, told: Watcher, world: World
) -> None:
    # Given rooms that stand
    await publish(told, {"rooms": [{"id": id} for id in ROOMS]})
    await told.wait_for("graph.acme.lair.converged")

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
        await eventually(lambda room=room: insist(room), what=f"an answer about {room}")

    # Then each fell once and was built once more
    for room in ROOMS:
        await told.wait_for("fault.acme.lair.node_destroyed", node=room)

    async def stands() -> bool:
        return set(await world.things(REF)) == set(ROOMS)

    await eventually(stands, within=2 * LIMIT)  # steps that the killed one had in hand are handed out again after 30 s
    assert [await world.times_built(REF, room) for room in ROOMS] == [2] * len(ROOMS)
