"""The process of a domain: workers, observers, announcer and hooks. Clients are made here only."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Coroutine
from typing import Any

import msgspec
from nats.errors import Error as NatsError

from holdfast_bus import subjects
from holdfast_bus.bus import Bus
from holdfast_bus.service import ServiceApp
from holdfast_bus.settings import BusSettings
from holdfast_bus.streams import RESULTS, STATE, step_durable
from holdfast_bus.work import WorkQueue
from holdfast_model.errors import NotFound, Permanent, Temporary
from holdfast_model.fault_engine import EvaluateRequest
from holdfast_model.manifest import Announcement, is_older
from holdfast_model.messages import CompileRequest, ObserveRequest, Progress, ResultBatch

from .announcer import Announcer
from .domain import Domain
from .ending import cancel_all
from .handlers import Bound
from .observing import Observer
from .policies import evaluate
from .progress import ProgressFeed
from .running import Runner
from .watching import watch
from .worker import Worker

log = logging.getLogger("holdfast.sdk")

# What cannot be decoded is answered as invalid by the bus.
_compile_request = msgspec.json.Decoder(CompileRequest).decode
_observe_request = msgspec.json.Decoder(ObserveRequest).decode
_evaluate_request = msgspec.json.Decoder(EvaluateRequest).decode

ANNOUNCE_TIMEOUT = 5.0
FAREWELL = 1.0
OBSERVE_AT_ONCE = 256
"""Requests to observe that are answered at once. Each type bounds what it really does; a request that waits for a slow
type must not keep out those for others. A planner asks 16 at once of each type."""


class RuntimeSettings(BusSettings):
    """Settings of a domain's process (environment, prefix ``HOLDFAST_``). ``instance`` names this replica."""

    instance: str = ""


