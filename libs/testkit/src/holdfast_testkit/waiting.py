"""Waiting for a condition, with a limit."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

LIMIT = 60.0
"""Seconds. Generous, for a limit costs nothing until something is really wrong, and machines differ tenfold."""
STARTING = 180.0
"""Seconds until a service or server that was started is ready: it loads its libraries for seconds of one core, which
is a minute where ten others do the same."""


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]], within: float = LIMIT, every: float = 0.02, what: str = ""
) -> T: ...
@overload
async def eventually(condition: Callable[[], T], within: float = LIMIT, every: float = 0.02, what: str = "") -> T: ...
async def eventually(
    condition: Callable[[], T | Awaitable[T]], within: float = LIMIT, every: float = 0.02, what: str = ""
) -> T:
    """Call ``condition`` until it returns something truthy without AssertionError; return that.

    Raises AssertionError after ``within`` seconds, with the last thing seen.
    Polls ever more slowly, up to 0.25 s.
    """
    deadline = time.monotonic() + within
    pause = every
    while True:
        seen: object = None
        try:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return cast(T, value)
            seen = value
        except AssertionError as error:
            seen = error
        if time.monotonic() >= deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"{name} did not come true within {within} s; last seen: {seen!r}")
        await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.5, 0.25)
