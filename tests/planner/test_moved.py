"""Nodes that are renamed by `moved`: nothing is removed, nothing is made anew, and it may be said again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT, eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


def plot(id: str, place: str, *needs: str, value: str = "1", **more: Any) -> dict[str, Any]:
    spec = {"value": value, "place": place, **more.pop("spec", {})}
    return {"id": id, "type": "plot", "spec": spec, "depends_on": list(needs), **more}


def moving(*nodes: dict[str, Any], **moved: str) -> dict[str, Any]:
    return {"nodes": list(nodes), "moved": [{"from": old, "to": new} for old, new in moved.items()]}


async def test_a_renamed_node_is_not_sent_a_step_however_often_it_is_said(
    system: System, told: Told, world: World
) -> None:
    # Given two nodes, of which one stands on the other
    await told.publish("g", {"nodes": [plot("a", "p"), plot("top", "t", "a")]})
    await told.wait_for("graph.default.g.converged")
    made = world.log()
    version = moving(plot("b", "p"), plot("top", "t", "b"), a="b")

    # When a rename is previewed and published, also once more by a redelivery and as a version of its own
    plan = await told.ask("plan", graph="g", blueprint=version)
    (step, edges) = plan["steps"]
    assert (step["action"], step["node"], step["from"], step["reason"]) == ("move", "b", "a", "was a")
    assert (edges["node"], edges["reason"], plan["counts"]["move"]) == ("top", "dependencies", 1)
    await told.publish("g", version, msg_id=f"{told.tenant}-1")
    await told.publish("g", version, msg_id=f"{told.tenant}-1")
    await told.wait_for("graph.default.g.converged", 2)
    await told.publish("g", version)
    await told.wait_for("graph.default.g.converged", 3)

    # Then it is told as what it is, and nothing was done about it
    changed = told.of("graph.default.g.changed")[1]
    assert (changed["moved"], changed["counts"]["moved"]) == ([{"from": "a", "to": "b"}], 1)
    assert (changed["added"], changed["removed"]) == ([], [])
    assert len(told.of("graph.default.g.changed")) == 2
    assert (await told.phases("g"), world.log()) == ({"b": "present", "top": "present"}, made)
    explained = await told.ask("explain", graph="g", node="b")
    assert explained["last_outcomes"][0]["operation"] == 1
    assert explained["observed"]["outputs"] == {"at": "p"}
    assert "error" in await told.ask("explain", graph="g", node="a")

    # And it is removed under its new name
    await told.publish("g", {"nodes": []})
    await told.wait_for("graph.default.g.converged", 4)
    assert world.log() == [*made, ("deprovision", "top"), ("deprovision", "b")]


async def test_renames_that_mean_nothing_are_refused_with_their_place(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [plot("a", "p"), thing("x")]})
    await told.wait_for("graph.default.g.converged")

    async def refused(document: dict[str, Any]) -> tuple[str, str]:
        reply = await told.ask("apply", graph="g", blueprint=document)
        preview = await told.ask("plan", graph="g", blueprint=document)
        assert reply["status"] == "rejected", reply
        assert preview["error"]["paths"][0]["path"] == reply["problems"][0]["path"]
        return reply["problems"][0]["path"], reply["problems"][0]["message"]

    assert (await refused(moving(plot("a", "p"), plot("b", "q"), a="b")))[0] == "/moved/0/from"
    assert (await refused(moving(plot("c", "p"), a="b")))[0] == "/moved/0/to"
    assert (await refused(moving(plot("b", "p"), plot("a", "q"), a="b", b="a")))[0] == "/moved/0/to"
    assert (await refused(moving(plot("b", "p"), thing("c"), a="c")))[0] == "/moved/0"
    # And a domain that finds its things by the node's name does not go along
    path, text = await refused(moving(plot("a", "p"), thing("y"), x="y"))
    assert path == "/moved/0"
    assert "there is one as 'x', and none as 'y'" in text
    assert sorted(world.log()) == [("provision", "a"), ("provision", "x")]
    assert sorted(await told.phases("g")) == ["a", "x"]


async def test_questions_go_along(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [plot("door", "d", gating="PROVISION_ONLY")]})
    item = await told.wait_for("workitem.default.g.created")
    await told.publish("g", moving(plot("gate", "d", gating="PROVISION_ONLY"), door="gate"))
    await told.wait_for("graph.default.g.accepted", 2)
    await eventually(lambda: len(told.of("graph.default.g.changed")) == 2)
    explained = await told.ask("explain", graph="g", node="gate")
    assert item["id"] in explained["summary"]
    reply = await told.ask("complete", "workitems", id=item["id"], actor="ann", outcome="done")
    assert "error" not in reply, reply
    await told.wait_for("graph.default.g.converged")
    assert [s for s, _ in told.events if s.endswith((".created", ".obsolete"))] == [f"workitem.{told.tenant}.g.created"]


async def test_renames_survive_their_planner(make_system: Callable[..., System], own_told: Told, world: World) -> None:
    async with make_system(planners=2, HOLDFAST_LEASE_TTL="1.5", HOLDFAST_CATALOG_INTERVAL="0.2") as system:
        # Given a node that is there, and one whose step is under way
        await own_told.publish("g", {"nodes": [plot("a", "p"), plot("slow", "s", spec={"until": "go"})]})
        await eventually(lambda: ("provision", "a") in world.log())

        async def under_way() -> bool:
            return (await own_told.phases("g"))["slow"] == "running"

        await eventually(under_way)

        # When what is there is renamed, again and again, while planners come and go
        last = "a"
        for new in ("b", "c", "d"):
            await own_told.publish("g", moving(plot(new, "p"), plot("slow", "s", spec={"until": "go"}), **{last: new}))
            await own_told.wait_for("graph.default.g.accepted", ord(new) - ord("a") + 1)
            for planner in system.planners:
                await planner.kill()
            for planner in system.planners:
                await planner.restart()
            last = new

        # Then nothing was made twice, and nothing removed
        world.let("go")
        await own_told.wait_for("graph.default.g.converged", within=2 * LIMIT)
        assert sorted(world.log()) == [("provision", "a"), ("provision", "slow")]
        explained = await own_told.ask("explain", graph="g", node="d")
        assert explained["last_outcomes"][0]["operation"] in (1, 2)
