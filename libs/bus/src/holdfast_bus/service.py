"""A service as a process: health over HTTP, AsyncAPI, signals, and a graceful end.

::

    GET /healthz        200 while the event loop turns; a frozen loop does not answer
    GET /readyz         200 when connected and everything it reads and needs is there, else 503 and what is missing
    GET /asyncapi       what this service reads, as a page; /asyncapi.json as a document
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import uvicorn
from faststream.asgi import AsgiFastStream, AsgiResponse, AsyncAPIRoute
from faststream.specification import AsyncAPI
from nats.errors import Error as NatsError

from holdfast_model.errors import HoldfastError, NotFound

from .consuming import Check
from .foreign import bus_error
from .logs import FASTSTREAM, set_up_logs
from .streams import Durable

if TYPE_CHECKING:
    from .bus import Bus

log = logging.getLogger("holdfast.service")

CHECK_LIMIT = 3.0
FAREWELL = 3.0
"""Seconds beyond the graceful timeout for hooks and the connection to end."""
COLLECTION = (20_000, 10, 50)
"""Thresholds of the garbage collector. Messages by the thousand come and go by reference count; to look among them for
cycles as often as by default took a sixth of a busy planner's time."""
SWITCH = 0.0005
"""Seconds for which a thread that computes may keep the event loop waiting, each time the loop has something to do."""


