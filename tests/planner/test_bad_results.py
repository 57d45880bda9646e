"""What anybody may publish where provisioners answer: it is set aside, and no graph waits because of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_model.names import GraphRef
from holdfast_testkit.told import Told
from holdfast_testkit.waiting import LIMIT

from .conftest import World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")

BATCH = {"batch": "b", "tenant": "t", "graph": "g", "incarnation": "i", "epoch": 1, "outcomes": []}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        json.dumps({**BATCH, "epoch": 10**40}).encode(),
        json.dumps({**BATCH, "tenant": "no\nname"}).encode(),
    ],
    ids=["empty", "a list", "too deep", "huge number", "no name"],
)
async def test_a_result_that_cannot_be_read_does_not_keep_others_from_being_read(
    told: Told, world: World, body: bytes
) -> None:
    # Given something unreadable among the results of a graph's partition
    await told.client.jetstream().publish(f"result.{GraphRef(told.tenant, 'g').partition}", body)

    # When the graph needs a step
    await told.publish("g", {"nodes": [thing("a")]})

    # Then its result is taken
    await told.wait_for("graph.default.g.converged")
    assert world.things() == {"a": 1}


async def test_a_result_on_the_subject_of_another_partition_does_not_fence_off_the_owner(
    told: Told, world: World
) -> None:
    # Given a graph, and a result of it where results of another partition are read
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("graph.default.g.converged")
    other = next(p for p in range(64) if p != GraphRef(told.tenant, "g").partition)
    wrong: dict[str, Any] = {**BATCH, "tenant": told.tenant}
    dead = await told.client.jetstream().pull_subscribe("dlq.>", stream="DLQ")
    await told.client.jetstream().publish(f"result.{other}", json.dumps(wrong).encode())

    # Then it is set aside, and says why
    while True:
        (letter,) = await dead.fetch(1, timeout=LIMIT)
        await letter.ack()
        if b'"batch"' in letter.data and told.tenant.encode() in letter.data:
            break
    assert "partition" in " ".join((letter.headers or {}).values())

    # And the owner goes on
    await told.publish("g", {"nodes": [thing("a", 2)]})
    await told.wait_for("graph.default.g.converged", 2)
    assert world.things() == {"a": 2}
