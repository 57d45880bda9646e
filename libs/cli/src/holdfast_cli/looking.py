"""Commands that only look: get, explain, plan, watch."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import typer
from rich.text import Text

from holdfast_model.durations import parse_duration

from .documents import read_blueprint
from .exits import Exit
from .explaining import tell_node
from .items import workitem_list
from .narrate import narrate
from .options import (
    AnyGraphArgument,
    FileOption,
    GraphArgument,
    GraphOption,
    NodeArgument,
    OneGraphArgument,
    OneGraphOption,
    OutputOption,
    TenantOption,
    graph_of,
)
from .screen import Format, Row, Screen, cell, status
from .session import Reply, Session, run

PAGE = 500
PLAN_LIMIT = 60.0
get = typer.Typer(no_args_is_help=True, help="List graphs, nodes, faults, workitems or domains.")


@get.command("graphs")
def get_graphs(tenant: TenantOption = "default", output: OutputOption = Format.TEXT) -> None:
    """The tenant's graphs."""
    screen = Screen(output)

    async def work(session: Session) -> None:
        reply = await session.planner("list")
        if screen.json:
            return screen.document(reply)
        columns = ("graph", "status", "version", "nodes", "present", "failed", "waiting", "in_flight", "paused")
        rows: list[Row] = [[_styled(c, g.get(c)) for c in columns] for g in reply.get("graphs", [])]
        return screen.table(columns, rows, f"tenant {tenant!r} has no graphs; declare one with `holdfast apply -f`")

    run(screen, tenant, work)


