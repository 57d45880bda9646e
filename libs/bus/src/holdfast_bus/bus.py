"""The bus as services see it: consume, listen, answer, ask and publish."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.js import JetStreamContext

from holdfast_model.events import Event

from .messages import Inbound, PubAck
from .settings import BusSettings
from .streams import Durable
from .work import WorkQueue

if TYPE_CHECKING:
    from .service import ServiceApp

Handler = Callable[[Inbound], Awaitable[None]]
RpcHandler = Callable[[bytes], Awaitable[object]]
Check = Callable[[], Awaitable[None]]


class Bus:
    """One connection of one process. ``service`` is its queue group and name; use :meth:`app` to run it,
    or ``async with bus`` where there is no service (CLI, tests)."""

    broker: NatsBroker
    settings: BusSettings
    service: str
    version: str

    def __init__(self, settings: BusSettings, service: str, version: str) -> None: ...

    def consume(self, durable: Durable, *, concurrency: int = 1) -> Callable[[Handler], Handler]:
        """Read a durable. Returning acks; Temporary naks with a delay; Permanent dead-letters; Unavailable naks and
        stops fetching until it is over; anything else naks with a growing delay."""

    def listen(self, subject: str, *, queue: str = "") -> Callable[[Handler], Handler]:
        """Subscribe on core NATS (messages may be lost). With ``queue``, one member of the group gets each."""

    def rpc(self, subject: str, *, queue: str, concurrency: int = 16) -> Callable[[RpcHandler], RpcHandler]:
        """Answer requests. The handler gets the body and returns bytes or anything msgspec encodes; an error it
        raises travels back as ``{"error": {...}}``."""

    async def request(self, subject: str, body: object, *, timeout: float) -> bytes:
        """Ask, and return the reply's body. Raises the error in the reply; Unavailable if nobody answers in time."""

    async def publish_event(self, event: Event) -> None:
        """Publish an event as a CloudEvent and wait until it is stored."""

    async def publish_events(self, events: Sequence[Event]) -> None:
        """Publish many, pipelined and in order; returns when all are stored, else raises."""

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        stream: str,
        msg_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> PubAck:
        """Publish and wait until ``stream`` stored it. Raises Unavailable (full, down) or Permanent (too large)."""

    async def hint(self, subject: str, body: bytes = b"") -> None:
        """Publish on core NATS; may be lost. Never raises because of the connection."""

    def work_queue(self, durable: Durable) -> WorkQueue:
        """A reader with explicit credit."""

    def app(
        self,
        *,
        readiness: Sequence[Check] = (),
        on_start: Sequence[Check] = (),
        on_stop: Sequence[Check] = (),
    ) -> ServiceApp:
        """The process around this bus. ``on_start`` runs when connected and before messages flow, ``on_stop`` after
        the last handler ended and while still connected."""

    @property
    def client(self) -> Client: ...
    @property
    def js(self) -> JetStreamContext: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None: ...
