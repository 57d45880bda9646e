"""What can be done over a connection without reading from a stream: ask, publish, hint. A command line needs no more.

Importing this costs a third of what :mod:`holdfast_bus.bus` costs, which brings a framework for services.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from holdfast_model.errors import Permanent, Unavailable
from holdfast_model.events import Event

from . import connecting, subjects, tracing
from .answering import check_reply, encode
from .envelope import encode_event, event_headers
from .foreign import bus_error
from .messages import PubAck
from .objects import ACCEPTS, HEADER, OBJECT, Objects
from .order import last_on
from .publishing import HEADER_ROOM, LAST_SEQUENCE, Outgoing, Publisher
from .settings import BusSettings
from .streams import STREAM_OF_FAMILY

log = logging.getLogger("holdfast.bus")


class Link:
    """Requests and publications over the connection that ``connection`` returns, None while there is none."""

    def __init__(self, connection: Callable[[], Client | None], settings: BusSettings) -> None:
        self.settings = settings
        self._connection = connection
        self.objects = Objects(lambda: self.js)
        self._publisher = Publisher(lambda: self.client, settings.publish_timeout)

    @property
    def client(self) -> Client:
        """The connection. Raises Unavailable while there is none."""
        connection = self._connection()
        if connection is None:
            raise Unavailable("the bus is not connected", retry_after=1.0)
        return connection

    @property
    def js(self) -> JetStreamContext:
        """JetStream, for the set-up of consumers."""
        return self.client.jetstream(timeout=5)

    async def request(self, subject: str, body: object, *, timeout: float) -> bytes:
        """Ask and return the reply's body; ``body`` is bytes or anything msgspec encodes, ``timeout`` in seconds.
        Either may be larger than a message: see :mod:`holdfast_bus.objects`.

        Raises the error in the reply, Permanent if the body is too large for that too, or Unavailable if nobody is
        there or answers in time.
        """
        payload, headers = encode(body), {ACCEPTS: OBJECT}
        if len(payload) > self.client.max_payload - HEADER_ROOM:
            headers[HEADER] = await self.objects.put(payload)
            payload = b""
        try:
            reply = await self.client.request(subject, payload, timeout=timeout, headers=tracing.stamp(headers))
        except (NatsError, TimeoutError) as error:
            raise bus_error(error, f"asking {subject}") from error
        finally:
            if HEADER in headers:
                await self.objects.drop(headers[HEADER])
        answered = (reply.headers or {}).get(HEADER, "")
        if not answered:
            return check_reply(reply.data)
        try:
            return check_reply(await self.objects.get(answered))
        finally:
            await self.objects.drop(answered)

    async def publish_event(self, event: Event) -> None:
        """Publish an event as a CloudEvent and wait until it is stored. Raises Unavailable or Permanent."""
        await self._publisher.publish(_outgoing(event))

    async def publish_events(self, events: Sequence[Event]) -> None:
        """Publish many, pipelined and in order. Returns when all are stored; if it raises, those after the first
        that was not may be stored too: publish all from there again, the ids make that harmless."""
        if events:
            await self._publisher.publish_all([_outgoing(event) for event in events])

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        stream: str,
        msg_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> PubAck:
        """Publish and wait until ``stream`` stored it. For a body that is too large see :meth:`publish_large`.

        Raises Unavailable (the stream is full, the server down, no answer: then it may be stored) or Permanent (too
        large, the subject belongs to another stream). The same ``msg_id`` again is no second message.
        """
        return await self._publisher.publish(Outgoing(subject, body, stream, msg_id, headers))

    async def publish_large(
        self, subject: str, body: bytes, *, stream: str, msg_id: str = "", after: int | None = None
    ) -> tuple[PubAck, str]:
        """Publish a body of any size. Returns the name of its object too, which is dropped by whoever knows that it
        was used (else by its age); empty where a message was enough. With ``after`` (see :meth:`last_on`) only if
        nothing was published on the subject since that sequence. Raises as :meth:`publish` and ``objects.put``, and
        Stale.
        """
        headers = {} if after is None else {LAST_SEQUENCE: str(after)}
        if len(body) <= self.client.max_payload - HEADER_ROOM:
            return await self.publish(subject, body, stream=stream, msg_id=msg_id, headers=headers), ""
        name = await self.objects.put(body)
        try:
            return await self.publish(
                subject, b"", stream=stream, msg_id=msg_id, headers={**headers, HEADER: name}
            ), name
        except Permanent:
            await self.objects.drop(name)
            raise

    async def last_on(self, stream: str, subject: str) -> int:
        """The sequence of the last message on a subject; 0 where there is none. Raises Unavailable."""
        return await last_on(self.client.jsm(timeout=5), stream, subject)

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        """Like :meth:`publish` for many, pipelined and in order; see :meth:`publish_events` for failures."""
        return await self._publisher.publish_all(messages)

    async def hint(self, subject: str, body: bytes = b"") -> None:
        """Publish on core NATS. May be lost, and never raises because of the connection."""
        try:
            await self.client.publish(subject, body, headers=tracing.stamp(None) or None)
        except (NatsError, Unavailable) as error:
            log.debug("hint on %s lost: %s", subject, error)


@asynccontextmanager
async def linked(settings: BusSettings, name: str) -> AsyncIterator[Link]:
    """A link of its own, as long as the block lasts; it reconnects by itself. Raises Unavailable or Permanent when no
    server answers at first."""
    client = await connecting.connect_once(settings, name, stay=True)
    try:
        yield Link(lambda: client, settings)
    finally:
        await connecting.leave(client)


def _outgoing(event: Event) -> Outgoing:
    return Outgoing(
        subjects.event(event),
        encode_event(event),
        STREAM_OF_FAMILY[event.family],
        event.id,
        event_headers(event),
    )