@get.command("nodes")
def get_nodes(
    graph: OneGraphArgument = "",
    graph_option: OneGraphOption = "",
    not_ready: Annotated[bool, typer.Option("--not-ready", help="Only what is not as declared.")] = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """The nodes of a graph and how they are."""
    screen = Screen(output)
    graph = graph_of(graph, graph_option, "main")

    async def work(session: Session) -> None:
        reply = await _all_nodes(session, graph, not_ready)
        if screen.json:
            return screen.document(reply)
        rows: list[Row] = [
            [str(n.get("id")), str(n.get("type")), _styled("status", n.get("status")), _styled("phase", n.get("phase")),
             " ".join(str(n[k]) for k in ("reason", "detail") if n.get(k))]
            for n in reply["nodes"]
        ]  # fmt: skip
        empty = f"every node of graph {graph!r} is as declared" if not_ready else f"graph {graph!r} has no nodes"
        return screen.table(("node", "type", "status", "phase", "why"), rows, empty)

    run(screen, tenant, work)


async def _all_nodes(session: Session, graph: str, not_ready: bool) -> Reply:
    """All pages as one reply."""
    body: dict[str, Any] = {"graph": graph, "limit": PAGE}
    if not_ready:
        body["only"] = "not_ready"
    reply = await session.planner("get", body)
    nodes = list(reply.get("nodes", []))
    while reply.get("next"):
        reply = await session.planner("get", {**body, "after": reply["next"]})
        nodes += reply.get("nodes", [])
    return {"graph": reply.get("graph"), "nodes": nodes}


@get.command("faults")
def get_faults(
    graph: OneGraphArgument = "",
    graph_option: OneGraphOption = "",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Faults of a graph that are not over yet."""
    screen = Screen(output)
    graph = graph_of(graph, graph_option, "main")

    async def work(session: Session) -> None:
        reply = await session.planner("faults", {"graph": graph})
        if screen.json:
            return screen.document(reply)
        rows: list[Row] = [
            [_clock(f.get("time")), Text(str(f.get("type")), style="red"), str(f.get("node")),
             ": ".join(str(f[k]) for k in ("reason", "detail") if f.get(k))]
            for f in reply.get("faults", [])
        ]  # fmt: skip
        return screen.table(("time", "fault", "node", "why"), rows, f"no recent faults in graph {graph!r}")

    run(screen, tenant, work)


@get.command("domains")
def get_domains(tenant: TenantOption = "default", output: OutputOption = Format.TEXT) -> None:
    """The domains that announced themselves."""
    screen = Screen(output)

    async def work(session: Session) -> None:
        reply = await session.planner("domains")
        if screen.json:
            return screen.document(reply)
        rows: list[Row] = [[_styled(c, d.get(c)) for c in ("domain", "versions", "live", "types", "instances")]
                for d in reply.get("domains", [])]  # fmt: skip
        return screen.table(
            ("domain", "versions", "live", "types", "instances"), rows, "no domain has announced itself"
        )

    run(screen, tenant, work)


@get.command("workitems")
def get_workitems(
    graph: AnyGraphArgument = "",
    graph_option: OneGraphOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Also the ones that have ended.")] = False,
    mine: Annotated[bool, typer.Option("--mine", help="Only what I may work on.")] = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """What waits for a person (the same as `holdfast workitem list`)."""
    workitem_list(graph, graph_option, everything, mine, tenant, output)


def explain(
    graph: GraphArgument, node: NodeArgument, tenant: TenantOption = "default", output: OutputOption = Format.TEXT
) -> None:
    """Say why a node is as it is, what it waits for, and what comes next."""
    screen = Screen(output)

    async def work(session: Session) -> None:
        reply = await session.planner("explain", {"graph": graph, "node": node})
        if screen.json:
            return screen.document(reply)
        return tell_node(screen, reply)

    run(screen, tenant, work)


def plan(
    file: FileOption,
    graph: GraphOption = "main",
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="End with 5 if it would change anything.")
    ] = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Preview what a blueprint would do. Changes nothing."""
    screen = Screen(output)

    async def work(session: Session) -> Exit:
        reply = await session.planner("plan", {"graph": graph, "blueprint": read_blueprint(file)}, limit=PLAN_LIMIT)
        changes = sum(int((reply.get("counts") or {}).get(k, 0)) for k in ("add", "update", "remove"))
        if screen.json:
            screen.document(reply)
        else:
            _tell_plan(screen, reply, changes)
        return Exit.CHANGES if changes and detailed_exitcode else Exit.OK

    run(screen, tenant, work)


_SIGNS = {"add": ("+", "green"), "update": ("~", "yellow"), "remove": ("-", "red")}


def _tell_plan(screen: Screen, reply: Reply, changes: int) -> None:
    for step in reply.get("steps", []):
        sign, style = _SIGNS.get(str(step.get("action")), ("?", ""))
        line = Text.assemble((f"{sign} {step.get('node')}", style), f"  {step.get('type', '')}")
        for key, word in (("reason", ""), ("after", "after "), ("gate", "asks: ")):
            if step.get(key):
                line.append(f"  {word}{cell(step[key])}", style="dim")
        screen.say(line)
    counts = reply.get("counts") or {}
    told = ", ".join(f"{counts.get(k, 0)} to {k}" for k in ("add", "update", "remove"))
    screen.say(f"{told}, {counts.get('unchanged', 0)} unchanged" if changes else "nothing would change")
    if reply.get("removals_blocked"):
        screen.say(
            Text(f"blast radius: {cell(reply['removals_blocked'])}; `apply --allow-removals` consents", style="red")
        )


def watch(
    graph: AnyGraphArgument = "",
    graph_option: OneGraphOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Progress of single steps too.")] = False,
    duration: Annotated[str, typer.Option("--for", help="Stop after this long, like 30s.")] = "",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Show events as they happen, until Ctrl-C."""
    screen = Screen(output)
    graph = graph_of(graph, graph_option)
    limit = parse_duration(duration, "--for") if duration else float("inf")

    async def work(session: Session) -> None:
        ends = time.monotonic() + limit
        async with session.events(session.graph_events(graph or "*")) as events:
            screen.note(Text(f"watching tenant {tenant!r} on {session.found.url}; Ctrl-C ends", style="dim"))
            while (left := ends - time.monotonic()) > 0:
                try:
                    seen = await asyncio.wait_for(events.get(), min(left, 3600.0))
                except TimeoutError:
                    continue
                if screen.json:
                    screen.line(seen.envelope)
                elif text := narrate(seen, everything=everything):
                    screen.say(text)

    run(screen, tenant, work)


def _styled(column: str, value: Any) -> str | Text:
    if column in ("status", "phase") and isinstance(value, str):
        return status(value)
    return cell(value)


def _clock(value: Any) -> str:
    if isinstance(value, int | float):
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(value))
    return cell(value)
