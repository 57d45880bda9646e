"""``holdfast doctor``: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from rich.text import Text

from holdfast_bus.streams import DLQ, DURABLES, FAULTS, STREAMS
from holdfast_model.errors import HoldfastError

from .connection import find
from .exits import Exit
from .options import OutputOption, TenantOption
from .screen import Format, Screen
from .session import START_HINT, Session, connected, finish

ALARM = 0.8


class Finding(NamedTuple):
    """One check. ``advice`` says what to do when it is not ok."""

    check: str
    ok: bool
    detail: str
    advice: str = ""


def doctor(tenant: TenantOption = "default", output: OutputOption = Format.TEXT) -> None:
    """Check connection, streams, consumers, services, domains and dead letters."""
    screen = Screen(output)

    async def work() -> Exit:
        findings: list[Finding] = []
        place = find(os.environ, Path.cwd())
        code = Exit.OK
        try:
            async with connected(tenant, place) as session:
                findings += [await _checked(check, session) for check in CHECKS]
        except HoldfastError as error:
            findings.append(Finding("connection", False, error.message, error.hint))
            code = Exit.UNREACHABLE
        if code is Exit.OK and not all(f.ok for f in findings):
            code = Exit.FAILED
        if screen.json:
            screen.document({"ok": code is Exit.OK, "findings": [f._asdict() for f in findings]})
        else:
            for found in findings:
                _tell(screen, found)
        return code

    finish(screen, work)


def _tell(screen: Screen, found: Finding) -> None:
    mark = ("ok  ", "green") if found.ok else ("FAIL", "bold red")
    screen.say(Text.assemble(mark, f"  {found.check}: {found.detail}"))
    if not found.ok and found.advice:
        screen.say(Text(f"      next: {found.advice}", style="bold"))


async def _checked(check: Callable[[Session], Awaitable[Finding]], session: Session) -> Finding:
    name = check.__name__.strip("_").replace("_", "-")
    try:
        return await check(session)
    except HoldfastError as error:
        return Finding(name, False, error.message, error.hint)
    except (NatsError, TimeoutError) as error:
        return Finding(name, False, f"{type(error).__name__}: {error}", START_HINT)


async def _server(session: Session) -> Finding:
    found = session.bus.client.connected_server_version
    version = f"{found.major}.{found.minor}.{found.patch}"
    place = session.found
    return Finding("server", True, f"NATS {version} at {place.url} (from {place.source})")


async def _streams(session: Session) -> Finding:
    missing = [s.name for s in STREAMS if not await _exists(session.bus.js.stream_info(s.name))]
    advice = "run the set-up job: python -m holdfast_bus.setup"
    return Finding(
        "streams", not missing, f"missing {', '.join(missing)}" if missing else f"all {len(STREAMS)}", advice
    )


async def _consumers(session: Session) -> Finding:
    missing = [str(d) for d in DURABLES if not await _exists(session.bus.js.consumer_info(d.stream, d.name))]
    detail = f"missing {', '.join(missing[:4])} ({len(missing)} in all)" if missing else f"all {len(DURABLES)}"
    return Finding("consumers", not missing, detail, "run the set-up job: python -m holdfast_bus.setup")


async def _exists(question: Awaitable[object]) -> bool:
    try:
        await asyncio.wait_for(question, 5.0)
    except NotFoundError:
        return False
    return True


async def _planner(session: Session) -> Finding:
    graphs = (await session.planner("list", limit=5.0)).get("graphs", [])
    bad = [g.get("graph") for g in graphs if g.get("failed")]
    told = f"answers; {len(graphs)} graphs of tenant {session.tenant!r}"
    return Finding("planner", True, f"{told}, failures in {', '.join(map(str, bad))}" if bad else told)


async def _work_items(session: Session) -> Finding:
    summary = await session.workitems("summary", limit=5.0)
    return Finding(
        "work-items", True, f"answers; {summary.get('active', 0)} active, {summary.get('overdue', 0)} overdue"
    )


async def _domains(session: Session) -> Finding:
    domains = (await session.planner("domains", limit=5.0)).get("domains", [])
    live = [str(d.get("domain")) for d in domains if d.get("live")]
    advice = "start one: it announces itself (holdfast up runs the pipeline domain)"
    return Finding("domains", bool(live), f"live: {', '.join(live)}" if live else "none is live", advice)


async def _letters(session: Session) -> Finding:
    count = (await session.bus.js.stream_info(DLQ.name)).state.messages
    advice = f"look at them: nats stream view {DLQ.name}"
    return Finding("dead-letters", not count, f"{count} messages" if count else "none", advice)


async def _faults(session: Session) -> Finding:
    info = await session.bus.js.stream_info(FAULTS.name)
    limit = info.config.max_bytes or -1
    share = info.state.bytes / limit if limit > 0 else 0.0
    advice = "readers of faults lag, or old ones must be purged: a full stream stops the publishing of new ones"
    return Finding("fault-stream", share < ALARM, f"{share:.0%} full", advice)


CHECKS = (_server, _streams, _consumers, _planner, _work_items, _domains, _letters, _faults)
