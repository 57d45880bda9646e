"""An event loop in virtual time, whose order of events depends on nothing but what is run on it.

Callbacks run in the order in which they became ready, timers in the order of (time, number). What a process of the
simulation schedules carries its :class:`Life` in its context; once that has ended, nothing of it runs any more, not
even ``finally`` blocks: that is what a crash means. A frozen life runs nothing until it is thawed.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


class Life:
    """One run of a process, from its start to its crash."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.held: list[Handle] = []
        self.tasks: list[SimTask] = []


class Handle:
    """A scheduled callback."""

    __slots__ = ("_args", "_callback", "_cancelled", "_when", "context", "number")

    def __init__(
        self, callback: Callable[..., object], args: Any, context: contextvars.Context, when: float, number: int
    ) -> None:
        self._callback = callback
        self._args = args
        self.context = context
        self._when = when
        self.number = number
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        self.context.run(self._callback, *self._args)

    def __lt__(self, other: Handle) -> bool:
        return (self._when, self.number) < (other._when, other.number)


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its number, so that a set of tasks is walked in the same order in every run."""

    def __init__(self, coro: Any, *, loop: VirtualLoop, name: str | None, context: Any) -> None:
        loop.tasks += 1
        self.number = loop.tasks
        super().__init__(coro, loop=loop, name=name or f"task {self.number}", context=context)
        life = LIFE.get() if context is None else context.get(LIFE)
        if life is not None:
            life.tasks.append(self)
            if len(life.tasks) > 500:
                life.tasks = [t for t in life.tasks if not t.done() or t._log_traceback]

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.AbstractEventLoop):
    """See the module. :meth:`play` runs it up to a time."""

    def __init__(self, start: float) -> None:
        self.now = start
        self.tasks = 0
        self._number = 0
        self._ready: deque[Handle] = deque()
        self._timers: list[Handle] = []
        self.failure: BaseException | None = None
        """Raised out of :meth:`play`: an invariant does not hold."""

    def play(self, until: float) -> None:
        """Run everything that is due up to ``until``."""
        ready, timers = self._ready, self._timers
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while True:
                while ready:
                    handle = ready.popleft()
                    if handle._cancelled:
                        continue
                    life = handle.context.get(LIFE)
                    if life is not None and not life.alive:
                        continue
                    if life is not None and life.frozen:
                        life.held.append(handle)
                        continue
                    handle.run()
                    if self.failure is not None:
                        raise self.failure
                while timers and timers[0]._cancelled:
                    heapq.heappop(timers)
                if not timers or timers[0]._when > until:
                    break
                handle = heapq.heappop(timers)
                self.now = max(self.now, handle._when)
                ready.append(handle)
            self.now = max(self.now, until)
        finally:
            asyncio._set_running_loop(before)

    def thaw(self, life: Life) -> None:
        """Let a frozen life run again, beginning with what was due meanwhile."""
        life.frozen = False
        held, life.held = life.held, []
        self._ready.extend(held)

    # ---- what asyncio asks of a loop

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        self._number += 1
        handle = Handle(
            callback, args, contextvars.copy_context() if context is None else context, self.now, self._number
        )
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        self._number += 1
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context, when, self._number)
        heapq.heappush(self._timers, handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        return SimTask(coro, loop=self, name=name, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """What would run in a thread runs at once: nobody can tell, as nothing shared is changed meanwhile."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  whoever waits gets it
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A callback raised, or nobody looked at a task's exception."""
        error = context.get("exception")
        if isinstance(error, AssertionError):
            self.failure = self.failure or error
