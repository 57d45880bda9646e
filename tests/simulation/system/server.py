"""What NATS does, as far as it matters: streams with durable consumers, and core subscriptions.

Streams and consumers are those of ``holdfast_bus.streams``, with their windows of duplicates, acknowledgement times
and retention. What arrives where and when is up to :class:`Network`.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from holdfast_bus.envelope import MSG_ID, timestamp
from holdfast_bus.streams import DURABLES, STREAMS, Durable, Stream

from .loop import Life, VirtualLoop

HEARTBEATS_LOST = 0.1
GONE_AFTER = 2.0
"""Seconds until the server notices that a process is gone."""


@dataclass
class Network:
    """Probabilities per message of what goes wrong on the bus."""

    lose: float = 0.03
    double: float = 0.03
    slow: float = 0.05
    lose_ack: float = 0.03
    lose_puback: float = 0.03

    def times(self, factor: float) -> Network:
        return Network(**{f.name: min(0.5, factor * getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def perfect(cls) -> Network:
        return cls(**dict.fromkeys((f.name for f in fields(cls)), 0.0))


@dataclass
class Stored:
    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    at: float


@dataclass
class Delivered:
    """A message in somebody's hands."""

    stored: Stored
    consumer: Consumer
    deliveries: int
    token: int
    life: Life | None
    held: bool = False

    @property
    def reply(self) -> str:
        """As JetStream writes it; the bus reads stream, sequence, deliveries and time from it."""
        stream, name = self.consumer.durable.stream, self.consumer.durable.name
        nanoseconds = int(self.stored.at * 1e9)
        return f"$JS.ACK.{stream}.{name}.{self.deliveries}.{self.stored.seq}.{self.token}.{nanoseconds}.0"


@dataclass
class Consumer:
    durable: Durable
    ready: deque[Stored] = field(default_factory=deque)
    out: dict[int, int] = field(default_factory=dict)  # seq -> token of its newest delivery
    done: set[int] = field(default_factory=set)
    deliveries: dict[int, int] = field(default_factory=dict)
    newest: int = 0
    waiting: deque[tuple[asyncio.Future[None], Life | None]] = field(default_factory=deque)

    def takes(self, subject: str) -> bool:
        return not self.durable.filters or any(matches(f, subject) for f in self.durable.filters)


@dataclass
class StoredStream:
    spec: Stream
    created: str
    last: int = 0
    ids: dict[str, tuple[int, float]] = field(default_factory=dict)
    stored: dict[int, Stored] = field(default_factory=dict)
    consumers: dict[str, Consumer] = field(default_factory=dict)


@dataclass
class Subscription:
    pattern: str
    queue: str
    life: Life | None
    receive: Callable[[str, bytes, str], None]  # subject, data, reply


