"""The domain's process: announces itself, observes, and runs steps on :mod:`.things`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_bus import subjects
from holdfast_bus.streams import step_durable
from holdfast_model.errors import HoldfastError, Temporary
from holdfast_model.manifest import Announcement, Manifest
from holdfast_model.messages import (
    CompileReply,
    CompileRequest,
    NodeDeclaration,
    ObserveReply,
    ObserveRequest,
    Outcome,
    ResultBatch,
    Step,
    StepBatch,
    StepOutcome,
)
from holdfast_model.names import AI_REVIEW, GraphRef

from .keyed import key_in
from .things import MANIFEST, TIMEOUT

if TYPE_CHECKING:
    from .processes import Process, SimKv
    from .wire import SimApp, SimBus, SimMessage

HEARTBEAT = 9.0
TOLD_AGAIN = 0.15
_encode = msgspec.json.Encoder().encode


class Service:
    """See the module."""

    def __init__(self, process: Process, bus: SimBus, manifest: Manifest) -> None:
        self._process = process
        self._bus = bus
        self._manifest = manifest
        self._things = process.world.things
        self._highest: dict[tuple[GraphRef, str], tuple[int, int]] = {}
        self._answers: dict[tuple[GraphRef, str], StepOutcome] = {}
        bus.rpc(subjects.rpc_domain(manifest.domain, "observe"), queue=manifest.domain)(self.observe)
        bus.rpc(subjects.rpc_domain(manifest.domain, "compile"), queue=manifest.domain)(self.compile)

    async def start(self) -> None:
        for key in list(self._things.running):
            del self._things.running[key]  # what ran in an earlier life has ended with it
        self._bus.spawn(self._announce())
        for kind in (*(t.name for t in self._manifest.types), AI_REVIEW):
            self._bus.spawn(self._work(kind))

    async def _announce(self) -> None:
        slots = dict.fromkeys((*(t.name for t in self._manifest.types), AI_REVIEW), 3)
        body = Announcement(self._manifest, self._process.name, slots)
        while True:
            try:
                await self._bus.request(subjects.rpc_planner("announce"), body, timeout=4.0)
            except HoldfastError:
                await asyncio.sleep(1.0)
            else:
                await asyncio.sleep(HEARTBEAT)

    async def observe(self, body: bytes) -> ObserveReply:
        request = msgspec.json.decode(body, type=ObserveRequest)
        ref = GraphRef(request.tenant, request.graph)
        return ObserveReply(
            {i.node: self._things.see((ref, key_in(i.spec, i.node), request.type), i.digest) for i in request.nodes}
        )

    async def compile(self, body: bytes) -> CompileReply:
        """The document's nodes as they are."""
        request = msgspec.json.decode(body, type=CompileRequest)
        return CompileReply(msgspec.json.decode(request.spec, type=list[NodeDeclaration]))

    # ---- steps

    async def _work(self, kind: str) -> None:
        queue = self._bus.work_queue(step_durable(self._manifest.domain, kind))
        while True:
            for message in await queue.fetch(2, 30.0):
                message.hold()
                self._bus.spawn(self._serve(message))

    async def _serve(self, message: SimMessage) -> None:
        batch = msgspec.json.decode(message.data, type=StepBatch)
        outcomes = await asyncio.gather(*(self._step(batch, step) for step in batch.steps))
        told = [out for out in outcomes if out is not None]
        cut = self._process.dice.randrange(len(told) + 1)  # a batch may be answered in parts
        for part in (told[:cut], told[cut:]):
            if part:
                await self._tell(batch, part)
        await message.ack()

    async def _tell(self, batch: StepBatch, outcomes: list[StepOutcome]) -> None:
        result = ResultBatch(batch.batch, batch.tenant, batch.graph, batch.incarnation, batch.epoch, outcomes)
        if not self._process.world.calm and self._process.dice.random() < TOLD_AGAIN:
            self._bus.spawn(self._tell_again(subjects.result(batch.partition), _encode(result)))
        while True:
            try:
                await self._bus.publish(subjects.result(batch.partition), _encode(result), stream="RESULTS")
            except Temporary:
                await asyncio.sleep(0.5)
            else:
                return

    async def _tell_again(self, subject: str, body: bytes) -> None:
        """As somebody does who takes up the step once more."""
        await asyncio.sleep(self._process.dice.uniform(0.5, 15.0))
        self._process.world.happened["result told again"] += 1
        with contextlib.suppress(Temporary):
            await self._bus.publish(subject, body, stream="RESULTS")

    async def _step(self, batch: StepBatch, step: Step) -> StepOutcome | None:
        """None for an echo of an attempt that was superseded."""
        ref, dice = GraphRef(batch.tenant, batch.graph), self._process.dice
        key, mine = (ref, step.node), (step.operation, step.attempt)
        await asyncio.sleep(dice.uniform(0.01, 1.0))
        while True:
            highest = self._highest.get(key, (0, 0))
            if mine < highest:
                return None
            if mine > highest:
                self._highest[key] = mine
                self._answers.pop(key, None)
            if key in self._answers:
                return self._answers[key]
            if self._process.clock() > batch.start_by or dice.random() < self._things.luck.expire:
                return self._answer(key, StepOutcome(step.node, *mine, Outcome.EXPIRED))
            if self._things.begin(ref, step):
                break
            await asyncio.sleep(0.5)
        started = self._process.clock()
        try:
            await asyncio.sleep(dice.uniform(0.0, 3.0))
            if self._process.clock() - started >= TIMEOUT:
                return self._answer(key, StepOutcome(step.node, *mine, Outcome.FAILED, reason="timeout"))
            return self._answer(key, self._things.run(batch, step))
        finally:
            self._things.end(ref, step)

    def _answer(self, key: tuple[GraphRef, str], outcome: StepOutcome) -> StepOutcome:
        self._answers[key] = outcome
        self._process.world.say(
            self._process.name,
            f"{outcome.outcome} {key[0]} {outcome.node} op{outcome.operation}.{outcome.attempt} {outcome.reason}",
        )
        return outcome


def compose_domain(process: Process, bus: SimBus, kv: SimKv) -> SimApp:
    service = Service(process, bus, MANIFEST)
    app: Any = bus.app(on_start=[service.start])
    return app
