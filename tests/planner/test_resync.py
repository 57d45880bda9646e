"""Observation by interval over real servers: preferences, two planners, observers that take their time."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from holdfast_model.names import GraphRef
from holdfast_planner.inbox import WINDOW
from holdfast_store import keys
from holdfast_testkit.servers import NatsServer, RedisServer
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import HERE, Told

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUICK = "desiredstate.resync.quick"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    nats_server, redis_server = NatsServer(), RedisServer()
    try:
        nats_server.start_now()
        redis_server.start_now()
        yield nats_server.url, redis_server.url
    finally:
        nats_server.close()
        redis_server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def timed(servers: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Two planners and the domain that notes what it looks at."""
    folder = tmp_path_factory.mktemp("timed")
    env = {"PYTHONPATH": HERE, "WORLD_FOLDER": str(folder), "HOLDFAST_GRACEFUL_TIMEOUT": "3"}
    async with System(*servers, planners=2, services=("timed",), modules={"timed": "timed_domain"}, env=env) as running:
        running.folder = folder  # type: ignore[attr-defined]
        yield running


class Tenant(Told):
    """A tenant of the timed system, and what was observed of its nodes."""

    folder: Path

    def seen(self, line: str) -> int:
        path = self.folder / "seen"
        return path.read_text().splitlines().count(line) if path.exists() else 0

    async def graph(self, graph: str, **nodes: dict[str, Any]) -> None:
        """Publish a graph of quick nodes, unless a node says ``type``."""
        rows = [
            {"id": id, "type": more.pop("type", "quick"), "spec": more, "depends_on": more.pop("needs", [])}
            for id, more in nodes.items()
        ]
        await self.publish(graph, {"nodes": rows})


NewTenant = Callable[[], Awaitable[Tenant]]


@pytest_asyncio.fixture(loop_scope="session")
async def tenant_of(timed: System) -> AsyncIterator[NewTenant]:
    clients = []

    async def make() -> Tenant:
        client = await nats.connect(timed.nats_url)
        clients.append(client)
        told = Tenant(client, f"t{uuid.uuid4().hex[:10]}")
        told.folder = timed.folder / told.tenant  # type: ignore[attr-defined]
        told.folder.mkdir()
        await told.listen()
        return told

    yield make
    for client in clients:
        await client.close()


async def test_a_tenant_s_preference_is_in_force_at_once_and_for_that_tenant_only(tenant_of: NewTenant) -> None:
    # Given two tenants with the same graphs, over both planners
    ours, theirs = await tenant_of(), await tenant_of()
    names = [f"g{n}" for n in range(8)]
    for told in (ours, theirs):
        for name in names:
            await told.graph(name, **{f"{name}-a": {}})
        for name in names:
            await told.wait_for(f"graph.{told.tenant}.{name}.converged")
    at_first = {name: theirs.seen(f"quick {name}-a") for name in names}

    # When one of them prefers a second
    reply = await ours.ask("pref_set", name=QUICK, value="1s")

    # Then all its graphs come round by the second, and no graph of the other
    assert (reply["value"], reply["source"], reply["manifest"]) == ("PT1S", "tenant", "PT1H")
    marks = {name: ours.seen(f"quick {name}-a") for name in names}
    await eventually(lambda: all(ours.seen(f"quick {n}-a") >= marks[n] + 3 for n in names))
    assert {name: theirs.seen(f"quick {name}-a") for name in names} == at_first
    assert (await theirs.ask("pref_get", name=QUICK))["source"] == "manifest"
    assert (await theirs.ask("pref_list"))["preferences"] == []
    # And it is over as soon as it is unset: while the other, who now has it, comes round, nothing happens here
    unset = await ours.ask("pref_unset", name=QUICK)
    assert (unset["value"], unset["source"]) == ("PT1H", "manifest")
    await theirs.ask("pref_set", name=QUICK, value=1)

    async def only_theirs_come_round() -> bool:
        before = {name: ours.seen(f"quick {name}-a") for name in names}
        marks = {name: theirs.seen(f"quick {name}-a") for name in names}
        await eventually(lambda: all(theirs.seen(f"quick {n}-a") >= marks[n] + 3 for n in names))
        return {name: ours.seen(f"quick {name}-a") for name in names} == before

    await eventually(only_theirs_come_round)
    await theirs.ask("pref_unset", name=QUICK)


async def test_the_platform_s_preference_holds_where_a_tenant_has_none(tenant_of: NewTenant) -> None:
    ours, other = await tenant_of(), await tenant_of()
    for told in (ours, other):
        await told.graph("g", a={})
        await told.wait_for(f"graph.{told.tenant}.g.converged")
    await other.ask("pref_set", name=QUICK, value="2h")
    mark = other.seen("quick a")

    set_for_all = await ours.ask("pref_set", name=QUICK, value="PT1S", platform=True)

    try:
        assert (set_for_all["source"], set_for_all["tenant"]) == ("platform", None)
        assert (await ours.ask("pref_get", name=QUICK))["source"] == "platform"
        assert (await other.ask("pref_get", name=QUICK))["value"] == "PT2H"
        first = ours.seen("quick a")
        await eventually(lambda: ours.seen("quick a") >= first + 3)
        assert other.seen("quick a") == mark
    finally:
        await ours.ask("pref_unset", name=QUICK, platform=True)
    assert (await ours.ask("pref_get", name=QUICK))["source"] == "manifest"


