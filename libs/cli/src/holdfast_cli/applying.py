"""Handing a blueprint to the planner, telling what became of it, and following it until it converged."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast_model.durations import parse_duration
from holdfast_model.errors import Problem

from .documents import declared, once_more
from .exits import CommandError, Exit
from .progress import Wait, until_converged
from .screen import Screen
from .session import Reply, Session

ADMISSION_LIMIT = 120.0
"""Seconds: a document of tens of megabytes takes a while to be compiled and declared."""


async def blueprint_of(
    session: Session, graph: str, file: str, again: bool, name: str, only: Sequence[str] | None,
    omit: Sequence[str] | None, **flags: bool,
) -> tuple[Reply, int | None]:  # fmt: skip
    """What a command declares: a file, or once more the newest blueprint of an owner, and after which sequence."""
    if again == bool(file) or (again and (only or omit)):
        text = "--again takes the whole newest blueprint" if again else "which blueprint?"
        hint = "name a file with -f, or say --again without --file, --only and --except"
        raise CommandError(text, hint=hint, exit=Exit.USAGE, code="usage")
    if not again:
        return declared(file, name, only, omit, **flags), None
    kept = await newest(session, graph, name or "main")
    return once_more(str(kept["document"]), **flags), kept.get("after")


async def newest(session: Session, graph: str, name: str) -> Reply:
    """``document``, the newest blueprint of an owner, and ``after``, to be given along when it is applied changed."""
    return await session.planner("blueprint", {"graph": graph, "name": name, "to_change": True})


async def submit(
    session: Session, screen: Screen, graph: str, blueprint: object, follow: str = "", after: int | None = None
) -> Exit:
    """Apply ``blueprint`` and tell what became of it; ``follow`` is how long to wait until it converged, if at all.
    ``after``: only if no other blueprint of the graph was published since that sequence.

    Raises CommandError where it is rejected, or did not converge in time.
    """
    async with session.events(session.graph_events(graph)) as events:
        body = {"graph": graph, "blueprint": blueprint, "wait": ADMISSION_LIMIT - 10, "after": after}
        reply = await session.planner("apply", body, limit=ADMISSION_LIMIT)
        refuse_unless_taken(reply, graph)
        if not screen.json:
            tell_admission(screen, reply, graph)
        if follow:
            target = Wait(graph, int(reply.get("version", 0)))
            try:
                await until_converged(session, screen, events, target, parse_duration(follow, "--timeout"))
            except TimeoutError:
                raise await not_in_time(session, graph, follow) from None
            reply = {**reply, "converged": True, "counts": target.counts}
            present = target.counts.get("present", 0)
            screen.say(f"graph {graph!r} converged: {present} of {target.counts.get('nodes', 0)} nodes present")
        if screen.json:
            screen.document(reply)
    return Exit.OK


def refuse_unless_taken(reply: Reply, graph: str) -> None:
    """Raise the block that says why a blueprint was rejected."""
    if reply.get("status") != "rejected":
        return
    problems = [Problem(str(p.get("path", "")), str(p.get("message", ""))) for p in reply.get("problems", [])]
    message = reply.get("reason") or reply.get("message") or "the blueprint is not valid"
    raise CommandError(
        f"rejected: {message}",
        problems=problems,
        hint=reply.get("hint") or f"graph {graph!r} is as it was; correct the blueprint and apply it again",
        code="rejected",
    )


def tell_admission(screen: Screen, reply: Reply, graph: str) -> None:
    """What became of a blueprint, in one or two lines."""
    for warning in reply.get("warnings") or []:
        screen.note(f"warning: {warning}")
    if reply.get("status") == "waiting":
        why = reply.get("message") or "its domain is not running"
        if reply.get("removes"):
            screen.say(f"graph {graph!r} is as it was: {why}; `holdfast get workitems` shows whom it waits for")
            return
        screen.say(f"graph {graph!r} waits: {why}; it is taken up by itself")
        return
    changes = reply.get("changes") or {}
    shown = [key for key in ("added", "updated", "moved", "removed") if key != "moved" or changes.get(key)]
    counts = ", ".join(f"{_count(changes.get(key))} {key}" for key in shown)
    screen.say(f"graph {graph!r} accepted as version {reply.get('version', '?')} ({counts})")


def _count(value: object) -> int:
    if isinstance(value, list):
        return len(value)
    return value if isinstance(value, int) else 0


async def not_in_time(session: Session, graph: str, timeout: str) -> CommandError:
    """The block of a wait that ran out: it names what is in the way."""
    reply = await session.planner("get", {"graph": graph, "only": "not_ready", "limit": 10})
    nodes = reply.get("nodes", [])
    problems = [
        Problem(str(n.get("id", "")), " ".join(str(n[k]) for k in ("phase", "reason", "detail") if n.get(k)))
        for n in nodes
    ]
    first = nodes[0]["id"] if nodes else "NODE"
    return CommandError(
        f"graph {graph!r} did not converge within {timeout}",
        problems=problems,
        hint=f"`holdfast explain {graph} {first}` says what it waits for; Holdfast goes on meanwhile",
        code="timed_out",
        exit=Exit.TIMED_OUT,
    )
