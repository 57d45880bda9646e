"""Drifts, failures and what ladders make of them, until a person or the world ends it."""

from __future__ import annotations

import pytest

from holdfast_model.reconciler.conditions import Condition
from holdfast_testkit.waiting import eventually

from .conftest import Stage, graph, part
from .explained import told

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def held(stage: Stage, **spec: object) -> dict[str, object]:
    """A graph whose node ``w`` has drifted and is held; returns the item of its review."""
    await stage.publish("g", graph(part("w", type="watched", **spec), part("b", 1, "w")))
    await stage.converged()
    await stage.fall_sick("w", hold=True, token="t1", detail="38.1")
    await stage.phase_is("w", "held")
    return await stage.item()


async def test_changing_the_blueprint_of_a_held_node_ends_the_hold_and_its_review(stage: Stage) -> None:
    item = await held(stage)

    (stage.folder / "w.sick").unlink()
    await stage.publish("g", graph(part("w", 2, type="watched"), part("b", 1, "w")))

    obsolete = await stage.wait_for("workitem.default.g.obsolete")
    assert obsolete["id"] == item["id"]
    await stage.converged(2)
    assert stage.things()["w"] == 2
    assert set(await stage.phases("g")) == {"w", "b"}
    await eventually(lambda: _nothing_is_counted(stage))


async def test_publishing_the_same_blueprint_again_keeps_hold_and_review(stage: Stage) -> None:
    item = await held(stage)

    await stage.publish("g", graph(part("w", type="watched"), part("b", 1, "w")))
    await stage.wait_for("graph.default.g.accepted", 2)  # or the next one may supersede it
    await stage.publish("g", graph(part("w", type="watched"), part("b", 2, "w")))
    await stage.wait_for("graph.default.g.accepted", 3)

    phases = await stage.phases("g")
    assert (phases["w"], phases["human-review-w"]) == ("held", "waiting")
    assert (await stage.ask("get", "workitems", id=item["id"]))["status"] == "PENDING"
    assert stage.items() == 1
    await stage.complete(item, "mend")
    await stage.converged(2)
    assert stage.lines()[:3] == ["provision w", "provision b", "provision w mend"]


async def test_a_drift_that_ends_by_itself_takes_its_review_along(stage: Stage) -> None:
    item = await held(stage)

    await stage.heal("w")

    recovered = await stage.wait_for("node.default.g.recovered")
    obsolete = await stage.wait_for("workitem.default.g.obsolete")
    assert (recovered["node"], obsolete["id"]) == ("w", item["id"])
    await eventually(lambda: _nodes_are(stage, {"w", "b"}))
    assert len(stage.of("fault.default.g.node_degraded")) == 1
    assert stage.lines() == ["provision w", "provision b"]


async def test_another_reason_is_another_episode_and_asks_anew(stage: Stage) -> None:
    first = await held(stage)

    await stage.fall_sick("w", hold=True, token="t1", detail="38.5")
    await stage.fall_sick("w", "worse", hold=True, token="t1")

    second = await stage.item(2)
    assert (await stage.wait_for("workitem.default.g.obsolete"))["id"] == first["id"]
    assert "worse" in second["title"]
    faults = [await stage.wait_for("fault.default.g.node_degraded", n) for n in (1, 2)]
    assert [f["reason"] for f in faults] == ["sick", "worse"]
    assert faults[0]["episode"] != faults[1]["episode"]
    await stage.complete(second, "mend")
    await stage.wait_for("node.default.g.recovered")
    assert len(stage.of("node.default.g.recovered")) == 1


async def test_a_decision_that_did_not_help_asks_again_with_the_latest_detail(stage: Stage) -> None:
    item = await held(stage, mood="stubborn")
    await stage.complete(item, "mend")

    second = await stage.item(2)
    assert second["id"] != item["id"]
    await stage.complete(second, "give-up")
    await stage.phase_is("w", "refused")
    assert "given up by ann (outcome give-up)" in (await stage.explain("w"))["summary"]
    assert stage.lines("steps").count("w mend") == 1


