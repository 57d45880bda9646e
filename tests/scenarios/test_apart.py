"""Tenants, graphs and nodes stand apart: what happens to one is nothing to the others."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_testkit.waiting import eventually

from .conftest import Stage, Tenant, graph, part

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_tenants_with_equal_names_never_meet(tenant: Tenant) -> None:
    # Given the same graph twice: one node that needs approval, one that fails for ever, one that needs a person
    left, right = await tenant(), await tenant()
    nodes = graph(
        part("a", 1, plan="p"), part("w", "bad", type="watched", bad=True), part("door", gating="PROVISION_ONLY")
    )
    for one in (left, right):
        await one.publish("g", nodes)
        await eventually(lambda one=one: one.items() == 3)  # type: ignore[misc]
        await one.phase_is("w", "failed")
    items = {s.tenant: [await s.item(n) for n in (1, 2, 3)] for s in (left, right)}
    counted = (await right.ask("faults", graph="g"))["counts"]

    # When one tenant decides all it can, and tries its hand at the other's items
    for item in items[right.tenant]:
        refused = await left.complete(item, item["permittedOutcomes"][0]["name"])
        assert refused["error"]["code"] == "not_found"
    for item in items[left.tenant]:
        await left.complete(item, item["permittedOutcomes"][0]["name"])
    looks = right.lines("looks")
    await left.ask("reconcile", graph="g")
    await left.ask("unblock", graph="g", node="w")
    await eventually(lambda: left.things() == {"a": 1})
    await left.wait_for("fault.default.g.provision_failed", 3)

    # Then nothing of that is seen, counted, approved or looked at on the other side
    assert (right.things(), right.items()) == ({}, 3)
    assert right.lines("looks") == looks
    assert (await right.ask("faults", graph="g"))["counts"] == counted
    assert {n: p for n, p in (await right.phases("g")).items() if n in ("a", "door")} == {
        "a": "waiting",
        "door": "waiting",
    }
    statuses = [(await right.ask("get", "workitems", id=i["id"]))["status"] for i in items[right.tenant]]
    assert statuses == ["PENDING"] * 3
    assert {subject.split(".")[1] for subject, _ in right.events} == {right.tenant}


async def test_a_message_of_one_tenant_on_the_subject_of_another_is_refused(tenant: Tenant) -> None:
    left, right = await tenant(), await tenant()
    await right.publish("g", graph(part("a")))
    await right.converged()

    event = {
        "specversion": "1.0", "id": "x1", "source": "/test", "type": "blueprint", "tenancyid": left.tenant,
        "data": graph(part("a", 2)),
    }  # fmt: skip
    await right.publish("g", event)

    rejected = await right.wait_for("graph.default.g.rejected")
    assert left.tenant in rejected["reason"]
    assert right.things() == {"a": 1}


async def test_what_raises_in_one_graph_stops_neither_its_other_nodes_nor_other_graphs(stage: Stage) -> None:
    # Given a graph in which provisioner, observer and policies raise or contradict each other
    bad = graph(
        part("crash", mood="throws"),
        part("blind", mood="blind"),
        part("lawless", type="policed", policy="throws", fail=1000),
        part("torn", type="policed", policy="contradicts", fail=1000),
        part("fine"),
        part("finer", 2, "fine"),
    )
    await stage.publish("bad", bad)

    # When another graph is published, and changed, while all that goes on
    await stage.wait_for("graph.default.bad.policy_failed", 2)
    await stage.publish("good", graph(part("x"), part("y", 1, "x")))
    await stage.converged(graph="good")
    await stage.publish("good", graph(part("x", 2), part("y", 2, "x")))
    await stage.converged(2, graph="good")

    # Then both go on: what can be done is done, what went wrong is told, and what is stuck says why
    await eventually(lambda: stage.things() == {"fine": 1, "finer": 2, "x": 2, "y": 2})
    kinds = {e["node"]: e["kind"] for e in stage.of("graph.default.bad.policy_failed")}
    assert kinds == {"lawless": "POLICY_ERROR", "torn": "CONFLICT"}
    await stage.phase_is("finer", "present", "bad")
    phases = await stage.phases("bad")
    assert (phases["fine"], phases["finer"], phases["blind"]) == ("present", "present", "observing")
    assert {"human-review-lawless", "human-review-torn"}.isdisjoint(phases), "a fault's mutations are dropped together"
    assert "cannot see" in (await stage.explain("blind", "bad"))["summary"]
    faults = (await stage.ask("faults", graph="bad"))["counts"]
    assert faults["lawless"]["strict"]["count"] >= 1, "the fault itself is counted all the same"


async def test_a_slow_node_delays_no_other(stage: Stage) -> None:
    await stage.publish("g", graph(part("slow", slow=3600), part("a"), part("b", 1, "a")))
    await eventually(lambda: stage.things() == {"a": 1, "b": 1})
    await stage.ask("delete", graph="g")


async def test_what_a_policy_changes_holds_until_the_blueprint_changes_that_node(stage: Stage) -> None:
    # Given a node whose domain's policy changes its spec once it has failed
    sick = part("p", "bad", type="policed", bad=True, policy="mends")
    await stage.publish("g", graph(sick, part("b")))
    await eventually(lambda: stage.things() == {"p": "mended", "b": 1})
    assert (await stage.explain("p"))["desired"]["owner"] == "policy:stage"

    # When the blueprint changes something else, the policy's word stands
    await stage.publish("g", graph(sick, part("b", 2)))
    await eventually(lambda: stage.things() == {"p": "mended", "b": 2})

    # When it changes that node, the blueprint's word does
    await stage.publish("g", graph(part("p", "good", type="policed", bad=True, policy="mends"), part("b", 2)))
    await eventually(lambda: stage.things() == {"p": "good", "b": 2})
    assert (await stage.explain("p"))["desired"]["owner"] == "main"


async def test_a_policys_change_and_a_blueprints_that_race_both_survive(stage: Stage) -> None:
    names = [f"n{i}" for i in range(6)]
    failing = [part(n, "bad", type="watched", bad=True) for n in names]
    await stage.publish("g", graph(*failing))

    async def publish() -> None:
        for value in range(1, 9):
            await stage.publish("g", graph(*failing, part("b", value)))
            await asyncio.sleep(0.02)  # so that versions and faults really interleave

    await publish()

    await eventually(lambda: stage.things() == {"b": 8})
    await eventually(lambda: _all_reviewed(stage, names))


async def _all_reviewed(stage: Stage, names: list[str]) -> bool:
    phases = await stage.phases("g")
    return {f"human-review-{n}" for n in names} | {"b"} <= set(phases) and phases["b"] == "present"
