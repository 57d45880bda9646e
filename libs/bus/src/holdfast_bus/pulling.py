"""Pulling from one durable, for exactly as many messages as asked.

Why not the client's own pull subscription, nor FastStream's loop over it: when a consumer is deleted or the client
is closed, that loop fetches thousands of times per second without yielding; it waits for the slowest message of a
batch before it asks for the next, or asks for more than it can work on; and messages it holds when it stops are not
given back. Here a request is open only while somebody waits for it, and a missing consumer costs one look per second.

One request is enough: ``no_wait`` together with ``expires`` makes the server send what is there, or wait for the
first message, and then end the request. Its end is a status message on the request's own reply subject.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from holdfast_model.errors import HoldfastError, NotFound, Unavailable

from .envelope import is_delivery
from .foreign import bus_error
from .streams import Durable

log = logging.getLogger("holdfast.bus")

QUIET = 0.02
"""Seconds without a further message after which a request that did not end is given up (the consumer is full)."""
GRACE = 1.0
"""Seconds a server may take beyond a request's expiry to say so."""
HEARTBEAT = 5.0
FIRST_PAUSE = 0.1
PAUSE = 1.0
"""Looks at a consumer that is missing or silent are this far apart (seconds), beginning with FIRST_PAUSE."""


class Puller:
    """Messages of one durable on one connection. Not for concurrent fetches (they queue up)."""

    def __init__(self, client: Callable[[], Client], durable: Durable) -> None:
        self._client = client
        self.durable = durable
        self.stream_created = ""
        """When the stream was created (RFC 3339): sequences of a stream made anew start again."""
        self._held: deque[Msg] = deque()
        self._arrived = 0
        self._ended = ""
        self._beat = 0.0
        self._lost = False
        self._bound = False
        self._request = 0
        self._wake = asyncio.Event()
        self._anew = asyncio.Event()
        self._lock = asyncio.Lock()
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def fetch(self, n: int, wait: float) -> list[Msg]:
        """Up to ``n`` messages: what is there, else the first that comes within ``wait`` seconds, else [].

        Raises Unavailable if at the end of ``wait`` (and at least a second) the consumer cannot be reached.
        """
        began = time.monotonic()
        async with self._lock:
            try:
                await self._fill(n, time.monotonic() + wait)
            except HoldfastError as error:
                # Whatever it was, nobody who calls in a loop shall turn hot over it.
                await asyncio.sleep(max(0.0, began + PAUSE - time.monotonic()))
                if isinstance(error, Unavailable):
                    raise
                raise Unavailable(error.message, retry_after=PAUSE, hint=error.hint) from error
            return [self._held.popleft() for _ in range(min(n, len(self._held)))]

    async def _fill(self, n: int, deadline: float) -> None:
        while not self._held:
            if not self._bound:
                await self._bind(deadline)
            left = deadline - time.monotonic()
            if left <= 0:
                return
            await self._pull(n, left)

    def reconnected(self) -> None:
        """The connection was made anew: requests that were open are gone."""
        self._lost = True
        self._bound = False
        self._wake.set()
        self._anew.set()

    async def close(self) -> None:
        """Give back (nak) what was delivered but not fetched."""
        await self._retire()
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=GRACE)
        while self._held:
            await give_back(self._held.popleft())

    async def unsubscribe(self) -> None:
        """The name under which FastStream closes a subscription."""
        await self.close()

    async def _bind(self, deadline: float) -> None:
        """Make sure that the consumer exists. Raises Unavailable: after a second if it does not, and at
        ``deadline`` (no sooner than in a second) if the server does not say."""
        began = time.monotonic()
        pause = FIRST_PAUSE
        while True:
            try:
                created = await self._look()
            except (NatsError, TimeoutError) as error:
                await asyncio.sleep(pause)
                pause = min(pause * 2, PAUSE)
                problem = bus_error(error, f"reading {self.durable}")
                waited = time.monotonic() - began
                if isinstance(problem, NotFound) and waited >= PAUSE:
                    raise Unavailable(
                        f"consumer {self.durable} does not exist", retry_after=PAUSE, hint="run the set-up job"
                    ) from error
                if waited >= PAUSE and (time.monotonic() >= deadline or self._client().is_closed):
                    raise problem from error
            else:
                self._bound = True
                self._lost = False
                self.stream_created = created
                return

    async def _look(self) -> str:
        """When the stream was created, if the consumer exists. Asks again when the connection was made anew: what
        was asked over the old one may never be answered."""
        while True:
            self._anew.clear()
            look = asyncio.get_running_loop().create_task(self._ask_info())
            anew = asyncio.get_running_loop().create_task(self._anew.wait())
            try:
                await asyncio.wait({look, anew}, return_when=asyncio.FIRST_COMPLETED)
                if look.done():
                    return look.result()
            finally:
                for task in (look, anew):
                    task.cancel()
                    task.add_done_callback(_nobody_asks)

    async def _ask_info(self) -> str:
        manager = self._client().jsm()
        stream = await manager.stream_info(self.durable.stream)
        await manager.consumer_info(self.durable.stream, self.durable.name, timeout=5)
        return _text(stream.created)

    async def _pull(self, n: int, wait: float) -> None:
        """One request for ``n`` messages within ``wait`` seconds; what comes is in ``_held``."""
        end = await self._ask(n, wait, no_wait=True)
        if end == "408 Requests Pending" and not self._held:
            # Another reader waits already, and the server lets only one of them wait this way. Wait for one message
            # in the plain way, then take what else is there.
            end = await self._ask(1, wait, no_wait=False)
            if self._held and n > 1 and not self._lost:
                end = await self._ask(n - len(self._held), 0.0, no_wait=True)
        if end.startswith(("503", "409")) and not self._held:
            self._bound = "Exceeded" in end or "Batch Completed" in end
            if self._bound:
                await asyncio.sleep(min(wait, QUIET * 5))

    async def _ask(self, n: int, wait: float, *, no_wait: bool) -> str:
        """Send one request and wait for its end: the status that ended it, or "" if all ``n`` messages came."""
        if n <= 0:
            return ""
        client = self._client()
        await self._subscribe(client)
        self._request += 1
        self._ended = ""
        self._lost = False
        body: dict[str, object] = {"batch": n}
        if no_wait:
            body["no_wait"] = True
        if wait > 0:
            body["expires"] = int(wait * 1e9)
        beats = wait >= 3 * HEARTBEAT
        if beats:
            body["idle_heartbeat"] = int(HEARTBEAT * 1e9)
        target = f"$JS.API.CONSUMER.MSG.NEXT.{self.durable.stream}.{self.durable.name}"
        arrived = self._arrived
        self._beat = time.monotonic()
        deadline = self._beat + wait + GRACE
        ended = False
        try:
            await client.publish(target, json.dumps(body).encode(), reply=f"{self._inbox}.{self._request}")
            while True:
                got = self._arrived - arrived
                if got >= n or self._ended:
                    ended = True
                    return self._ended
                if self._lost:
                    return "lost"
                now = time.monotonic()
                limit = deadline - now
                if got:
                    limit = min(limit, QUIET)
                elif beats:
                    limit = min(limit, self._beat + 3 * HEARTBEAT - now)
                if limit <= 0:
                    self._bound = False  # not even its end came: look whether the consumer is still there
                    return "silent"
                self._wake.clear()
                try:
                    async with asyncio.timeout(limit):
                        await self._wake.wait()
                except TimeoutError:
                    if self._arrived > arrived:
                        return "quiet"
        except NatsError as error:
            self._bound = False
            raise bus_error(error, f"reading {self.durable}") from error
        finally:
            if not ended:
                # Credit may be left at the server, and would bring messages nobody has room for.
                await self._retire()

    async def _subscribe(self, client: Client) -> None:
        if self._subscription is None:
            self._inbox = client.new_inbox()
            # The credit bounds what can arrive; a limit in bytes would drop messages.
            self._subscription = await client.subscribe(f"{self._inbox}.*", cb=self._received, pending_bytes_limit=0)

    async def _retire(self) -> None:
        """Take interest away from open requests, but keep what is under way to us."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            task = asyncio.get_running_loop().create_task(_drain(subscription))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _received(self, msg: Msg) -> None:
        if is_delivery(msg.reply):
            self._held.append(msg)
            self._arrived += 1
            self._wake.set()
            return
        if not msg.subject.endswith(f".{self._request}") or not msg.headers:
            return
        status = msg.headers.get("Status", "")
        self._beat = time.monotonic()
        if status != "100":
            description = msg.headers.get("Description", "")
            self._ended = f"{status} {description}"
            self._wake.set()


async def give_back(msg: Msg) -> None:
    """Nak a message nobody worked on; if that cannot be said, its ack_wait says it later."""
    try:
        await msg.nak()
    except NatsError as error:
        log.debug("could not give back a message: %s", error)


async def _drain(subscription: Subscription) -> None:
    try:
        async with asyncio.timeout(GRACE):
            await subscription.drain()  # type: ignore[no-untyped-call]
    except (NatsError, TimeoutError, OSError) as error:
        log.debug("could not drain an inbox: %s", error)


def _text(created: object) -> str:
    return created.isoformat() if hasattr(created, "isoformat") else str(created or "")


def _nobody_asks(task: asyncio.Task[str] | asyncio.Task[bool]) -> None:
    """Whoever waited for ``task`` is gone: how it ended is nothing to complain of."""
    if not task.cancelled():
        task.exception()
