"""The bus as services see it: consume, listen, answer, ask and publish."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from faststream.middlewares import AckPolicy
from faststream.nats import NatsBroker, NatsCredentials, NatsNKey
from faststream.nats.broker.broker import UNRECOVERABLE_CONNECT_ERRORS
from faststream.nats.broker.registrator import NatsRegistrator
from faststream.nats.message import NatsMessage
from faststream.nats.response import NatsResponse
from faststream.security import BaseSecurity, SASLPlaintext
from nats.aio.client import Client
from nats.errors import Error as NatsError

from holdfast_model.errors import HoldfastError, to_body

from . import connecting, tracing
from .answering import ErrorReply, RpcHandler, answer, encode
from .consuming import Check, DurableSubscriber, concrete
from .dead_letters import DeadLetter
from .delivery import Delivery
from .envelope import open_message
from .foreign import bus_error
from .link import Link
from .logs import FASTSTREAM
from .messages import Inbound
from .objects import ACCEPTS, HEADER, MAX_SIZE, OBJECT
from .order import follows_undecided
from .publishing import HEADER_ROOM
from .pulling import Puller
from .settings import BusSettings
from .streams import STREAMS, Durable
from .work import WorkQueue

if TYPE_CHECKING:
    from faststream._internal.broker.registrator import Registrator
    from faststream.nats.configs import NatsBrokerConfig

    from .service import ServiceApp

log = logging.getLogger("holdfast.bus")

Handler = Callable[[Inbound], Awaitable[None]]

QUIET_PERIOD = 30.0
"""The same complaint about the connection is logged once in so many seconds."""


class Bus(Link):
    """One connection of one process, and everything that is done over it.

    ``service`` names the process to the server and is its queue group. A service runs ``bus.app(...)``; where there
    is no service (CLI, tests) use ``async with bus``. Handlers are registered before it starts.
    """

    def __init__(self, settings: BusSettings, service: str, version: str) -> None:
        super().__init__(self._connected_client, settings)
        self.service = service
        self.version = version
        self.closed = asyncio.Event()
        """Set when the client gave up for good: the process must end."""
        self.probes: list[Check] = []
        """What must work before fetching goes on after an outage; :meth:`app` adds its readiness checks."""
        self._stopping = False
        self._complained: dict[str, float] = {}
        self._pullers: list[Puller] = []
        self._queues: list[WorkQueue] = []
        self.broker = NatsBroker(
            connecting.servers(settings),
            name=f"{service}/{version}",
            security=_security(settings),
            connect_timeout=connecting.CONNECT_TIMEOUT,
            reconnect_time_wait=cast(int, connecting.RECONNECT_WAIT),
            max_reconnect_attempts=-1,
            ping_interval=connecting.PING_INTERVAL,
            max_outstanding_pings=connecting.OUTSTANDING_PINGS,
            pending_size=connecting.MAX_PENDING,
            drain_timeout=max(1, int(settings.graceful_timeout)),
            inbox_prefix=connecting.inbox_prefix(service),
            graceful_timeout=settings.graceful_timeout,
            ack_policy=AckPolicy.MANUAL,
            apply_types=False,
            middlewares=[Delivery(service, self._bury)],
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
            closed_cb=self._on_close,
            logger=logging.getLogger(FASTSTREAM),
            log_level=logging.DEBUG,
            description=f"Holdfast: {service}",
        )

    def _connected_client(self) -> Client | None:
        return cast("Client | None", self.broker.config.connection_state._connection)

    @property
    def connected(self) -> bool:
        """Whether :meth:`connect` succeeded and :meth:`stop` did not happen yet (the link may be down)."""
        return self._connected_client() is not None

    @property
    def durables(self) -> list[Durable]:
        """Every durable this process reads right now."""
        return [puller.durable for puller in self._pullers]

    def consume(self, durable: Durable, *, concurrency: int = 1) -> Callable[[Handler], Handler]:
        """Read a durable with up to ``concurrency`` messages in work.

        Returning acks; Temporary naks with a delay; Permanent dead-letters; Unavailable naks and stops fetching
        until it is over; anything else naks with a growing delay. Register before the bus starts.
        """
        puller = self._puller(durable)
        subscriber = DurableSubscriber(
            cast("NatsBrokerConfig", self.broker.config),
            puller,
            concrete(durable, _subjects_of(durable.stream)),
            concurrency,
            self.probes,
        )
        registrator = cast("Registrator[Any, Any]", super(NatsRegistrator, self.broker))
        registrator.subscriber(subscriber)
        subscriber.add_call(parser_=None, decoder_=partial(_decode, puller), dependencies_=(), codec_=None)
        return self._register(subscriber, durable.description)

    async def follows_undecided(self, durable: Durable, message: Inbound) -> bool:
        """Whether an earlier message on the same subject may still be undecided: see :mod:`holdfast_bus.order`."""
        return await follows_undecided(self.client.jsm(timeout=5), durable, message)

    def listen(self, subject: str, *, queue: str = "") -> Callable[[Handler], Handler]:
        """Subscribe on core NATS, one message at a time; messages may be lost. With ``queue``, one member of the
        group gets each message. What the handler raises is logged."""
        return self._register(
            self.broker.subscriber(subject, queue=queue, decoder=partial(_decode, None), no_reply=True)
        )

    def rpc(self, subject: str, *, queue: str, concurrency: int = 16) -> Callable[[RpcHandler], RpcHandler]:
        """Answer requests, up to ``concurrency`` at once.

        The handler gets the body and returns bytes or anything msgspec encodes. An error it raises travels back as
        ``{"error": {...}}``; a body it cannot decode with msgspec is answered as ``invalid``.
        """
        subscriber = self.broker.subscriber(
            subject, queue=queue, decoder=partial(_decode, None), max_workers=concurrency
        )

        def register(handler: RpcHandler) -> RpcHandler:
            async def reply(request: Inbound) -> NatsResponse:
                with tracing.within(request.traceparent):
                    body, headers = await self.answer(handler, request.subject, request.data, request.headers)
                    return NatsResponse(body, headers=headers)

            _named_after(handler, reply)
            subscriber(reply)
            return handler

        return register

    async def answer(
        self, handler: RpcHandler, subject: str, body: bytes, headers: Mapping[str, str] | None
    ) -> tuple[bytes, dict[str, str] | None]:
        """Body and headers of the reply to a request; either body may be kept aside as an object."""

        async def opened(own: bytes) -> object:
            return await handler(await self.objects.opened(own, headers))

        room = self.client.max_payload - HEADER_ROOM
        by_object = (headers or {}).get(ACCEPTS) == OBJECT
        reply = await answer(opened, body, subject, MAX_SIZE if by_object else room)
        if len(reply) <= room:
            return reply, None
        try:
            return b"", {HEADER: await self.objects.put(reply)}
        except HoldfastError as error:
            return encode(ErrorReply(to_body(error))), None

    def work_queue(self, durable: Durable) -> WorkQueue:
        """A reader with explicit credit, for those who batch and acknowledge on their own. Close it."""
        puller = self._puller(durable)
        queue = WorkQueue(puller, self._bury, self._forget)
        self._queues.append(queue)
        return queue

    def app(
        self,
        *,
        readiness: Sequence[Check] = (),
        on_start: Sequence[Check] = (),
        on_stop: Sequence[Check] = (),
    ) -> ServiceApp:
        """The process around this bus.

        ``readiness`` checks raise when something is missing. ``on_start`` runs when connected and before messages
        flow, ``on_stop`` after the last handler ended and while still connected.
        """
        from .service import ServiceApp

        self.probes.extend(readiness)
        return ServiceApp(self, readiness=readiness, on_start=on_start, on_stop=on_stop)

    async def connect(self, *, within: float | None = None) -> None:
        """Connect, waiting for the server as long as it takes, or ``within`` seconds (then Unavailable)."""
        try:
            async with asyncio.timeout(within):
                await self.broker.connect()
        except (NatsError, TimeoutError) as error:
            raise bus_error(error, f"connecting to {self.settings.nats_url}") from error

    async def start(self, *, within: float | None = None) -> None:
        """Connect and let messages flow. When it returns, the server knows of every subscription."""
        await self.connect(within=within)
        await self.broker.start()
        await self.settle()

    async def settle(self) -> None:
        """Wait until the server has heard everything said so far (it will anyway, if the link is down now)."""
        try:
            await connecting.settle(self.client)
        except (NatsError, TimeoutError) as error:
            log.debug("not flushed: %s", error)

    async def quiesce(self) -> None:
        """Stop taking messages and wait (within the graceful timeout) for handlers to end."""
        results = await asyncio.gather(
            *(subscriber.stop() for subscriber in self.broker.subscribers), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                log.warning("a subscriber did not stop: %r", result)

    async def stop(self) -> None:
        """Stop taking messages, give back what nobody works on, and disconnect."""
        self._stopping = True
        await self.quiesce()
        for queue in list(self._queues):
            await queue.close()
        client = self.broker.config.connection_state._connection
        try:
            await self.broker.stop()
        except (NatsError, TimeoutError, ExceptionGroup) as error:
            # Draining needs the server. Without it there is nothing left to say.
            log.info("disconnecting without a farewell: %s", error)
            if client is not None and not client.is_closed:
                await client.close()
            self.broker._connection = None
            self.broker.config.disconnect()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _puller(self, durable: Durable) -> Puller:
        puller = Puller(lambda: self.client, durable)
        self._pullers.append(puller)
        return puller

    def _forget(self, queue: WorkQueue) -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            self._pullers.remove(queue.puller)

    def _register(self, subscriber: Any, description: str = "") -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            async def handle(message: Inbound) -> None:
                with tracing.within(message.traceparent):
                    await handler(message)

            _named_after(handler, handle, description)
            subscriber(handle)
            return handler

        return register

    async def _bury(self, letter: DeadLetter) -> None:
        """Store a dead letter. Raises Unavailable if that cannot be done now."""
        await self._publisher.publish(letter.outgoing(self.client.max_payload))

    async def _on_error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        now = time.monotonic()
        if now - self._complained.get(text, -QUIET_PERIOD) >= QUIET_PERIOD:
            self._complained[text] = now
            log.warning("connection to NATS: %s", text)
        if str(error).removeprefix("nats: ").strip("'").lower() in UNRECOVERABLE_CONNECT_ERRORS:
            # FastStream raises these from here, which ends the client's reconnecting without closing it.
            await self._on_close()

    async def _on_disconnect(self) -> None:
        if not self._stopping:
            log.warning("disconnected from NATS")

    async def _on_reconnect(self) -> None:
        log.warning("connected to NATS again")
        self._complained.clear()
        for puller in self._pullers:
            puller.reconnected()

    async def _on_close(self) -> None:
        if not self._stopping:
            log.error("the connection to NATS is closed for good")
            self.closed.set()


async def _decode(puller: Puller | None, message: NatsMessage) -> Inbound:
    raw = message.raw_message
    created = puller.stream_created if puller is not None else ""
    return open_message(raw.subject, raw.data, raw.headers, raw.reply, created)


def _subjects_of(stream: str) -> tuple[str, ...]:
    return next((known.subjects for known in STREAMS if known.name == stream), (">",))


def _named_after(handler: Callable[..., Any], wrapper: Callable[..., Any], description: str = "") -> None:
    """AsyncAPI shows the handler's name and docstring, not the wrapper's."""
    wrapper.__name__ = getattr(handler, "__name__", type(handler).__name__)
    wrapper.__doc__ = getattr(handler, "__doc__", None) or description or None


def _security(settings: BusSettings) -> BaseSecurity | None:
    """How a service proves who it is: credentials file, nkey seed file, or user and password."""
    if settings.nats_creds:
        return NatsCredentials(settings.nats_creds)
    if settings.nats_nkey_seed:
        return NatsNKey.from_file(settings.nats_nkey_seed)
    if settings.nats_user:
        return SASLPlaintext(settings.nats_user, settings.nats_password.get_secret_value())
    return None
