"""Pulls step batches for free slots, has them run, publishes results, then acknowledges."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.manifest import NodeType, version_key
from holdfast_model.messages import Outcome, ResultBatch, StepBatch, StepOutcome

from .ending import cancel_all
from .reasons import SdkReason
from .running import Batch, Runner

if TYPE_CHECKING:
    from holdfast_bus.work import WorkMessage, WorkQueue

log = logging.getLogger("holdfast.sdk")

Publish = Callable[[int, ResultBatch, str], Awaitable[None]]
"""(partition, results, traceparent): returns when they are stored; Temporary or Permanent when
they are not.
"""

PART_EVERY = 0.05
"""Seconds between two parts of a batch's results: dependents need not wait for its slowest step."""
PULL_WAIT = 5.0
PUBLISH_PATIENCE = 60.0
AGAIN_LATER = 2.0

_decoder = msgspec.json.Decoder(StepBatch)


def slots_of(type: NodeType) -> int:
    """Batches held at once: enough to keep every lane busy, and one more so that pulling overlaps running."""
    return max(1, math.ceil(type.concurrency / type.batch)) + 1


class Worker:
    """The work queue of one node type.

    ``version`` is this instance's. A batch for a newer one is handed back, and ``doubt`` is called: whoever knows says
    :meth:`stand_back` or :meth:`resume`. What was handed back and turns out to be for a version that is gone is
    answered ``expired`` when it comes again, so that its planner sends it anew.
    """

    def __init__(
        self,
        runner: Runner,
        queue: WorkQueue,
        publish: Publish,
        version: str,
        ack_wait: float,
        doubt: Callable[[], None] = lambda: None,
    ) -> None:
        self.slots = slots_of(runner.bound.type)
        self._runner = runner
        self._queue = queue
        self._publish = publish
        self._version = version
        self._ack_wait = ack_wait
        self._doubt = doubt
        self._handed_back: set[str] = set()
        self._gone: set[str] = set()
        self._held: dict[asyncio.Task[None], WorkMessage] = {}
        self._free = asyncio.Event()
        self._free.set()
        self._allowed = asyncio.Event()
        self._allowed.set()

    # ---- may it pull?

    def pause(self) -> None:
        """Pull nothing more; what is held is finished."""
        self._allowed.clear()

    def stand_back(self) -> None:
        """A newer version is live."""
        self._handed_back.clear()
        self._gone.clear()
        self.pause()

    def resume(self) -> None:
        """No newer version is live."""
        self._gone |= self._handed_back
        self._handed_back.clear()
        self._allowed.set()

    @property
    def held(self) -> int:
        """Batches that are not acknowledged yet."""
        return len(self._held)

    # ---- the loops

    async def pull(self) -> None:
        """Fetch for free slots until cancelled."""
        down = False
        while True:
            await self._allowed.wait()
            await self._free.wait()
            try:
                messages = await self._queue.fetch(self.slots - len(self._held), PULL_WAIT)
            except Temporary as e:
                if not down:
                    log.warning("no steps of %s can be had: %s", self._runner.bound.type.name, e.message)
                down = True
                await asyncio.sleep(e.retry_after or 0)
                continue
            down = False
            for message in messages:
                self._hold(message)

    async def heartbeat(self) -> None:
        """Keep what is held from being delivered to somebody else, until cancelled."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            for message in list(self._held.values()):
                await _tell(message.in_progress())

    async def drain(self, patience: float) -> None:
        """Start no more steps, wait for running ones, then hand back what did not end in time."""
        self.pause()
        self._runner.stop()
        if self._held:
            await asyncio.wait(list(self._held), timeout=patience)
        await self._runner.abandon()
        await cancel_all(self._held)

    # ---- one batch

    def _hold(self, message: WorkMessage) -> None:
        task = asyncio.create_task(self._serve(message), name=f"{self._runner.bound.type.name} batch")
        self._held[task] = message
        if len(self._held) >= self.slots:
            self._free.clear()
        task.add_done_callback(self._release)

    def _release(self, task: asyncio.Task[None]) -> None:
        del self._held[task]
        self._free.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a batch of %s was lost to a bug", self._runner.bound.type.name, exc_info=error)

    async def _serve(self, message: WorkMessage) -> None:
        """One batch from delivery to acknowledgement; results are stored before it is acknowledged."""
        try:
            content = _decoder.decode(message.data)
        except msgspec.DecodeError as e:
            log.error("a step batch cannot be read: %s", e)
            await _tell(message.dead_letter(f"not a step batch: {e}"))
            return
        newer = content.domain_version
        if version_key(newer) > version_key(self._version):
            if newer in self._gone:
                await self._send_back(message, content)
                return
            log.warning("a batch for version %s came to %s; pausing", newer, self._version)
            self._handed_back.add(newer)
            self.pause()
            await _tell(message.nak(AGAIN_LATER))
            self._doubt()
            return
        batch = Batch(content)
        self._runner.start(batch)
        try:
            last = False
            while not last:
                last = await batch.next_part(PART_EVERY)
                await self._answer(content, batch.take())
        except asyncio.CancelledError:
            await self._hand_back(message, content, batch)
            raise
        except Temporary as e:
            log.error("results of batch %s could not be stored, it will run again: %s", content.batch, e.message)
            await _tell(message.nak(AGAIN_LATER))
        else:
            await _tell(message.ack())

    async def _send_back(self, message: WorkMessage, content: StepBatch) -> None:
        """Its version is gone: the planner must send the steps anew, for the version that is there."""
        log.info("a batch for version %s, which is gone, is sent back", content.domain_version)
        gone = [
            StepOutcome(s.node, s.operation, s.attempt, Outcome.EXPIRED, SdkReason.VERSION_GONE) for s in content.steps
        ]
        try:
            await self._answer(content, gone)
        except Temporary as e:
            log.warning("batch %s is not sent back yet: %s", content.batch, e.message)
            await _tell(message.nak(AGAIN_LATER))
        else:
            await _tell(message.ack())

    async def _hand_back(self, message: WorkMessage, content: StepBatch, batch: Batch) -> None:
        """The process ends: publish what did end, and let somebody else run the rest at once."""
        try:
            await self._store(content, batch.take())
        except (Temporary, Permanent) as e:
            log.warning("results of batch %s are lost with this process: %s", content.batch, e.message)
        await _tell(message.nak())

    async def _answer(self, content: StepBatch, outcomes: list[StepOutcome]) -> None:
        """Publish outcomes, patiently. Raises Temporary when the bus stays away for too long."""
        pause = 0.1
        waited = 0.0
        while outcomes:
            try:
                await self._store(content, outcomes)
                return
            except Temporary as e:
                if waited >= PUBLISH_PATIENCE:
                    raise
                log.warning("results of batch %s are not stored yet: %s", content.batch, e.message)
            await asyncio.sleep(pause)
            waited += pause
            pause = min(pause * 2, 5.0)

    async def _store(self, content: StepBatch, outcomes: list[StepOutcome]) -> None:
        if not outcomes:
            return
        result = ResultBatch(content.batch, content.tenant, content.graph, content.incarnation, content.epoch, outcomes)
        try:
            await self._publish(content.partition, result, content.traceparent)
        except Permanent as e:
            if len(outcomes) > 1:
                half = len(outcomes) // 2
                await self._store(content, outcomes[:half])
                await self._store(content, outcomes[half:])
                return
            await self._publish(
                content.partition,
                msgspec.structs.replace(result, outcomes=[_unsendable(outcomes[0], e.message)]),
                "",
            )


async def _tell(word: Awaitable[None]) -> None:
    """Acknowledge or the like. If it gets lost the batch comes again, which costs a repetition and no more."""
    try:
        await word
    except Temporary as e:
        log.warning("%s; the batch may be delivered again", e.message)


def _unsendable(outcome: StepOutcome, why: str) -> StepOutcome:
    """The bus will never take this outcome (too large): a failure that says so is better than silence."""
    return StepOutcome(
        outcome.node,
        outcome.operation,
        outcome.attempt,
        Outcome.FAILED,
        SdkReason.UNSENDABLE_RESULT,
        why,
        permanent=True,
    )


__all__ = ["PART_EVERY", "Publish", "Worker", "slots_of"]
