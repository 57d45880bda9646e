"""A subscriber of plain NATS that remembers what it saw: the view of a user with ``nats sub``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from holdfast_bus.connecting import settle

from .waiting import LIMIT, eventually


@dataclass(frozen=True)
class Seen:
    """One message: its subject, the whole body as JSON (None if it is none), and a CloudEvent's ``data``."""

    subject: str
    body: Any
    raw: bytes

    @property
    def data(self) -> Any:
        return self.body.get("data") if isinstance(self.body, dict) and "specversion" in self.body else self.body

    @property
    def node(self) -> str:
        """The CloudEvent's subject."""
        return str(self.body.get("subject", "")) if isinstance(self.body, dict) else ""


class Watcher:
    """Collects everything on some subjects, in order; every event of the system by default."""

    def __init__(self, url: str, *subjects: str) -> None:
        self._url = url
        self._subjects = subjects or ("graph.>", "node.>", "fault.>", "workitem.>", "dlq.>")
        self._client: Client | None = None
        self.seen: list[Seen] = []

    async def start(self) -> None:
        self._client = await nats.connect(self._url, max_reconnect_attempts=-1, reconnect_time_wait=1)
        for subject in self._subjects:
            await self._client.subscribe(subject, cb=self._collect)
        await settle(self._client)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def client(self) -> Client:
        """The plain client, to publish with."""
        assert self._client is not None, "start the watcher first"
        return self._client

    def on(self, pattern: str) -> list[Seen]:
        """What was seen on a subject; ``*`` and ``>`` work as in NATS."""
        return [seen for seen in self.seen if matches(pattern, seen.subject)]

    async def wait_for(self, pattern: str, count: int = 1, within: float = LIMIT, **data: Any) -> list[Seen]:
        """Wait until ``count`` messages on ``pattern`` were seen whose data has the given members."""

        def enough() -> list[Seen]:
            found = [s for s in self.on(pattern) if _has(s.data, data)]
            assert len(found) >= count, (
                f"{len(found)} of {count} on {pattern}; seen: {[s.subject for s in self.seen][-30:]}"
            )
            return found

        return await eventually(enough, within=within, what=f"{count} message(s) on {pattern}")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _collect(self, msg: Msg) -> None:
        try:
            body = json.loads(msg.data)
        except ValueError:
            body = None
        self.seen.append(Seen(msg.subject, body, msg.data))


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject matches a pattern of NATS."""
    wanted, given = pattern.split("."), subject.split(".")
    for i, token in enumerate(wanted):
        if token == ">":
            return len(given) > i
        if i >= len(given) or token not in ("*", given[i]):
            return False
    return len(wanted) == len(given)


def _has(data: Any, members: dict[str, Any]) -> bool:
    return not members or (isinstance(data, dict) and all(data.get(key) == value for key, value in members.items()))
