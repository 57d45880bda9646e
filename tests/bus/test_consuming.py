"""What becomes of messages: acks, pauses, dead letters, fan-out and outages."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from holdfast_bus import Bus, DeadLetter, Durable, Inbound
from holdfast_bus.setup import ensure_durable
from holdfast_model.errors import Permanent, Temporary, Unavailable
from holdfast_testkit.waiting import LIMIT, eventually

from .conftest import MakeBus

READER = Durable(stream="BLUEPRINTS", name="reader")
OTHER = Durable(stream="BLUEPRINTS", name="other")


async def consumers(raw: Client, *durables: Durable) -> None:
    for durable in durables:
        await ensure_durable(raw.jetstream(), durable)


async def publish(raw: Client, *bodies: bytes) -> None:
    for body in bodies:
        await raw.jetstream().publish("blueprint.acme.shop", body)


async def pending(raw: Client, durable: Durable = READER) -> int:
    info = await raw.jetstream().consumer_info(durable.stream, durable.name)
    return (info.num_ack_pending or 0) + (info.num_pending or 0)


async def test_a_handler_gets_the_message_as_it_was_and_returning_acks(raw: Client, make_bus: MakeBus) -> None:
    await consumers(raw, READER)
    bus = make_bus()
    seen: list[Inbound] = []

    @bus.consume(READER)
    async def handle(message: Inbound) -> None:
        seen.append(message)

    await bus.start()
    began = time.time()
    await publish(raw, b"nodes: [not: json")

    await eventually(lambda: seen)
    await eventually(lambda: _none(raw))
    [message] = seen
    assert message.data == b"nodes: [not: json"
    assert (message.subject, message.stream, message.stream_seq) == ("blueprint.acme.shop", "BLUEPRINTS", 1)
    assert (message.deliveries, message.id) == (1, "BLUEPRINTS:1")
    assert message.stream_created
    assert message.time is not None
    assert began - 1 < message.time.timestamp() < time.time() + 1


async def _none(raw: Client) -> bool:
    return await pending(raw) == 0


async def test_services_fan_out_and_replicas_of_one_service_share(raw: Client, make_bus: MakeBus) -> None:
    await consumers(raw, READER, OTHER)
    got: dict[str, list[bytes]] = {"reader-1": [], "reader-2": [], "other": []}
    both = asyncio.Event()
    for name, durable in (("reader-1", READER), ("reader-2", READER), ("other", OTHER)):
        bus = make_bus(name)

        def register(bus: Bus, name: str, durable: Durable) -> None:
            @bus.consume(durable)
            async def handle(message: Inbound) -> None:
                got[name].append(message.data)
                if got["reader-1"] and got["reader-2"]:
                    both.set()
                if durable is READER:  # who is at work takes nothing from the other
                    await both.wait()

        register(bus, name, durable)
        await bus.start()

    bodies = [b"%d" % i for i in range(40)]
    await publish(raw, *bodies)

    await eventually(lambda: len(got["reader-1"]) + len(got["reader-2"]) == 40)
    await eventually(lambda: len(got["other"]) == 40)
    assert sorted(got["reader-1"] + got["reader-2"]) == sorted(bodies)
    assert got["reader-1"]
    assert got["reader-2"]


async def test_no_more_messages_are_in_work_than_the_concurrency(raw: Client, make_bus: MakeBus) -> None:
    await consumers(raw, READER)
    bus = make_bus()
    now = most = done = 0
    three = asyncio.Event()

    @bus.consume(READER, concurrency=3)
    async def handle(message: Inbound) -> None:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        if now == 3:
            three.set()
        await three.wait()
        await asyncio.sleep(0.02)
        now -= 1
        done += 1

    await bus.start()
    await publish(raw, *(b"%d" % i for i in range(12)))
    await eventually(lambda: done == 12)
    assert most == 3


async def test_temporary_comes_again_after_the_time_it_names(raw: Client, make_bus: MakeBus) -> None:
    await consumers(raw, READER)
    bus = make_bus()
    times: list[float] = []

    @bus.consume(READER)
    async def handle(message: Inbound) -> None:
        times.append(time.monotonic())
        assert message.deliveries == len(times)
        if len(times) < 3:
            raise Temporary("not yet", retry_after=0.3)

    await bus.start()
    await publish(raw, b"x")
    await eventually(lambda: len(times) == 3)
    assert times[1] - times[0] >= 0.29
    assert times[2] - times[1] >= 0.29


async def test_a_bug_in_a_handler_does_not_lose_the_message_nor_stop_others(raw: Client, make_bus: MakeBus) -> None:
    await consumers(raw, READER)
    bus = make_bus()
    seen: list[bytes] = []

    @bus.consume(READER)
    async def handle(message: Inbound) -> None:
        seen.append(message.data)
        if message.data == b"bad" and seen.count(b"bad") < 2:
            raise ZeroDivisionError

    await bus.start()
    await publish(raw, b"bad", b"good")
    await eventually(lambda: len(seen) == 3)
    assert (seen[0], sorted(seen)) == (b"bad", [b"bad", b"bad", b"good"])


async def test_permanent_goes_to_the_dead_letters_with_its_reason_and_is_not_delivered_again(
    raw: Client, make_bus: MakeBus
) -> None:
    await consumers(raw, READER)
    dead = await raw.subscribe("dlq.BLUEPRINTS")
    bus = make_bus("planner")
    seen: list[bytes] = []

    @bus.consume(READER)
    async def handle(message: Inbound) -> None:
        seen.append(message.data)
        if message.data == b"\xff\x00poison":
            raise Permanent("this\ncannot work")

    await bus.start()
    await publish(raw, b"\xff\x00poison", b"next")

    letter = await dead.next_msg(timeout=LIMIT)
    assert letter.data == b"\xff\x00poison"
    assert letter.headers
    assert letter.headers["Holdfast-Subject"] == "blueprint.acme.shop"
    assert letter.headers["Holdfast-Reason"] == "Permanent: this cannot work"
    assert letter.headers["Holdfast-Deliveries"] == "1"
    assert letter.headers["Holdfast-Service"] == "planner"
    parsed = DeadLetter.parse(letter.data, letter.headers)
    assert (parsed.stream, parsed.seq, parsed.consumer) == ("BLUEPRINTS", 1, "reader")
    await eventually(lambda: seen == [b"\xff\x00poison", b"next"])
    await eventually(lambda: _none(raw))


async def test_a_dead_letter_of_the_largest_size_is_cut_and_does_not_cost_the_connection(
    raw: Client, make_bus: MakeBus
) -> None:
    await consumers(raw, READER)
    dead = await raw.subscribe("dlq.BLUEPRINTS")
    bus = make_bus("planner")

    @bus.consume(READER)
    async def handle(message: Inbound) -> None:
        raise Permanent("no")

    await bus.start()
    await publish(raw, b"x" * raw.max_payload)
    letter = await dead.next_msg(timeout=LIMIT)
    assert (letter.headers or {})["Holdfast-Truncated"] == str(raw.max_payload)
    await eventually(lambda: _none(raw))
    with pytest.raises(Permanent, match="larger"):
        await bus.publish("state.a.b", b"x" * raw.max_payload, stream="STATE")
    with pytest.raises(Unavailable, match="nobody"):  # a larger question goes by the object store
        await bus.request("rpc.planner.get", b"x" * raw.max_payload, timeout=1)
    assert not bus.closed.is_set()


async def test_an_outage_stops_fetching_until_the_probe_succeeds(raw: Client, make_bus: MakeBus) -> None:
    await consumers(raw, READER)
    bus = make_bus()
    down = True
    calls: list[bytes] = []
    probes = 0

    async def store() -> None:
        nonlocal probes
        probes += 1
        if down:
            raise Unavailable("the store is down")

    bus.probes.append(store)

    @bus.consume(READER, concurrency=1)
    async def handle(message: Inbound) -> None:
        calls.append(message.data)
        if down:
            raise Unavailable("the store is down", retry_after=0.1)

    await bus.start()
    await publish(raw, *(b"%d" % i for i in range(10)))

    await eventually(lambda: probes >= 3)
    assert len(calls) == 1  # one message met the outage, the other nine were left alone
    down = False
    await eventually(lambda: set(calls) == {b"%d" % i for i in range(10)})
    await eventually(lambda: _none(raw))


async def test_a_long_handler_keeps_its_message(raw: Client, make_bus: MakeBus) -> None:
    quick = Durable(stream="BLUEPRINTS", name="quick", ack_wait=4.0)
    await consumers(raw, quick)
    bus = make_bus()
    calls = 0

    @bus.consume(quick)
    async def handle(message: Inbound) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(9.0)

    await bus.start()
    await publish(raw, b"x")
    await eventually(lambda: _drained(raw, quick))
    assert calls == 1


async def _drained(raw: Client, durable: Durable) -> bool:
    info = await raw.jetstream().consumer_info(durable.stream, durable.name)
    return info.ack_floor is not None and info.ack_floor.stream_seq == 1


async def test_stopping_gives_back_what_did_not_end_in_time(raw: Client, make_bus: MakeBus) -> None:
    await consumers(raw, Durable(stream="BLUEPRINTS", name="reader", ack_wait=60))
    slow = Durable(stream="BLUEPRINTS", name="reader", ack_wait=60)
    first, second = make_bus("a"), make_bus("b")
    started = asyncio.Event()
    finished: list[bytes] = []

    @first.consume(slow)
    async def hang(message: Inbound) -> None:
        started.set()
        await asyncio.sleep(60)

    @second.consume(slow)
    async def handle(message: Inbound) -> None:
        finished.append(message.data)

    await first.start()
    await publish(raw, b"x")
    await asyncio.wait_for(started.wait(), 60)
    await second.start()
    await first.stop()
    await eventually(lambda: finished == [b"x"])


async def test_a_deleted_consumer_makes_no_hot_loop_and_reading_goes_on_when_it_is_back(
    raw: Client, make_bus: MakeBus
) -> None:
    await consumers(raw, READER)
    bus = make_bus()
    seen: list[bytes] = []

    @bus.consume(READER)
    async def handle(message: Inbound) -> None:
        seen.append(message.data)

    await bus.start()
    await publish(raw, b"1")
    await eventually(lambda: seen == [b"1"])
    await raw.jetstream().delete_consumer(READER.stream, READER.name)

    requests = 0

    async def count(_: object) -> None:
        nonlocal requests
        requests += 1

    watch = await raw.subscribe("$JS.API.>", cb=count)
    began = time.monotonic()
    await asyncio.sleep(1.5)
    await eventually(lambda: requests >= 1)
    assert requests <= 14 * (time.monotonic() - began)
    await watch.unsubscribe()

    await publish(raw, b"2")
    await consumers(raw, READER)
    await eventually(lambda: b"2" in seen)


@pytest.mark.parametrize("again", [True, False])
async def test_core_listeners_get_messages_and_survive_errors(raw: Client, make_bus: MakeBus, again: bool) -> None:
    bus = make_bus()
    seen: list[bytes] = []

    @bus.listen("planner.3", queue="planner" if again else "")
    async def hint(message: Inbound) -> None:
        seen.append(message.data)
        if message.data == b"1":
            raise ValueError("never mind")

    await bus.start()
    await raw.flush()
    await raw.publish("planner.3", b"1")
    await raw.publish("planner.3", b"2")
    await eventually(lambda: seen == [b"1", b"2"])
