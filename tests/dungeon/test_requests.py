"""What the service answers, and what it reports, without a bus."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from holdfast_dungeon.handlers import Handlers
from holdfast_model.errors import IllegalState, Invalid, NotFound

from .lairs import REF, memory_world

Told = list[tuple[str, str, dict[str, Any], str]]


async def furnished() -> tuple[Handlers, Told]:
    """Handlers of a world with a hall and a trap in it, and what they report."""
    world, told = memory_world(), Told()
    await world.build(REF, "hall", "room", "{}", (), "1")
    await world.build(REF, "pit", "trap", "{}", ("hall",), "2")

    async def tell(tenant: str, graph: str, body: bytes, msg_id: str) -> None:
        told.append((tenant, graph, json.loads(body), msg_id))

    return Handlers(world, tell), told


def request(**body: Any) -> bytes:
    return json.dumps({"tenant": REF.tenant, "graph": REF.graph, **body}).encode()


async def test_every_victim_is_reported_with_its_fault() -> None:
    handlers, told = await furnished()

    raid = await handlers.raid(request(kind="destroy", target="hall"))

    assert [victim.node for victim in raid.victims] == ["hall", "pit"]
    assert [body for _, _, body, _ in told] == [
        {"node": node, "fault": "NODE_DESTROYED", "detail": "destroyed in a raid"} for node in ("hall", "pit")
    ]


async def test_a_raid_asked_for_again_is_reported_again_under_the_same_ids() -> None:
    handlers, told = await furnished()

    first = await handlers.raid(request(kind="degrade", target="pit", id="r"))
    again = await handlers.raid(request(kind="degrade", target="pit", id="r"))

    assert again == first
    assert told[0] == told[1]
    assert told[0][2]["fault"] == "NODE_DEGRADED"


async def test_the_seed_in_the_answer_repeats_the_choice() -> None:
    raid = await (await furnished())[0].raid(request(kind="destroy"))

    again = await (await furnished())[0].raid(request(kind="destroy", seed=raid.seed))

    assert again.victims == raid.victims


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"kind": "kill"}, IllegalState),
        ({"kind": "destroy", "target": "attic"}, NotFound),
        ({"kind": "destroy", "target": "hall", "tenant": "globex"}, NotFound),
        ({"kind": "destroy", "graph": "a.b"}, Invalid),
        ({"kind": "befriend"}, msgspec.ValidationError),  # the bus answers it as invalid
        ({"kind": "kill", "taget": "hall"}, msgspec.ValidationError),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(body: dict[str, Any], error: type[Exception]) -> None:
    handlers, told = await furnished()

    with pytest.raises(error):
        await handlers.raid(request(**body))

    assert told == []
    assert [thing.id for thing in (await handlers.map(request())).things] == ["hall", "pit"]
