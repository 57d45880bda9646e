"""Commands that change a graph: apply, delete, pause, resume, reconcile, unblock."""

from __future__ import annotations

from typing import Annotated

import typer

from .applying import ADMISSION_LIMIT, blueprint_of, refuse_unless_taken, submit
from .exits import CommandError, Exit
from .options import (
    AgainOption,
    ExceptOption,
    FileOption,
    GraphArgument,
    GraphOption,
    MaybeNodeArgument,
    NameOption,
    NodeArgument,
    OnlyOption,
    OutputOption,
    TenantOption,
    TimeoutOption,
)
from .screen import Format, Screen
from .session import Session, finish, run


def apply(
    file: FileOption = "",
    again: AgainOption = False,
    graph: GraphOption = "main",
    name: NameOption = "",
    only: OnlyOption = None,
    omit: ExceptOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow until converged.")] = False,
    allow_removals: Annotated[bool, typer.Option(help="Consent to removing much of the graph.")] = False,
    timeout: TimeoutOption = "5m",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Declare what a graph should be."""
    screen = Screen(output)

    async def work(session: Session) -> Exit:
        flags = {"allow_removals": allow_removals}
        blueprint, after = await blueprint_of(session, graph, file, again, name, only, omit, **flags)
        return await submit(session, screen, graph, blueprint, timeout if wait else "", after)

    run(screen, tenant, work)


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
            for warning in reply.get("warnings") or []:
                screen.note(f"warning: {warning}")
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
