"""Versions that would remove much of a graph: they wait until a person agrees to exactly that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")

MANY = [thing(f"n{i:02}") for i in range(12)]
FEW = {"nodes": MANY[:1]}


async def standing(told: Told, world: World) -> None:
    await told.publish("g", {"nodes": MANY})
    await told.wait_for("graph.default.g.converged")
    assert len(world.things()) == 12


async def asked(told: Told, count: int = 1) -> dict[str, Any]:
    return await told.wait_for("workitem.default.g.created", count)


async def answer(told: Told, item: dict[str, Any], outcome: str) -> None:
    reply = await told.ask("complete", "workitems", id=item["id"], actor="ann", outcome=outcome, note="as agreed")
    assert "error" not in reply, reply


async def test_a_version_that_removes_most_of_a_graph_waits_for_a_person_who_approves_it(
    system: System, told: Told, world: World
) -> None:
    # Given a graph, and a version that would remove nearly all of it
    await standing(told, world)
    plan = await told.ask("plan", graph="g", blueprint=FEW)
    assert plan["asks"] == {"removes": 11, "of": 12, "outcomes": ["approve", "reject"]}
    sequence = await told.publish("g", FEW)

    # Then it waits, saying why, and one person is asked
    waiting = await told.wait_for("graph.default.g.waiting")
    assert (waiting["sequence"], waiting["removes"], waiting["of"]) == (sequence, 11, 12)
    assert "this would remove 11 of 12 nodes" in waiting["reason"]
    item = await asked(told)
    assert item["callerRef"] == f"desiredstate-removal:{told.tenant}/g:main"
    assert "remove 11 of 12 nodes" in item["title"]
    assert len(world.things()) == 12

    # When that is approved, exactly that version is admitted
    await answer(told, item, "approve")
    accepted = await told.wait_for("graph.default.g.accepted", 2)
    assert accepted["sequence"] == sequence
    await eventually(lambda: len(world.things()) == 1)


async def test_a_rejected_removal_is_dropped_and_told(system: System, told: Told, world: World) -> None:
    await standing(told, world)
    sequence = await told.publish("g", FEW)
    await answer(told, await asked(told), "reject")
    rejected = await told.wait_for("graph.default.g.rejected")
    assert rejected["sequence"] == sequence
    assert "removing 11 of 12 nodes was rejected by ann: as agreed" in rejected["reason"]
    assert len(world.things()) == 12

    # And the next version of that owner is admitted as if nothing had been
    await told.publish("g", {"nodes": MANY[:10]})
    await eventually(lambda: len(world.things()) == 10)


async def test_a_newer_version_replaces_the_one_that_waits_and_makes_its_item_obsolete(
    system: System, told: Told, world: World
) -> None:
    await standing(told, world)
    await told.publish("g", FEW)
    first = await asked(told)
    await told.publish("g", {"nodes": MANY[:2]})
    second = await asked(told, 2)
    obsolete = await told.wait_for("workitem.default.g.obsolete")
    assert (obsolete["id"], second["id"] != first["id"]) == (first["id"], True)
    await told.publish("g", {"nodes": MANY[:10]})
    await told.wait_for("workitem.default.g.obsolete", 2)
    await eventually(lambda: len(world.things()) == 10)
    assert (await told.ask("list"))["graphs"][0]["nodes"] == 10


async def test_consent_in_the_document_and_deletion_are_not_asked_about(
    system: System, told: Told, world: World
) -> None:
    await standing(told, world)
    await told.publish("g", {**FEW, "allow_removals": True})
    await eventually(lambda: len(world.things()) == 1)
    await told.publish("g", {"nodes": MANY, "name": "more"})
    await eventually(lambda: len(world.things()) == 12)
    await told.publish("g", {"delete": True, "name": "more"})
    await eventually(lambda: len(world.things()) == 1)
    await told.publish("g", {"delete": True})
    await told.wait_for("graph.default.g.deleted")
    assert told.of("workitem.default.g.created") == []


async def test_an_approval_does_not_cover_what_would_be_removed_since(system: System, told: Told, world: World) -> None:
    # Given two blueprints that share a node, and a question about removing the others
    await standing(told, world)
    await told.publish("g", {"nodes": MANY[-1:], "name": "more"})
    await told.wait_for("graph.default.g.accepted", 2)
    await told.publish("g", FEW)
    item = await asked(told)
    assert "remove 10 of 12 nodes" in item["title"]

    # When the shared node is not shared any more, the approval of the question comes too late
    await told.publish("g", {"delete": True, "name": "more"})
    await told.wait_for("graph.default.g.accepted", 3)
    await answer(told, item, "approve")

    # Then that version asks again
    again = await asked(told, 2)
    assert "remove 11 of 12 nodes" in again["title"]
    assert len(world.things()) == 12
    await answer(told, again, "approve")
    await eventually(lambda: len(world.things()) == 1)


async def test_a_question_survives_restarts_and_a_time_without_work_items(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    async with make_system(planners=2, HOLDFAST_LEASE_TTL="1.5", HOLDFAST_ITEM_POLL_INTERVAL="1") as system:
        await standing(own_told, world)
        # Given nobody to ask, it waits
        await system["work-items"].stop()
        await own_told.publish("g", FEW)
        await own_told.wait_for("graph.default.g.waiting")

        # When all planners are killed and everything comes back
        for planner in system.planners:
            await planner.kill()
        for planner in system.planners:
            await planner.restart()
        await system["work-items"].start()

        # Then the person is asked once, and the answer counts
        item = await asked(own_told)
        await answer(own_told, item, "approve")
        await eventually(lambda: len(world.things()) == 1)
        assert len(own_told.of("workitem.default.g.created")) == 1


async def test_a_missed_answer_is_found_by_asking(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    async with make_system(HOLDFAST_ITEM_POLL_INTERVAL="1") as system:
        await standing(own_told, world)
        await own_told.publish("g", FEW)
        item = await asked(own_told)

        # Given that no planner ever hears the answer: its consumer is ahead of it when it comes back
        await system.planners[0].stop()
        await answer(own_told, item, "approve")
        await own_told.wait_for("workitem.default.g.completed")
        js = own_told.client.jetstream()
        info = await js.consumer_info("EVENTS", "planner-workitems")
        await js.delete_consumer("EVENTS", "planner-workitems")
        last = (await js.stream_info("EVENTS")).state.last_seq
        info.config.deliver_policy, info.config.opt_start_seq = "by_start_sequence", last + 1
        await js.add_consumer("EVENTS", info.config)
        await system.planners[0].start()

        await eventually(lambda: len(world.things()) == 1)
