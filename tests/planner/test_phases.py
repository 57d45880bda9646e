"""Blueprints in phases and with deadlines, over the bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


def phase(id: str, *nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": id, "graph": {"nodes": list(nodes)}, **more}


async def graph_row(told: Told, graph: str = "g") -> dict[str, Any]:
    return (await told.ask("get", graph=graph))["graph"]


async def test_phases_follow_each_other_and_a_node_in_both_stays_without_steps(
    system: System, told: Told, world: World
) -> None:
    document = {
        "phases": [
            phase("build", thing("a"), thing("b", 1, "a")),
            phase("defend", thing("b"), thing("c", 1, "b"), complete_when="never"),
        ]
    }
    await told.publish("g", document)
    accepted = await told.wait_for("graph.default.g.accepted")
    assert (accepted["phase"], accepted["phases"]) == ("build", ["build", "defend"])
    await told.wait_for("graph.default.g.converged")

    assert sorted(world.log()) == [("deprovision", "a"), *(("provision", n) for n in "abc")]
    (advanced,) = told.of("graph.default.g.phase_advanced")
    assert (advanced["name"], advanced["from"], advanced["phase"], advanced["index"]) == ("main", "build", "defend", 1)
    row = await graph_row(told)
    assert (row["phase"], row["stages"][0]["phases"]) == ("defend", ["build", "defend"])
    (listed,) = (await told.ask("list"))["graphs"]
    assert listed["phase"] == "defend"
    explained = await told.ask("explain", graph="g", node="c")
    assert explained["stages"][0]["phase"] == "defend"

    # The same once more stays where it is; a changed one starts over.
    await told.publish("g", document)
    assert (await told.wait_for("graph.default.g.accepted", 2))["phase"] == "defend"
    document["phases"][1]["graph"]["nodes"][1]["spec"]["value"] = 2
    preview = await told.ask("plan", graph="g", blueprint=document)
    assert [(s["action"], s["node"]) for s in preview["steps"]] == [("add", "a"), ("update", "b"), ("remove", "c")]
    assert preview["stages"][0]["phase"] == "build"
    await told.publish("g", document)
    assert (await told.wait_for("graph.default.g.accepted", 3))["phase"] == "build"
    await told.wait_for("graph.default.g.phase_advanced", 2)
    await eventually(lambda: world.things() == {"b": 1, "c": 2})


async def test_a_deadline_is_told_before_its_fault_explained_and_ended_by_a_new_version(
    system: System, told: Told, world: World
) -> None:
    # Given a phase of which one node is there already, and the other one needs a person
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("graph.default.g.converged")
    gated = thing("b", gating="ALL")
    document = {"phases": [phase("build", thing("a"), gated, deadline="4s"), phase("run", thing("c"))]}
    await told.publish("g", document)
    item = await told.wait_for("workitem.default.g.created")
    out = await told.wait_for("graph.default.g.timed_out")
    assert (out["phase"], out["of"], out["missing"]) == ("build", "phase", ["b"])
    fault = await told.wait_for("fault.default.g.provision_failed")
    assert (fault["node"], fault["reason"]) == ("b", "timed_out")
    heard = [subject for subject, _ in told.events]
    told_at = heard.index(told.named("graph.default.g.timed_out"))
    assert told_at < heard.index(told.named("fault.default.g.provision_failed"))
    asked = await told.ask("get", "workitems", id=item["id"])
    assert asked["expiresAt"] is not None

    row = await graph_row(told)
    assert (row["status"], row["stages"][0]["timed_out"], row["stages"][0]["missing"]) == ("timed_out", True, 1)
    explained = await told.ask("explain", graph="g", node="b")
    assert "phase 'build' is out of time" in explained["summary"]

    document["phases"][0]["graph"]["nodes"][1] = thing("b")
    document["phases"][0]["deadline"] = "1h"
    await told.publish("g", document)
    await told.wait_for("graph.default.g.converged", 2)
    assert world.things() == {"c": 1}
    assert (await graph_row(told))["stages"][0]["timed_out"] is False
    assert len(told.of("graph.default.g.timed_out")) == 1


async def test_phases_may_come_from_domains_and_every_step_knows_its_deadline(
    system: System, told: Told, world: World
) -> None:
    parts = [{"things": {"a": {"value": 1}}}, {"things": {"a": {"value": 1}, "b": {"value": 2}}}]
    await told.publish(
        "g",
        {
            "deadline": "2099-01-01T00:00:00Z",
            "phases": [{"id": f"p{i}", "domain": "world", "spec": spec} for i, spec in enumerate(parts)],
        },
    )
    await told.wait_for("graph.default.g.converged")
    assert world.log() == [("provision", "a"), ("provision", "b")]
    assert told.of("graph.default.g.timed_out") == []


async def test_two_blueprints_of_a_graph_are_in_phases_of_their_own(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"name": "one", "phases": [phase("x", thing("a")), phase("y", thing("b"))]})
    stuck = thing("p", permanent=True)
    await told.publish("g", {"name": "two", "phases": [phase("x", stuck), phase("y", thing("q"))]})
    await told.wait_for("graph.default.g.phase_advanced")
    await eventually(lambda: world.things() == {"b": 1})
    assert (await graph_row(told))["phase"] == "one: y, two: x"


async def test_what_cannot_be_in_phases_is_refused_with_its_place(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"name": "other", "nodes": [thing("base")]})
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"phases": []}, "/phases"),
        ({"phases": [phase("a"), phase("a")]}, "/phases/1/id"),
        ({"phases": [phase("a", deadline="soon")]}, "/phases/0/deadline"),
        ({"phases": [phase("a", complete_when="later")]}, "/phases/0/complete_when"),
        ({"phases": [phase("a"), phase("b", thing("x", 1, "gone"))]}, "/phases/1/graph/nodes/0/depends_on/0"),
        ({"phases": [phase("a")], "nodes": []}, "/phases"),
        ({"phases": [{"id": "a", "graph": {"nods": []}}]}, "/phases/0/graph/nods"),
        ({"nodes": [], "deadline": "2026-01-01T00:00:00"}, "/deadline"),
    ]
    for number, (document, place) in enumerate(wrong, 1):
        await told.publish("g", document)
        rejected = await told.wait_for("graph.default.g.rejected", number)
        assert [p["path"] for p in rejected["problems"]] == [place], rejected


async def test_a_phase_that_does_not_fit_any_more_is_not_entered_until_it_does(
    system: System, told: Told, world: World
) -> None:
    # Given a phase that is about to leave its node behind
    await told.publish("g", {"phases": [phase("x", thing("a"), thing("slow", until="go")), phase("y", thing("b"))]})
    await told.wait_for("graph.default.g.accepted")
    # When another blueprint begins to depend on it
    await told.publish("g", {"name": "other", "nodes": [thing("user", 1, "a")]})
    await told.wait_for("graph.default.g.accepted", 2)
    world.let("go")

    async def refused() -> bool:
        return "user" in (await graph_row(told))["stages"][0]["problem"]

    # Then it stays where it is, says why, and goes on when the other blueprint has gone
    await eventually(refused)
    assert told.of("graph.default.g.phase_advanced") == []
    await told.publish("g", {"name": "other", "delete": True})
    await told.wait_for("graph.default.g.phase_advanced")
    await eventually(lambda: world.things() == {"b": 1})


async def test_a_graph_deleted_in_its_first_phase_leaves_nothing_and_begins_anew(
    system: System, told: Told, world: World
) -> None:
    document = {"phases": [phase("x", thing("a"), thing("bad", permanent=True)), phase("y", thing("b"))]}
    await told.publish("g", document)
    await told.wait_for("fault.default.g.provision_failed")
    await told.publish("g", {"delete": True})
    await told.wait_for("graph.default.g.deleted")
    assert world.things() == {}
    document["phases"][0]["graph"]["nodes"][1] = thing("bad")
    await told.publish("g", document)
    await told.wait_for("graph.default.g.converged")
    assert world.things() == {"b": 1}


async def test_phases_and_deadlines_go_on_after_the_planner_was_killed(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    told = own_told
    async with make_system() as system:
        document = {
            "phases": [
                phase("x", thing("a"), thing("b"), thing("slow", until="go")),
                phase("y", thing("b"), thing("never", permanent=True), deadline="4s"),
                phase("z", thing("c")),
            ]
        }
        await told.publish("g", document)
        await eventually(lambda: "a" in world.things())
        await system["planner-0"].kill()
        await system["planner-0"].start()
        world.let("go")
        await told.wait_for("graph.default.g.phase_advanced")
        await system["planner-0"].kill()
        await system["planner-0"].start()
        out = await told.wait_for("graph.default.g.timed_out")
        assert (out["phase"], out["missing"]) == ("y", ["never"])
        await eventually(lambda: world.things() == {"b": 1})
        assert [d["phase"] for d in told.of("graph.default.g.phase_advanced")] == ["y"]
        assert len(told.of("graph.default.g.timed_out")) == 1
