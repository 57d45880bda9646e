"""People in the loop: gates, approvals bound to what was approved, holds and their decisions."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def item_for(told: Told, graph: str = "g", count: int = 1) -> dict[str, Any]:
    return await told.wait_for(f"workitem.default.{graph}.created", count)


async def decide(told: Told, item: dict[str, Any], outcome: str = "", **more: Any) -> dict[str, Any]:
    return await told.ask("complete", "workitems", id=item["id"], actor="ann", outcome=outcome, **more)


async def test_a_gated_node_waits_for_a_person_and_is_attested(system: System, told: Told, world: World) -> None:
    # Given a node that needs a person, and one behind it
    gated = thing("door", gating="PROVISION_ONLY")
    await told.publish("g", {"nodes": [gated, thing("room", 1, "door"), thing("free")]})
    item = await item_for(told)
    assert item["callerRef"] == f"desiredstate:{told.tenant}/g:door:provision"
    await eventually(lambda: set(world.things()) == {"free"})

    async def says_which() -> bool:  # once the planner has the answer of who told of the item
        return f"WorkItem {item['id']}" in (await told.ask("explain", graph="g", node="door"))["summary"]

    await eventually(says_which)

    # When the person is done
    await decide(told, item)

    # Then the node counts as present, nobody provisions it, and what depends on it goes on
    await told.wait_for("graph.default.g.converged")
    assert set(world.things()) == {"free", "room"}


async def test_an_item_of_a_node_that_leaves_becomes_obsolete(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("door", gating="ALL"), thing("free")]})
    item = await item_for(told)
    await told.publish("g", {"nodes": [thing("free")]})
    obsolete = await told.wait_for("workitem.default.g.obsolete")
    assert obsolete["id"] == item["id"]

    # A re-added node asks again: the ended item does not stand in its way.
    await told.publish("g", {"nodes": [thing("door", gating="ALL"), thing("free")]})
    again = await item_for(told, count=2)
    assert again["id"] != item["id"]


async def test_a_rejected_gate_is_a_fault_and_is_not_asked_again(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("door", gating="PROVISION_ONLY")]})
    item = await item_for(told)
    await told.ask("reject", "workitems", id=item["id"], actor="ann", note="not in my house")
    fault = await told.wait_for("fault.default.g.approval_rejected")
    assert fault["node"] == "door"
    assert (await told.phases("g")) == {"door": "refused"}
    await told.ask("unblock", graph="g", node="door")
    again = await item_for(told, count=2)
    await decide(told, again)
    await told.wait_for("graph.default.g.converged")


async def test_a_plan_runs_once_approved_and_only_as_approved(system: System, told: Told, world: World) -> None:
    # Given a step that asks for approval of its plan
    await told.publish("g", {"nodes": [thing("a", 1, plan="one")]})
    first = await item_for(told)
    assert first["callerRef"].startswith("desiredstate-approval:")
    assert world.things() == {}

    # When the spec changes before anybody decides, the old question is obsolete and a new one is asked
    await told.publish("g", {"nodes": [thing("a", 2, plan="two")]})
    await told.wait_for("workitem.default.g.obsolete")
    second = await item_for(told, count=2)
    await decide(told, second, "approve")

    # Then what was approved is done, once
    await told.wait_for("graph.default.g.converged")
    assert world.things() == {"a": 2}

    # And the next change asks again
    await told.publish("g", {"nodes": [thing("a", 3, plan="two")]})
    third = await item_for(told, count=3)
    await decide(told, third, "reject")
    await told.wait_for("fault.default.g.approval_rejected")
    assert world.things() == {"a": 2}


async def test_approve_then_change_asks_again(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a", 1, plan="one")]})
    first = await item_for(told)
    await told.ask("pause", graph="g")
    await decide(told, first, "approve")
    await told.publish("g", {"nodes": [thing("a", 2, plan="one")]})
    await told.wait_for("graph.default.g.accepted", 2)
    await told.ask("resume", graph="g")
    second = await item_for(told, count=2)
    assert world.things() == {}
    await decide(told, second, "approve")
    await eventually(lambda: world.things() == {"a": 2})


async def test_a_held_drift_stays_held_until_it_ends(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a"), thing("b", 1, "a"), thing("lost")]})
    await told.wait_for("graph.default.g.converged")
    made = world.log()
    (world.folder / "a.broken").touch()
    await told.report("g", node="a")
    fault = await told.wait_for("fault.default.g.node_degraded")
    assert (fault["node"], fault["reason"]) == ("a", "broken")
    (world.folder / "lost.json").unlink()
    await told.ask("reconcile", graph="g")
    await eventually(lambda: "lost" in world.things())  # everything has been looked at again
    await eventually(lambda: _held(told))
    assert world.log() == [*made, ("provision", "lost")], "nothing is undone behind people's backs"
    assert len(told.of("fault.default.g.node_degraded")) == 1
    (world.folder / "a.broken").unlink()
    await told.report("g", node="a")
    await eventually(lambda: any(d["node"] == "a" for d in told.of("node.default.g.recovered")))
    assert world.log() == [*made, ("provision", "lost")]


async def _held(told: Told) -> bool:
    return (await told.phases("g"))["a"] == "held"


async def test_everything_else_converges_without_work_items(make_system: Any, own_told: Told, world: World) -> None:
    async with make_system(services=("world",)):
        await own_told.publish("g", {"nodes": [thing("door", gating="ALL"), thing("free")]})
        await eventually(lambda: set(world.things()) == {"free"})
        waiting = await own_told.wait_for("node.default.g.waiting")
        assert waiting["node"] == "door"
