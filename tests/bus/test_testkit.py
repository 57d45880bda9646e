"""What tests wait, watch and cut with."""

from __future__ import annotations

import time

import nats
import pytest

from holdfast_bus import Bus
from holdfast_bus.connecting import settle
from holdfast_model.events import Event, Family
from holdfast_testkit.proxy import TcpProxy
from holdfast_testkit.told import Told
from holdfast_testkit.waiting import LIMIT, eventually
from holdfast_testkit.watching import Watcher, matches


async def test_eventually_returns_what_came_true_and_says_what_did_not() -> None:
    seen = iter([0, [], "yes"])
    assert await eventually(lambda: next(seen)) == "yes"
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"the door did not .* 0.1 s; last seen: .*shut"):
        await eventually(_shut, within=0.1, what="the door")
    assert time.monotonic() - began < LIMIT


async def _shut() -> bool:
    assert False, "shut"  # noqa: B011, PT015


async def test_a_watcher_sees_events_as_a_user_does(bus: Bus, nats_url: str) -> None:
    async with Watcher(nats_url) as watcher:
        await bus.publish_events(
            [
                Event("1", Family.NODE, "drifted", "acme", "shop", 1.0, {"n": 1}, node="db"),
                Event("2", Family.NODE, "recovered", "acme", "shop", 2.0, {"n": 2}, node="db"),
            ]
        )
        [seen] = await watcher.wait_for("node.acme.*.recovered", n=2)
        assert (seen.data, seen.node) == ({"n": 2}, "db")
        assert [s.subject for s in watcher.on("*.acme.shop.>")] == [
            "node.acme.shop.drifted",
            "node.acme.shop.recovered",
        ]
        with pytest.raises(AssertionError, match="0 of 1"):
            await watcher.wait_for("fault.>", within=0.1)


async def test_an_event_that_is_published_again_is_heard_once(bus: Bus, nats_url: str) -> None:
    client = await nats.connect(nats_url)
    told = Told(client, "acme")
    await told.listen()
    event = Event("1", Family.NODE, "drifted", "acme", "shop", 1.0, {"n": 1}, node="db")
    other = Event("2", Family.NODE, "drifted", "acme", "shop", 2.0, {"n": 2}, node="db")
    for events in ([event], [event], [other]):
        await bus.publish_events(events)
    assert await told.wait_for("node.acme.shop.drifted", 2) == {"n": 2}
    assert told.of("node.acme.shop.drifted") == [{"n": 1}, {"n": 2}]
    await client.close()


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.b.>", "a.c.d", False),
    ],
)
def test_patterns_match_as_in_nats(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected


async def test_a_proxy_cuts_swallows_and_restores(nats_url: str) -> None:
    async with TcpProxy(nats_url) as proxy:
        client = await nats.connect(proxy.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
        direct = await nats.connect(nats_url)
        heard = await direct.subscribe("hello")
        await settle(direct)

        proxy.swallow_replies()
        await client.publish("hello", b"1")
        assert (await heard.next_msg(timeout=LIMIT)).data == b"1"
        with pytest.raises(nats.errors.TimeoutError):
            await client.request("$JS.API.INFO", b"", timeout=0.2)

        proxy.cut()
        await eventually(lambda: not client.is_connected)
        assert proxy.connections == 0
        proxy.restore()
        await eventually(lambda: client.is_connected)
        await client.publish("hello", b"2")
        assert (await heard.next_msg(timeout=LIMIT)).data == b"2"
        await client.close()
        await direct.close()
