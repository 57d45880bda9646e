"""What becomes of a message after its handler: the one place that acks, naks and dead-letters.

::

    returned      ack
    Unavailable   nak, and stop fetching until it is over
    Temporary     nak, after retry_after or a growing pause
    Permanent     copy to the DLQ, then term
    cancelled     nak at once (somebody else takes it)
    anything else nak after a growing pause: a bug must not lose a message, and an outage may look like one
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from faststream import BaseMiddleware
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from holdfast_model.errors import HoldfastError, Permanent, Temporary, Unavailable

from .dead_letters import DeadLetter
from .envelope import delivered_by, is_delivery
from .work import BURIED, terminate

if TYPE_CHECKING:
    from faststream._internal.context.repository import ContextRepo
    from faststream.message import StreamMessage

log = logging.getLogger("holdfast.bus")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0


class Fate(Enum):
    ACK = auto()
    NAK = auto()
    DEAD_LETTER = auto()


@dataclass(frozen=True)
class Verdict:
    """``delay`` in seconds; ``outage``: stop fetching until it is over; ``expected``: no traceback is needed."""

    fate: Fate
    delay: float = 0.0
    outage: bool = False
    expected: bool = True


def judge(error: BaseException | None, deliveries: int, spread: float) -> Verdict:
    """What to do with a message. ``spread`` within 0..1 makes the pauses of many messages differ."""
    if error is None:
        return Verdict(Fate.ACK)
    if isinstance(error, asyncio.CancelledError):
        return Verdict(Fate.NAK)
    if isinstance(error, Permanent | RecursionError):  # the latter: its body is nested deeper than anybody can read
        return Verdict(Fate.DEAD_LETTER)
    delay = growing(deliveries, spread)
    if isinstance(error, Temporary):
        if error.retry_after is not None:
            delay = max(0.0, error.retry_after)
        return Verdict(Fate.NAK, delay, outage=isinstance(error, Unavailable))
    return Verdict(Fate.NAK, delay, expected=isinstance(error, HoldfastError))


def growing(deliveries: int, spread: float) -> float:
    """The pause after the n-th failed delivery: doubling from half a second to a minute, half of it random."""
    full = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(max(deliveries, 1) - 1, 16))
    return full * (0.5 + spread / 2)


class Delivery:
    """A FastStream middleware factory: applies :func:`judge` to everything JetStream delivers."""

    def __init__(self, service: str, bury: Callable[[DeadLetter], Awaitable[None]]) -> None:
        self.service = service
        self._bury = bury

    def __call__(self, msg: Any, /, *, context: ContextRepo) -> DeliveryMiddleware:
        return DeliveryMiddleware(msg, context=context, delivery=self)

    async def carry_out(self, verdict: Verdict, msg: Msg, error: BaseException | None) -> None:
        """Tell the server. Raises nothing about a connection that is down: then the message comes again."""
        try:
            if verdict.fate is Fate.ACK:
                await msg.ack()
                return
            if verdict.fate is Fate.DEAD_LETTER:
                reason = _reason(error)
                await self._bury(DeadLetter.of(msg, reason, time.time(), self.service))
                await terminate(msg, f"{BURIED} {reason}")
                return
            await msg.nak(verdict.delay or None)
        except Temporary as problem:
            # The dead letter could not be stored. Without a copy the original must stay.
            log.warning("a dead letter waits: %s", problem)
            await self.carry_out(Verdict(Fate.NAK, LONGEST_PAUSE), msg, error)
        except NatsError as problem:
            log.warning("the server was not told about a message on %s: %s", msg.subject, problem)


class DeliveryMiddleware(BaseMiddleware[Any, Any]):
    """One message on its way through a handler."""

    def __init__(self, msg: Any, /, *, context: ContextRepo, delivery: Delivery) -> None:
        super().__init__(msg, context=context)
        self._delivery = delivery

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:
        raw: Msg = msg.raw_message
        if not is_delivery(raw.reply):
            return await call_next(msg)
        error: BaseException | None = None
        try:
            await call_next(msg)
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001  judged below
            error = raised
        stream, consumer, seq, deliveries = delivered_by(raw.reply)
        verdict = judge(error, deliveries, random.random())
        if error is not None:
            where = f"{stream}/{consumer} message {seq} on {raw.subject} (delivery {deliveries})"
            _tell(verdict, where, error)
        await self._delivery.carry_out(verdict, raw, error)
        reader = self.context.get_local("handler_")
        if verdict.outage and hasattr(reader, "outage"):
            reader.outage()
        if isinstance(error, asyncio.CancelledError):
            raise error
        return None


def _tell(verdict: Verdict, where: str, error: BaseException) -> None:
    if verdict.fate is Fate.DEAD_LETTER:
        log.warning("%s is dead: %s", where, _reason(error))
    elif not verdict.expected:
        log.error("%s failed, again in %.1f s", where, verdict.delay, exc_info=error)
    else:
        log.info("%s put back for %.1f s: %s", where, verdict.delay, _reason(error))


def _reason(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"
