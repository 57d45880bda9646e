"""Publishing: what is stored, what is refused, and how fast."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from nats.aio.client import Client

from holdfast_bus import Bus, BusSettings, Outgoing, StreamSettings
from holdfast_bus.publishing import WINDOW
from holdfast_bus.setup import ensure
from holdfast_bus.streams import STREAMS
from holdfast_model.errors import Permanent, Unavailable
from holdfast_model.events import Event, Family
from holdfast_testkit.proxy import TcpProxy
from holdfast_testkit.waiting import LIMIT


def event(number: int, family: Family = Family.NODE, name: str = "drifted") -> Event:
    return Event(f"e{number}", family, name, "acme", "shop", 1_700_000_000.5, {"n": number}, node="a b/c")


async def stored(raw: Client, stream: str) -> int:
    return (await raw.jetstream().stream_info(stream)).state.messages


async def test_a_message_is_stored_when_publish_returns_and_its_id_makes_it_unique(bus: Bus, raw: Client) -> None:
    first = await bus.publish("blueprint.acme.shop", b"{}", stream="BLUEPRINTS", msg_id="m1")
    again = await bus.publish("blueprint.acme.shop", b"{}", stream="BLUEPRINTS", msg_id="m1")
    assert (first.stream, first.seq, first.duplicate) == ("BLUEPRINTS", 1, False)
    assert (again.seq, again.duplicate) == (1, True)
    assert await stored(raw, "BLUEPRINTS") == 1


async def test_a_subject_of_no_stream_is_an_error(bus: Bus) -> None:
    with pytest.raises(Unavailable, match="no stream"):
        await bus.publish("nowhere.at.all", b"", stream="EVENTS")


async def test_a_subject_of_another_stream_is_an_error(bus: Bus) -> None:
    with pytest.raises(Permanent, match="another stream"):
        await bus.publish("state.acme.shop", b"", stream="EVENTS")


async def test_what_is_too_large_is_refused_for_ever(bus: Bus) -> None:
    with pytest.raises(Permanent, match="larger"):
        await bus.publish("state.acme.shop", b"x" * 9_000_000, stream="STATE")


async def test_a_full_queue_makes_its_publisher_wait_and_drops_nothing(bus: Bus, raw: Client) -> None:
    await ensure(raw.jetstream(), StreamSettings(max_bytes=10_000), durables=())
    messages = [Outgoing("step.dns.record", b"x" * 1000, "STEPS")] * 20
    with pytest.raises(Unavailable, match="full"):
        await bus.publish_many(messages)
    info = await raw.jetstream().stream_info("STEPS")
    assert info.state.first_seq == 1
    assert info.state.messages > 5


async def test_events_are_stored_in_order_on_their_subjects_and_once(bus: Bus, raw: Client) -> None:
    events = [event(i) for i in range(1000)]
    await bus.publish_events(events)
    await bus.publish_events(events[500:])
    assert await stored(raw, "EVENTS") == 1000
    for seq in (1, 500, 1000):
        message = await raw.jetstream().get_msg("EVENTS", seq)
        assert message.subject == "node.acme.shop.drifted"
        assert json.loads(message.data or b"")["data"] == {"n": seq - 1}


async def test_events_of_all_families_find_their_stream(bus: Bus, raw: Client) -> None:
    await bus.publish_events(
        [
            event(1, Family.GRAPH, "reconciled"),
            event(2, Family.FAULT, "node_degraded"),
            event(3, Family.WORKITEM, "created"),
        ]
    )
    assert (await stored(raw, "EVENTS"), await stored(raw, "FAULTS")) == (2, 1)


async def test_publishing_many_raises_if_one_is_refused(bus: Bus, raw: Client) -> None:
    messages = [Outgoing("state.acme.shop", b"%d" % i, "STATE") for i in range(10)]
    messages[4] = messages[4]._replace(subject="nowhere.at.all")
    with pytest.raises(Unavailable, match="nowhere"):
        await bus.publish_many(messages)


async def test_many_events_are_not_published_one_by_one(bus: Bus) -> None:
    publishing = asyncio.create_task(bus.publish_events([event(i) for i in range(4000)]))
    most = 0
    while not publishing.done():
        most = max(most, len(bus._publisher._waiting))
        await asyncio.sleep(0)
    await publishing
    assert 100 < most <= WINDOW, f"{most} were under way at once"


async def test_publishing_to_a_server_that_went_silent_fails_in_time(raw: Client, nats_url: str) -> None:
    async with TcpProxy(nats_url) as proxy:
        bus = Bus(BusSettings(nats_url=proxy.url, publish_timeout=0.5, graceful_timeout=1.0), "impatient", "1")
        await bus.start()
        await bus.publish("state.acme.shop", b"1", stream="STATE")
        proxy.black_hole()
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await bus.publish("state.acme.shop", b"2", stream="STATE")
        with pytest.raises(Unavailable):
            await bus.publish_events([event(1)])
        await bus.hint("planner.1")
        assert time.monotonic() - began < LIMIT
        proxy.restore()
        await bus.stop()


def test_every_family_has_a_stream_that_takes_its_subjects() -> None:
    from holdfast_bus.streams import STREAM_OF_FAMILY

    taken = {s.split(".")[0]: stream.name for stream in STREAMS for s in stream.subjects}
    assert {family: taken[family] for family in Family} == STREAM_OF_FAMILY
