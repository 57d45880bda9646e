"""Gates and approvals: what was decided holds for exactly what it was decided about, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from holdfast_testkit.waiting import eventually

from .conftest import Stage, graph, part

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_approval_is_void_once_the_spec_has_changed(stage: Stage) -> None:
    # Given an approval that could not be used yet
    await stage.publish("g", graph(part("a", 1, plan="p")))
    first = await stage.item()
    await stage.ask("pause", graph="g")
    await stage.complete(first, "approve")

    # When the spec changes before the step runs
    await stage.publish("g", graph(part("a", 2, plan="p")))
    await stage.ask("resume", graph="g")

    # Then it is asked again, and nothing was done with the old answer
    second = await stage.item(2)
    assert (second["id"] != first["id"], stage.things()) == (True, {})
    await stage.complete(second, "approve")
    await stage.converged()
    assert stage.things() == {"a": 2}


async def test_an_approval_is_used_once(stage: Stage) -> None:
    # Given a plan that was approved and carried out
    await stage.publish("g", graph(part("a", 1, plan="p")))
    item = await stage.item()
    await stage.complete(item, "approve")
    await stage.converged()

    # When it is approved a second time, and the thing is lost
    again = await stage.complete(item, "approve")
    (stage.folder / "a.json").unlink()
    await stage.report("g", node="a")

    # Then that asks anew: neither the used approval nor its repetition lets the step pass
    assert again["error"]["code"] == "conflict"
    second = await stage.item(2)
    assert (second["id"] != item["id"], stage.lines()) == (True, ["provision a"])


async def test_a_plan_that_was_rejected_is_not_asked_about_again_until_something_changes(stage: Stage) -> None:
    # Given an item completed with the outcome reject
    await stage.publish("g", graph(part("a", 1, plan="p")))
    await stage.complete(await stage.item(), "reject")
    await stage.wait_for("fault.default.g.approval_rejected")
    await stage.phase_is("a", "refused")

    # When nothing changes but time passes and things are looked at
    await stage.ask("reconcile", graph="g")
    await stage.publish("g", graph(part("a", 1, plan="p"), part("b")))
    await stage.wait_for("graph.default.g.accepted", 2)
    await eventually(lambda: stage.things() == {"b": 1})

    # Then nobody is asked, and nothing is said twice
    assert (stage.items(), len(stage.of("fault.default.g.approval_rejected"))) == (1, 1)
    assert "refused by ann" in (await stage.explain("a"))["summary"]

    # And a change asks again
    await stage.publish("g", graph(part("a", 2, plan="p"), part("b")))
    await stage.complete(await stage.item(2), "approve")
    await stage.converged()


async def test_a_node_that_comes_back_is_asked_about_again_though_its_old_item_is_completed(stage: Stage) -> None:
    door = part("door", gating="PROVISION_ONLY")
    await stage.publish("g", graph(door, part("b")))
    first = await stage.item()
    await stage.complete(first, "done")
    await stage.converged()
    await stage.publish("g", graph(part("b")))
    await stage.wait_for("graph.default.g.converged", 2)

    await stage.publish("g", graph(door, part("b")))

    second = await stage.item(2)
    assert (second["callerRef"], second["status"]) == (first["callerRef"], "PENDING")
    assert second["id"] != first["id"]


async def test_a_removal_that_is_taken_back_before_a_person_agreed_removes_nothing(stage: Stage) -> None:
    # Given a sub-graph whose removal needs a person
    both = [part("base", gating="DEPROVISION_ONLY"), part("top", 1, "base", gating="DEPROVISION_ONLY"), part("other")]
    await stage.publish("g", graph(*both))
    await stage.converged()
    await stage.publish("g", graph(part("other")))
    item = await stage.item()
    assert item["callerRef"].endswith("top:deprovision")

    # When it is added again before anybody has agreed
    await stage.publish("g", graph(*both))
    await stage.wait_for("workitem.default.g.obsolete")
    await stage.converged(2)

    # Then nothing was removed, nothing is left to remove, and a late answer changes nothing
    late = await stage.complete(item, "done")
    assert late["error"]["code"] == "conflict"
    reply = await stage.ask("get", graph="g")
    assert (reply["graph"]["removing"], {n["phase"] for n in reply["nodes"]}) == (0, {"present"})
    assert sorted(stage.lines()) == ["provision base", "provision other", "provision top"]
    assert stage.items() == 1


async def test_a_removal_taken_back_while_its_step_runs_is_made_good(stage: Stage) -> None:
    slow = part("a", 1, slow=0.5)
    await stage.publish("g", graph(slow, part("b")))
    await stage.converged()
    await stage.publish("g", graph(part("b")))
    await stage.wait_for("graph.default.g.accepted", 2)  # or the next one may supersede it
    await stage.publish("g", graph(slow, part("b")))
    last = (await stage.wait_for("graph.default.g.accepted", 3))["version"]
    await eventually(lambda: any(d["version"] >= last for d in stage.of("graph.default.g.converged")))

    assert (await stage.phases("g"), stage.things()) == ({"a": "present", "b": "present"}, {"a": 1, "b": 1})


async def test_a_type_that_wants_both_gets_the_step_with_the_decision(stage: Stage) -> None:
    await stage.publish("g", graph(part("m", 3, type="manual", gating="PROVISION_ONLY")))
    await stage.complete(await stage.item(), "done")
    await stage.converged()
    assert stage.lines() == ["provision m done"]
    assert stage.things() == {"m": 3}


async def test_a_persons_word_counts_until_somebody_looks(stage: Stage) -> None:
    # Given a type without after_human: its node is present because a person says so
    await stage.publish("g", graph(part("door", gating="PROVISION_ONLY")))
    await stage.complete(await stage.item(), "done")
    await stage.converged()
    assert (stage.things(), (await stage.explain("door"))["observed"]["reason"]) == ({}, "attested")

    # When it is looked at and is not there, then the person is asked again
    await stage.ask("reconcile", graph="g")
    await stage.item(2)


async def test_an_item_that_expires_is_one_fault_and_a_new_round(stage: Stage) -> None:
    await stage.publish("g", graph(part("door", gating="PROVISION_ONLY")))
    first = await stage.item()
    soon = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    extended = await stage.ask("extend", "workitems", id=first["id"], actor="ann", expiresAt=soon)
    assert "error" not in extended, extended

    second = await stage.item(2)

    fault = await stage.wait_for("fault.default.g.human_node_timeout")
    assert (fault["node"], fault["reason"]) == ("door", "expired")
    assert (await stage.ask("get", "workitems", id=first["id"]))["status"] == "EXPIRED"
    assert second["callerRef"] == first["callerRef"]
    await stage.complete(second, "done")
    await stage.converged()
    assert len(stage.of("fault.default.g.human_node_timeout")) == 1
