"""Whether a message comes after one of its subject that is undecided."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nats.aio.client import Client

from holdfast_bus import Bus, Inbound
from holdfast_bus.setup import ensure_durable
from holdfast_bus.streams import PLANNER_ADMISSION
from holdfast_model.errors import Stale
from holdfast_testkit.waiting import LIMIT, eventually

A, B = "blueprint.t.a", "blueprint.t.b"


@pytest.fixture
async def inbounds(bus: Bus, raw: Client) -> list[Inbound]:
    """Four messages, in turn of two subjects."""
    await ensure_durable(raw.jetstream(), PLANNER_ADMISSION)
    acks = [await bus.publish(subject, b"{}", stream="BLUEPRINTS") for subject in (A, B, A, B)]
    return [Inbound(subject=s, data=b"{}", stream_seq=ack.seq) for s, ack in zip((A, B, A, B), acks, strict=True)]


async def follow(bus: Bus, inbounds: list[Inbound]) -> list[bool]:
    return [await bus.follows_undecided(PLANNER_ADMISSION, inbound) for inbound in inbounds]


async def test_only_earlier_messages_of_the_same_subject_count(bus: Bus, inbounds: list[Inbound]) -> None:
    assert await follow(bus, inbounds) == [False, False, True, True]


async def test_what_is_acknowledged_is_decided(bus: Bus, inbounds: list[Inbound]) -> None:
    async with bus.work_queue(PLANNER_ADMISSION) as queue:
        first, second, *_ = await queue.fetch(4, LIMIT)
        await first.ack()

        async def first_is_decided() -> bool:
            return await follow(bus, inbounds) == [False, False, False, True]

        await eventually(first_is_decided)
        await second.ack()

        async def all_before_are_decided() -> bool:
            return await follow(bus, inbounds) == [False, False, False, False]

        await eventually(all_before_are_decided)


async def test_a_message_that_aged_out_follows_nothing(bus: Bus, inbounds: list[Inbound], raw: Client) -> None:
    await raw.jetstream().purge_stream("BLUEPRINTS")
    gone = replace(inbounds[2], subject="blueprint.t.gone")
    assert await follow(bus, [inbounds[2], gone]) == [False, False]


async def test_a_message_may_be_published_only_if_it_is_the_next_on_its_subject(
    bus: Bus, inbounds: list[Inbound]
) -> None:
    last = await bus.last_on("BLUEPRINTS", A)
    assert (last, await bus.last_on("BLUEPRINTS", "blueprint.t.none")) == (inbounds[2].stream_seq, 0)
    # Nobody published on it since, then somebody did; small or too large for a message
    ack, _ = await bus.publish_large(A, b"{}", stream="BLUEPRINTS", after=last)
    for body in (b"{}", b"x" * 9_000_000):
        with pytest.raises(Stale):
            await bus.publish_large(A, body, stream="BLUEPRINTS", after=last)
    assert await bus.last_on("BLUEPRINTS", A) == ack.seq
    await bus.publish_large("blueprint.t.none", b"{}", stream="BLUEPRINTS", after=0)
