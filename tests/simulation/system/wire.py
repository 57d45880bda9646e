"""The bus as a service sees it (see ``holdfast_bus.Bus``), over the simulated server.

Envelopes, verdicts on messages, answers and errors are the real ones; only the connection is not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast_bus import DeadLetter, Inbound, PubAck, subjects
from holdfast_bus.answering import RpcHandler, answer, check_reply, encode
from holdfast_bus.delivery import Fate, judge
from holdfast_bus.envelope import MSG_ID, encode_event, event_headers, open_message
from holdfast_bus.publishing import Outgoing
from holdfast_bus.streams import STREAM_OF_FAMILY, Durable
from holdfast_model.errors import Unavailable
from holdfast_model.events import Event

from .loop import Life, VirtualLoop
from .server import Delivered, Server, Subscription

Crash = Callable[[str], Awaitable[None]]
"""Called between any two effects: it may end the process, and then never returns."""

PAYLOAD = 8_000_000
PUBLISH_LIMIT = 2.0


@dataclass
class SimApp:
    """What ``bus.app`` made of a service: run by :mod:`.processes`."""

    readiness: Sequence[Callable[[], Awaitable[None]]]
    on_start: Sequence[Callable[[], Awaitable[None]]]
    on_stop: Sequence[Callable[[], Awaitable[None]]]


class SimBus:
    """One connection of one process."""

    def __init__(
        self, server: Server, life: Life, context: Any, service: str, dice: random.Random, crash: Crash
    ) -> None:
        self.server = server
        self.life = life
        self.service = service
        self.connected = True
        self.dead: list[DeadLetter] = []
        self._context = context
        self._dice = dice
        self._crash = crash
        self._readers: list[Callable[[], Awaitable[None]]] = []
        self._waiting: list[Subscription] = []
        self._replies: dict[str, asyncio.Future[bytes]] = {}
        self._asked = 0
        self._inbox = f"_INBOX.{service}.{life.name}"

    @property
    def client(self) -> SimClient:
        return SimClient(self)

    @property
    def js(self) -> SimJetStream:
        return SimJetStream(self)

    @property
    def loop(self) -> VirtualLoop:
        return self.server.loop

    def app(self, *, readiness: Any = (), on_start: Any = (), on_stop: Any = ()) -> SimApp:
        return SimApp(readiness, on_start, on_stop)

    def open(self) -> None:
        """Messages flow from now on."""
        self.server.subscribe(Subscription(f"{self._inbox}.*", "", self.life, self._replied))
        for subscription in self._waiting:
            self.server.subscribe(subscription)
        for read in self._readers:
            self.spawn(read())

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """A task of this process, with a context of its own."""
        return self.loop.create_task(work, context=self._context.copy())

    # ---- streams

    def consume(self, durable: Durable, *, concurrency: int = 1) -> Callable[[Any], Any]:
        def register(handler: Callable[[Inbound], Awaitable[None]]) -> Any:
            self._readers.append(lambda: self._read(durable, handler, concurrency))
            return handler

        return register

    async def _read(self, durable: Durable, handler: Any, concurrency: int) -> None:
        room = asyncio.Semaphore(concurrency)
        outage = asyncio.Event()
        while True:
            await room.acquire()
            if outage.is_set():
                outage.clear()
                await asyncio.sleep(self._dice.uniform(0.5, 2.0))
            while not (messages := await self.fetch(durable, 1, 30.0, held=True)):
                pass
            self.spawn(self._handle(messages[0], handler, room, outage))

    async def _handle(self, message: Delivered, handler: Any, room: asyncio.Semaphore, outage: asyncio.Event) -> None:
        error: BaseException | None = None
        try:
            await handler(self._inbound(message))
        except Exception as raised:  # noqa: BLE001  judged like everything
            error = raised
        await self._crash(f"told about {message.stored.subject}")
        verdict = judge(error, message.deliveries, self._dice.random())
        match verdict.fate:
            case Fate.ACK:
                self.server.ack(message)
            case Fate.NAK:
                self.server.nak(message, verdict.delay)
            case Fate.DEAD_LETTER:
                raise AssertionError(f"{message.stored.subject} is dead-lettered: {error!r}") from error
        if verdict.outage:
            outage.set()
        room.release()
        if error is not None and not verdict.expected:
            raise AssertionError(f"handling {message.stored.subject} failed: {error!r}") from error

    def _inbound(self, message: Delivered) -> Inbound:
        stored = message.stored
        created = self.server.streams[message.consumer.durable.stream].created
        return open_message(stored.subject, stored.data, stored.headers, message.reply, created)

    async def fetch(self, durable: Durable, n: int, wait: float, *, held: bool) -> list[Delivered]:
        """Up to ``n`` messages: what is there, else the first that comes within ``wait`` seconds, else []."""
        consumer = self.server.ensure(durable)
        taken = self.server.take(consumer, n, self.life, held=held)
        if taken:
            return taken
        arrival = self.loop.create_future()
        consumer.waiting.append((arrival, self.life))
        try:
            async with asyncio.timeout(wait):
                await arrival
        except TimeoutError:
            return []
        return self.server.take(consumer, n, self.life, held=held)

    async def follows_undecided(self, durable: Durable, message: Inbound) -> bool:
        """As ``holdfast_bus`` asks: from where on not all is acknowledged, and what comes then of this subject."""
        await self._crash(f"asks $JS.API.{durable.stream}")
        if self._dice.random() < self.server.network.lose:
            await asyncio.sleep(PUBLISH_LIMIT)
            raise Unavailable(f"asking what comes before {message.stream_seq}: no answer in time", retry_after=1.0)
        return self.server.first_undecided(durable, message.subject, message.stream_seq) < message.stream_seq

    def work_queue(self, durable: Durable) -> SimQueue:
        return SimQueue(self, durable)

    async def publish(
        self, subject: str, body: bytes, *, stream: str, msg_id: str = "", headers: Mapping[str, str] | None = None
    ) -> PubAck:
        await self._crash(f"publishes {subject}")
        network = self.server.network
        if self._dice.random() < network.lose:
            self.server.happened["publication lost"] += 1
            await asyncio.sleep(PUBLISH_LIMIT)
            raise Unavailable(f"publishing on {subject}: no answer in time", retry_after=1.0)
        if self._dice.random() < network.slow:
            await asyncio.sleep(self._dice.uniform(0.1, PUBLISH_LIMIT))
        words = dict(headers or {})
        if msg_id:
            words[MSG_ID] = msg_id
        seq, known = self.server.store(stream, subject, body, words)
        await self._crash(f"published {subject}")
        if self._dice.random() < network.lose_puback:
            self.server.happened["answer to a publication lost"] += 1
            await asyncio.sleep(PUBLISH_LIMIT)
            raise Unavailable(f"publishing on {subject}: no answer in time", retry_after=1.0)
        return PubAck(stream, seq, known)

    async def publish_large(self, subject: str, body: bytes, *, stream: str, msg_id: str = "") -> tuple[PubAck, str]:
        return await self.publish(subject, body, stream=stream, msg_id=msg_id), ""

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        return [
            await self.publish(m.subject, m.body, stream=m.stream, msg_id=m.msg_id, headers=m.headers) for m in messages
        ]

    async def publish_event(self, event: Event) -> None:
        await self.publish_events([event])

    async def publish_events(self, events: Sequence[Event]) -> None:
        for event in events:
            stream = STREAM_OF_FAMILY[event.family]
            await self.publish(subjects.event(event), encode_event(event), stream=stream, headers=event_headers(event))

    # ---- core

    def listen(self, subject: str, *, queue: str = "") -> Callable[[Any], Any]:
        def register(handler: Callable[[Inbound], Awaitable[None]]) -> Any:
            def receive(found: str, data: bytes, reply: str) -> None:
                self.spawn(handler(open_message(found, data, None, reply)))

            self._waiting.append(Subscription(subject, queue, self.life, receive))
            return handler

        return register

    def rpc(self, subject: str, *, queue: str, concurrency: int = 16) -> Callable[[RpcHandler], RpcHandler]:
        def register(handler: RpcHandler) -> RpcHandler:
            async def serve(found: str, data: bytes, reply: str) -> None:
                body = await answer(handler, data, found, PAYLOAD)
                await self._crash(f"answers {found}")
                self.server.publish(reply, body)

            def receive(found: str, data: bytes, reply: str) -> None:
                self.spawn(serve(found, data, reply))

            self._waiting.append(Subscription(subject, queue, self.life, receive))
            return handler

        return register

    async def answer(
        self, handler: RpcHandler, subject: str, body: bytes, headers: object
    ) -> tuple[bytes, dict[str, str] | None]:
        return await answer(handler, body, subject, PAYLOAD), None

    async def request(self, subject: str, body: object, *, timeout: float) -> bytes:
        await self._crash(f"asks {subject}")
        self._asked += 1
        reply = f"{self._inbox}.{self._asked}"
        future = self._replies[reply] = self.loop.create_future()
        try:
            if not self.server.publish(subject, encode(body), reply):
                raise Unavailable(f"asking {subject}: nobody answers there", retry_after=1.0)
            async with asyncio.timeout(timeout):
                data = await future
        except TimeoutError as error:
            raise Unavailable(f"asking {subject}: no answer in time", retry_after=1.0) from error
        finally:
            del self._replies[reply]
        return check_reply(data)

    def _replied(self, subject: str, data: bytes, _: str) -> None:
        future = self._replies.get(subject)
        if future is not None and not future.done():
            future.set_result(data)

    async def hint(self, subject: str, body: bytes = b"") -> None:
        self.server.publish(subject, body)


class SimQueue:
    """See ``holdfast_bus.WorkQueue``."""

    def __init__(self, bus: SimBus, durable: Durable) -> None:
        self._bus = bus
        self.durable = durable

    async def fetch(self, n: int, wait: float) -> list[SimMessage]:
        await self._bus._crash(f"reads {self.durable}")
        return [SimMessage(self._bus, m) for m in await self._bus.fetch(self.durable, n, wait, held=False)]

    async def close(self) -> None:
        """Nothing is delivered that was not fetched."""


class SimMessage:
    """See ``holdfast_bus.WorkMessage``."""

    def __init__(self, bus: SimBus, message: Delivered) -> None:
        self._bus = bus
        self._message = message
        self.subject = message.stored.subject
        self.data = message.stored.data
        self.headers = message.stored.headers
        self.stream_seq = message.stored.seq
        self.deliveries = message.deliveries

    def hold(self) -> None:
        """Keep it from being delivered to somebody else, as long as this process lives."""
        self._message.held = True

    async def ack(self) -> None:
        await self._bus._crash(f"acks {self.subject}")
        self._bus.server.ack(self._message)

    async def nak(self, delay: float = 0.0) -> None:
        self._bus.server.nak(self._message, delay)

    async def dead_letter(self, reason: str) -> None:
        raise AssertionError(f"{self.subject} is dead-lettered: {reason}")


class SimClient:
    """The part of the NATS client that the planner's owner subjects use."""

    max_payload = PAYLOAD
    is_connected = True

    def __init__(self, bus: SimBus) -> None:
        self._bus = bus

    async def publish(self, subject: str, body: bytes, headers: object = None) -> None:
        self._bus.server.publish(subject, body)

    async def subscribe(self, subject: str, cb: Any) -> SimSubscription:
        bus = self._bus

        def receive(found: str, data: bytes, reply: str) -> None:
            bus.spawn(cb(SimMsg(bus, found, data, reply)))

        subscription = Subscription(subject, "", bus.life, receive)
        bus.server.subscribe(subscription)
        return SimSubscription(bus, subscription)


@dataclass
class SimSubscription:
    bus: SimBus
    subscription: Subscription

    async def unsubscribe(self) -> None:
        self.bus.server.unsubscribe(self.subscription)


@dataclass
class SimMsg:
    """A message on core NATS."""

    bus: SimBus
    subject: str
    data: bytes
    reply: str
    headers: dict[str, str] | None = None


class SimJetStream:
    """The part of JetStream's management that the planner uses: it makes the consumers of steps."""

    def __init__(self, bus: SimBus) -> None:
        self._bus = bus

    async def add_consumer(self, stream: str, config: Any) -> None:
        filters = (config.filter_subject,) if config.filter_subject else tuple(config.filter_subjects or ())
        self._bus.server.ensure(
            Durable(stream=stream, name=config.durable_name, filters=filters, ack_wait=config.ack_wait)
        )
