"""Commands that change a graph: apply, delete, pause, resume, reconcile, unblock."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast_model.durations import parse_duration
from holdfast_model.errors import Problem

from .documents import read_blueprint
from .exits import CommandError, Exit
from .options import (
    FileOption,
    GraphArgument,
    GraphOption,
    MaybeNodeArgument,
    NodeArgument,
    OutputOption,
    TenantOption,
    TimeoutOption,
)
from .progress import Wait, until_converged
from .screen import Format, Screen
from .session import Reply, Session, finish, run

ADMISSION_LIMIT = 60.0


def apply(
    file: FileOption,
    graph: GraphOption = "main",
    name: Annotated[str, typer.Option(help="Owner: blueprints of different names build one graph.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow until converged.")] = False,
    allow_removals: Annotated[bool, typer.Option(help="Consent to removing much of the graph.")] = False,
    timeout: TimeoutOption = "5m",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Declare what a graph should be."""
    screen = Screen(output)

    async def work(session: Session) -> Exit:
        async with session.events(session.graph_events(graph)) as events:
            body = {"graph": graph, "blueprint": _blueprint(file, name, allow_removals)}
            reply = await session.planner("apply", body, limit=ADMISSION_LIMIT)
            refuse_unless_taken(reply, graph)
            if not screen.json:
                tell_admission(screen, reply, graph)
            if wait:
                target = Wait(graph, int(reply.get("version", 0)))
                try:
                    await until_converged(session, screen, events, target, parse_duration(timeout, "--timeout"))
                except TimeoutError:
                    raise await not_in_time(session, graph, timeout) from None
                reply = {**reply, "converged": True, "counts": target.counts}
                present = target.counts.get("present", 0)
                screen.say(f"graph {graph!r} converged: {present} of {target.counts.get('nodes', 0)} nodes present")
            if screen.json:
                screen.document(reply)
        return Exit.OK

    run(screen, tenant, work)


def _blueprint(file: str, name: str, allow_removals: bool) -> dict[str, object]:
    blueprint = read_blueprint(file)
    if name:
        blueprint["name"] = name
    if allow_removals:
        blueprint["allow_removals"] = True
    return blueprint


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
        screen.say(f"graph {graph!r} waits: {why}; it is taken up by itself")
        return
    changes = reply.get("changes") or {}
    counts = ", ".join(f"{_count(changes.get(key))} {key}" for key in ("added", "updated", "removed"))
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


def delete(
    graph: GraphArgument,
    name: Annotated[str, typer.Option(help="Only the nodes of this owner.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Remove a graph (or one owner's part of it), dependents first."""
    screen = Screen(output)
    what = f"everything of owner {name!r} in graph {graph!r}" if name else f"graph {graph!r} with everything in it"

    async def refuse() -> Exit:
        raise CommandError(f"nothing was deleted: {what} was not confirmed", hint="say --yes to skip the question")

    if not yes:
        try:
            sure = typer.confirm(f"Remove {what} (tenant {tenant!r})?", default=False, err=True)
        except typer.Abort:
            sure = False
        if not sure:
            finish(screen, refuse)

    async def work(session: Session) -> Exit:
        body = {"graph": graph, "name": name} if name else {"graph": graph}
        reply = await session.planner("delete", body, limit=ADMISSION_LIMIT)
        refuse_unless_taken(reply, graph)
        if screen.json:
            screen.document(reply)
        else:
            screen.say(f"{what}: deletion {reply.get('status', 'accepted')}; `holdfast watch -g {graph}` follows it")
        return Exit.OK

    run(screen, tenant, work)


def pause(
    graph: GraphArgument,
    node: MaybeNodeArgument = "",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Stop sending steps (observation goes on)."""
    _simple("pause", graph, node, tenant, output, "paused")


def resume(
    graph: GraphArgument,
    node: MaybeNodeArgument = "",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Go on after a pause, at once."""
    _simple("resume", graph, node, tenant, output, "resumed")


def reconcile(
    graph: GraphArgument,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Observe everything now instead of at the next resync."""
    _simple("reconcile", graph, "", tenant, output, "is being observed anew")


def unblock(
    graph: GraphArgument,
    node: NodeArgument,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Clear a node's backoff, quarantine, hold and refusals."""
    _simple("unblock", graph, node, tenant, output, "unblocked")


def _simple(verb: str, graph: str, node: str, tenant: str, output: Format, done: str) -> None:
    screen = Screen(output)

    async def work(session: Session) -> Exit:
        reply = await session.planner(verb, {"graph": graph, "node": node} if node else {"graph": graph})
        if screen.json:
            screen.document(reply)
        else:
            screen.say(f"{f'node {node!r} of graph' if node else 'graph'} {graph!r} {done}")
        return Exit.OK

    run(screen, tenant, work)