async def test_a_preference_below_the_floor_is_refused_and_changes_nothing(tenant_of: NewTenant) -> None:
    told = await tenant_of()
    await told.ask("pref_set", name=QUICK, value="10m")
    for value, said in (("999ms", "at least PT1S"), ("soon", "not a duration"), (-1, "not a duration")):
        error = (await told.ask("pref_set", name=QUICK, value=value))["error"]
        assert error["code"] == "invalid"
        assert said in error["message"]
        assert error["paths"][0]["path"] == "/value"
    wrong = (await told.ask("pref_set", name="desiredstate.other", value="1m"))["error"]
    assert wrong["paths"][0]["path"] == "/name"
    assert (await told.ask("pref_get", name=QUICK))["value"] == "PT10M"
    assert [p["name"] for p in (await told.ask("pref_list"))["preferences"]] == [QUICK]


async def test_a_slow_observation_of_one_type_delays_no_other_type(tenant_of: NewTenant) -> None:
    # Given quick nodes that come round by the second, in graphs with types that take minutes to look at
    told = await tenant_of()
    await told.ask("pref_set", name=QUICK, value="1s")
    names = [f"g{n}" for n in range(24)]
    for name in names:
        await told.graph(name, **{f"{name}-quick": {}, f"{name}-slow": {"type": "slow", "look": 600}})
    await eventually(lambda: sum(told.seen(f"slow {n}-slow") for n in names) >= 16)

    # Then the quick ones are made, and looked at again and again, long before that is over
    await eventually(lambda: all((told.folder / f"{n}-quick.there").exists() for n in names))
    marks = {n: told.seen(f"quick {n}-quick") for n in names}
    await eventually(lambda: all(told.seen(f"quick {n}-quick") >= marks[n] + 3 for n in names))
    # And what disappears is healed
    (told.folder / "g0-quick.there").unlink()
    await eventually(lambda: (told.folder / "g0-quick.there").exists())
    assert all(told.of(f"graph.{told.tenant}.{n}.converged") == [] for n in names)
    await told.ask("pref_unset", name=QUICK)


async def test_a_burst_of_reports_is_taken_together_and_looks_at_what_it_names_and_no_more(
    tenant_of: NewTenant, servers: tuple[str, str]
) -> None:
    tenant = await tenant_of()
    # Given sixty nodes, of which the last twenty depend on the first twenty
    first, middle, last = ([f"{k}{i}" for i in range(20)] for k in "abc")
    nodes: dict[str, dict[str, Any]] = {n: {} for n in (*first, *middle)}
    nodes |= {n: {"needs": [first[i]]} for i, n in enumerate(last)}
    await tenant.graph("g", **nodes)
    await tenant.wait_for("graph.default.g.converged")
    requests: list[bytes] = []

    async def overhear(message: Any) -> None:
        if tenant.tenant.encode() in message.data:
            requests.append(message.data)

    listening = await tenant.client.subscribe("rpc.domain.timed.observe", cb=overhear)
    await tenant.client.flush()
    before = {n: tenant.seen(f"quick {n}") for n in nodes}

    # When five hundred reports come at once
    began = time.monotonic()
    stream = tenant.client.jetstream()
    bodies = [f'{{"node": "{first[i % 20]}"}}'.encode() for i in range(500)]
    for start in range(0, 500, 100):
        acks = [stream.publish(f"state.{tenant.tenant}.g", body) for body in bodies[start : start + 100]]
        await asyncio.gather(*acks)

    # Then every named node and what depends on it is looked at, few times, and nothing else
    def looked_at() -> set[str]:
        return {n for n in nodes if tenant.seen(f"quick {n}") > before[n]}

    await eventually(lambda: looked_at() == {*first, *last})
    await eventually(lambda: _state_empty(tenant))
    async with Redis.from_url(servers[1]) as redis:
        inbox = keys.inbox(GraphRef(tenant.tenant, "g"))

        async def all_served() -> bool:  # a report is kept until what it names has been looked at
            return await redis.xlen(inbox) == 0

        await eventually(all_served)
    windows = (time.monotonic() - began) / WINDOW  # where reports come slowly, each may have a window of its own
    assert looked_at() == {*first, *last}
    assert 0 < len(requests) <= max(40, 2 * windows), f"{len(requests)} requests for 500 reports"
    await listening.unsubscribe()


async def _state_empty(tenant: Tenant) -> bool:
    return bool((await tenant.client.jetstream().stream_info("STATE")).state.messages == 0)
