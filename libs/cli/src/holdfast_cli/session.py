"""One command's connection: requests with their replies, and events as they come."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import typer

from holdfast_bus import subjects
from holdfast_bus.link import Link, linked
from holdfast_bus.settings import BusSettings
from holdfast_model.errors import HoldfastError, Invalid, Unavailable

from .connection import Found, find
from .exits import CommandError, Exit, command_error
from .screen import Screen

Reply = dict[str, Any]
CONNECT_LIMIT = 4.0
RPC_LIMIT = 15.0
START_HINT = "start it with `holdfast up` or `docker compose up`, or point HOLDFAST_NATS_URL at it"


@dataclass(frozen=True, slots=True)
class Seen:
    """One event of a graph. ``data`` is the CloudEvent's data."""

    family: str
    graph: str
    name: str
    id: str
    node: str
    time: str
    data: Reply
    envelope: Reply


class Session:
    """Requests of one actor for one tenant."""

    def __init__(self, bus: Link, found: Found, tenant: str, actor: str) -> None:
        self.bus = bus
        self.found = found
        self.tenant = tenant
        self.actor = actor

    async def planner(self, verb: str, body: Mapping[str, object] | None = None, *, limit: float = RPC_LIMIT) -> Reply:
        """Ask the planner; ``tenant`` and ``actor`` go along. ``limit`` is in seconds."""
        request = {"tenant": self.tenant, "actor": self.actor, **(body or {})}
        return await self._ask(subjects.rpc_planner(verb), request, limit, "planner")

    async def workitems(
        self, verb: str, body: Mapping[str, object] | None = None, *, limit: float = RPC_LIMIT
    ) -> Reply:
        """Ask the work-items service; ``tenant`` goes along. ``limit`` is in seconds."""
        request = {"tenant": self.tenant, **(body or {})}
        return await self._ask(subjects.rpc_workitems(verb), request, limit, "work-items")

    async def domain(
        self, domain: str, verb: str, body: Mapping[str, object] | None = None, *, limit: float = RPC_LIMIT
    ) -> Reply:
        """Ask a domain's service; ``tenant`` and ``actor`` go along. ``limit`` is in seconds."""
        request = {"tenant": self.tenant, "actor": self.actor, **(body or {})}
        return await self._ask(subjects.rpc_domain(domain, verb), request, limit, domain)

    async def _ask(self, subject: str, body: object, limit: float, who: str) -> Reply:
        try:
            reply = await self.bus.request(subject, msgspec.json.encode(body), timeout=limit)
        except Unavailable as error:
            raise Unavailable(
                f"no {who} service answers on {self.found.url}: {error.message}",
                hint=error.hint or f"{START_HINT}; `holdfast doctor` tells what is missing",
            ) from error
        return cast(Reply, msgspec.json.decode(reply))

    @asynccontextmanager
    async def events(self, wanted: Sequence[str]) -> AsyncIterator[asyncio.Queue[Seen]]:
        """Events of these subjects, in a queue that is filled until the block ends."""
        queue: asyncio.Queue[Seen] = asyncio.Queue(maxsize=10_000)

        async def take(message: Any) -> None:
            seen = decode_event(message.subject, message.data)
            if seen is not None and not queue.full():
                queue.put_nowait(seen)

        subscriptions = [await self.bus.client.subscribe(subject, cb=take) for subject in wanted]
        await self.bus.client.flush(timeout=5)
        try:
            yield queue
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()

    def graph_events(self, graph: str) -> list[str]:
        """Everything that is told about a graph (``*``: about all graphs of the tenant)."""
        return [subjects.told(family, self.tenant, graph) for family in ("graph", "node", "fault", "workitem")]


def decode_event(subject: str, data: bytes) -> Seen | None:
    """The event in a message; None for what is no event of ours."""
    try:
        place = subjects.parse_event(subject)
        envelope = msgspec.json.decode(data)
    except (Invalid, msgspec.DecodeError):
        return None
    if not isinstance(envelope, dict):
        return None
    inner = envelope.get("data", envelope)
    return Seen(
        family=place.family.value,
        graph=place.graph.graph,
        name=place.name,
        id=str(envelope.get("id", "")),
        node=str(envelope.get("subject", "")),
        time=str(envelope.get("time", "")),
        data=inner if isinstance(inner, dict) else {"value": inner},
        envelope=envelope,
    )


def actor_name() -> str:
    """Who acts: ``HOLDFAST_ACTOR``, else the name of the user."""
    if name := os.environ.get("HOLDFAST_ACTOR", ""):
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


@asynccontextmanager
async def connected(tenant: str, found: Found | None = None) -> AsyncIterator[Session]:
    """A session, or Unavailable when nothing answers within a few seconds."""
    place = found or find(os.environ, Path.cwd())
    unreachable = Unavailable(f"cannot reach Holdfast at {place.url} (from {place.source})", hint=START_HINT)
    link = linked(BusSettings(nats_url=place.url), "holdfast-cli")
    try:
        bus = await asyncio.wait_for(link.__aenter__(), CONNECT_LIMIT)
    except (TimeoutError, OSError, HoldfastError) as error:
        raise unreachable from error
    try:
        yield Session(bus, place, tenant, actor_name())
    finally:
        await link.__aexit__(None, None, None)


def run(screen: Screen, tenant: str, work: Callable[[Session], Coroutine[Any, Any, Exit | None]]) -> None:
    """Run one command against Holdfast; ends the process's command with its exit code."""

    async def session() -> Exit | None:
        async with connected(tenant) as opened:
            return await work(opened)

    finish(screen, session)


def finish(screen: Screen, work: Callable[[], Coroutine[Any, Any, Exit | None]]) -> None:
    """Run ``work``; errors become one block and an exit code."""
    try:
        code = asyncio.run(work())
    except CommandError as error:
        code = screen.fail(error)
    except HoldfastError as error:
        code = screen.fail(command_error(error))
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    if code:
        raise typer.Exit(code)
