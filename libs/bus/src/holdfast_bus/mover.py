"""The mover of dead letters: what the server gave up is copied to ``dlq.<stream>``, and leaves its work queue.

The server says so in an advisory that carries a sequence but no payload. Messages that a handler gave up are in the
DLQ already; their advisory says that too. Steps of a dead batch are answered as failed, so that the planner sends
them again, one by one: the batch may hold a single step that kills its provisioner.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec
from nats.errors import Error as NatsError
from nats.js.api import RawStreamMsg

from holdfast_model.errors import Invalid, NotFound
from holdfast_model.messages import Outcome, ResultBatch, StepBatch, StepOutcome
from holdfast_model.reasons import Reason

from . import subjects
from .dead_letters import DeadLetter
from .envelope import MSG_ID
from .foreign import bus_error
from .messages import Inbound
from .streams import DLQ, DLQ_MOVER, RESULTS, STEPS, STREAMS
from .work import BURIED

if TYPE_CHECKING:
    from .bus import Bus

log = logging.getLogger("holdfast.mover")

WORK_QUEUES = frozenset(stream.name for stream in STREAMS if stream.work_queue)


class Advisory(msgspec.Struct):
    """The server's word that it will not deliver a message again."""

    stream: str
    consumer: str
    stream_seq: int
    deliveries: int = 0
    reason: str = ""


def attach_mover(bus: Bus) -> None:
    """Let this process move dead letters. Several may: each advisory goes to one of them."""

    @bus.consume(DLQ_MOVER)
    async def move_dead_letter(message: Inbound) -> None:
        """Copies what was delivered too often to the DLQ."""
        try:
            advisory = msgspec.json.decode(message.data, type=Advisory)
        except msgspec.MsgspecError as error:
            raise Invalid(f"the advisory on {message.subject} cannot be read: {error}") from error
        await move(bus, advisory)


async def move(bus: Bus, advisory: Advisory) -> None:
    """Copy, answer, delete; safe to run twice, because the copies have ids and what is gone is not copied again."""
    if advisory.reason.startswith(BURIED) or advisory.stream in (DLQ.name, DLQ_MOVER.stream):
        return
    raw = await _original(bus, advisory)
    if raw is None:
        log.info("message %d of %s is gone already", advisory.stream_seq, advisory.stream)
        return
    letter = _letter(raw, advisory)
    await bus.publish_many([letter.outgoing(bus.client.max_payload)])
    if advisory.stream == STEPS.name:
        await _answer(bus, letter)
    if advisory.stream in WORK_QUEUES:
        await _delete(bus, advisory)
    log.warning("%s message %d on %s is dead: %s", letter.stream, letter.seq, letter.subject, letter.reason)


def failed_results(batch: StepBatch, letter: DeadLetter) -> ResultBatch:
    """The answer to a dead batch: every step failed, none for ever."""
    detail = f"the batch was given up: {letter.reason}"
    return ResultBatch(
        batch=batch.batch,
        tenant=batch.tenant,
        graph=batch.graph,
        incarnation=batch.incarnation,
        epoch=batch.epoch,
        outcomes=[
            StepOutcome(
                step.node, step.operation, step.attempt, Outcome.FAILED, reason=Reason.DEAD_LETTERED, detail=detail
            )
            for step in batch.steps
        ],
    )


async def _answer(bus: Bus, letter: DeadLetter) -> None:
    try:
        batch = msgspec.json.decode(letter.payload, type=StepBatch)
        target = subjects.result(batch.partition)
    except (msgspec.MsgspecError, Invalid) as error:
        log.error("the dead message %d of STEPS is no batch, nobody can be told: %s", letter.seq, error)
        return
    body = msgspec.json.encode(failed_results(batch, letter))
    await bus.publish(target, body, stream=RESULTS.name, msg_id=f"dead:{letter.id}")


async def _original(bus: Bus, advisory: Advisory) -> RawStreamMsg | None:
    try:
        return await bus.js.get_msg(advisory.stream, advisory.stream_seq)
    except (NatsError, TimeoutError) as error:
        problem = bus_error(error, f"reading message {advisory.stream_seq} of {advisory.stream}")
        if isinstance(problem, NotFound):
            return None
        raise problem from error


async def _delete(bus: Bus, advisory: Advisory) -> None:
    try:
        await bus.js.delete_msg(advisory.stream, advisory.stream_seq)
    except (NatsError, TimeoutError) as error:
        problem = bus_error(error, f"deleting message {advisory.stream_seq} of {advisory.stream}")
        # "no message found" when it is gone already comes as code 10057 without a status of its own.
        if getattr(error, "err_code", None) not in {10037, 10057} and not isinstance(problem, NotFound):
            raise problem from error


def _letter(raw: RawStreamMsg, advisory: Advisory) -> DeadLetter:
    headers = raw.headers or {}
    return DeadLetter(
        stream=advisory.stream,
        seq=advisory.stream_seq,
        consumer=advisory.consumer,
        subject=raw.subject or "",
        payload=raw.data or b"",
        reason=advisory.reason or f"delivered {advisory.deliveries} times without an acknowledgement",
        deliveries=advisory.deliveries,
        failed=time.time(),
        msg_id=headers.get(MSG_ID, ""),
        headers=headers,
    )
