"""Specs that refer to what other nodes publish: previewed, resolved when they are sent, explained where they lead
nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


def plot(place: str, id: str = "p") -> dict[str, Any]:
    """Publishes where it is, as ``/at``."""
    return {"id": id, "type": "plot", "spec": {"value": "1", "place": place}}


def user(pointer: str = "/at", id: str = "user", **more: Any) -> dict[str, Any]:
    return thing(id, {"site": {"$ref": f"p#{pointer}"}}, **more)


async def plan(told: Told, *nodes: dict[str, Any]) -> dict[str, Any]:
    return await told.ask("plan", graph="g", blueprint={"nodes": list(nodes)})


async def test_values_are_previewed_resolved_and_followed(system: System, told: Told, world: World) -> None:
    # Given two nodes of which one refers to the other, and a person in between
    gated = user(id="gated", gating="PROVISION_ONLY")
    previewed = await plan(told, plot("north"), user(), gated)
    assert next(s["node"] for s in previewed["steps"]) == "p"
    later = [{"at": "/value/site", "ref": "p#/at", "known_after": "p"}]
    steps = {s["node"]: s for s in previewed["steps"]}
    assert (steps["user"]["references"], steps["user"]["after"]) == (later, ["p"])
    assert (steps["gated"]["references"], steps["gated"]["gate"]) == (later, "human")

    # Then the value is what the step gets, and what the person is asked about
    await told.publish("g", {"nodes": [plot("north"), user(), gated]})
    await eventually(lambda: world.things().get("user") == {"site": "north"})
    item = await told.wait_for("workitem.default.g.created")
    shown = await told.ask("get", "workitems", id=item["id"])
    assert '"site":"north"' in shown["payload"].replace(" ", "")
    await told.ask("complete", "workitems", id=item["id"], actor="ann", outcome="done")
    await told.wait_for("graph.default.g.converged")
    explained = await told.ask("explain", graph="g", node="user")
    assert explained["desired"]["spec"]["value"] == {"site": "north"}
    assert explained["desired"]["references"] == ["p#/at"]

    # And a preview knows it, also that others may follow
    previewed = await plan(told, plot("north"), user(), user(id="third"), gated)
    (step,) = previewed["steps"]
    assert step["references"] == [{"at": "/value/site", "ref": "p#/at", "value": "north"}]
    previewed = await plan(told, plot("south"), user(), gated)
    assert [s["node"] for s in previewed["steps"]] == ["p"]
    assert [f["node"] for f in previewed["may_follow"]] == ["gated", "user"]

    # Which they do when it is another one
    await told.publish("g", {"nodes": [plot("south"), user()]})
    await eventually(lambda: world.things().get("user") == {"site": "south"})
    assert [s for s, _ in told.events if s.startswith("fault.")] == []


async def test_a_pointer_that_leads_nowhere_is_previewed_and_explained(
    system: System, told: Told, world: World
) -> None:
    await told.publish("g", {"nodes": [plot("north")]})
    await told.wait_for("graph.default.g.converged")
    wrong = user("/where/else")
    previewed = await plan(told, plot("north"), wrong)
    said = "p publishes nothing at /where/else (it publishes /at)"
    assert previewed["steps"][0]["references"] == [
        {"at": "/value/site", "ref": "p#/where/else", "known_after": "p", "problem": said}
    ]

    # Then it blocks its user only, who says why
    await told.publish("g", {"nodes": [plot("north"), wrong, thing("other")]})
    await eventually(lambda: "other" in world.things())
    explained = await told.ask("explain", graph="g", node="user")
    assert explained["condition"] == "reference_missing"
    assert f"its spec refers to p#/where/else, but {said}" in explained["summary"]

    async def only_the_user_is_blocked() -> bool:  # a file is there before its outcome is
        return await told.phases("g") == {"p": "present", "user": "blocked", "other": "present"}

    await eventually(only_the_user_is_blocked)

    # Until it is corrected
    await told.publish("g", {"nodes": [plot("north"), user(), thing("other")]})
    await told.wait_for("graph.default.g.converged", 2)
    assert world.things()["user"] == {"site": "north"}


async def test_references_that_cannot_be_are_refused_with_their_place(system: System, told: Told, world: World) -> None:
    for text, place in (("nobody#/at", "/nodes/0/spec/value"), ("no separator", "/nodes/0/spec/value")):
        document = {"nodes": [thing("user", {"$ref": text})]}
        reply = await told.ask("apply", graph="g", blueprint=document)
        assert (reply["status"], reply["problems"][0]["path"]) == ("rejected", place), reply
