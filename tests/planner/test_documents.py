"""The newest blueprint of every owner can be asked for, as it was published."""

from __future__ import annotations

import json

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT, eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_newest_blueprint_of_each_owner_is_kept_as_it_was_published(system: System, told: Told) -> None:
    yaml = b"# who made it\nnodes:\n- {id: a, type: thing, spec: {value: 1}}\n"
    await told.publish("g", yaml)
    await told.wait_for("graph.default.g.accepted")
    more = {"name": "more", "nodes": [thing("b")]}
    await told.publish("g", more)
    await told.wait_for("graph.default.g.accepted", 2)

    assert (await told.ask("blueprint", graph="g"))["document"] == yaml.decode()
    assert json.loads((await told.ask("blueprint", graph="g", name="more"))["document"]) == more

    # A rejected one changes nothing; a deletion takes its owner's document along
    await told.publish("g", {"nodes": [thing("a", 2, "nobody")]})
    await told.wait_for("graph.default.g.rejected")
    assert (await told.ask("blueprint", graph="g"))["document"] == yaml.decode()
    await told.publish("g", {"name": "more", "delete": True})
    await told.wait_for("graph.default.g.accepted", 3)
    refused = (await told.ask("blueprint", graph="g", name="more"))["error"]
    assert (refused["code"], "main" in refused["hint"]) == ("not_found", True)


async def test_a_blueprint_of_another_tenant_is_not_shown(system: System, told: Told) -> None:
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("graph.default.g.accepted")

    request = json.dumps({"tenant": "somebody-else", "graph": "g"}).encode()
    reply = json.loads((await told.client.request("rpc.planner.blueprint", request, timeout=LIMIT)).data)

    assert reply["error"]["code"] == "not_found"


async def test_what_is_applied_changed_overwrites_nobody_unseen(system: System, told: Told, world: World) -> None:
    # Given a blueprint that was read to be changed
    await told.publish("g", {"nodes": [thing("a", 1)]})
    kept = await told.ask("blueprint", graph="g", to_change=True)
    document = json.loads(kept["document"])

    # When somebody publishes another version first
    await told.publish("g", {"nodes": [thing("a", 2)]})
    late = await told.ask("apply", graph="g", blueprint=document, after=kept["after"])

    # Then the change is refused; read again, it is taken, and what was published just before is in what is read
    assert late["error"]["code"] == "stale"
    assert "published meanwhile" in late["error"]["message"]
    again = await told.ask("blueprint", graph="g", to_change=True)
    assert json.loads(again["document"])["nodes"][0]["spec"]["value"] == 2
    taken = await told.ask("apply", graph="g", blueprint={"nodes": [thing("a", 3)]}, after=again["after"])
    assert taken["status"] == "accepted"
    await eventually(lambda: world.things() == {"a": 3})
