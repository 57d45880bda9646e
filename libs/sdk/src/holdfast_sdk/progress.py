"""Progress of running steps, sent as hints: only the newest of each step, a few times a second."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

from holdfast_model.messages import Progress

Send = Callable[[Progress], Awaitable[None]]


class ProgressFeed:
    """Collects reports (from any thread) and sends them at most every ``every`` seconds. Construct it on the
    loop.
    """

    def __init__(self, send: Send, every: float = 0.25) -> None:
        self._send = send
        self._every = every
        self._latest: dict[tuple[str, str, str], Progress] = {}
        self._due = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def report(self, progress: Progress) -> None:
        """Keep the newest report of a step until it is sent."""
        if threading.get_ident() == self._thread:
            self._keep(progress)
        else:
            self._loop.call_soon_threadsafe(self._keep, progress)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            reports, self._latest = list(self._latest.values()), {}
            for progress in reports:
                await self._send(progress)
            await asyncio.sleep(self._every)

    def _keep(self, progress: Progress) -> None:
        self._latest[(progress.tenant, progress.graph, progress.node)] = progress
        self._due.set()
