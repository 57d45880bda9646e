"""Selections and observing together with everything else a blueprint may say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def apply(told: Told, document: dict[str, Any], graph: str = "g") -> dict[str, Any]:
    return await told.ask("apply", graph=graph, blueprint=document)


async def test_a_deletion_of_a_selection_is_refused_not_taken_for_one_of_everything(
    system: System, told: Told, world: World
) -> None:
    await told.publish("g", {"nodes": [thing("a"), thing("b")]})
    await told.wait_for("graph.default.g.converged")

    for field in ("only", "except"):
        refused = await apply(told, {"delete": True, field: ["a"]})
        assert (refused["status"], refused["problems"][0]["path"]) == ("rejected", f"/{field}")
    assert world.things() == {"a": 1, "b": 1}

    # The way to remove one node: a version without it, of which only that counts
    removed = await apply(told, {"nodes": [thing("b", 2)], "only": ["a"]})
    assert removed["changes"] == {"added": 0, "updated": 0, "removed": 1}
    await eventually(lambda: world.things() == {"b": 1})


async def test_a_selection_that_would_leave_something_hanging_says_what(
    system: System, told: Told, world: World
) -> None:
    await told.publish("g", {"nodes": [thing("a"), thing("b", 1, "a")]})
    await told.wait_for("graph.default.g.converged")
    without = {"nodes": [thing("b", 2)], "only": ["a"]}

    for verb in ("plan", "apply"):
        reply = await told.ask(verb, graph="g", blueprint=without)
        text = json.dumps(reply)
        assert "'b' depends on 'a'" in text, text
        assert "select it too" in text, text
    assert world.things() == {"a": 1, "b": 1}

    # With what hangs on it, it goes
    assert (await apply(told, without | {"only": ["a", "b"]}))["status"] == "accepted"
    await eventually(lambda: world.things() == {"b": 2})


async def test_a_preview_of_a_selection_is_what_is_done(system: System, told: Told, world: World) -> None:
    parts = [{"nodes": [thing("roof", 1), thing("door", 1)]}, {"nodes": [thing("base")]}]
    await told.publish("g", {"parts": parts, "compose": "connect"})
    await told.wait_for("graph.default.g.converged")
    newer = [{"nodes": [thing("roof", 2), thing("light", 2)]}, {"nodes": [thing("base", 2)]}]
    document = {"parts": newer, "compose": "connect", "only": ["roof", "door"]}

    plan = await told.ask("plan", graph="g", blueprint=document)
    assert "error" not in plan, plan
    assert {(s["action"], s["node"]) for s in plan["steps"]} == {("update", "roof"), ("remove", "door")}
    assert (await apply(told, document))["changes"] == {"added": 0, "updated": 1, "removed": 1}
    await told.wait_for("graph.default.g.converged", 2)
    assert world.things() == {"base": 1, "roof": 2}


async def test_a_mode_may_be_changed_for_a_selection(system: System, told: Told, world: World) -> None:
    nodes = [thing("a"), thing("b")]
    await told.publish("g", {"mode": "observe", "nodes": nodes})
    await told.wait_for("node.default.g.drifted", 2)

    # One node is taken into care
    assert (await apply(told, {"nodes": nodes, "only": ["a"]}))["status"] == "accepted"
    await eventually(lambda: world.things() == {"a": 1})
    await eventually(lambda: _phase(told, "a", "present"))
    assert (await told.phases("g")) == {"a": "present", "b": "watched"}

    # And is only watched again: what happens to it is told, and stays
    assert (await apply(told, {"mode": "observe", "nodes": nodes, "only": ["a"]}))["status"] == "accepted"
    (world.folder / "a.json").unlink()
    await told.report("g", node="a")
    await eventually(lambda: _phase(told, "a", "watched"))
    assert world.things() == {}


async def test_deleting_a_graph_that_only_observes_removes_nothing_and_ends(
    system: System, told: Told, world: World
) -> None:
    (world.folder / "b.json").write_text('{"value": 1}')
    await told.publish("g", {"nodes": [thing("a")]})
    await told.publish("g", {"name": "watcher", "mode": "observe", "nodes": [thing("b"), thing("c")]})
    await eventually(lambda: _phase(told, "a", "present"))
    await eventually(lambda: _phase(told, "c", "watched"))

    await told.publish("g", {"delete": True})

    await told.wait_for("graph.default.g.deleted")
    assert world.things() == {"b": 1}
    assert [entry for entry in world.log() if entry[0] == "deprovision"] == [("deprovision", "a")]


async def _phase(told: Told, node: str, phase: str) -> bool:
    return (await told.phases("g")).get(node) == phase
