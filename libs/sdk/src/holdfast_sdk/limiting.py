"""A time limit for an author's method that costs nothing where nothing is waited for.

A timer per call is the largest part of what a quick step costs. So a call runs until it waits for the first time, and
only then gets its timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Limit:
    """Bounds one call. ``expired`` tells, afterwards, that it was cancelled for being late."""

    __slots__ = ("_seconds", "expired")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.expired = False

    async def run(self, call: Awaitable[T]) -> T:
        """The result of ``call``; TimeoutError (and ``expired``) when it took longer than the limit."""
        began = asyncio.get_running_loop().time()
        steps = call.__await__()
        try:
            awaited = next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        timeout = asyncio.timeout_at(began + self._seconds)
        try:
            async with timeout:
                return await _Rest(steps, awaited)
        finally:
            self.expired = timeout.expired()


class _Rest(Generic[T]):
    """What is left of a call that waits for ``awaited``."""

    __slots__ = ("_awaited", "_steps")

    def __init__(self, steps: Generator[Any, Any, T], awaited: object) -> None:
        self._steps = steps
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        steps, awaited = self._steps, self._awaited
        thrown: BaseException | None = None
        sent: Any = None
        while True:
            try:
                sent = yield awaited
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is thrown into the call, as into any awaited one
                thrown = error
            try:
                awaited = steps.send(sent) if thrown is None else steps.throw(thrown)
            except StopIteration as done:
                result: T = done.value
                return result
            thrown = None