class DomainService:
    """Everything one instance of a domain runs. ``start`` and ``stop`` are called by the bus's lifespan."""

    def __init__(self, domain: Domain, handlers: tuple[object, ...], bus: Bus, settings: RuntimeSettings) -> None:
        self.domain = domain
        self.manifest = domain.manifest()
        self._served = domain.served(handlers)
        self.instance = settings.instance or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._bus = bus
        self._settings = settings
        self._observers: dict[str, Observer] = {}
        self._workers: dict[str, Worker] = {}
        self._queues: list[WorkQueue] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._intake: list[asyncio.Task[None]] = []  # pulls: they end first
        self._heartbeat: list[asyncio.Task[None]] = []  # to the planner, until it was told farewell
        self._announcer: Announcer | None = None
        self._superseded_by = ""
        self._turned = asyncio.Event()
        others = set(bus.broker.subscribers)
        bus.rpc(subjects.rpc_domain(domain.name, "compile"), queue=domain.name)(self.compile)
        bus.rpc(subjects.rpc_domain(domain.name, "observe"), queue=domain.name, concurrency=OBSERVE_AT_ONCE)(
            self.observe
        )
        if domain.evaluates is not None:
            bus.rpc(subjects.rpc_domain(domain.name, "evaluate"), queue=domain.name)(self.evaluate)
        self._answers = [s for s in bus.broker.subscribers if s not in others]

    # ---- lifespan

    async def start(self) -> None:
        """Connected, nothing flows yet: hooks, then queues, then the first announcement (in the
        background).
        """
        for hook in self.domain.startup:
            await hook()
        feed = ProgressFeed(self._send_progress)
        self._tasks.append(self._spawn(feed.run(), "progress"))
        self._tasks.append(self._spawn(self._answer_while_newest(), "answers"))
        for name, bound in self._served.items():
            self._observers[name] = Observer(bound, time.time)
            self._workers[name] = self._work(name, bound, feed)
            if bound.watch is not None:
                self._tasks.append(self._spawn(watch(bound.watch, self._publish_change, name), f"watch {name}"))
        slots = {name: worker.slots for name, worker in self._workers.items()}
        self._announcer = Announcer(self._ask, self.manifest, self.instance, slots, self._hear)
        self._heartbeat.append(self._spawn(self._announce(self._announcer), "announcer"))

    async def stop(self) -> None:
        """Pull nothing more, say goodbye, finish what runs, hand back the rest, then the author's hooks."""
        await cancel_all(self._intake)
        if self._announcer is not None and self._announcer.announced.is_set():
            await self._announcer.leave(FAREWELL)
        await cancel_all(self._heartbeat)
        patience = max(0.5, self._settings.graceful_timeout - 2 * FAREWELL)
        await asyncio.gather(*(w.drain(patience) for w in self._workers.values()))
        await cancel_all(self._tasks)
        for queue in self._queues:
            await queue.close()
        for hook in self.domain.shutdown:
            await hook()

    async def announced(self) -> None:
        """Readiness: raises until a planner knows this instance."""
        if self._announcer is None or not self._announcer.announced.is_set():
            raise Temporary("no planner has answered the announcement yet")

    @property
    def held(self) -> int:
        """Batches that are not acknowledged yet, of all types."""
        return sum(worker.held for worker in self._workers.values())

    # ---- RPC

    async def compile(self, data: bytes) -> object:
        request = _compile_request(data)
        self._leave_to_newer(request.domain_version)
        return await asyncio.to_thread(self.domain.compile, request.spec, request.tenant, request.graph)

    async def observe(self, data: bytes) -> object:
        request = _observe_request(data)
        self._leave_to_newer(request.domain_version)
        observer = self._observers.get(request.type)
        if observer is None:
            raise NotFound(f"domain {self.domain.name!r} has no type {request.type!r}")
        return await observer.observe(request)

    async def evaluate(self, data: bytes) -> object:
        assert self.domain.evaluates is not None
        request = _evaluate_request(data)
        self._leave_to_newer(request.domain_version)
        return await evaluate(self.domain.evaluates, request)

    def _leave_to_newer(self, version: str) -> None:
        """Raise Temporary when a newer version should answer. Asked again, it will: it is there, and this instance
        soon hears of it."""
        if is_older(self.domain.version, version):
            self._doubt()
            raise Temporary(f"{self.domain.name} {self.domain.version} leaves this to {version}", retry_after=0.05)

    def _doubt(self) -> None:
        if self._announcer is not None:
            self._announcer.again()

    # ---- parts

    def _work(self, name: str, bound: Bound, feed: ProgressFeed) -> Worker:
        durable = step_durable(self.domain.name, name)
        queue = self._bus.work_queue(durable)
        self._queues.append(queue)
        runner = Runner(bound, report=feed.report)
        worker = Worker(runner, queue, self._publish_results, self.domain.version, durable.ack_wait, self._doubt)
        self._intake.append(self._spawn(worker.pull(), f"pull {name}"))
        self._tasks.append(self._spawn(worker.heartbeat(), f"heartbeat {name}"))
        return worker

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Something that runs as long as the process; if it breaks, the process ends."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Permanent) and task.get_name() == "announcer":
            log.error("%s is refused: %s%s", self.domain.name, error.message, f" ({error.hint})" if error.hint else "")
        else:
            log.error("%s broke", task.get_name(), exc_info=error)
        self._bus.closed.set()  # the process ends, non-zero

    def _hear(self, newest: str) -> None:
        """The planner said which version is the highest live one: older instances stand back, until it is
        gone.
        """
        older = is_older(self.domain.version, newest)
        if older and not self._superseded_by:
            log.warning("version %s is live; %s pulls nothing more", newest, self.domain.version)
        if not older and self._superseded_by:
            log.info("version %s is gone; pulling again", self._superseded_by)
        self._superseded_by = newest if older else ""
        self._turned.set()
        for worker in self._workers.values():
            if older:
                worker.stand_back()
            else:
                worker.resume()

    async def _answer_while_newest(self) -> None:
        """Leave the queue group of requests to the newest version, which alone knows today's specs."""
        answering = True
        while True:
            await self._turned.wait()
            self._turned.clear()
            newest = not self._superseded_by
            if newest is not answering:
                answering = newest
                for subscriber in self._answers:
                    await (subscriber.start() if newest else subscriber.stop())

    # ---- edges

    async def _announce(self, announcer: Announcer) -> None:
        """Announce once requests can be answered: a planner that hears of a domain asks it at once."""
        while not all(subscriber.running for subscriber in self._answers):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # FastStream tells nobody when it has subscribed
        try:
            await self._bus.client.flush()
        except NatsError as e:
            log.info("the server does not answer yet: %s", e)
        await announcer.run()

    async def _ask(self, announcement: Announcement) -> bytes:
        return await self._bus.request(subjects.rpc_planner("announce"), announcement, timeout=ANNOUNCE_TIMEOUT)

    async def _publish_results(self, partition: int, results: ResultBatch, traceparent: str) -> None:
        headers = {"traceparent": traceparent} if traceparent else None
        body = msgspec.json.encode(results)
        await self._bus.publish(subjects.result(partition), body, stream=RESULTS.name, headers=headers)

    async def _publish_change(self, tenant: str, graph: str, body: bytes) -> None:
        await self._bus.publish(subjects.state(tenant, graph), body, stream=STATE.name)

    async def _send_progress(self, progress: Progress) -> None:
        await self._bus.hint(subjects.progress(progress.tenant, progress.graph), msgspec.json.encode(progress))


def build(domain: Domain, *handlers: object, settings: RuntimeSettings | None = None) -> ServiceApp:
    """The service of a domain, ready to run. Raises Invalid when types lack handlers or the manifest is
    wrong.
    """
    chosen = settings or RuntimeSettings()
    bus = Bus(chosen, domain.name, domain.version)
    service = DomainService(domain, handlers, bus, chosen)
    return bus.app(readiness=[service.announced], on_start=[service.start], on_stop=[service.stop])
