"""Work queues with explicit credit: the reader says how many messages it has room for.

For readers that batch, schedule and acknowledge on their own: the SDK (steps) and the planner (results). Everything
else uses :meth:`Bus.consume`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from .dead_letters import DeadLetter
from .envelope import delivered_by
from .foreign import bus_error
from .pulling import Puller
from .streams import Durable

Bury = Callable[[DeadLetter], Awaitable[None]]


class WorkMessage:
    """One message of a work queue.

    Exactly one of ack, nak, term or dead_letter ends it; in_progress restarts its ack_wait. Each of them only
    tells the server and may get lost with the connection: then the message comes again.
    """

    __slots__ = ("_bury", "_msg", "deliveries", "stream_seq")

    def __init__(self, msg: Msg, bury: Bury) -> None:
        self._msg = msg
        self._bury = bury
        _, _, self.stream_seq, self.deliveries = delivered_by(msg.reply)

    @property
    def subject(self) -> str:
        return self._msg.subject

    @property
    def data(self) -> bytes:
        return self._msg.data

    @property
    def headers(self) -> dict[str, str]:
        return self._msg.headers or {}

    async def ack(self) -> None:
        """Done: the message leaves the queue."""
        await self._tell(self._msg.ack, "acknowledging")

    async def nak(self, delay: float = 0.0) -> None:
        """Not done: the message comes again, to any reader, after ``delay`` seconds."""
        await self._tell(lambda: self._msg.nak(delay or None), "giving back")

    async def in_progress(self) -> None:
        """Still at it: the message is not given to anybody else for another ack_wait."""
        await self._tell(self._msg.in_progress, "heartbeating")

    async def term(self, reason: str = "") -> None:
        """Never again. ``reason`` shows up in the server's advisory."""
        await self._tell(lambda: terminate(self._msg, reason), "terminating")

    async def dead_letter(self, reason: str) -> None:
        """Copy the message to the DLQ, then end it."""
        await self._bury(DeadLetter.of(self._msg, reason, time.time()))
        await self.term(f"{BURIED} {reason}")

    async def _tell(self, word: Callable[[], Awaitable[None]], doing: str) -> None:
        try:
            await word()
        except NatsError as error:
            raise bus_error(error, f"{doing} message {self.stream_seq} on {self.subject}") from error


BURIED = "dead-lettered:"
"""How the reason of a termination begins when the message is in the DLQ already."""


async def terminate(msg: Msg, reason: str = "") -> None:
    """Term with a reason, which the client cannot send."""
    one_line = " ".join(reason.split())[:200]
    await msg._client.publish(msg.reply, f"+TERM {one_line}".strip().encode())
    msg._ackd = True


class WorkQueue:
    """Pulls from one durable with explicit credit. Use as an async context manager, or close it."""

    def __init__(self, puller: Puller, bury: Bury, closed: Callable[[WorkQueue], None]) -> None:
        self.puller = puller
        self._bury = bury
        self._closed = closed

    @property
    def durable(self) -> Durable:
        return self.puller.durable

    async def fetch(self, n: int, wait: float) -> list[WorkMessage]:
        """Up to ``n`` messages: at once if there are any, else the first that comes within ``wait`` seconds.

        Returns [] after ``wait``. Raises Unavailable (after ``wait``, and never within less than a second) when
        the consumer does not exist or the server does not answer.
        """
        return [WorkMessage(msg, self._bury) for msg in await self.puller.fetch(n, wait)]

    async def close(self) -> None:
        """Stop pulling and give back (nak) what was delivered but not fetched."""
        self._closed(self)
        await self.puller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
