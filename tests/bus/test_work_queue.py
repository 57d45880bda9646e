"""Work queues with explicit credit."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from holdfast_bus import Bus, BusSettings, Durable, Outgoing, WorkMessage, WorkQueue
from holdfast_bus.setup import ensure, ensure_step_consumer
from holdfast_bus.streams import step_durable
from holdfast_model.errors import Unavailable
from holdfast_testkit.servers import NatsServer
from holdfast_testkit.waiting import LIMIT, eventually

from .conftest import SMALL, MakeBus

TYPE = "record:a"
STEPS = step_durable("dns", TYPE)


@pytest.fixture
async def durable(raw: Client) -> Durable:
    return await ensure_step_consumer(raw.jetstream(), "dns", TYPE)


async def put(bus: Bus, *bodies: bytes) -> None:
    await bus.publish_many([Outgoing("step.dns.record:a", body, "STEPS") for body in bodies])


async def left(raw: Client) -> int:
    return (await raw.jetstream().stream_info("STEPS")).state.messages


def bodies(messages: list[WorkMessage]) -> list[bytes]:
    return [message.data for message in messages]


async def test_a_fetch_gives_what_is_there_up_to_its_credit(bus: Bus, durable: Durable, raw: Client) -> None:
    await put(bus, *(b"%d" % i for i in range(10)))
    async with bus.work_queue(durable) as queue:
        first = await queue.fetch(3, LIMIT)
        second = await queue.fetch(100, LIMIT)
        assert bodies(first) == [b"0", b"1", b"2"]
        assert bodies(second) == [b"%d" % i for i in range(3, 10)]
        for message in first + second:
            await message.ack()
    await eventually(lambda: _left(raw, 0))


async def _left(raw: Client, count: int) -> bool:
    return await left(raw) == count


async def _waits(raw: Client, durable: Durable) -> bool:
    """Whether a request for messages is open at the server."""
    return bool((await raw.jetstream().consumer_info(durable.stream, durable.name)).num_waiting)


async def test_credit_is_never_exceeded_at_the_server_either(bus: Bus, durable: Durable, raw: Client) -> None:
    await put(bus, *(b"%d" % i for i in range(10)))
    async with bus.work_queue(durable) as queue:
        assert len(await queue.fetch(2, LIMIT)) == 2
        info = await raw.jetstream().consumer_info(durable.stream, durable.name)
        assert info.num_ack_pending == 2
        assert info.num_waiting == 0


async def test_an_empty_queue_is_waited_on_and_answers_at_once(bus: Bus, durable: Durable, raw: Client) -> None:
    async with bus.work_queue(durable) as queue:
        began = time.monotonic()
        assert await queue.fetch(5, 0.3) == []
        assert time.monotonic() - began > 0.25

        waiting = asyncio.create_task(queue.fetch(5, 600))
        await eventually(lambda: _waits(raw, durable))
        await put(bus, b"x")
        async with asyncio.timeout(60):
            assert bodies(await waiting) == [b"x"]


async def test_readers_of_one_queue_share_it_and_all_of_them_wait(
    make_bus: MakeBus, bus: Bus, durable: Durable
) -> None:
    other = make_bus("other")
    await other.start()
    async with bus.work_queue(durable) as one, other.work_queue(durable) as two:
        got: list[bytes] = []

        async def read(queue: WorkQueue) -> int:
            count = 0
            while len(got) < 60:
                for message in await queue.fetch(4, 0.5):
                    got.append(message.data)
                    count += 1
                    await message.ack()
            return count

        readers = [asyncio.create_task(read(queue)) for queue in (one, two)]
        await asyncio.sleep(0.1)
        for i in range(60):
            await put(bus, b"%d" % i)
        counts = await asyncio.gather(*readers)
        assert sorted(got) == sorted(b"%d" % i for i in range(60))
        assert min(counts) > 5


async def test_a_nak_brings_the_message_again_after_its_delay(bus: Bus, durable: Durable) -> None:
    await put(bus, b"x")
    async with bus.work_queue(durable) as queue:
        [message] = await queue.fetch(1, LIMIT)
        assert message.deliveries == 1
        began = time.monotonic()
        await message.nak(0.4)
        [again] = await queue.fetch(1, LIMIT)
        assert time.monotonic() - began >= 0.35
        assert (again.deliveries, again.stream_seq) == (2, message.stream_seq)
        await again.term("no good")


async def test_a_dead_letter_is_copied_and_leaves_the_queue(bus: Bus, durable: Durable, raw: Client) -> None:
    dead = await raw.subscribe("dlq.STEPS")
    await put(bus, b"garbage")
    async with bus.work_queue(durable) as queue:
        [message] = await queue.fetch(1, LIMIT)
        await message.dead_letter("cannot be decoded")
    letter = await dead.next_msg(timeout=LIMIT)
    assert (letter.data, (letter.headers or {})["Holdfast-Reason"]) == (b"garbage", "cannot be decoded")
    await eventually(lambda: _left(raw, 0))


async def test_closing_gives_back_what_was_not_fetched(bus: Bus, make_bus: MakeBus, durable: Durable) -> None:
    queue = bus.work_queue(durable)
    waiting = asyncio.create_task(queue.fetch(1, 10))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await put(bus, b"x")
    await queue.close()
    async with bus.work_queue(durable) as other:
        assert bodies(await other.fetch(1, LIMIT)) == [b"x"]


async def test_a_cancelled_fetch_leaves_no_credit_behind(bus: Bus, durable: Durable, raw: Client) -> None:
    async with bus.work_queue(durable) as queue:
        waiting = asyncio.create_task(queue.fetch(50, 600))
        await eventually(lambda: _waits(raw, durable))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await put(bus, *(b"%d" % i for i in range(20)))
        assert bodies(await queue.fetch(2, LIMIT)) == [b"0", b"1"]
        info = await raw.jetstream().consumer_info(durable.stream, durable.name)
        assert info.num_ack_pending == 2


async def test_a_full_consumer_does_not_hang_and_serves_again_when_acked(bus: Bus, raw: Client) -> None:
    from dataclasses import replace

    from holdfast_bus.setup import ensure_durable

    small = replace(STEPS, max_ack_pending=5)
    await ensure_durable(raw.jetstream(), small)
    await put(bus, *(b"%d" % i for i in range(12)))
    async with bus.work_queue(small) as queue:
        first = await queue.fetch(10, LIMIT)
        assert len(first) == 5
        assert await queue.fetch(10, 0.3) == []
        for message in first:
            await message.ack()
        more = await queue.fetch(3, LIMIT)
        assert bodies(more) == [b"5", b"6", b"7"]

        async def three_are_held() -> bool:
            return (await raw.jetstream().consumer_info(small.stream, small.name)).num_ack_pending == 3

        await eventually(three_are_held)


async def test_a_missing_consumer_is_unavailable_and_said_slowly(bus: Bus, raw: Client) -> None:
    async with bus.work_queue(step_durable("dns", "nothing")) as queue:
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(Unavailable, match="STEPS/step=dns=nothing does not exist"):
                await queue.fetch(1, 0.1)
        assert time.monotonic() - began >= 2


async def test_a_consumer_deleted_under_a_waiting_reader_is_noticed(bus: Bus, durable: Durable, raw: Client) -> None:
    async with bus.work_queue(durable) as queue:
        waiting = asyncio.create_task(queue.fetch(1, 600))
        await eventually(lambda: _waits(raw, durable))
        await raw.jetstream().delete_consumer(durable.stream, durable.name)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, LIMIT)
        await ensure_step_consumer(raw.jetstream(), "dns", TYPE)
        await put(bus, b"x")
        assert bodies(await queue.fetch(1, LIMIT)) == [b"x"]


async def test_a_long_queue_is_fetched_in_full_batches(bus: Bus, durable: Durable, raw: Client) -> None:
    count = 20_000
    await put(bus, *(b"%d" % i for i in range(count)))
    async with bus.work_queue(durable) as queue:
        got = fetches = 0
        while got < count:
            fetches += 1
            for message in await queue.fetch(500, 30):
                await message.ack()
                got += 1
    await eventually(lambda: _left(raw, 0))
    assert fetches <= 2 * count / 500, "a fetch takes what is there, not a few at a time"


async def test_a_reader_that_outlives_its_bus_is_told_slowly(make_bus: MakeBus, durable: Durable) -> None:
    made = make_bus("gone")
    await made.start()
    queue = made.work_queue(durable)
    await made.stop()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await queue.fetch(1, 0.1)
    assert time.monotonic() - began >= 0.9


async def test_a_server_that_comes_back_is_read_from_at_once(own_nats: NatsServer) -> None:
    async with Bus(BusSettings(nats_url=own_nats.url, graceful_timeout=1.0, publish_timeout=0.5), "reader", "1") as bus:
        await ensure(bus.js, SMALL, durables=())
        made = await ensure_step_consumer(bus.js, "dns", TYPE)
        async with bus.work_queue(made) as queue:
            waiting = asyncio.create_task(queue.fetch(1, 600))
            await asyncio.sleep(0.2)
            await own_nats.restart()
            await eventually(lambda: bus.client.is_connected)
            await eventually(lambda: _puts(bus))
            assert bodies(await asyncio.wait_for(waiting, LIMIT)) == [b"x"]


async def _puts(bus: Bus) -> bool:
    try:
        await bus.publish("step.dns.record:a", b"x", stream="STEPS", msg_id="only")
    except Unavailable:
        return False
    return True
