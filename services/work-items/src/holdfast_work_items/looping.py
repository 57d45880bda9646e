"""Work that is done again and again in the background, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from holdfast_model.errors import Temporary

log = logging.getLogger("holdfast.work_items")

LONGEST_PAUSE = 10.0


class Loop:
    """Calls ``turn`` every ``interval`` seconds, and at once after :meth:`wake`.

    A turn that fails is logged and tried again, after ever longer pauses up to 10 s.
    """

    def __init__(self, name: str, turn: Callable[[], Awaitable[None]], interval: float) -> None:
        self._name = name
        self._turn = turn
        self._interval = interval
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0

    def wake(self) -> None:
        """There is something to do."""
        self._woken.set()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=LONGEST_PAUSE)

    async def check(self) -> None:
        """Raise Temporary while turns fail. For readiness."""
        if self._failures > 1:
            raise Temporary(f"{self._name} failed {self._failures} times in a row")

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._turn()
                self._failures = 0
            except Temporary as error:
                self._failures += 1
                log.warning("%s: %s", self._name, error)
            except Exception:  # one bad turn must not end all later ones
                self._failures += 1
                log.exception("%s failed", self._name)
            if self._failures:
                await asyncio.sleep(min(LONGEST_PAUSE, 0.25 * 2 ** min(self._failures, 8)))
                continue
            try:
                async with asyncio.timeout(self._interval):
                    await self._woken.wait()
            except TimeoutError:
                continue
