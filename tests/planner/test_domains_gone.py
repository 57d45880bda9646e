"""Domains that go and come back: their nodes and removals stay, say why, and are worked on when they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_store.domains import Domains
from holdfast_store.redis_kv import RedisKv
from holdfast_testkit.servers import Server
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def why(told: Told, node: str, graph: str = "g") -> dict[str, Any]:
    reply = await told.ask("explain", graph=graph, node=node)
    assert "error" not in reply, reply
    return reply


async def until(told: Told, node: str, text: str) -> None:
    """Wait until the explanation of a node says something."""
    last: list[str] = []

    async def says() -> bool:
        reply = await told.ask("explain", graph="g", node=node)
        last[:] = [str(reply.get("summary"))]
        return text in last[0]

    try:
        await eventually(says)
    except AssertionError as late:
        raise AssertionError(f"{node} does not say {text!r}: {last}") from late


async def test_what_a_domain_leaves_behind_waits_for_it_and_says_so(
    make_system: Callable[..., System], own_told: Told, own_redis: Server, world: World
) -> None:
    quick = {"HOLDFAST_NO_PROVISIONER_AFTER": "1", "HOLDFAST_LEASE_TTL": "1.5", "HOLDFAST_CATALOG_INTERVAL": "0.2"}
    async with make_system(**quick) as system:
        # Given three things, one on top of another, and a domain that goes
        await own_told.publish("g", {"nodes": [thing("a"), thing("top", 1, "a"), thing("kept")]})
        await own_told.wait_for("graph.default.g.converged")
        await system["world"].stop()
        made = world.log()

        # When two are removed, one is edited, and one is added
        await own_told.publish("g", {"nodes": [thing("kept", 2), thing("new")]})
        await own_told.wait_for("graph.default.g.accepted", 2)

        # Then all of them wait, and say for whom and since when
        gone = "domain 'world' is not running since "
        for node in ("a", "top", "kept", "new"):
            await until(own_told, node, gone)
        removing = f"top is removing: no_provisioner: no provisioner for type 'thing': {gone}"
        assert (await why(own_told, "top"))["summary"].startswith(removing)
        assert "what was made with it comes first: top" in (await why(own_told, "a"))["summary"]
        assert (await why(own_told, "new"))["next"].endswith("once domain 'world' is running again")
        fault = await own_told.wait_for("fault.default.g.provision_failed")
        assert (fault["reason"], fault["nodeType"]) == ("no_provisioner", "thing")
        (row,) = (await own_told.ask("domains"))["domains"]
        assert (row["live"], row["gone_since"] > 0) == (False, True)

        # Also after the planner has fallen, and when even the domain's manifest is forgotten
        await system.planners[0].kill()
        await system.planners[0].restart()
        await until(own_told, "a", gone)
        kv = RedisKv(system.redis_url)
        assert await Domains(kv, lambda: 0.0).forget("world")
        await kv.close()
        unheard = "no provisioner for type 'thing': no domain has ever announced it"
        for node in ("a", "top", "new"):
            await until(own_told, node, unheard)
        assert set(await own_told.phases("g")) == {"a", "top", "kept", "new"}
        assert (world.log(), world.things()) == (made, {"a": 1, "top": 1, "kept": 1})

        # And when it is back, the work is done, in order
        await system["world"].start()
        await own_told.wait_for("graph.default.g.converged", 2)
        assert world.things() == {"kept": 2, "new": 1}
        assert [node for action, node in world.log() if action == "deprovision"] == ["top", "a"]
        assert set(await own_told.phases("g")) == {"kept", "new"}


async def test_types_that_nobody_ever_announced_wait_and_hold_up_nobody_else(
    system: System, told: Told, world: World
) -> None:
    unheard = {"id": "u", "type": "unheard-of", "spec": {"any": 1}}
    reply = await told.ask("apply", graph="g", blueprint={"nodes": [unheard, thing("a"), thing("b", 1, "u")]})
    assert reply["warnings"] == ["no domain has announced the type 'unheard-of'; its nodes wait for one"]
    await eventually(lambda: world.things() == {"a": 1})

    async def two_wait() -> bool:  # a file is there before its outcome is
        return await told.phases("g") == {"u": "no_provisioner", "b": "blocked", "a": "present"}

    await eventually(two_wait)
    assert "no domain has ever announced it" in (await why(told, "u"))["summary"]

    # What never could have been made is let go when it is not wanted any more
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("graph.default.g.converged")
    assert await told.phases("g") == {"a": "present"}


async def test_a_type_that_was_misspelt_leaves_nothing_to_remove(system: System, told: Told, world: World) -> None:
    # Given a node of a type that no domain has ever announced
    await told.publish("g", {"nodes": [thing("a"), thing("b", 1, "a", type="thnig")]})
    await told.wait_for("graph.default.g.reconciled")
    assert (await told.phases("g"))["b"] == "no_provisioner"

    # When the next version has it right
    await told.publish("g", {"nodes": [thing("a"), thing("b", 1, "a")]})

    # Then the graph converges, and can be deleted
    await told.wait_for("graph.default.g.converged")
    assert await told.phases("g") == {"a": "present", "b": "present"}
    await told.publish("g", {"nodes": [thing("c", type="thnig")]})
    await told.wait_for("graph.default.g.accepted", 3)
    await told.publish("g", {"delete": True})
    await told.wait_for("graph.default.g.deleted")