async def test_a_decision_taken_while_a_step_runs_goes_with_the_next_one(stage: Stage) -> None:
    # Given a node that failed for ever, was reviewed, and is being tried again
    open = stage.folder / "open"
    open.touch()
    await stage.publish("g", graph(part("w", "bad", type="watched", bad=True, until="open")))
    item = await stage.item()
    open.unlink()
    await stage.ask("unblock", graph="g", node="w")
    await stage.phase_is("w", "running")

    # When it is decided while that step runs, and that step fails for ever as well
    await stage.complete(item, "mend")
    await told(stage, "human-review-w", Condition.ANSWERED)
    open.touch()

    # Then the decision is not lost with it
    await eventually(lambda: "w mend" in stage.lines("steps"))
    await stage.ask("delete", graph="g")


async def test_failures_climb_from_retry_to_reviewer_to_person_and_end_with_recovery(stage: Stage) -> None:
    await stage.publish("g", graph(part("w", type="watched", mood="ails")))
    item = await stage.item()
    assert item["callerRef"].endswith("human-review-w:provision")
    assert stage.lines("reviews") == ["w"]
    (stage.folder / "w.well").touch()
    await stage.converged()
    assert stage.things() == {"w": 1}

    await eventually(lambda: _nodes_are(stage, {"w"}))
    await eventually(lambda: _nothing_is_counted(stage))
    assert stage.of("node.default.g.quarantined") == [], "what a ladder looks after is never quarantined"