class Server:
    """See the module. ``outside`` is the context in which the network's own timers run."""

    def __init__(self, loop: VirtualLoop, dice: random.Random) -> None:
        self.loop = loop
        self.dice = dice
        self.network = Network()
        self.outside = contextvars.Context()
        self.tokens = 0
        self.happened: Counter[str] = Counter()
        """What went wrong, by name: so that a test can show that everything does."""
        self.streams = {s.name: StoredStream(s, timestamp(loop.now)) for s in STREAMS}
        self.subscriptions: list[Subscription] = []
        self.exact: dict[str, list[Subscription]] = {}
        for durable in DURABLES:
            self.ensure(durable)

    def later(self, delay: float, what: Callable[..., object], *args: object) -> object:
        return self.loop.call_later(delay, what, *args, context=self.outside)

    def delay(self) -> float:
        if self.dice.random() < self.network.slow:
            self.happened["delayed"] += 1
            return self.dice.uniform(0.1, 8.0)
        return self.dice.uniform(0.0005, 0.02)

    # ---- streams

    def ensure(self, durable: Durable) -> Consumer:
        """Make the consumer unless it is there."""
        stream = self.streams[durable.stream]
        consumer = stream.consumers.get(durable.name)
        if consumer is None:
            consumer = stream.consumers[durable.name] = Consumer(durable)
            for stored in stream.stored.values():
                if consumer.takes(stored.subject):
                    consumer.ready.append(stored)
        return consumer

    def store(self, stream_name: str, subject: str, data: bytes, headers: Mapping[str, str]) -> tuple[int, bool]:
        """Store a message; returns its sequence, and whether it was there already."""
        stream = self.streams[stream_name]
        if not any(matches(s, subject) for s in stream.spec.subjects):
            raise AssertionError(f"{subject} does not belong to {stream_name}")
        id = headers.get(MSG_ID, "")
        known = stream.ids.get(id) if id else None
        if known is not None and self.loop.now - known[1] < stream.spec.duplicate_window:
            self.happened["published twice"] += 1
            return known[0], True
        stream.last += 1
        stored = Stored(stream.last, subject, data, dict(headers), self.loop.now)
        stream.stored[stored.seq] = stored
        if id:
            stream.ids[id] = (stored.seq, self.loop.now)
        for consumer in stream.consumers.values():
            if consumer.takes(subject):
                self.later(self.delay(), self._offer, consumer, stored)
        return stored.seq, False

    def first_undecided(self, durable: Durable, subject: str, until: int) -> int:
        """The first message of this subject behind those that are acknowledged without a gap."""
        stored, consumer = self.streams[durable.stream].stored, self.ensure(durable)
        before = [seq for seq in sorted(stored) if seq < until]
        gap = next((seq for seq in before if consumer.takes(stored[seq].subject) and seq not in consumer.done), until)
        return next((seq for seq in before if seq >= gap and stored[seq].subject == subject), until)

    def _offer(self, consumer: Consumer, stored: Stored) -> None:
        if stored.seq in consumer.done:
            return
        consumer.ready.append(stored)
        while consumer.waiting:
            future, life = consumer.waiting.popleft()
            if not future.done() and (life is None or (life.alive and not life.frozen)):
                future.set_result(None)
                return

    def take(self, consumer: Consumer, n: int, life: Life | None, *, held: bool) -> list[Delivered]:
        """Up to ``n`` of what is there. ``held``: its reader keeps up its claim while it lives."""
        taken: list[Delivered] = []
        while consumer.ready and len(taken) < n:
            stored = consumer.ready.popleft()
            if stored.seq in consumer.done:
                continue
            self.tokens += 1
            count = consumer.deliveries[stored.seq] = consumer.deliveries.get(stored.seq, 0) + 1
            self.happened["delivered again"] += count > 1
            self.happened["reordered"] += stored.seq < consumer.newest
            consumer.newest = max(consumer.newest, stored.seq)
            consumer.out[stored.seq] = self.tokens
            taken.append(Delivered(stored, consumer, count, self.tokens, life, held))
            self.later(consumer.durable.ack_wait, self._overdue, taken[-1])
        return taken

    def _overdue(self, message: Delivered) -> None:
        consumer, seq = message.consumer, message.stored.seq
        if consumer.out.get(seq) != message.token:
            return
        life = message.life
        if message.held and life is not None and life.alive and self.dice.random() >= HEARTBEATS_LOST:
            self.later(consumer.durable.ack_wait, self._overdue, message)
            return
        self._again(message)

    def _again(self, message: Delivered) -> None:
        if message.consumer.out.get(message.stored.seq) == message.token:
            del message.consumer.out[message.stored.seq]
            self._offer(message.consumer, message.stored)

    def ack(self, message: Delivered) -> None:
        """Late acknowledgements count, too."""
        if self.dice.random() < self.network.lose_ack:
            self.happened["acknowledgement lost"] += 1
            message.held = False
            return
        consumer, seq = message.consumer, message.stored.seq
        consumer.out.pop(seq, None)
        consumer.done.add(seq)
        stream = self.streams[consumer.durable.stream]
        if stream.spec.work_queue:
            stream.stored.pop(seq, None)

    def nak(self, message: Delivered, delay: float) -> None:
        self.later(max(delay, 0.001), self._again, message)

    # ---- core

    def subscribe(self, subscription: Subscription) -> None:
        if "*" in subscription.pattern or ">" in subscription.pattern:
            self.subscriptions.append(subscription)
        else:
            self.exact.setdefault(subscription.pattern, []).append(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        for group in (self.subscriptions, self.exact.get(subscription.pattern, [])):
            if subscription in group:
                group.remove(subscription)

    def gone(self, life: Life) -> None:
        """A process is no more; the server notices in a while."""
        self.later(GONE_AFTER, self._drop, life)

    def _drop(self, life: Life) -> None:
        self.subscriptions = [s for s in self.subscriptions if s.life is not life]
        self.exact = {p: [s for s in group if s.life is not life] for p, group in self.exact.items()}

    def publish(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Hand a message to everybody who listens (of a queue group to one). False when there is nobody."""
        found = [*self.exact.get(subject, ()), *(s for s in self.subscriptions if matches(s.pattern, subject))]
        groups: dict[str, list[Subscription]] = {}
        for n, subscription in enumerate(found):
            groups.setdefault(subscription.queue or f"\0{n}", []).append(subscription)
        for members in groups.values():
            chosen = members[0] if len(members) == 1 else self.dice.choice(members)
            if self.dice.random() < self.network.lose:
                self.happened["lost"] += 1
                continue
            double = self.dice.random() < self.network.double
            self.happened["doubled"] += double
            for _ in range(2 if double else 1):
                self.later(self.delay(), self._hand, chosen, subject, data, reply)
        return bool(groups)

    def _hand(self, subscription: Subscription, subject: str, data: bytes, reply: str) -> None:
        if subscription.life is None or subscription.life.alive:
            subscription.receive(subject, data, reply)


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is what a pattern with ``*`` and ``>`` stands for."""
    if pattern == subject:
        return True
    wanted, found = pattern.split("."), subject.split(".")
    for n, token in enumerate(wanted):
        if token == ">":
            return len(found) > n
        if n >= len(found) or token not in ("*", found[n]):
            return False
    return len(wanted) == len(found)
