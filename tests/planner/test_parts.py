"""What a blueprint may say besides its nodes, through real admission: parts, targets, ladders, conflict strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


def things(**values: int) -> dict[str, Any]:
    return {"domain": "world", "spec": {"things": {name: {"value": value} for name, value in values.items()}}}


async def rejected(told: Told, document: object, count: int = 1) -> list[str]:
    await told.publish("g", document)
    event = await told.wait_for("graph.default.g.rejected", count)
    return [p["path"] for p in event["problems"]]


async def test_parts_of_domains_and_raw_nodes_become_one_graph_in_order(
    system: System, told: Told, world: World
) -> None:
    parts = [{"nodes": [thing("roof", 1, "beam", type="other"), thing("beam")]}, things(wall=2, door=3)]
    reply = await told.ask("apply", graph="g", blueprint={"parts": parts, "compose": "connect"})
    assert reply["status"] == "accepted", reply
    await told.wait_for("graph.default.g.converged")
    assert world.things() == {"roof": 1, "beam": 1, "wall": 2, "door": 3}
    made = [node for _, node in world.log()]
    assert made[-1] == "roof", "the leaf of the first part depends on every root of the next"


async def test_parts_that_disagree_or_are_wrong_are_rejected_with_their_place(
    system: System, told: Told, world: World
) -> None:
    shared = {"parts": [{"nodes": [thing("a"), thing("b")]}, {"nodes": [thing("c"), thing("b", 2)]}]}
    assert await rejected(told, shared) == ["/parts/1/nodes/1"]
    bad_spec = {"parts": [{"nodes": []}, {"nodes": [thing("a"), thing("b", colour="red")]}]}
    assert await rejected(told, bad_spec, 2) == ["/parts/1/nodes/1/spec"]
    bad_domain = {"parts": [{"nodes": []}, {"domain": "world", "spec": {"things": {"a": {"valu": 1}}}}]}
    assert await rejected(told, bad_domain, 3) == ["/parts/1/spec/things/a/valu"]
    dangling = {"parts": [{"nodes": [thing("a")]}, {"nodes": [thing("b"), thing("c", 1, "b", "nobody")]}]}
    assert await rejected(told, dangling, 4) == ["/parts/1/nodes/1/depends_on/1"]
    assert world.things() == {}


async def test_a_blueprint_of_several_domains_waits_until_all_are_there(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    async with make_system(services=("world",)) as system:
        await system["world"].stop()
        await eventually(lambda: _none_live(own_told))
        parts = [things(a=1), {"domain": "nowhere", "spec": {}}]
        reply = await own_told.ask("apply", graph="g", blueprint={"parts": parts})
        assert reply["status"] == "waiting"
        assert reply["missing"] == ["world", "nowhere"]
        assert "'world', 'nowhere' are not running" in reply["message"]

        # One of them coming is not enough, and a version that needs only that one replaces what waits
        await system["world"].start()
        await own_told.publish("h", things(b=2))
        await own_told.wait_for("graph.default.h.converged")
        assert own_told.of("graph.default.g.accepted") == []
        await own_told.publish("g", things(a=1))
        await own_told.wait_for("graph.default.g.converged")
        assert world.things() == {"a": 1, "b": 2}


async def _none_live(told: Told) -> bool:
    return not any(d["live"] for d in (await told.ask("domains"))["domains"])


async def test_a_target_declares_only_what_is_selected(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a"), thing("b"), thing("c")]})
    await told.wait_for("graph.default.g.converged")

    # When a new version that changes everything is applied to one node only
    new = {"nodes": [thing("a", 2), thing("b", 2), thing("d", 2), thing("e", 2, "f"), thing("f", 2)]}
    plan = await told.ask("plan", graph="g", blueprint={**new, "only": ["e", "a"]})
    assert [(s["action"], s["node"]) for s in plan["steps"]] == [("update", "a"), ("add", "f"), ("add", "e")]
    await told.publish("g", {**new, "only": ["e", "a"]})

    # Then that node, and what it newly needs, is as it says; nothing else is changed or removed
    await eventually(lambda: world.things() == {"a": 2, "b": 1, "c": 1, "e": 2, "f": 2})

    # And a selection that matches nothing is rejected, one that is misspelt in part is warned about
    assert await rejected(told, {**new, "only": ["type:nothing"]}) == ["/only"]
    reply = await told.ask("apply", graph="g", blueprint={**new, "except": ["b", "zzz*"]})
    assert reply["warnings"] == ["except 'zzz*' matches no node"]
    await eventually(lambda: world.things() == {"a": 2, "b": 1, "d": 2, "e": 2, "f": 2})


async def test_a_ladder_of_a_blueprint_acts_and_goes_with_its_owner(system: System, told: Told, world: World) -> None:
    # Given a blueprint that brings a ladder: the second failure asks for another node
    ladder = {
        "name": "help", "faults": ["PROVISION_FAILED"],
        "rungs": [{"when": "count >= 2", "add": {"id": "help-{node}", "type": "other", "spec": {"value": 9}}}],
    }  # fmt: skip
    await told.publish("g", {"nodes": [thing("a", fail=10_000)], "ladders": [ladder]})
    await eventually(lambda: "help-a" in world.things())

    # When another owner brings one of the same name, it is rejected with its place
    assert await rejected(told, {"name": "more", "nodes": [thing("b")], "ladders": [ladder]}) == ["/ladders/0/name"]

    # Then, with its owner gone, the ladder is gone, and the name is free
    await told.publish("g", {"name": "main", "delete": True})
    await told.wait_for("graph.default.g.accepted", 2)
    reply = await told.ask("apply", graph="g", blueprint={"name": "more", "nodes": [thing("b")], "ladders": [ladder]})
    assert reply["status"] == "accepted"


@pytest.mark.parametrize(
    ("strategy", "value", "warnings"),
    [
        ("last_writer_wins", 2, []),
        ("first_writer_wins", 1, []),
        ("loudest_wins", 2, ["unknown conflict strategy 'loudest_wins': last_writer_wins is used"]),
    ],
)
async def test_two_blueprints_of_one_node_are_settled_by_the_strategy(
    system: System, told: Told, world: World, strategy: str, value: int, warnings: list[str]
) -> None:
    await told.publish("g", {"nodes": [thing("a", 1)]})
    await told.wait_for("graph.default.g.converged")
    body = {"name": "more", "nodes": [thing("a", 2), thing("b", 2)], "conflict": strategy}
    reply = await told.ask("apply", graph="g", blueprint=body)
    assert reply["warnings"] == warnings
    await eventually(lambda: world.things() == {"a": value, "b": 2})


async def test_who_publishes_the_same_again_takes_the_node_back(system: System, told: Told, world: World) -> None:
    # Given a node that another blueprint took over
    ours = {"nodes": [thing("a", 1), thing("b", 1, "a")]}
    await told.publish("g", ours)
    await told.wait_for("graph.default.g.accepted")  # blueprints of several owners are taken in at once
    await told.publish("g", {"name": "more", "nodes": [thing("a", 2)]})
    await eventually(lambda: world.things() == {"a": 2, "b": 1})

    # When the first one is previewed and published again, letter by letter, then it is in force
    preview = await told.ask("plan", graph="g", blueprint=ours)
    assert preview["counts"]["update"] == 1
    reply = await told.ask("apply", graph="g", blueprint=ours)
    assert reply["changes"] == {"added": 0, "updated": 1, "removed": 0}
    await eventually(lambda: world.things() == {"a": 1, "b": 1})

    # And once more changes nothing
    reply = await told.ask("apply", graph="g", blueprint=ours)
    assert reply["changes"] == {"added": 0, "updated": 0, "removed": 0}


async def test_a_conflict_that_must_fail_is_rejected_with_both_values(system: System, told: Told, world: World) -> None:
    await told.publish("g", {"nodes": [thing("a", 1)]})
    await told.wait_for("graph.default.g.converged")
    await told.publish("g", {"name": "more", "nodes": [thing("b"), thing("a", 2)], "conflict": "fail"})
    answer = await told.wait_for("graph.default.g.rejected")
    assert answer["problems"][0]["path"] == "/nodes/1"
    assert '"value":1' in answer["problems"][0]["message"].replace(" ", "")
    assert '"value":2' in answer["problems"][0]["message"].replace(" ", "")
    assert world.things() == {"a": 1}
