"""A domain in the hands of a test: it announces itself, and the test says what is seen and how each step ends.

For what no author of a domain can make happen with the SDK: outcomes of other implementations, answers that never come.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.client import JetStreamContext

from holdfast_model.manifest import Announcement, Manifest, NodeType
from holdfast_model.messages import (
    Action,
    Observation,
    ObserveReply,
    ObserveRequest,
    Outcome,
    ResultBatch,
    Status,
    Step,
    StepBatch,
    StepOutcome,
)
from holdfast_model.names import GraphRef
from holdfast_testkit.told import Told
from holdfast_testkit.waiting import LIMIT

HEARTBEAT = 5.0


class Puppet:
    """One domain with one type, both named after the tenant. ``seen``: what its observer says of each node."""

    def __init__(self, client: Client, tenant: str, **type: Any) -> None:
        self.client = client
        self.domain = f"d{tenant}"
        self.type = f"doll-{tenant}"
        self.seen: dict[str, Observation] = {}
        self.leftovers: list[str] = []
        """What it finds, if its type says ``discover``."""
        self.silent = False
        """Its observer does not answer."""
        more: dict[str, Any] = {"resync": 3600.0, "timeout": 2 * LIMIT, "batch": 1, "concurrency": 1, **type}
        self._manifest = Manifest(self.domain, "1", [NodeType(self.type, **more)])
        self._left = False
        self._steps: JetStreamContext.PullSubscription | None = None

    async def announce(self, *, leaving: bool = False) -> None:
        """Be there, with room for one batch at a time, or leave."""
        self._left = leaving
        said = Announcement(self._manifest, "hand", {self.type: 1}, leaving)
        answer = await self.client.request("rpc.planner.announce", msgspec.json.encode(said), timeout=LIMIT)
        reply = msgspec.json.decode(answer.data)
        assert "error" not in reply, reply
        if self._steps is None:
            await self.client.subscribe(f"rpc.domain.{self.domain}.observe", cb=self._observe)
            await self.client.flush()
            self._beating = asyncio.create_task(self._beat())
            durable = reply["consumers"][self.type]
            self._steps = await self.client.jetstream().pull_subscribe_bind(durable, "STEPS")

    async def _beat(self) -> None:
        """Stay there until it has left, or the test is over."""
        while not (self._left or self.client.is_closed):
            await asyncio.sleep(HEARTBEAT)
            with suppress(NatsError):  # the client may just have been closed
                if not (self._left or self.client.is_closed):
                    await self.announce()

    async def _observe(self, message: Any) -> None:
        request = msgspec.json.decode(message.data, type=ObserveRequest)
        absent = Observation(Status.ABSENT)
        if self.silent:
            return
        seen = {item.node: self.seen.get(item.node, absent) for item in request.nodes}
        await message.respond(msgspec.json.encode(ObserveReply(seen, self.leftovers if request.discover else [])))

    async def take(self) -> tuple[StepBatch, Step]:
        """The next step; it is taken off the queue, and answered only by :meth:`end`."""
        assert self._steps is not None
        (message,) = await self._steps.fetch(1, timeout=LIMIT)
        batch = msgspec.json.decode(message.data, type=StepBatch)
        await message.ack()
        return batch, batch.steps[0]

    async def end(self, taken: tuple[StepBatch, Step], outcome: Outcome = Outcome.SUCCEEDED, **more: Any) -> None:
        """Answer a step."""
        batch, step = taken
        if outcome is Outcome.SUCCEEDED:
            status = Status.PRESENT if step.action is Action.PROVISION else Status.ABSENT
            self.seen[step.node] = Observation(status)
            more.setdefault("observation", self.seen[step.node])
        ended = StepOutcome(step.node, step.operation, step.attempt, outcome, **more)
        result = ResultBatch(batch.batch, batch.tenant, batch.graph, batch.incarnation, batch.epoch, [ended])
        subject = f"result.{GraphRef(batch.tenant, batch.graph).partition}"
        await self.client.jetstream().publish(subject, msgspec.json.encode(result))


async def puppet(stage: Told, **type: Any) -> Puppet:
    """A domain of the test's own, running."""
    made = Puppet(stage.client, stage.tenant, **type)
    await made.announce()
    return made


def doll(made: Puppet, id: str, *needs: str, gating: str = "NONE", **spec: Any) -> dict[str, Any]:
    """A raw node of it."""
    return {"id": id, "type": made.type, "gating": gating, "spec": spec, "depends_on": list(needs)}
