"""Waiting for what happens to a graph: converged, deleted, or a person is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated

import typer

from holdfast_model.durations import parse_duration
from holdfast_model.errors import Unavailable

from .applying import not_in_time
from .exits import CommandError, Exit
from .items import ACTIVE, outcomes
from .options import GraphArgument, OutputOption, TenantOption, TimeoutOption
from .progress import Wait, until_converged
from .screen import Format, Screen
from .session import Reply, Session, run

POLL = 0.5


class For(StrEnum):
    """What to wait for."""

    CONVERGED = "converged"
    PERSON = "person"
    DELETED = "deleted"


def wait(
    graph: GraphArgument,
    until: Annotated[For, typer.Option("--for", help="What to wait for.")] = For.CONVERGED,
    timeout: TimeoutOption = "5m",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Wait until a graph is as declared, is gone, or waits for a person."""
    screen = Screen(output)
    limit = parse_duration(timeout, "--timeout")

    async def work(session: Session) -> Exit:
        try:
            reply = await _WAITS[until](session, screen, graph, limit)
        except TimeoutError:
            if until is For.CONVERGED:
                raise await not_in_time(session, graph, timeout) from None
            text = f"graph {graph!r} {_MISSED[until]} within {timeout}"
            raise CommandError(
                text,
                exit=Exit.TIMED_OUT,
                code="timeout",
                hint=f"holdfast get nodes {graph} --not-ready; holdfast workitem list {graph}",
            ) from None
        if screen.json:
            screen.document(reply)
        return Exit.OK

    run(screen, tenant, work)


async def _converged(session: Session, screen: Screen, graph: str, limit: float) -> Reply:
    async with session.events(session.graph_events(graph)) as events:
        target = Wait(graph, 1)
        await until_converged(session, screen, events, target, limit)
    screen.say(f"graph {graph!r} converged: {target.counts.get('present', 0)} nodes present")
    return target.counts


async def _asked(session: Session, screen: Screen, graph: str, limit: float) -> Reply:
    async def items() -> Reply | None:
        reply = await session.workitems("list", {"graph": graph, "status": ACTIVE})
        return reply if reply.get("items") else None

    reply = await _poll(items, limit)
    for item in reply["items"]:
        choices = "|".join(outcomes(item))
        screen.say(f"{item.get('title')}: holdfast decide {item.get('id')} {choices}")
    return reply


async def _deleted(session: Session, screen: Screen, graph: str, limit: float) -> Reply:
    async def gone() -> Reply | None:
        reply = await session.planner("list")
        return None if any(g.get("graph") == graph for g in reply.get("graphs", [])) else {"graph": graph}

    reply = await _poll(gone, limit)
    screen.say(f"graph {graph!r} is gone")
    return reply


async def _poll(ask: Callable[[], Awaitable[Reply | None]], limit: float) -> Reply:
    """The first answer; a service that does not answer just then is asked again. Raises TimeoutError."""
    ends = time.monotonic() + limit
    while time.monotonic() < ends:
        try:
            reply = await ask()
        except Unavailable:
            reply = None
        if reply is not None:
            return reply
        await asyncio.sleep(min(POLL, max(0.0, ends - time.monotonic())))
    raise TimeoutError


_MISSED = {For.PERSON: "asked nobody", For.DELETED: "was not gone"}
_WAITS = {For.CONVERGED: _converged, For.PERSON: _asked, For.DELETED: _deleted}
