"""Blueprints over the bus: what is wrong is answered with its place, and nothing is applied twice or out of order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT, eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")

CYCLE = {"nodes": [thing("a", 1, "b"), thing("b", 1, "a")]}


def raw_spec(value: bytes) -> bytes:
    return b'{"nodes": [{"id": "a", "type": "thing", "spec": {"value": ' + value + b"}}]}"


def deep(levels: int) -> bytes:
    return raw_spec(b"[" * levels + b"]" * levels)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"nodes": [thing("a")], "colour": 1}, "/colour"),
        ({"nodes": [{"id": "a", "type": "thing", "spek": {}}]}, "/nodes/0/spek"),
        ({"nodes": [thing("a"), thing("a")]}, "/nodes/1/id"),
        ({"nodes": [thing("a", 1, "nobody")]}, "/nodes/0/depends_on/0"),
        (CYCLE, ""),
        ({"nodes": [{"id": "a", "type": "Thing"}]}, "/nodes/0/type"),
        ({"nodes": [thing("a")], "name": "no good"}, "/name"),
        ({"domain": "world", "spec": {"things": {"a": {"valu": 1}}}}, "/spec/things/a/valu"),
        ({"nodes": [thing("a"), thing("b", colour="red")]}, "/nodes/1/spec"),
        ({"domain": "world"}, "/spec"),
        ({}, ""),
        (b"{\n  \"nodes\": [}", "line 2, column 13"),
        (b"nodes:\n  - id: a\n type: x\n", "line 3, column 2"),
        (b"\x00\xff\xfe" * 2_000_000, "line 1, column 1"),
        (deep(10_000), "line 1, column 183"),
        (deep(200), "/nodes/0/spec"),
        (raw_spec(b"[1e999]"), "/nodes/0/spec/value/0"),
        (raw_spec(b"9" * 5_000), "/nodes/0/spec/value"),
        (b'{"domain": "world", "spec": {"things": {"a": {"value": 1e999}}}}', "/spec/things/a/value"),
        ({"nodes": [thing("a")], "deadline": "99999999999h"}, "/deadline"),
    ],
    ids=["unknown key", "unknown node key", "id twice", "dangling", "cycle", "bad type", "bad name", "bad domain spec",
         "spec against its schema",
         "no spec", "empty", "broken JSON", "broken YAML", "noise", "nested by the thousand", "nested deeply",
         "huge number", "endless number", "huge number for a domain", "deadline in no calendar"],
)  # fmt: skip
async def test_a_wrong_blueprint_is_rejected_with_its_place(
    system: System, told: Told, world: World, body: Any, place: str
) -> None:
    # Given a running graph
    await told.publish("g", {"nodes": [thing("keep")]})
    await told.wait_for("graph.default.g.converged")

    # When something wrong is published
    sequence = await told.publish("g", body)

    # Then the answer names the place, the graph goes on, nothing was restarted
    rejected = await told.wait_for("graph.default.g.rejected")
    assert rejected["sequence"] == sequence
    assert place in [p["path"] for p in rejected["problems"]], rejected
    assert await told.phases("g") == {"keep": "present"}
    assert all(p.running for p in system.processes.values())


async def test_a_subject_without_a_valid_graph_is_answered_on_the_underscores(system: System, told: Told) -> None:
    await told.client.jetstream().publish(f"blueprint.{told.tenant}.no$good", b"{}")
    await eventually(lambda: any("no$good" in r["reason"] for r in told.of("graph._._.rejected")))


async def test_yaml_is_read_like_json(system: System, told: Told, world: World) -> None:
    await told.publish("g", b"nodes:\n- {id: a, type: thing, spec: {value: 7}}\n")
    await told.wait_for("graph.default.g.converged")
    assert world.things() == {"a": 7}


async def test_published_twice_it_is_applied_once(system: System, told: Told, world: World) -> None:
    first = await told.publish("g", {"nodes": [thing("a")]}, msg_id="same")
    second = await told.publish("g", {"nodes": [thing("a")]}, msg_id="same")
    await told.wait_for("graph.default.g.converged")
    assert first == second
    assert len(told.of("graph.default.g.accepted")) == 1
    assert world.log() == [("provision", "a")]


async def test_an_unchanged_version_is_accepted_and_touches_nothing(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a"), thing("b", 1, "a")]})
    await told.wait_for("graph.default.g.converged")
    await told.publish("g", {"nodes": [thing("b", 1, "a"), thing("a")]})
    await told.wait_for("graph.default.g.converged", 2)
    assert world.log() == [("provision", "a"), ("provision", "b")]
    assert len(told.of("graph.default.g.changed")) == 1


async def test_the_last_of_two_quick_versions_stands_even_if_a_planner_is_killed(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    async with make_system(planners=2, HOLDFAST_LEASE_TTL="1.5") as system:
        for value in range(1, 9):
            await own_told.publish("g", {"nodes": [thing("a", value), thing("b", value, "a")]})
        await system.planners[0].kill()
        await eventually(lambda: world.things() == {"a": 8, "b": 8})
        await system.planners[0].restart()

        async def both_present() -> bool:  # a file is there before its outcome is
            return await own_told.phases("g") == {"a": "present", "b": "present"}

        await eventually(both_present)
        assert world.things() == {"a": 8, "b": 8}


async def test_a_redelivered_blueprint_does_not_resurrect_a_deleted_graph(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    async with make_system(services=("world",)) as system:
        # Given a graph that was published and deleted
        document = {"nodes": [thing("a")]}
        await own_told.publish("g", document)
        await own_told.wait_for("graph.default.g.converged")
        await own_told.publish("g", {"delete": True})
        await own_told.wait_for("graph.default.g.deleted")

        # When admission reads the stream from its beginning again
        js = own_told.client.jetstream()
        await system.planners[0].stop()
        info = await js.consumer_info("BLUEPRINTS", "planner-admission")
        await js.delete_consumer("BLUEPRINTS", "planner-admission")
        await js.add_consumer("BLUEPRINTS", info.config)
        told_before = len(own_told.events)
        await system.planners[0].start()

        # Then every message is taken again, nothing comes back, and nobody is told anything new

        async def all_taken() -> bool:
            consumer = await js.consumer_info("BLUEPRINTS", "planner-admission")
            return consumer.num_pending == 0 and consumer.num_ack_pending == 0

        await eventually(all_taken)
        assert (await own_told.ask("list"))["graphs"] == []
        assert world.things() == {}
        # What is told of a graph is told in order, so that the next version comes after whatever was told meanwhile
        next = await own_told.publish("g", document)
        await own_told.wait_for("graph.default.g.accepted", 3)
        subject, accepted = own_told.events[told_before]
        assert (subject, accepted["sequence"]) == (own_told.named("graph.default.g.accepted"), next)


async def test_a_deleted_graph_can_be_made_anew(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("graph.default.g.converged")
    await told.publish("g", {"delete": True})
    await told.wait_for("graph.default.g.deleted")
    await told.publish("g", {"nodes": [thing("a", 2)]})
    await eventually(lambda: world.things() == {"a": 2})
    assert len(set(world.keys())) == 3, "every intention has an idempotency key of its own"


async def test_blueprints_of_two_owners_build_one_graph(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a")]})
    await told.publish("g", {"name": "more", "nodes": [thing("b")]})
    await eventually(lambda: world.things() == {"a": 1, "b": 1})
    await told.publish("g", {"nodes": [thing("a", 5)]})
    await eventually(lambda: world.things() == {"a": 5, "b": 1})
    await told.publish("g", {"name": "more", "delete": True})
    await eventually(lambda: world.things() == {"a": 5})


async def test_a_graph_lists_the_blueprints_in_force_and_a_deletion_of_another_says_so(
    system: System, told: Told, world: World
) -> None:
    async def listed() -> list[str]:
        (row,) = (await told.ask("list"))["graphs"]
        names: list[str] = row["blueprints"]
        return names

    # Given two blueprints, of which one is deleted
    await told.ask("apply", graph="g", blueprint={"nodes": [thing("a")]})
    await told.ask("apply", graph="g", blueprint={"name": "more", "nodes": [thing("b")]})
    assert await listed() == ["main", "more"]
    assert (await told.ask("delete", graph="g", name="more"))["warnings"] == []
    # Then it is listed no more, and deleting it again is accepted with a word
    assert await listed() == ["main"]
    again = await told.ask("delete", graph="g", name="more")
    said = "no node is declared by a blueprint 'more'; others do: main"
    assert (again["status"], again["warnings"]) == ("accepted", [said])
    # And while everything is deleted, nothing is in force
    await told.wait_for("graph.default.g.converged")  # what was never made would be gone at once
    await told.ask("pause", graph="g")
    await told.wait_for("graph.default.g.paused")
    await told.ask("delete", graph="g")
    assert await listed() == []


async def test_a_blueprint_is_never_refused_for_being_taken_in_before_what_it_builds_on(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    # Given two planners that take blueprints in at once
    async with make_system(planners=2):
        # When each of many blueprints builds on the one before, the first of them the largest
        first = [thing("n0"), *(thing(f"more{i}") for i in range(200))]
        await own_told.publish("g", {"name": "o0", "nodes": first})
        for i in range(1, 12):
            await own_told.publish("g", {"name": f"o{i}", "nodes": [thing(f"n{i}", i, f"n{i - 1}")]})

        # Then all are admitted, and one that is really wrong is told so
        await eventually(lambda: world.things().get("n11") == 11)
        assert own_told.of("graph.default.g.rejected") == []
        await own_told.publish("g", {"name": "wrong", "nodes": [thing("x", 1, "nobody")]})
        rejected = await own_told.wait_for("graph.default.g.rejected")
        assert rejected["problems"][0]["path"] == "/nodes/0/depends_on/0"


async def test_a_blueprint_waits_for_its_domain(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    async with make_system(services=("world",)) as system:
        await system["world"].stop()
        await own_told.publish("g", {"domain": "nowhere", "spec": {"x": 1}})
        waiting = await own_told.wait_for("graph.default.g.waiting")
        assert waiting["domain"] == "nowhere"
        await eventually(lambda: _not_live(own_told))
        await own_told.publish("h", {"domain": "world", "spec": {"things": {"a": {"value": 3}}}})
        await own_told.wait_for("graph.default.h.waiting")
        assert (await own_told.ask("get", graph="h"))["graph"]["status"] == "waiting"
        assert own_told.of("graph.default.h.accepted") == []
        assert own_told.of("graph.default.h.converged") == []
        await system["world"].start()
        await own_told.wait_for("graph.default.h.accepted")
        await eventually(lambda: world.things() == {"a": 3})


async def _not_live(told: Told) -> bool:
    domains = (await told.ask("domains"))["domains"]
    return not any(d["live"] for d in domains)


async def test_apply_and_plan_answer_like_the_bus(system: System, told: Told, world: World) -> None:
    nodes = [thing("a"), thing("b", 1, "a")]
    plan = await told.ask("plan", graph="g", blueprint={"nodes": nodes})
    assert [(s["action"], s["node"]) for s in plan["steps"]] == [("add", "a"), ("add", "b")]
    assert world.things() == {}

    applied = await told.ask("apply", graph="g", blueprint={"nodes": nodes})
    assert applied["status"] == "accepted"
    assert applied["changes"] == {"added": 2, "updated": 0, "removed": 0}
    await told.wait_for("graph.default.g.converged")

    changed = {"nodes": [thing("a", 9), thing("c")]}
    plan = await told.ask("plan", graph="g", blueprint=changed)
    assert plan["counts"] == {"add": 1, "update": 1, "remove": 1, "unchanged": 0}
    assert [s["node"] for s in plan["steps"] if s["action"] == "remove"] == ["b"]
    refused = await told.ask("apply", graph="g", blueprint=CYCLE)
    assert refused["status"] == "rejected"
    assert "a -> b -> a" in refused["message"] or "b -> a -> b" in refused["message"]
    assert (await told.ask("explain", graph="g", node="zz"))["error"]["code"] == "not_found"
    assert (await told.ask("get", graph="nope"))["error"]["code"] == "not_found"
    missing = json.dumps({"tenant": "default"}).encode()
    reply = await told.client.request("rpc.planner.explain", missing, timeout=LIMIT)
    assert json.loads(reply.data)["error"]["code"] == "invalid"
