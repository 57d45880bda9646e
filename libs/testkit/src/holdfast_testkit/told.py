"""A user with a plain NATS client: what is told of one tenant, and how it publishes and asks."""

from __future__ import annotations

import json
from typing import Any

from nats.aio.client import Client

from holdfast_bus.connecting import settle

from .waiting import LIMIT, eventually


class Told:
    """What a plain NATS client hears of all graphs, and how it talks back.

    An event that is published again (its service ended before it could note that it had published it) is heard once.
    """

    def __init__(self, client: Client, tenant: str) -> None:
        self.client = client
        self.tenant = tenant
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._ids: set[str] = set()

    async def listen(self) -> None:
        async def hear(message: Any) -> None:
            event = json.loads(message.data)
            if event["id"] not in self._ids:
                self._ids.add(event["id"])
                self.events.append((message.subject, event["data"]))

        for family in ("graph", "node", "fault", "workitem"):
            await self.client.subscribe(f"{family}.{self.tenant}.>", cb=hear)
        await self.client.subscribe("graph._._.rejected", cb=hear)
        await settle(self.client)

    def named(self, subject: str) -> str:
        """Tests write ``default`` for their tenant."""
        return subject.replace(".default.", f".{self.tenant}.")

    async def report(self, graph: str, **body: Any) -> None:
        """Say that nodes changed outside."""
        await self.client.jetstream(timeout=LIMIT).publish(f"state.{self.tenant}.{graph}", json.dumps(body).encode())

    def of(self, subject: str) -> list[dict[str, Any]]:
        """Data of the events on a subject so far."""
        wanted = self.named(subject)
        return [data for heard, data in self.events if heard == wanted]

    async def wait_for(self, subject: str, count: int = 1, within: float = LIMIT) -> dict[str, Any]:
        """The ``count``-th event on a subject."""
        try:
            await eventually(lambda: len(self.of(subject)) >= count, within=within)
        except AssertionError as late:
            heard = "\n".join(f"{s} {str(d)[:200]}" for s, d in self.events)
            raise AssertionError(f"{subject} number {count} was not heard within {within} s; heard:\n{heard}") from late
        return self.of(subject)[count - 1]

    async def publish(self, graph: str, document: object, msg_id: str = "") -> int:
        """Publish a blueprint; returns its sequence."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        headers = {"Nats-Msg-Id": msg_id} if msg_id else None
        ack = await self.client.jetstream(timeout=LIMIT).publish(
            f"blueprint.{self.tenant}.{graph}", body, headers=headers
        )
        return ack.seq

    async def ask(self, verb: str, service: str = "planner", **body: Any) -> dict[str, Any]:
        """An RPC; the reply as it is."""
        request = {"tenant": self.tenant, **body}
        reply = await self.client.request(f"rpc.{service}.{verb}", json.dumps(request).encode(), timeout=LIMIT)
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def phases(self, graph: str) -> dict[str, str]:
        reply = await self.ask("get", graph=graph)
        return {row["id"]: row["phase"] for row in reply.get("nodes", [])}
