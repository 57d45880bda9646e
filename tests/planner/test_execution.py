"""Steps over the bus: order, failures, removals, drift, pauses, and processes that die."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT, eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_dependencies_come_first_and_removals_last(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("top", 1, "mid"), thing("mid", 1, "low"), thing("low")]})
    await told.wait_for("graph.default.g.converged")
    assert world.log() == [("provision", "low"), ("provision", "mid"), ("provision", "top")]
    await told.publish("g", {"delete": True})
    await told.wait_for("graph.default.g.deleted")
    assert world.log()[3:] == [("deprovision", "top"), ("deprovision", "mid"), ("deprovision", "low")]


async def test_an_edit_touches_its_node_only_when_dependents_stay_healthy(
    system: System, told: Told, world: World
) -> None:
    nodes = [thing("a"), thing("b", 1, "a"), thing("c")]
    await told.publish("g", {"nodes": nodes})
    await told.wait_for("graph.default.g.converged")
    await told.publish("g", {"nodes": [thing("a", 2), *nodes[1:]]})
    await told.wait_for("graph.default.g.converged", 2)
    assert world.log()[3:] == [("provision", "a")]


async def test_a_failing_node_stops_its_dependents_only(system: System, told: Told, world: World) -> None:
    bad = thing("bad", permanent=True)
    await told.publish("g", {"nodes": [bad, thing("behind", 1, "bad"), thing("good"), thing("after", 1, "good")]})
    await eventually(lambda: set(world.things()) == {"good", "after"})
    fault = await told.wait_for("fault.default.g.provision_failed")
    assert (fault["node"], fault["reason"], fault["permanent"]) == ("bad", "impossible", True)
    blocked = await told.wait_for("node.default.g.blocked")
    assert (blocked["node"], blocked["by"]) == ("behind", "bad")
    await eventually(lambda: told.of("fault.default.g.dependency_unavailable"))
    explained = await told.ask("explain", graph="g", node="behind")
    assert "blocked by bad" in explained["summary"]
    assert len(told.of("fault.default.g.provision_failed")) == 1

    # A new digest ends the permanent failure.
    await told.publish(
        "g", {"nodes": [thing("bad"), thing("behind", 1, "bad"), thing("good"), thing("after", 1, "good")]}
    )
    await told.wait_for("graph.default.g.converged")
    await eventually(lambda: {d["node"] for d in told.of("node.default.g.recovered")} >= {"bad"})


async def test_every_failed_attempt_is_one_fault_and_success_one_recovery(
    system: System, told: Told, world: World
) -> None:
    await told.publish("g", {"nodes": [thing("a", fail=3)]})
    await told.wait_for("graph.default.g.converged")
    await told.wait_for("fault.default.g.provision_failed", 3)
    assert [f["attempt"] for f in told.of("fault.default.g.provision_failed")] == [1, 2, 3]
    await eventually(lambda: len(told.of("node.default.g.recovered")) == 1)
    assert len(set(world.keys())) == 1


async def test_a_reported_change_is_healed(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a"), thing("b", 1, "a")]})
    await told.wait_for("graph.default.g.converged")
    (world.folder / "a.json").unlink()
    body = {"node": "a", "fault": "node_destroyed", "detail": "a raid"}
    await told.report("g", **body)
    await eventually(lambda: world.things() == {"a": 1, "b": 1})
    fault = await told.wait_for("fault.default.g.node_destroyed")
    assert (fault["node"], fault["detail"]) == ("a", "a raid")
    await eventually(lambda: len(told.of("node.default.g.recovered")) == 1)
    assert world.log() == [("provision", "a"), ("provision", "b"), ("provision", "a")]


async def test_a_report_that_disagrees_with_its_subject_changes_nothing(
    system: System, told: Told, world: World
) -> None:
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("graph.default.g.converged")
    dead = await told.client.subscribe("dlq.>")
    body = {"node": "a", "tenant": "somebody-else", "fault": "node_destroyed"}
    await told.report("g", **body)
    letter = await dead.next_msg(timeout=LIMIT)
    assert letter.subject == "dlq.STATE"
    assert told.of("fault.default.g.node_destroyed") == []


async def test_a_changed_type_gets_its_new_form_before_the_old_one_goes(
    system: System, told: Told, world: World
) -> None:
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("graph.default.g.converged")
    await told.publish("g", {"nodes": [thing("a", 2, type="other")]})
    await told.wait_for("graph.default.g.converged", 2)
    assert world.log() == [("provision", "a"), ("provision", "a"), ("deprovision", "a")]


async def test_pausing_stops_steps_until_resumed(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("graph.default.g.converged")
    assert (await told.ask("pause", graph="g"))["status"] == "accepted"
    await told.publish("g", {"nodes": [thing("a", 2)]})
    await eventually(lambda: _is(told, "a", "paused"))
    assert world.things() == {"a": 1}
    await told.wait_for("graph.default.g.paused")
    await told.ask("resume", graph="g")
    await eventually(lambda: world.things() == {"a": 2})
    await told.wait_for("graph.default.g.resumed")


async def _is(told: Told, node: str, phase: str) -> bool:
    return (await told.phases("g")).get(node) == phase


async def test_unblock_gives_a_hopeless_node_another_try(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a", permanent=True)]})
    await eventually(lambda: _is(told, "a", "failed"))
    await told.ask("unblock", graph="g", node="a")
    await told.wait_for("fault.default.g.provision_failed", 2)


async def test_nothing_is_lost_when_processes_are_killed_while_a_graph_converges(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    async with make_system(
        planners=2, HOLDFAST_LEASE_TTL="1.5", HOLDFAST_START_WITHIN="3", HOLDFAST_GRACE="1"
    ) as system:
        layers = [[f"n{layer}-{i}" for i in range(5)] for layer in range(6)]
        nodes = [
            thing(name, layer, *(layers[layer - 1] if layer else ()), slow=0.1)
            for layer, names in enumerate(layers)
            for name in names
        ]
        await own_told.publish("g", {"nodes": nodes})
        await eventually(lambda: len(world.things()) > 5)
        for process in (*system.planners, system["world"], system["fault-policy"], system["work-items"]):
            await process.kill()
            await process.start()
        await eventually(lambda: len(world.things()) == len(nodes))
        await own_told.wait_for("graph.default.g.converged")
        seen = [node for action, node in world.log() if action == "provision"]
        assert set(seen) == {n["id"] for n in nodes}
        assert len(set(world.keys())) == len(nodes), "a repeated step kept its idempotency key"


async def test_two_planners_share_the_graphs_and_one_takes_over(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    async with make_system(planners=2, HOLDFAST_LEASE_TTL="1.5") as system:
        for number in range(8):
            await own_told.publish(f"g{number}", {"nodes": [thing(f"x{number}")]})
        await eventually(lambda: len(world.things()) == 8)
        await system.planners[1].kill()
        for number in range(8):
            await own_told.publish(f"g{number}", {"nodes": [thing(f"x{number}", 2)]})
        await eventually(lambda: set(world.things().values()) == {2} and len(world.things()) == 8)


async def test_recent_faults_can_be_asked_for_after_they_were_handled(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a", fail=2)]})
    await told.wait_for("fault.default.g.provision_failed", 2)
    await told.wait_for("graph.default.g.converged")

    async def both() -> bool:
        return len((await told.ask("faults", graph="g"))["faults"]) == 2

    await eventually(both)
    assert [f["attempt"] for f in (await told.ask("faults", graph="g"))["faults"]] == [2, 1]
