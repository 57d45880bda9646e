"""Dead letters that the server gave up."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from nats.aio.client import Client

from holdfast_bus import Bus, DeadLetter, Durable, Outgoing, attach_mover
from holdfast_bus.mover import Advisory, move
from holdfast_bus.setup import ensure_durable
from holdfast_bus.streams import DLQ_MOVER, step_durable
from holdfast_model.messages import Action, Outcome, ResultBatch, Step, StepBatch
from holdfast_testkit.waiting import LIMIT, eventually

from .conftest import MakeBus

POISON = replace(step_durable("dns", "record"), max_deliver=3)


def batch(size: int = 3) -> StepBatch:
    steps = [Step(f"n{i}", Action.PROVISION, 7, 1, "record", msgspec.Raw(b'{"a":1}'), f"d{i}") for i in range(size)]
    return StepBatch("b1", "acme", "shop", "inc", 5, 2, "1.0", 0.0, steps)


@pytest.fixture
async def mover(make_bus: MakeBus, raw: Client) -> Bus:
    await ensure_durable(raw.jetstream(), DLQ_MOVER)
    made = make_bus("planner")
    attach_mover(made)
    await made.start()
    return made


async def wear_out(bus: Bus, durable: Durable) -> None:
    """Fetch and nak until the server stops delivering."""
    async with bus.work_queue(durable) as queue:
        for _ in range(durable.max_deliver):
            [message] = await queue.fetch(1, LIMIT)
            await message.nak()
        assert await queue.fetch(1, 0.3) == []


async def count(raw: Client, stream: str) -> int:
    return (await raw.jetstream().stream_info(stream)).state.messages


async def test_poison_on_steps_is_moved_and_answered(mover: Bus, bus: Bus, raw: Client) -> None:
    js = raw.jetstream()
    await ensure_durable(js, POISON)
    body = msgspec.json.encode(batch())
    await bus.publish("step.dns.record", body, stream="STEPS", msg_id="b1")

    await wear_out(bus, POISON)

    await eventually(lambda: _counts(raw, STEPS=0, DLQ=1, RESULTS=1))
    letter = await js.get_msg("DLQ", 1)
    assert letter.data == body
    parsed = DeadLetter.parse(letter.data, letter.headers or {})
    assert (parsed.subject, parsed.deliveries, parsed.msg_id) == ("step.dns.record", 3, "b1")
    result = await js.get_msg("RESULTS", 1)
    assert result.subject == "result.5"
    answer = msgspec.json.decode(result.data or b"", type=ResultBatch)
    assert (answer.batch, answer.graph, answer.incarnation, answer.epoch) == ("b1", "shop", "inc", 2)
    assert [(o.node, o.operation, o.attempt) for o in answer.outcomes] == [(f"n{i}", 7, 1) for i in range(3)]
    assert {(o.outcome, o.reason, o.permanent) for o in answer.outcomes} == {(Outcome.FAILED, "dead_lettered", False)}


async def _counts(raw: Client, **wanted: int) -> bool:
    return {name: await count(raw, name) for name in wanted} == wanted


async def test_poison_that_is_no_batch_is_moved_all_the_same(mover: Bus, bus: Bus, raw: Client) -> None:
    await ensure_durable(raw.jetstream(), POISON)
    await bus.publish("step.dns.record", b"\x00garbage", stream="STEPS")
    await wear_out(bus, POISON)
    await eventually(lambda: _counts(raw, STEPS=0, DLQ=1, RESULTS=0))


async def test_a_dead_message_of_an_event_stream_stays_for_other_readers(mover: Bus, bus: Bus, raw: Client) -> None:
    reader = Durable(stream="EVENTS", name="someone", max_deliver=1)
    await ensure_durable(raw.jetstream(), reader)
    await bus.publish("node.acme.shop.drifted", b"{}", stream="EVENTS")
    async with bus.work_queue(reader) as queue:
        [message] = await queue.fetch(1, LIMIT)
        await message.nak()
        assert await queue.fetch(1, 0.3) == []
    await eventually(lambda: _counts(raw, EVENTS=1, DLQ=1))


async def test_moving_twice_changes_nothing(bus: Bus, raw: Client) -> None:
    await bus.publish("step.dns.record", msgspec.json.encode(batch()), stream="STEPS")
    advisory = Advisory("STEPS", "step=dns=record", 1, 20)
    await move(bus, advisory)
    await move(bus, advisory)
    assert await _counts(raw, STEPS=0, DLQ=1, RESULTS=1)


async def test_a_move_that_was_interrupted_is_finished(bus: Bus, raw: Client) -> None:
    await bus.publish("step.dns.record", msgspec.json.encode(batch()), stream="STEPS")
    advisory = Advisory("STEPS", "step=dns=record", 1, 20)
    letter = DeadLetter(
        stream="STEPS",
        seq=1,
        consumer="step=dns=record",
        subject="step.dns.record",
        payload=b"",
        reason="",
        deliveries=1,
        failed=0.0,
    )
    await bus.publish_many([Outgoing("dlq.STEPS", b"copied already", "DLQ", letter.id)])
    await move(bus, advisory)
    assert await _counts(raw, STEPS=0, DLQ=1, RESULTS=1)


async def test_what_a_handler_buried_is_not_moved_again(mover: Bus, bus: Bus, raw: Client) -> None:
    js = raw.jetstream()
    await ensure_durable(js, POISON)
    reader = Durable(stream="BLUEPRINTS", name="someone")
    await ensure_durable(js, reader)
    await bus.publish("blueprint.acme.shop", b"bad", stream="BLUEPRINTS")
    async with bus.work_queue(reader) as queue:
        [message] = await queue.fetch(1, LIMIT)
        await message.dead_letter("no good")
    await eventually(lambda: _counts(raw, ADVISORIES=1, DLQ=1, BLUEPRINTS=1))
    advisory = json.loads((await js.get_msg("ADVISORIES", 1)).data or b"")
    assert advisory["reason"] == "dead-lettered: no good"
    await eventually(lambda: _idle(raw))
    assert await count(raw, "DLQ") == 1


async def _idle(raw: Client) -> bool:
    info = await raw.jetstream().consumer_info(DLQ_MOVER.stream, DLQ_MOVER.name)
    return (info.num_pending, info.num_ack_pending) == (0, 0)


async def test_an_advisory_that_cannot_be_read_does_not_stop_the_mover(mover: Bus, bus: Bus, raw: Client) -> None:
    await ensure_durable(raw.jetstream(), POISON)
    subject = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.X.y"
    await raw.publish(subject, b"nonsense")
    await bus.publish("step.dns.record", b"garbage", stream="STEPS")
    await wear_out(bus, POISON)
    await eventually(lambda: _counts(raw, STEPS=0, DLQ=2))
