"""A FastStream subscriber that reads a durable through our own :class:`~holdfast_bus.pulling.Puller`.

FastStream keeps what it is good at: routing, middleware, graceful stop, AsyncAPI. Its pull loop is replaced for the
reasons given in :mod:`holdfast_bus.pulling`. While a handler runs, its message is kept from redelivery.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from faststream._internal.endpoint.subscriber.call_item import CallsCollection
from faststream.middlewares import AckPolicy
from faststream.nats.schemas import JStream, PullSub
from faststream.nats.subscriber.config import NatsSubscriberConfig, NatsSubscriberSpecificationConfig
from faststream.nats.subscriber.specification import NatsSubscriberSpecification
from faststream.nats.subscriber.usecases import PullStreamSubscriber
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig

from holdfast_model.errors import Unavailable

from .pulling import Puller, give_back
from .streams import Durable

if TYPE_CHECKING:
    from faststream.nats.configs import NatsBrokerConfig

log = logging.getLogger("holdfast.bus")

WAIT = 30.0
PROBE_FIRST = 0.25
PROBE_LONGEST = 2.0
PROBE_LIMIT = 5.0

Check = Callable[[], Awaitable[None]]


class DurableSubscriber(PullStreamSubscriber):
    """Reads ``puller.durable`` with at most ``concurrency`` messages in work, and never asks for more."""

    def __init__(
        self,
        broker_config: NatsBrokerConfig,
        puller: Puller,
        subject: str,
        concurrency: int,
        probes: Sequence[Check],
    ) -> None:
        durable = puller.durable
        calls: CallsCollection[Msg] = CallsCollection()
        specification = NatsSubscriberSpecification(
            _outer_config=broker_config,
            calls=calls,
            specification_config=NatsSubscriberSpecificationConfig(
                subject=subject,
                queue=durable.name,
                title_=f"{durable.name}:{subject}",
                description_=None,  # the handler's docstring
                include_in_schema=True,
            ),
        )
        super().__init__(
            NatsSubscriberConfig(
                subject=subject,
                sub_config=ConsumerConfig(durable_name=durable.name),
                no_reply=True,
                _outer_config=broker_config,
                _ack_policy=AckPolicy.MANUAL,
            ),
            specification,
            calls,
            queue="",
            pull_sub=PullSub(),
            stream=JStream(durable.stream, declare=False),
        )
        self.puller = puller
        self._concurrency = concurrency
        self._probes = probes
        self._working: dict[asyncio.Task[Any], Msg] = {}
        self._outage = False
        self._silent = False

    def outage(self) -> None:
        """A handler met an outage: fetch nothing until it is over."""
        self._outage = True

    async def _create_subscription(self) -> None:
        self.subscription = self.puller  # type: ignore[assignment]  # FastStream only closes it
        self.add_task(self._read)
        self.add_task(self._heartbeat)

    async def stop(self) -> None:
        """Let handlers end within the graceful timeout, cancel those that do not, give the rest back."""
        await super().stop()
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working, timeout=1.0)

    async def _read(self) -> None:
        while self.running:
            if self._outage:
                await self._sit_out()
                continue
            free = self._concurrency - len(self._working)
            if free <= 0:
                await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)
                continue
            await self._fetch(free)

    async def _fetch(self, n: int) -> None:
        try:
            messages = await self.puller.fetch(n, WAIT)
        except Unavailable as error:
            # fetch paused already; say it once, not once per second
            (log.debug if self._silent else log.warning)("%s (%s)", error, error.hint or "waiting")
            self._silent = True
            return
        if self._silent:
            log.info("reading %s again", self.puller.durable)
        self._silent = False
        for message in messages:
            if not self.running:
                await give_back(message)
                continue
            task = asyncio.get_running_loop().create_task(self.consume(message))
            self._working[task] = message
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._working.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a message was not handled", exc_info=error)

    async def _sit_out(self) -> None:
        """Wait until the readiness checks pass, then try one message; repeat while that meets the outage too."""
        log.warning("%s: fetching stops, something it needs is down", self.puller.durable)
        pause = PROBE_FIRST
        while self.running and self._outage:
            await asyncio.sleep(pause * (0.5 + random.random() / 2))
            pause = min(pause * 2, PROBE_LONGEST)
            if self._working:
                await asyncio.wait(self._working, timeout=pause)
                continue
            if not await self._passes():
                continue
            self._outage = False
            await self._fetch(1)
            if self._working:
                await asyncio.wait(self._working)
        log.warning("%s: fetching goes on", self.puller.durable)

    async def _passes(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                for probe in self._probes:
                    await probe()
        except Exception as error:  # noqa: BLE001  whatever a probe raises means: not yet
            log.debug("%s: still down: %s", self.puller.durable, error)
            return False
        return True

    async def _heartbeat(self) -> None:
        """Restart the ack_wait of everything in work three times per ack_wait."""
        while True:
            await asyncio.sleep(self.puller.durable.ack_wait / 3)
            for message in list(self._working.values()):
                if message.is_acked:
                    continue
                try:
                    await message.in_progress()
                except NatsError as error:
                    log.debug("no heartbeat: %s", error)


def concrete(durable: Durable, fallback: Sequence[str]) -> str:
    """The subject a durable reads, as AsyncAPI shows it."""
    return (durable.filters or tuple(fallback))[0]
