"""Pause, resume and unblock: what they stop, what they do not, and that a restart forgets none of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def row(told: Told, node: str) -> dict[str, Any]:
    rows = (await told.ask("get", graph="g")).get("nodes", [])
    return next((r for r in rows if r["id"] == node), {})


async def paused(told: Told) -> bool:
    return bool((await told.ask("get", graph="g"))["graph"]["paused"])


async def test_a_pause_lets_a_running_step_end_and_outlives_the_planner_and_new_versions(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    told = own_told
    async with make_system() as system:
        # Given a graph of which the first step is running
        await told.publish("g", {"nodes": [thing("a", until="go"), thing("b", 1, "a"), thing("c", 1, "b")]})
        await eventually(lambda: _phase_is(told, "a", "running"))

        # When it is paused, then that step ends, and no other begins
        assert (await told.ask("pause", graph="g"))["status"] == "accepted"
        await told.wait_for("graph.default.g.paused")
        world.let("go")
        await eventually(lambda: world.things() == {"a": 1})
        await eventually(lambda: _phase_is(told, "b", "paused"))

        # Nor after the planner was killed, nor for a new version
        await system["planner-0"].kill()
        await system["planner-0"].start()
        await told.publish("g", {"nodes": [thing("a"), thing("b", 2, "a"), thing("c", 1, "b")]})
        await told.wait_for("graph.default.g.accepted", 2)
        await eventually(lambda: _phase_is(told, "b", "paused"))
        assert await paused(told)
        assert (await told.ask("list"))["graphs"][0]["paused"]
        assert world.things() == {"a": 1}
        assert len(told.of("graph.default.g.paused")) == 1

        # When it goes on, then at once, with what changed meanwhile though nobody said so
        (world.folder / "a.json").unlink()
        await told.ask("resume", graph="g")
        await told.wait_for("graph.default.g.converged")
        assert world.things() == {"a": 1, "b": 2, "c": 1}
        assert len(told.of("graph.default.g.resumed")) == 1

        # A node that is paused holds up what depends on it, and nothing else, across a restart
        await told.ask("pause", graph="g", node="b")
        await eventually(lambda: _phase_is(told, "b", "present", "paused"))
        await told.publish("g", {"nodes": [thing("a", 3), thing("b", 3, "a"), thing("c", 3, "b")]})
        await eventually(lambda: world.things() == {"a": 3, "b": 2, "c": 1})
        await system["planner-0"].restart(kill=True)
        await eventually(lambda: _phase_is(told, "b", "paused"))
        assert (
            "paused" in (await told.ask("explain", graph="g", node="c"))["summary"]
            or (await row(told, "c"))["blocked_by"] == "b"
        )
        assert world.things() == {"a": 3, "b": 2, "c": 1}
        await told.ask("resume", graph="g", node="b")
        await eventually(lambda: world.things() == {"a": 3, "b": 3, "c": 3})
        assert [s for s, _ in told.events if s.startswith("fault.") and "destroyed" not in s] == []


async def test_unblock_tries_again_and_asks_again_also_after_a_restart(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    told = own_told
    async with make_system() as system:
        await told.publish("g", {"nodes": [thing("never", permanent=True), thing("door", gating="PROVISION_ONLY")]})
        await told.wait_for("fault.default.g.provision_failed")
        item = await told.wait_for("workitem.default.g.created")
        body = {"id": item["id"], "actor": "ann", "note": "no"}
        assert "error" not in await told.ask("reject", "workitems", **body)
        await told.wait_for("fault.default.g.approval_rejected")
        await system["planner-0"].restart(kill=True)
        await eventually(lambda: _phase_is(told, "never", "failed"))

        for node in ("never", "door"):
            assert (await told.ask("unblock", graph="g", node=node))["status"] == "accepted"
        await told.wait_for("fault.default.g.provision_failed", 2)
        again = await told.wait_for("workitem.default.g.created", 2)
        assert again["id"] != item["id"]

        refused = (await told.ask("unblock", graph="g"))["error"]
        assert refused["paths"][0]["path"] == "/node"
        assert (await told.ask("unblock", graph="g", node="nobody"))["error"]["code"] == "not_found"


async def _phase_is(told: Told, node: str, *phases: str) -> bool:
    return (await row(told, node)).get("phase") in phases
