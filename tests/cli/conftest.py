"""A scripted peer: answers requests as the services would, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from typer.testing import CliRunner, Result

from holdfast_cli.main import build

Answer = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Peer:
    """Answers ``rpc.<service>.<verb>`` from :attr:`answers`, keyed ``service.verb``."""

    client: Client
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    events_after: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)

    async def on_request(self, message: Msg) -> None:
        key = message.subject.removeprefix("rpc.")
        body = json.loads(message.data)
        self.asked.append((key, body))
        answer = self.answers.get(key)
        if answer is None:
            return
        reply = answer(body) if callable(answer) else answer
        await message.respond(json.dumps(reply).encode())
        for subject, data in self.events_after.get(key, ()):
            await self.tell(subject, data)

    async def tell(self, subject: str, data: dict[str, Any]) -> None:
        """Publish an event as the services do."""
        envelope = {
            "specversion": "1.0", "id": f"id-{len(self.asked)}", "source": "peer", "type": "t",
            "time": "2026-01-02T03:04:05Z", "datacontenttype": "application/json", "data": data,
        }  # fmt: skip
        await self.client.publish(subject, json.dumps(envelope).encode())

    def bodies(self, key: str) -> list[dict[str, Any]]:
        """What was asked under this key."""
        return [body for asked, body in self.asked if asked == key]


@pytest.fixture
async def peer(nats_url: str) -> AsyncIterator[Peer]:
    client = await nats.connect(nats_url)
    peer = Peer(client)
    for service in ("planner", "workitems"):
        await client.subscribe(f"rpc.{service}.*", cb=peer.on_request)
    await client.flush()
    yield peer
    await client.close()


Invoke = Callable[..., Awaitable[Result]]


@pytest.fixture
def holdfast(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs one command line as a person would, against the peer."""
    monkeypatch.setenv("HOLDFAST_NATS_URL", nats_url)
    monkeypatch.setenv("HOLDFAST_ACTOR", "ann")
    monkeypatch.delenv("HOLDFAST_TENANT", raising=False)

    async def invoke(*arguments: str, text: str | None = None) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, build(), list(arguments), text)

    return invoke
