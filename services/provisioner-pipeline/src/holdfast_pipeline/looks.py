"""Looking at tables in threads, a few looks at a time, for as long as somebody waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 2
"""Looks that are worked on at once; the others wait their turn."""


class Looks:
    """``limit``: seconds, turn included, after which whoever asked is told TimeoutError."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, work: Callable[[], T]) -> T:
        """A look that takes too long goes on alone (a thread cannot be stopped) and keeps its room until it ends."""
        async with asyncio.timeout(self._limit):
            await self._room.acquire()
            running = asyncio.get_running_loop().run_in_executor(None, work)
            running.add_done_callback(lambda _: self._room.release())
            return await asyncio.shield(running)
