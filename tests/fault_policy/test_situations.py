"""Situations on real servers: counted exactly once, told once, answered while they last."""

from __future__ import annotations

import time

import msgspec

from holdfast_model.manifest import Reinforcement, Situation
from holdfast_store import keys
from holdfast_testkit.waiting import eventually

from .conftest import Service, Shop

NODES = [f"n{i}" for i in range(8)]
DROUGHT = Situation(
    "drought",
    faults=["NODE_DEGRADED"],
    zone="node.type",
    count=5,
    within=600.0,
    add=[Reinforcement("well-{zone}", "ingestion", {"for": "{zone}"})],
)


async def prepare(shop: Shop, situation: Situation = DROUGHT) -> None:
    await shop.declare(dict.fromkeys(NODES, "ingestion"), owner="more")
    await shop.announce(situations=[situation])
    for node in NODES:
        await shop.state(node)


async def degrade(shop: Shop, *nodes: str, at: float) -> None:
    """One fault of each node, all at once."""
    faults = [shop.fault(f"f-{n}-{at}", n, type="NODE_DEGRADED", time=at) for n in nodes]
    await shop.raise_faults(*faults, *faults)
    await shop.quiet()


async def told(shop: Shop) -> list[dict[str, object]]:
    return [event.data for event in await shop.told() if event.name == "situation"]


async def zones(shop: Shop) -> dict[bytes, bytes]:
    (found,) = await shop.kv.run(("HGETALL", keys.situations(shop.ref)))
    return found


async def test_faults_that_come_at_once_to_two_replicas_begin_it_once(shop: Shop, service: Service) -> None:
    await prepare(shop)
    async with service(), service():
        await degrade(shop, *NODES, at=time.time())

    (event,) = await told(shop)
    assert (event["name"], event["zone"], event["count"]) == ("drought", "ingestion", 5)
    assert len(set(event["faults"])) == 5  # type: ignore[arg-type]
    assert len(event["nodes"]) == 5  # type: ignore[arg-type]
    (stored,) = (await zones(shop)).values()
    assert len(msgspec.json.decode(stored)["seen"]) == len(NODES)
    well = (await shop.graph()).nodes["well-ingestion"]
    assert (well.owner, bytes(well.spec)) == ("policy:drought/ingestion", b'{"for":"ingestion"}')


async def test_it_is_over_when_its_window_has_passed_and_what_it_added_goes(shop: Shop, service: Service) -> None:
    await prepare(shop)
    async with service(fault_sweep_interval=0.2):
        await degrade(shop, *NODES[:4], at=time.time() - 593.0)
        assert await told(shop) == []
        await degrade(shop, NODES[4], at=time.time() - 592.0)
        assert "well-ingestion" in await shop.graph()

        async def over() -> bool:
            return "well-ingestion" not in await shop.graph()

        await eventually(over)
    assert await zones(shop) == {}
    assert len(await told(shop)) == 1


async def test_it_is_over_when_all_its_nodes_have_recovered_if_it_says_so(shop: Shop, running: None) -> None:
    await prepare(shop, msgspec.structs.replace(DROUGHT, count=2, until="recovery"))
    await degrade(shop, "n0", "n1", at=time.time())
    assert "well-ingestion" in await shop.graph()

    await shop.recover("n0")
    assert "well-ingestion" in await shop.graph()
    await shop.recover("n1")
    assert "well-ingestion" not in await shop.graph()
    assert await zones(shop) == {}


async def test_one_that_cannot_say_its_zone_is_told_and_stops_nothing_else(shop: Shop, running: None) -> None:
    await prepare(shop, msgspec.structs.replace(DROUGHT, zone="node.spec.region"))
    await shop.fail(times=4)

    assert "ai-review-ingest" in await shop.graph()
    assert await told(shop) == []
    await degrade(shop, "n0", at=time.time())
    (failed,) = [e.data for e in await shop.told() if e.name == "policy_failed"]
    assert failed["policies"] == ["drought"]
    assert await shop.unhandled() == []
