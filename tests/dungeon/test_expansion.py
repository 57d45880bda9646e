"""The worked example of phases and situations, played on real servers as the README tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from holdfast_cli.connection import Found
from holdfast_cli.play import scene
from holdfast_cli.play.game import Game
from holdfast_cli.session import connected
from holdfast_dungeon.world import World
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually
from holdfast_testkit.watching import Watcher

from .conftest import REF, ask, publish

EXAMPLE = Path(__file__).parents[2] / "services" / "provisioner-dungeon" / "expansion.yaml"
CHAIN = ["probe-ridge", "pylon-ridge", "cannon-ridge", "nexus-ridge"]
GARRISON, WALL = "garrison-ridge", "wall-ridge"


async def raid(told: Watcher, kind: str, target: str) -> list[tuple[str, str]]:
    reply = await ask(told, "rpc.domain.dungeon.raid", kind=kind, target=target)
    return [(victim["node"], victim["fate"]) for victim in reply["victims"]]


async def posture(world: World) -> str:
    garrison = (await world.things(REF)).get(GARRISON)
    return garrison.posture if garrison is not None else ""


async def test_build_defend_raids_fortify_and_patrol_again(system: System, told: Watcher, world: World) -> None:
    async with connected(REF.tenant, Found(system.nats_url, "the test")) as session:
        game = Game(session, REF.graph)

        async def shown() -> str:
            return scene.summary(await game.look(), 0, game.phase)

        async def stands(way: str) -> None:
            async def so() -> bool:
                line = await shown()
                return "stands" in line and line.endswith(f"phase defend; {GARRISON}: {way}")

            await eventually(so, what=f"an expansion that stands, in posture {way}")

        # Given the example: it is built in the order of its list, then defended
        await publish(told, yaml.safe_load(EXAMPLE.read_text())["spec"])
        (accepted,) = await told.wait_for("graph.acme.lair.accepted")
        assert (accepted.data["phase"], accepted.data["phases"]) == ("build", ["build", "defend"])
        (advanced,) = await told.wait_for("graph.acme.lair.phase_advanced")
        assert (advanced.data["from"], advanced.data["phase"], advanced.data["nodeCount"]) == ("build", "defend", 4)
        await stands("PATROL")
        assert [await world.times_built(REF, node) for node in CHAIN] == [1] * 4, "nothing is built twice"
        assert WALL not in await world.things(REF)

        # When three things fall there within the alarm's time
        for node in CHAIN[1:]:
            assert await raid(told, "destroy", node) == [(node, "destroyed")]
        for node in CHAIN[1:]:
            await told.wait_for("fault.acme.lair.node_destroyed", node=node)

        # Then that is a situation, told once, and the garrison is planned anew
        (situation,) = await told.wait_for("graph.acme.lair.situation")
        data = situation.data
        assert (data["name"], data["zone"], data["count"]) == ("under-attack", "ridge", 3)
        assert data["nodes"] == sorted(CHAIN[1:])
        await stands("FORTIFY")
        assert set(await world.things(REF)) == {*CHAIN, GARRISON, WALL}
        assert await world.times_built(REF, GARRISON) == 2
        why = await ask(told, "rpc.planner.explain", node=GARRISON)
        assert (why["desired"]["owner"], why["desired"]["spec"]["posture"]) == ("policy:under-attack/ridge", "FORTIFY")
        assert (why["condition"], why["stages"][0]["phase"]) == ("present", "defend")

        # And while it lasts nothing falls: what is raided is only damaged, and mended
        assert await raid(told, "destroy", "nexus-ridge") == [("nexus-ridge", "damaged")]
        await told.wait_for("fault.acme.lair.node_degraded", node="nexus-ridge")

        async def mended() -> bool:
            nexus = (await world.things(REF)).get("nexus-ridge")
            return nexus is not None and not nexus.damage

        await eventually(mended)

        # And when it has been calm, the garrison patrols again, and the wall goes
        await stands("PATROL")

        async def no_wall() -> bool:
            return WALL not in await world.things(REF)

        await eventually(no_wall)
        assert [e.data["phase"] for e in told.on("graph.acme.lair.phase_advanced")] == ["defend"]
        assert len(told.on("graph.acme.lair.situation")) == 1


async def test_the_house_of_the_game_has_an_expansion_and_its_phase_is_shown(
    system: System, told: Watcher, world: World
) -> None:
    async with connected(REF.tenant, Found(system.nats_url, "the test")) as session:
        game = Game(session, REF.graph)
        await game.prepare(None)
        seen: dict[str, Any] = {}

        async def defended() -> bool:
            seen["tiles"] = await game.look()
            seen["text"] = scene.summary(seen["tiles"], 0, game.phase)
            return f"{GARRISON}: PATROL" in seen["text"]

        await eventually(defended, what="a garrison on patrol")
        assert "phase defend" in seen["text"]
        # The dragon still waits for a person: rooms and creatures hold up no phase.
        (dragon,) = [tile for tile in seen["tiles"] if tile.id == "dragon"]
        assert dragon.phase == "waiting"
        assert json.dumps([item.title for item in await game.waiting()]) == '["provision dragon"]'