class ServiceApp:
    """The process around a bus; :func:`run` runs it. ``asgi`` is the FastStream application."""

    def __init__(
        self, bus: Bus, *, readiness: Sequence[Check], on_start: Sequence[Check], on_stop: Sequence[Check]
    ) -> None:
        self.bus = bus
        self.url = ""
        """Where /healthz is served, once it is."""
        self._checks = tuple(readiness)
        self._on_start = tuple(on_start)
        self._on_stop = tuple(on_stop)
        self._started = False
        self.asgi = AsgiFastStream(
            bus.broker,
            specification=AsyncAPI(title=f"holdfast {bus.service}", version=bus.version),
            asgi_routes=[("/healthz", self._healthz), ("/readyz", self._readyz)],
            asyncapi_path=AsyncAPIRoute("/asyncapi", asyncapi_json_path="/asyncapi.json", try_it_out_path=None),
            on_startup=[self._before_messages],
            after_startup=[self._after_start],
            on_shutdown=[self._shut_down],
            logger=logging.getLogger(FASTSTREAM),
        )

    async def problems(self) -> list[str]:
        """Why this service is not ready; [] when it is."""
        if not self._started:
            return ["starting"]
        if not self.bus.client.is_connected:
            return ["not connected to NATS"]
        found = await asyncio.gather(
            *(self._consumer_problem(durable) for durable in self.bus.durables),
            *(self._check_problem(check) for check in self._checks),
        )
        return [problem for problem in found if problem]

    async def serve(self) -> int:
        """Run until a signal (0) or until the bus closes or a start fails (1)."""
        settings = self.bus.settings
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, stop)
        listener = socket.create_server((settings.health_host, settings.health_port))
        host, port = listener.getsockname()[:2]
        self.url = f"http://{host}:{port}"
        server = _Server(
            uvicorn.Config(
                self.asgi,
                lifespan="off",  # ours starts the broker, and its failure must end the process
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        http = asyncio.create_task(server.serve(sockets=[listener]))
        log.info("%s %s listening on %s", self.bus.service, self.bus.version, self.url)
        life = asyncio.create_task(self._live(stop))
        watchdog = asyncio.create_task(_watch_loop(settings.freeze_limit))
        try:
            return await self._until_over(life, stop)
        finally:
            watchdog.cancel()
            faulthandler.cancel_dump_traceback_later()
            server.should_exit = True
            await asyncio.wait({http}, timeout=2.0)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _until_over(self, life: asyncio.Task[int], stop: asyncio.Event) -> int:
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({life, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not life.done():
            if not self._started:
                life.cancel()
            await asyncio.wait({life}, timeout=self.bus.settings.graceful_timeout + FAREWELL)
        if not life.done():
            log.error("did not end in time")
            life.cancel()
            return 1
        if life.cancelled():
            return 0
        if (error := life.exception()) is not None:
            log.error("%s stops: %s", self.bus.service, error, exc_info=None if _own(error) else error)
            return 1
        return life.result()

    async def _live(self, stop: asyncio.Event) -> int:
        async with self.asgi.start_lifespan_context():
            waits = {asyncio.create_task(stop.wait()), asyncio.create_task(self.bus.closed.wait())}
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return 0 if stop.is_set() else 1

    def _signalled(self, stop: asyncio.Event) -> None:
        if stop.is_set():
            log.warning("second signal: leaving at once")
            sys.exit(1)
        log.info("%s is stopping", self.bus.service)
        stop.set()

    async def _before_messages(self) -> None:
        await self.bus.connect()
        for hook in self._on_start:
            await hook()

    async def _after_start(self) -> None:
        await self.bus.settle()
        self._started = True
        log.info("%s started", self.bus.service)

    async def _shut_down(self) -> None:
        self._started = False
        await self.bus.quiesce()
        for hook in self._on_stop:
            try:
                async with asyncio.timeout(self.bus.settings.graceful_timeout):
                    await hook()
            except Exception as error:
                log.warning("a stop hook failed", exc_info=error)
        await self.bus.stop()
        log.info("%s stopped", self.bus.service)

    async def _consumer_problem(self, durable: Durable) -> str:
        try:
            async with asyncio.timeout(CHECK_LIMIT):
                info = await self.bus.js.consumer_info(durable.stream, durable.name)
        except (NatsError, TimeoutError, HoldfastError) as error:
            problem = bus_error(error, f"consumer {durable}")
            if isinstance(problem, NotFound):
                return f"consumer {durable} does not exist: run the set-up job"
            return str(problem)
        config = info.config
        if config.ack_wait != durable.ack_wait or config.max_deliver != durable.max_deliver:
            return f"consumer {durable} has other settings than this version wants: run the set-up job"
        return ""

    async def _check_problem(self, check: Check) -> str:
        try:
            async with asyncio.timeout(CHECK_LIMIT):
                await check()
        except TimeoutError:
            return f"{_name(check)}: no answer within {CHECK_LIMIT:g} s"
        except Exception as error:  # noqa: BLE001  whatever a check raises is the reason
            return f"{_name(check)}: {error}"
        return ""

    async def _healthz(self, scope: Any, receive: Any, send: Any) -> None:
        await _json(200, {"service": self.bus.service, "version": self.bus.version})(scope, receive, send)

    async def _readyz(self, scope: Any, receive: Any, send: Any) -> None:
        problems = await self.problems()
        body = {"ready": not problems, "problems": problems}
        await _json(503 if problems else 200, body)(scope, receive, send)


def run(app: ServiceApp) -> None:
    """Be this service until a signal; exits 0 then, and 1 when it cannot go on."""
    settings = app.bus.settings
    set_up_logs(app.bus.service, settings.log_format, settings.log_level)
    gc.set_threshold(*COLLECTION)
    sys.setswitchinterval(SWITCH)
    sys.exit(asyncio.run(app.serve()))


class _Server(uvicorn.Server):
    """Leaves signals to the service: HTTP ends last, so that probes see a service that stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _watch_loop(limit: float) -> None:
    """End the process, with all stacks on standard error, if the loop stands still for ``limit`` seconds.

    The interpreter's own watchdog thread does it, which needs neither the loop nor its lock.
    """
    while limit > 0:
        faulthandler.dump_traceback_later(limit, exit=True)
        await asyncio.sleep(limit / 4)


def _json(status: int, body: object) -> Callable[[Any, Any, Any], Awaitable[None]]:
    return AsgiResponse(json.dumps(body).encode(), status, {"content-type": "application/json"})


def _name(check: Check) -> str:
    return getattr(check, "__name__", type(check).__name__).strip("_")


def _own(error: BaseException) -> bool:
    return isinstance(error, HoldfastError)
