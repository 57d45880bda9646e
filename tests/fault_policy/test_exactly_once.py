"""Crashes, replicas and racing writers: every fault counts once, and no change is lost."""

from __future__ import annotations

import asyncio

from holdfast_testkit.processes import ServiceProcess
from holdfast_testkit.waiting import eventually

from .conftest import Service, Shop


async def test_a_service_killed_in_the_middle_loses_and_repeats_nothing(
    shop: Shop, nats_url: str, redis_url: str
) -> None:
    env = {"HOLDFAST_NATS_URL": nats_url, "HOLDFAST_REDIS_URL": redis_url, "HOLDFAST_FAULT_SWEEP_AGE": "0"}
    env["HOLDFAST_FAULT_SWEEP_INTERVAL"] = "0.5"
    nodes = [f"n{i}" for i in range(20)]
    await shop.declare(dict.fromkeys(nodes, "ingestion"), owner="many")
    await asyncio.gather(*(shop.state(node) for node in nodes))
    faults = [shop.fault(f"f{i}", nodes[i % 20]) for i in range(2000)]

    async with ServiceProcess("holdfast_fault_policy", env) as process:
        await shop.raise_faults(*faults)
        await eventually(lambda: _fewer_than(shop, 1900))
        await process.kill()
        left = len(await shop.unhandled())
        await process.start()
        await eventually(lambda: _fewer_than(shop, 1))

    assert 0 < left < 2000
    assert [await shop.count(node) for node in nodes] == [100] * 20


async def test_two_replicas_and_their_sweeps_count_each_fault_once(shop: Shop, service: Service) -> None:
    nodes = [f"n{i}" for i in range(10)]
    await shop.declare(dict.fromkeys(nodes, "ingestion"), owner="many")
    await asyncio.gather(*(shop.state(node) for node in nodes))
    eager = {"fault_sweep_interval": 0.02, "fault_sweep_age": 0.0}

    async with service(**eager), service(**eager):
        await shop.raise_faults(*[shop.fault(f"f{i}", nodes[i % 10]) for i in range(300)])
        await eventually(lambda: _fewer_than(shop, 1))
        await shop.quiet()

    assert [await shop.count(node) for node in nodes] == [30] * 10
    graph = await shop.graph()
    assert {n for n in graph.nodes if "review" in n} == {f"ai-review-{node}" for node in nodes}


async def test_mutations_and_blueprints_committed_at_the_same_time_both_survive(shop: Shop, running: None) -> None:
    nodes = {f"n{i}": "ingestion" for i in range(15)}
    await shop.declare(nodes, owner="many")
    await asyncio.gather(*(shop.state(node) for node in nodes))
    before = await shop.version()

    async def publish_versions() -> None:
        for i in range(30):
            await shop.declare({f"v{k}": "sink" for k in range(i + 1)}, owner="other")

    faults = [shop.fault(f"f{i}", node, permanent=True) for i, node in enumerate(nodes)]
    await asyncio.gather(publish_versions(), shop.raise_faults(*faults))
    await shop.quiet()

    graph = await shop.graph()
    assert {f"v{k}" for k in range(30)} <= set(graph.nodes)
    assert {f"ai-review-{node}" for node in nodes} <= set(graph.nodes)
    assert await shop.version() > before + 30


async def _fewer_than(shop: Shop, bound: int) -> bool:
    return len(await shop.unhandled()) < bound
