"""Blueprints beyond what a message holds: applied, previewed, refused, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdfast_bus import Bus, BusSettings
from holdfast_bus.objects import HEADER, MAX_SIZE, ObjectGoneError
from holdfast_model.errors import Invalid, Permanent
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024


@pytest_asyncio.fixture(loop_scope="session")
async def bus(system: System) -> AsyncIterator[Bus]:
    async with Bus(BusSettings(nats_url=system.nats_url), "tester", "1") as connected:
        yield connected


def large(count: int = 40, size: int = 500_000, value: str = "x") -> dict[str, object]:
    """A raw graph of ``count`` nodes of ``size`` bytes each."""
    return {"nodes": [thing(f"n{i}", value * size) for i in range(count)]}


async def kept(bus: Bus) -> int:
    """Objects of which chunks are in the bucket."""
    info = await bus.js.stream_info("OBJ_DOCUMENTS", subjects_filter="$O.DOCUMENTS.C.>")
    return len(info.state.subjects or {})


async def test_a_blueprint_of_20_mb_is_previewed_and_applied_and_nothing_is_left(
    bus: Bus, told: Told, world: World
) -> None:
    document = large()
    assert len(json.dumps(document)) > 20_000_000
    request = {"tenant": told.tenant, "graph": "big", "blueprint": document, "wait": 60}

    preview = json.loads(await bus.request("rpc.planner.plan", request, timeout=60))
    assert len(preview["steps"]) == 40

    verdict = json.loads(await bus.request("rpc.planner.apply", request, timeout=60))
    assert verdict["status"] == "accepted"
    accepted = await told.wait_for("graph.default.big.accepted")
    assert (accepted["message"], accepted["sequence"]) == (verdict["message_id"], verdict["sequence"])
    await told.wait_for("graph.default.big.converged", within=60)
    assert len(world.things()) == 40
    await eventually(lambda: _empty(bus))


async def test_a_domain_compiles_what_no_message_holds(bus: Bus, told: Told, world: World) -> None:
    things = {f"n{i}": {"value": "y" * 500_000} for i in range(20)}
    document = {"domain": "world", "spec": {"things": things}}
    request = {"tenant": told.tenant, "graph": "big", "blueprint": document, "wait": 60}

    assert json.loads(await bus.request("rpc.planner.apply", request, timeout=60))["status"] == "accepted"

    await told.wait_for("graph.default.big.converged", within=60)
    assert len(world.things()) == 20
    await eventually(lambda: _empty(bus))


async def test_a_plain_client_publishes_one_by_the_name_of_an_object(bus: Bus, told: Told, world: World) -> None:
    bucket = await told.client.jetstream().object_store("DOCUMENTS")
    await bucket.put(f"{told.tenant}.yaml", json.dumps(large(20)).encode())
    subject = f"blueprint.{told.tenant}.big"
    ack = await told.client.jetstream().publish(subject, b"", headers={HEADER: f"{told.tenant}.yaml"})

    accepted = await told.wait_for("graph.default.big.accepted", within=60)
    assert accepted["sequence"] == ack.seq

    # One that was taken away (or is too old) is rejected by its name, and changes nothing
    await bucket.delete(f"{told.tenant}.yaml")
    ack = await told.client.jetstream().publish(subject, b"", headers={HEADER: f"{told.tenant}.yaml"})
    rejected = await told.wait_for("graph.default.big.rejected")
    assert rejected["sequence"] == ack.seq
    assert f"{told.tenant}.yaml" in rejected["reason"]
    assert "24 hours" in rejected["hint"]
    assert (await told.ask("get", graph="big"))["graph"]["version"] == accepted["version"]

    # So is a message that has both a name and a body
    await told.client.jetstream().publish(subject, b"{}", headers={HEADER: "other"})
    assert "no body of its own" in (await told.wait_for("graph.default.big.rejected", 2))["reason"]


async def test_a_rejected_one_says_where_it_is_wrong_and_leaves_nothing(bus: Bus, told: Told) -> None:
    document = large(20)
    document["nodes"].append(thing("late", 1, "nobody"))  # type: ignore[attr-defined]
    request = {"tenant": told.tenant, "graph": "big", "blueprint": document, "wait": 60}

    verdict = json.loads(await bus.request("rpc.planner.apply", request, timeout=60))

    assert verdict["status"] == "rejected"
    assert verdict["problems"][0]["path"].startswith("/nodes/20")
    await eventually(lambda: _empty(bus))


async def test_limits_are_told(bus: Bus, told: Told) -> None:
    with pytest.raises(Permanent, match="at most 67,108,864"):
        await bus.objects.put(b"x" * (MAX_SIZE + 1))
    with pytest.raises(ObjectGoneError, match="no such object"):
        await bus.objects.get("nowhere")
    bucket = await told.client.jetstream().object_store("DOCUMENTS")
    await bucket.put("huge", b"x" * (MAX_SIZE + 1))
    with pytest.raises(Invalid, match="at most 67,108,864 are read"):
        await bus.objects.get("huge")
    await bucket.delete("huge")

    # One node must fit into a message
    request = {"tenant": told.tenant, "graph": "big", "blueprint": large(2, 4_100_000), "wait": 60}
    verdict = json.loads(await bus.request("rpc.planner.apply", request, timeout=60))
    assert [p["path"] for p in verdict["problems"]] == ["/nodes/0/spec", "/nodes/1/spec"]
    assert "at most 4,000,000" in verdict["message"]


async def test_the_command_line_applies_20_mb_of_yaml(
    bus: Bus, system: System, told: Told, world: World, tmp_path: Path
) -> None:
    file = tmp_path / "big.yaml"
    nodes = [f"- {{id: n{i}, type: thing, spec: {{value: {'w' * 500_000}}}}}" for i in range(40)]
    file.write_text("# by hand\nnodes:\n" + "\n".join(nodes))
    words = ("apply", "-f", str(file), "-g", "big", "-t", told.tenant, "-o", "json")

    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("holdfast")), *words, stdout=asyncio.subprocess.PIPE,
        env={"HOLDFAST_NATS_URL": system.nats_url, "PATH": os.environ["PATH"]},
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 90)

    assert (process.returncode, json.loads(out)["status"]) == (0, "accepted")
    await told.wait_for("graph.default.big.converged", within=60)
    assert len(world.things()) == 40
    await eventually(lambda: _empty(bus))


async def test_an_upload_that_is_broken_off_leaves_nothing(bus: Bus) -> None:
    upload = asyncio.create_task(bus.objects.put(b"z" * (40 * MIB)))
    await asyncio.sleep(0.05)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    await eventually(lambda: _empty(bus))


async def _empty(bus: Bus) -> bool:
    return await kept(bus) == 0