async def test_what_no_ladder_looks_after_is_quarantined_when_it_keeps_failing(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", fail=1000), part("b")))
    told = await stage.wait_for("node.default.g.quarantined")
    assert (told["node"], told["reason"]) == ("a", "poison")
    assert stage.lines("steps").count("a") == 5
    await stage.phase_is("a", "quarantined")

    await stage.ask("unblock", graph="g", node="a")
    await eventually(lambda: stage.lines("steps").count("a") > 5)


async def test_a_ladder_published_later_ends_the_quarantine_of_what_it_looks_after(stage: Stage) -> None:
    # Given a node that is in quarantine, as nothing looks after it
    nodes = (part("a", fail=1000), part("b"))
    await stage.publish("g", graph(*nodes))
    await stage.wait_for("node.default.g.quarantined")
    tried = stage.lines("steps").count("a")

    # When its blueprint brings a ladder, then it goes on and climbs that
    add = {"id": "ask-about-{node}", "type": "human-review", "gating": "ALL"}
    ladder = {"name": "late", "faults": ["PROVISION_FAILED"], "rungs": [{"when": "count == 1", "add": add}]}
    await stage.publish("g", graph(*nodes, ladders=[ladder]))
    assert (await stage.item())["callerRef"] == f"desiredstate:{stage.tenant}/g:ask-about-a:provision"
    assert stage.lines("steps").count("a") > tried

    # When it also declares a node by the name of that review, it is refused where it says so
    taken = graph(*nodes, part("ask-about-a"), ladders=[ladder])
    await stage.publish("g", taken)
    refused = await stage.wait_for("graph.default.g.rejected")
    assert [p["path"] for p in refused["problems"]] == ["/nodes/2"], refused
    assert (await stage.phases("g"))["ask-about-a"] == "waiting"
    await stage.ask("delete", graph="g")


async def test_a_node_healed_in_vain_time_and_again_is_left_alone(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", mood="wears"), part("b")))
    await stage.converged()
    for heals in range(2, 7):
        await stage.report("g", node="a")
        await eventually(lambda n=heals: stage.lines("steps").count("a") == n)  # type: ignore[misc]
        await stage.phase_is("a", "present")
    await stage.report("g", node="a")

    told = await stage.wait_for("node.default.g.quarantined")
    assert (told["node"], told["reason"]) == ("a", "livelock")
    assert stage.lines("steps").count("a") == 6


async def test_a_reported_fault_counts_once_however_often_its_event_comes(stage: Stage) -> None:
    await stage.publish("g", graph(part("a")))
    await stage.converged()
    (stage.folder / "a.json").unlink()
    event = {
        "specversion": "1.0", "id": "raid-1", "source": "/test", "type": "raid",
        "data": {"node": "a", "fault": "NODE_DESTROYED", "detail": "a dragon"},
    }  # fmt: skip
    for _ in range(2):
        await stage.report("g", **event)

    await stage.wait_for("node.default.g.recovered")
    (fault,) = stage.of("fault.default.g.node_destroyed")
    assert (fault["id"], fault["detail"]) == ("state-raid-1-a", "a dragon")
    assert stage.lines() == ["provision a", "provision a"]


async def _nothing_is_counted(stage: Stage) -> bool:
    return (await stage.ask("faults", graph="g"))["counts"] == {}


async def _nodes_are(stage: Stage, wanted: set[str]) -> bool:
    return set(await stage.phases("g")) == wanted


async def test_a_removed_node_raises_faults_of_its_removal_only(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", mood="clings"), part("b")))
    await stage.converged()
    await stage.publish("g", graph(part("b")))

    fault = await stage.wait_for("fault.default.g.deprovision_failed", 2)
    assert (fault["node"], fault["reason"], fault["attempt"]) == ("a", "clings", 2)
    (stage.folder / "a.let-go").touch()

    await stage.converged(2)
    assert (stage.things(), stage.of("fault.default.g.provision_failed")) == ({"b": 1}, [])
    await eventually(lambda: _nothing_is_counted(stage))


async def test_each_direct_dependent_of_a_failed_node_is_told_of_once_and_by_whom(stage: Stage) -> None:
    nodes = [part("a", fail=3), part("b", 1, "a"), part("c", 1, "b")]
    await stage.publish("g", graph(*nodes))

    fault = await stage.wait_for("fault.default.g.dependency_unavailable")
    await stage.converged()

    first = stage.of("fault.default.g.provision_failed")[0]
    assert (fault["node"], fault["parents"]) == ("b", [first["id"]])
    assert [f["node"] for f in stage.of("fault.default.g.dependency_unavailable")] == ["b"]
    assert {e["node"] for e in stage.of("node.default.g.recovered")} == {"a", "b"}


async def test_a_blueprint_brings_ladders_for_its_own_nodes(stage: Stage) -> None:
    # Given a blueprint whose ladder takes the place of the domain's, and another one without any
    ladder = {
        "name": "failures", "faults": ["PROVISION_FAILED"],
        "rungs": [{"when": "count == 2", "add": {"id": "mine-{node}", "type": "human-review", "gating": "ALL"}}],
    }  # fmt: skip
    mine = [part("w", type="watched", fail=1000), part("p", fail=1000)]
    await stage.publish("g", graph(*mine, ladders=[ladder]))
    await stage.publish("g", graph(part("x", "bad", type="watched", bad=True), name="theirs"))

    # Then its nodes climb that one, others climb the domain's, and none it covers is quarantined
    await eventually(lambda: stage.items() == 3)
    reviews = {n for n in await stage.phases("g") if "mine-" in n or "review-" in n}
    assert reviews == {"mine-w", "mine-p", "ai-review-x", "human-review-x"}
    await eventually(lambda: stage.lines("steps").count("p") > 6)
    assert stage.of("node.default.g.quarantined") == []

    # And without the ladder the domain's is in force again
    await stage.publish("g", graph(*mine))
    await eventually(lambda: _is_reviewed(stage, "w"))
    await stage.ask("delete", graph="g")


async def _is_reviewed(stage: Stage, node: str) -> bool:
    return f"human-review-{node}" in await stage.phases("g")


async def test_a_ladder_whose_review_cannot_be_added_says_so(stage: Stage) -> None:
    """It finds a node of a blueprint by the name that it gives its review."""
    await stage.publish("g", graph(part("w", type="watched"), part("human-review-w")))
    await stage.converged()
    await stage.fall_sick("w", hold=True)

    failed = await stage.wait_for("graph.default.g.policy_failed")

    said = "ladder 'drifts' would add 'human-review-w' (human-review); a blueprint declares it as prop"
    assert (failed["kind"], said in failed["message"]) == ("POLICY_ERROR", True), failed
    await stage.phase_is("w", "held")
    assert stage.items() == 0
