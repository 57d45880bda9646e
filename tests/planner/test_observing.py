"""Blueprints that only observe: what differs is told, nothing is done about it until they enforce."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


def observing(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"mode": "observe", "nodes": list(nodes), **more}


def put(world: World, node: str, value: object) -> None:
    (world.folder / f"{node}.json").write_text(json.dumps({"value": value}))


async def test_an_observing_blueprint_tells_what_is_missing_and_makes_nothing(
    system: System, told: Told, world: World
) -> None:
    # Given one thing that is there, one that differs, and two that are not there, of which one is gated
    put(world, "there", 1)
    put(world, "other", 5)
    nodes = [thing("there"), thing("other"), thing("door", gating="ALL"), thing("hut", 1, "other")]
    await told.publish("g", observing(*nodes))

    # Then it is told how they are, once each
    await told.wait_for("node.default.g.drifted", 3)
    reasons = {d["node"]: d["reason"] for d in told.of("node.default.g.drifted")}
    assert reasons == {"other": "changed", "door": "absent", "hut": "absent"}
    phases = {"there": "present", "other": "watched", "door": "watched", "hut": "watched"}
    assert await told.phases("g") == phases
    (row,) = (await told.ask("list"))["graphs"]
    assert (row["watched"], row["present"]) == (3, 1)
    explained = await told.ask("explain", graph="g", node="other")
    assert "its blueprint only observes" in explained["summary"]
    assert explained["desired"]["mode"] == "observe"

    # And looking again changes nothing: no step, no gate, no fault
    await told.ask("reconcile", graph="g")
    await told.report("g", node="other", fault="node_destroyed")
    put(world, "hut", 1)
    await told.report("g", node="hut")
    recovered = await told.wait_for("node.default.g.recovered")
    assert recovered["node"] == "hut"
    assert world.log() == []
    assert [s for s, _ in told.events if s.startswith(("fault.", "workitem."))] == []
    assert len(told.of("node.default.g.drifted")) == 3


async def test_a_blueprint_that_begins_to_enforce_acts(system: System, told: Told, world: World) -> None:
    put(world, "b", 5)
    nodes = [thing("a"), thing("b", 1, "a"), thing("door", gating="PROVISION_ONLY")]
    await told.publish("g", observing(*nodes))
    await told.wait_for("node.default.g.drifted", 3)
    plan = await told.ask("plan", graph="g", blueprint={"nodes": nodes})
    assert {s["reason"] for s in plan["steps"]} == {"mode: enforce"}

    await told.publish("g", {"nodes": nodes})
    await eventually(lambda: world.things() == {"a": 1, "b": 1})
    assert world.log() == [("provision", "a"), ("provision", "b")]
    item = await told.wait_for("workitem.default.g.created")

    # And back: the question is withdrawn, what drifts is left alone
    told_before = len(told.of("node.default.g.drifted"))
    await told.publish("g", observing(*nodes))
    obsolete = await told.wait_for("workitem.default.g.obsolete")
    assert obsolete["id"] == item["id"]
    put(world, "b", 7)
    await told.report("g", node="b")

    def told_of_b() -> bool:
        return any(d["node"] == "b" for d in told.of("node.default.g.drifted")[told_before:])

    await eventually(told_of_b)
    assert world.things() == {"a": 1, "b": 7}


async def test_what_was_only_observed_is_never_removed(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a"), thing("b")]})
    await told.wait_for("graph.default.g.converged")
    # A version that only observes leaves alone what it leaves out, too
    await told.publish("g", observing(thing("b")))
    await told.wait_for("graph.default.g.converged", 2)
    await told.publish("g", {"delete": True})
    await told.wait_for("graph.default.g.deleted")
    assert world.things() == {"a": 1, "b": 1}
    assert [action for action, _ in world.log()] == ["provision", "provision"]


async def test_the_mode_is_the_owners_not_the_graphs(system: System, told: Told, world: World) -> None:
    # Given one blueprint that is in force, and one on trial that builds on it and on which nothing can build
    await told.publish("g", {"nodes": [thing("base")]})
    await told.publish("g", observing(thing("trial", 1, "base"), name="trial"))
    await eventually(lambda: world.things() == {"base": 1})
    await told.publish("g", {"name": "more", "nodes": [thing("top", 1, "trial")]})
    blocked = await told.wait_for("node.default.g.blocked")
    assert (blocked["node"], blocked["by"]) == ("top", "trial")

    async def only_base_is_there() -> bool:  # its file is there before its outcome is
        return await told.phases("g") == {"base": "present", "trial": "watched", "top": "blocked"}

    await eventually(only_base_is_there)

    # When the thing comes to be by other hands, what stands on it is made
    put(world, "trial", 1)
    await told.report("g", node="trial")
    await eventually(lambda: world.things() == {"base": 1, "trial": 1, "top": 1})
    await told.wait_for("graph.default.g.converged")
