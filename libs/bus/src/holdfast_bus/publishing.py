"""Publishing to streams: one message, or many at once without waiting for each."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoStreamResponseError

from holdfast_model.errors import HoldfastError, Permanent, Unavailable

from . import tracing
from .envelope import MSG_ID
from .foreign import bus_error
from .messages import PubAck

WINDOW = 512
"""Messages that may be under way without an answer."""
RETRIES = (0.1, 0.25, 0.5, 1.0)
"""Pauses between tries while no stream answers, as during an election. The message id makes a retry harmless."""
HEADER_ROOM = 8192
"""Bytes of a message to keep free for headers: the server counts them, and hangs up on what is too large."""
_EXPECTED = "Nats-Expected-Stream"
LAST_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"


class Outgoing(NamedTuple):
    """One message for a stream. Without a ``msg_id`` it gets a random one, so that a retry is no second message."""

    subject: str
    body: bytes
    stream: str
    msg_id: str = ""
    headers: Mapping[str, str] | None = None

    def to_headers(self) -> dict[str, str]:
        headers = tracing.stamp(self.headers)
        headers[MSG_ID] = self.msg_id or headers.get(MSG_ID) or uuid.uuid4().hex
        headers[_EXPECTED] = self.stream
        return headers


class Publisher:
    """Publishes over one connection, all answers coming back to one inbox."""

    def __init__(self, client: Callable[[], Client], timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._waiting: dict[str, asyncio.Future[PubAck]] = {}
        self._count = 0
        self._opening = asyncio.Lock()
        self._window = asyncio.Semaphore(WINDOW)

    async def publish(self, message: Outgoing) -> PubAck:
        """Publish one and wait until it is stored. Raises Unavailable or Permanent."""
        headers = message.to_headers()
        for pause in (*RETRIES, None):
            try:
                return await self._send(message, headers)
            except NoStreamResponseError as error:
                if pause is None:
                    raise self._failed(message, error) from error
                await asyncio.sleep(pause)
            except (NatsError, TimeoutError) as error:
                raise self._failed(message, error) from error
        raise Unavailable(f"publishing on {message.subject}: no stream takes this subject")

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        """Publish many in order, up to WINDOW under way. Raises the first failure after all have ended; those
        after it may be stored, so send all again from the first that was not, with the same ids."""
        acks: list[PubAck] = []
        for start in range(0, len(messages), WINDOW):
            batch = messages[start : start + WINDOW]
            sent = [await self._start(m, m.to_headers()) for m in batch]
            try:
                async with asyncio.timeout(self._timeout):
                    results = await asyncio.gather(*sent, return_exceptions=True)
            except TimeoutError as error:
                raise Unavailable(
                    f"publishing {len(batch)} messages: not all were stored within {self._timeout:g} s", retry_after=1.0
                ) from error
            for message, result in zip(batch, results, strict=True):
                if isinstance(result, BaseException):
                    raise self._failed(message, result) from result
                acks.append(result)
        return acks

    async def _send(self, message: Outgoing, headers: dict[str, str]) -> PubAck:
        future = await self._start(message, headers)
        async with asyncio.timeout(self._timeout):
            return await future

    async def _start(self, message: Outgoing, headers: dict[str, str]) -> asyncio.Future[PubAck]:
        client = self._client()
        if len(message.body) + header_size(headers) > client.max_payload:
            raise Permanent(f"publishing on {message.subject}: the message is larger than the server takes")
        if self._subscription is None:
            await self._open(client)
        self._count += 1
        token = str(self._count)
        future: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: self._forget(token, done))
        self._waiting[token] = future
        try:
            await client.publish(message.subject, message.body, reply=f"{self._inbox}.{token}", headers=headers)
        except NatsError as error:
            future.set_exception(error)
        return future

    async def _open(self, client: Client) -> None:
        async with self._opening:
            if self._subscription is None:
                self._inbox = client.new_inbox()
                self._subscription = await client.subscribe(f"{self._inbox}.*", cb=self._answered)

    async def _answered(self, msg: Msg) -> None:
        future = self._waiting.get(msg.subject.rpartition(".")[2])
        if future is None or future.done():
            return
        if msg.headers and msg.headers.get("Status") == "503":
            future.set_exception(NoStreamResponseError())
            return
        reply = json.loads(msg.data)
        if problem := reply.get("error"):
            future.set_exception(APIError(problem.get("code"), problem.get("description"), problem.get("err_code")))
            return
        future.set_result(PubAck(reply["stream"], reply["seq"], reply.get("duplicate", False)))

    def _forget(self, token: str, done: asyncio.Future[PubAck]) -> None:
        self._waiting.pop(token, None)
        if not done.cancelled():
            done.exception()  # seen: a failure nobody waits for any more is no warning

    def _failed(self, message: Outgoing, error: BaseException) -> HoldfastError:
        return bus_error(error, f"publishing on {message.subject}")


def header_size(headers: Mapping[str, str]) -> int:
    """Bytes the headers take in a message."""
    return 16 + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
