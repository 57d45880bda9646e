"""A planner keeps a bounded number of graphs in memory; those at rest are woken by whatever concerns them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from holdfast_testkit.servers import Server
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")

MANY = 40
BOUND = 4
SMALL = {
    "HOLDFAST_LOADED_GRAPHS": str(BOUND),
    "HOLDFAST_REST_AFTER": "0.3",
    "HOLDFAST_REST_POLL_INTERVAL": "2",
}
GRAPHS = [f"g{i}" for i in range(MANY)]


async def at_rest(redis: Redis, tenant: str) -> set[str]:
    """Graphs of which the store says that nobody holds them in memory."""
    async with redis.pipeline(transaction=False) as pipe:
        for graph in GRAPHS:
            pipe.hexists(f"hf:{{{tenant}/{graph}}}:meta", "rested")
        return {graph for graph, found in zip(GRAPHS, await pipe.execute(), strict=True) if found}


async def test_idle_graphs_are_unloaded_and_woken_by_what_concerns_them(
    make_system: Callable[..., System], own_told: Told, own_redis: Server, world: World
) -> None:
    redis = Redis.from_url(own_redis.url)
    told, tenant = own_told, own_told.tenant
    system = make_system(planners=2, **SMALL)

    async def resting(least: int) -> set[str]:
        async def enough() -> set[str]:
            found = await at_rest(redis, tenant)
            assert len(found) >= least, f"{len(found)} graphs are at rest"
            return found

        return await eventually(enough)

    async with system:
        # Given far more graphs than may be in memory
        for graph in GRAPHS:
            await told.publish(graph, {"nodes": [thing(f"{graph}-a"), thing(f"{graph}-b", 1, f"{graph}-a")]})
        for graph in GRAPHS:
            await told.wait_for(f"graph.default.{graph}.converged", within=60)
        asleep = sorted(await resting(MANY - 2 * BOUND))

        # When somebody reports a change of one, asks for one, pauses one, or edits one, then it wakes
        reported, asked, paused, edited, *others = asleep
        (world.folder / f"{reported}-a.json").unlink()
        await told.report(reported, node=f"{reported}-a")
        await eventually(lambda: f"{reported}-a" in world.things())
        assert (await told.phases(asked)) == {f"{asked}-a": "present", f"{asked}-b": "present"}
        await told.ask("pause", graph=paused)
        await told.wait_for(f"graph.default.{paused}.paused")
        await told.publish(edited, {"nodes": [thing(f"{edited}-a", 2)], "allow_removals": True})
        await told.wait_for(f"graph.default.{edited}.converged", 2)
        assert world.things()[f"{edited}-a"] == 2
        assert f"{edited}-b" not in world.things()

        # A word that reaches nobody is found all the same
        silent = next(iter(set(others) & await at_rest(redis, tenant)))
        (world.folder / f"{silent}-a.json").unlink()
        content = json.dumps({"nodes": [f"{silent}-a"]})
        await redis.xadd(f"hf:{{{tenant}/{silent}}}:inbox", {"k": "state", "c": content})
        await eventually(lambda: f"{silent}-a" in world.things())

        # When a preference changes, then its interval holds at once for graphs at rest, round after round
        await resting(MANY - 2 * BOUND)
        await told.ask("pref_set", name="desiredstate.resync.thing", value="8s")
        for _ in range(2):
            drifted = sorted(await resting(1))[-1]
            (world.folder / f"{drifted}-a.json").unlink()
            await eventually(lambda d=drifted: f"{d}-a" in world.things())
        await told.ask("pref_unset", name="desiredstate.resync.thing")
        await resting(MANY - 2 * BOUND)

        # When a planner falls, then the other takes its graphs over, and leaves those asleep that are at rest
        await system["planner-0"].kill()
        fallen = sorted(set(others) & await at_rest(redis, tenant))
        for graph in fallen[:4]:
            (world.folder / f"{graph}-a.json").unlink()
        await eventually(lambda: _reconciled(told, fallen[:4]))
        await eventually(lambda: all(f"{g}-a" in world.things() for g in fallen[:4]))
        await resting(MANY - BOUND - 4)

        # Nothing went wrong, nothing was done twice
        assert [s for s, _ in told.events if s.startswith("fault.") and "node_d" not in s] == []
        assert len(world.keys()) == len(set(world.keys()))
    await redis.aclose()


async def _reconciled(told: Told, graphs: list[str]) -> bool:
    replies = await asyncio.gather(*(told.ask("reconcile", graph=graph) for graph in graphs), return_exceptions=True)
    return all(isinstance(reply, dict) and reply.get("status") == "accepted" for reply in replies)
