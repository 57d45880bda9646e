"""Runs the steps of one node type: lanes up to its concurrency, its rate, one attempt per node. No bus.

A *lane* is a task that takes one step after another, so that a step costs no task of its own. Batches wait
for their steps and learn each outcome through :class:`Batch`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from holdfast_model.messages import Outcome, Step, StepBatch, StepOutcome

from .attempts import Now, attempt
from .context import Report
from .ending import cancel_all
from .flights import Flights
from .handlers import Bound
from .history import History
from .rates import Rate
from .reasons import SdkReason

_BREATH = 128  # steps a lane runs before it lets the loop look at something else


class Batch:
    """A delivered batch and what is known of its steps. ``left`` steps have not ended yet."""

    __slots__ = ("changed", "content", "ended", "left", "outcomes", "scope")

    def __init__(self, content: StepBatch) -> None:
        self.content = content
        self.scope = f"{content.tenant}/{content.graph}/{content.incarnation}"
        self.left = len(content.steps)
        self.outcomes: list[StepOutcome] = []
        self.changed = asyncio.Event()
        self.ended = asyncio.Event()

    def end(self, outcome: StepOutcome | None) -> None:
        """One step ended; None for one that needs no answer."""
        if outcome is not None:
            self.outcomes.append(outcome)
        self.left -= 1
        if not self.changed.is_set():
            self.changed.set()
        if self.left == 0:
            self.ended.set()

    def take(self) -> list[StepOutcome]:
        """The outcomes since the last call."""
        taken, self.outcomes = self.outcomes, []
        return taken

    async def next_part(self, pause: float) -> bool:
        """Wait for outcomes, giving others ``pause`` seconds to join them. True for the last part."""
        await self.changed.wait()
        if self.left:
            try:
                async with asyncio.timeout(pause):
                    await self.ended.wait()
            except TimeoutError:
                self.changed.clear()
        return self.left == 0


class Runner:
    """Runs steps of one type. ``now`` is the time of day in epoch seconds, as ``start_by`` is compared with
    it.
    """

    def __init__(self, bound: Bound, now: Now = time.time, report: Report | None = None) -> None:
        self.bound = bound
        self._now = now
        self._report = report
        self._rate = Rate(bound.type.rate) if bound.type.rate else None
        self._history = History()
        self._flights: Flights[Batch, Step] = Flights()
        self._waiting: deque[tuple[Batch, Step]] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def running(self) -> int:
        """Attempts under way, waiting ones included."""
        return len(self._flights)

    def start(self, batch: Batch) -> None:
        """Line up the steps of a batch. Copies of older attempts end silently, copies of running ones join
        them.
        """
        if not batch.content.steps:
            batch.changed.set()
            batch.ended.set()
            return
        for step in batch.content.steps:
            seen = (step.operation, step.attempt)
            if self._history.see(batch.scope, step.node, seen) == "older":
                batch.end(None)
            elif self._flights.board(batch.scope, step.node, seen, batch, step):
                self._waiting.append((batch, step))
        if self._stopping:
            self._expire()
        self._open_lane()

    def stop(self) -> None:
        """Start nothing more: steps that wait answer ``expired``, which costs no attempt."""
        self._stopping = True
        self._expire()

    async def abandon(self) -> None:
        """Cancel what still runs; its batches stay unanswered."""
        await cancel_all(self._lanes)

    def _open_lane(self) -> None:
        """One lane more, if there is work for it. Lanes open each other, so that steps that never wait need one."""
        if self._waiting and len(self._lanes) < self.bound.type.concurrency:
            lane = asyncio.create_task(self._lane())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)

    async def _lane(self) -> None:
        breath = _BREATH
        first = True
        while self._waiting:
            batch, step = self._waiting.popleft()
            if first:
                first = False
                self._open_lane()
            if self._rate is not None:
                await self._turn(self._rate)
                if self._stopping:
                    self._finish(batch, step, _not_started(step))
                    continue
            outcome = await attempt(self.bound, batch.content, step, self._now, self._report)
            self._finish(batch, step, outcome)
            breath -= 1
            if not breath:
                breath = _BREATH
                await asyncio.sleep(0)

    async def _turn(self, rate: Rate) -> None:
        delay = rate.take(time.monotonic())
        if delay > 0:
            await asyncio.sleep(delay)

    def _finish(self, batch: Batch, step: Step, outcome: StepOutcome) -> None:
        joined, behind = self._flights.land(batch.scope, step.node)
        batch.end(outcome)
        for other in joined:
            other.end(outcome)
        for other, newer in behind:
            if self._flights.board(other.scope, newer.node, (newer.operation, newer.attempt), other, newer):
                self._waiting.append((other, newer))
        if behind and self._stopping:
            self._expire()

    def _expire(self) -> None:
        while self._waiting:
            batch, step = self._waiting.popleft()
            self._finish(batch, step, _not_started(step))


def _not_started(step: Step) -> StepOutcome:
    return StepOutcome(step.node, step.operation, step.attempt, Outcome.EXPIRED, SdkReason.STOPPING)
