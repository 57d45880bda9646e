"""kill -9 of services and restarts of servers while graphs converge: the same end, nothing twice, nothing lost."""

from __future__ import annotations

import json

import pytest
from nats.errors import NoRespondersError
from redis.asyncio import Redis

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from . import wells
from .conftest import GRAPH, Setting, User

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]
TROUBLED = 120.0


def start(user: User) -> dict[str, object]:
    """Clean files, one that does not fit, and a sink that waits for approval: every service has something to do."""
    wells.put_all(user.data)
    return wells.chain(approval_required=True)


async def finish(user: User, rough: Setting) -> None:
    """Decide what is asked, and find exactly what must be there."""
    await user.decide(await user.item("district-report", within=TROUBLED), "approve")
    await user.converged(right=lambda: right(user), within=TROUBLED)

    wells.put_readings(user.data, "c", wells.readings(300, 30, bad=10))
    item = await user.item("human-review-readings-good", within=TROUBLED)
    await user.decide(item, "drop-rows")
    await user.converged(right=lambda: right(user), within=TROUBLED)
    assert user.tables().seqs("bronze", "readings-raw") == sorted(
        r["seq"] for r in wells.bronze_readings(user.data)
    )  # fmt: skip

    # One question each, however often somebody was killed; no fault is left unhandled
    asked = [i["callerRef"].split(":")[2] for i in user.heard("workitem.created")]
    assert sorted(asked) == ["district-report", "human-review-readings-good"]
    await user.wait_for("fault.node_degraded", within=TROUBLED)
    quarantined = {f["id"] for f in user.heard("fault.node_degraded")}
    assert len(quarantined) == 1
    redis = Redis.from_url(rough.redis.url)
    try:
        await eventually(lambda: nothing_open(redis, user))
    finally:
        await redis.aclose()


def right(user: User) -> bool:
    return user.tables().report_is(wells.by_district(wells.good_readings(wells.bronze_readings(user.data))))


async def nothing_open(redis: Redis, user: User) -> bool:
    return await redis.scard(f"hf:{{{user.tenant}/{GRAPH}}}:faults") == 0


@pytest.mark.parametrize("name", ["planner-0", "pipeline", "work-items", "fault-policy"])
async def test_a_killed_service_changes_nothing_in_the_end(
    name: str, rough_system: System, rough: Setting, victim: User
) -> None:
    # Given a graph of which the first stages are at work
    await victim.publish(start(victim))
    await eventually(lambda: victim.stepped()["readings-raw"], within=TROUBLED)

    # When a service is killed in the middle and started again, and once more a little later
    await rough_system[name].restart(kill=True)
    await eventually(lambda: victim.stepped()["readings-tidy"], within=TROUBLED)
    await rough_system[name].restart(kill=True)

    # Then all is as if nothing had been
    await finish(victim, rough)


async def test_servers_may_restart_while_a_graph_converges(rough_system: System, rough: Setting, victim: User) -> None:
    await victim.publish(start(victim))
    await eventually(lambda: victim.stepped()["readings-raw"], within=TROUBLED)
    await rough.nats.restart()
    await rough.redis.restart()
    await eventually(lambda: victim.client.is_connected)
    item = await open_item(victim, "district-report")
    await victim.decide(item, "approve")
    await eventually(lambda: right(victim), within=TROUBLED)
    pids = [process.running for process in rough_system.processes.values()]
    assert all(pids)


async def test_faults_are_counted_once_while_the_policy_is_killed(
    rough_system: System, rough: Setting, victim: User
) -> None:
    # Given a sink that cannot write, so that it fails again and again
    wells.put_all(victim.data)
    wells.put(victim.data / "blocked", "in the way")
    await victim.publish(wells.chain(destination="blocked"))
    for count in (1, 3):
        await victim.wait_for("fault.provision_failed", count, within=TROUBLED)
        await rough_system["fault-policy"].restart(kill=True)

    # Then each fault was counted once, and one person is asked once
    await victim.item("human-review-district-report", within=TROUBLED)
    redis = Redis.from_url(rough.redis.url)

    async def counted() -> bool:
        """Every fault that was told; more come now and then, as the sink is still tried."""
        row = await redis.hget(f"hf:{{{victim.tenant}/{GRAPH}}}:counts", "district-report")
        told = {f["id"] for f in victim.heard("fault.provision_failed") if f["node"] == "district-report"}
        assert json.loads(row)["pipeline-escalation"]["count"] == len(told)
        return await nothing_open(redis, victim)

    try:
        await eventually(counted)
    finally:
        await redis.aclose()
    assert len(victim.heard("workitem.created")) == 1


async def test_replicas_share_the_work_and_do_nothing_twice(rough_system: System, rough: Setting, victim: User) -> None:
    wells.put_all(victim.data)
    graphs = ["one", "two", "three", "four"]
    for graph in graphs:
        await victim.publish(wells.chain(destination=f"out-{graph}"), graph)
    wanted = wells.by_district(wells.good_readings(wells.bronze_readings(victim.data)))
    for graph in graphs:
        await victim.converged(
            graph, right=lambda g=graph: victim.tables(g, f"out-{g}").report_is(wanted), within=TROUBLED
        )
        assert set(victim.tables(graph).commits().values()) == {1}
        assert set(victim.stepped(graph).values()) == {1}
    assert victim.heard("fault.*") == []


async def open_item(user: User, node: str) -> dict[str, object]:
    """The open WorkItem about a node, asked for: what was said during an outage was not heard."""

    async def there() -> dict[str, object]:
        try:
            items = (await user.ask("workitems", "list", graph=GRAPH, status=["PENDING"])).get("items", [])
        except (NoRespondersError, TimeoutError):  # the service is not back yet
            items = []
        return next((i for i in items if f":{node}:" in i["callerRef"]), {})

    return await eventually(there, within=TROUBLED)
