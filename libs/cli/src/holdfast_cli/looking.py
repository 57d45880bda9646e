"""Commands that only look: get, explain, plan, watch."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from holdfast_model.durations import parse_duration

from .applying import blueprint_of
from .documents import readable
from .exits import Exit
from .explaining import tell_node
from .items import workitem_list
from .narrate import narrate
from .options import (
    AgainOption,
    AnyGraphArgument,
    ExceptOption,
    FileOption,
    GraphArgument,
    GraphOption,
    NameOption,
    NodeArgument,
    OneGraphArgument,
    OneGraphOption,
    OnlyOption,
    OutputOption,
    TenantOption,
    graph_of,
)
from .screen import Format, Row, Screen, cell, status
from .session import Reply, Session, run
from .showing import show

PAGE = 500
PLAN_LIMIT = 100.0
get = typer.Typer(no_args_is_help=True, help="List graphs, nodes, faults, workitems or domains.")


@get.command("graphs")
def get_graphs(tenant: TenantOption = "default", output: OutputOption = Format.TEXT) -> None:
    """The tenant's graphs."""

    def tell(screen: Screen, reply: Reply) -> None:
        counts = ("nodes", "present", "failed", "waiting", "watched", "in_flight")
        columns = ("graph", "status", "version", *counts, "paused")
        rows: list[Row] = [[_styled(c, g.get(c)) for c in columns] for g in reply.get("graphs", [])]
        screen.table(columns, rows, f"tenant {tenant!r} has no graphs; declare one with `holdfast apply -f`")
        for g in reply.get("graphs", []):
            for old in g.get("outdated", []):
                screen.note(_outdated(str(g.get("graph")), old))

    show(output, tenant, "list", {}, tell)


def _outdated(graph: str, old: Reply) -> str:
    owner = "" if old["name"] == "main" else f" --name {old['name']}"
    said = f"{old['domain']} {old['compiled_by']} compiled the blueprint {old['name']!r} of graph {graph!r}"
    shows = f"`holdfast plan --again -g {graph}{owner}` shows what that would change"
    return f"{said}, {old['newest']} is running: {shows}"


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
        counted = any((n.get("info") or {}).get("rows") is not None for n in reply["nodes"])
        rows: list[Row] = [
            [str(n.get("id")), str(n.get("type")), _styled("status", n.get("status")), _styled("phase", n.get("phase")),
             *([_amount(n.get("info"))] if counted else []),
             " ".join(str(n[k]) for k in ("reason", "detail") if n.get(k))]
            for n in reply["nodes"]
        ]  # fmt: skip
        empty = f"every node of graph {graph!r} is as declared" if not_ready else f"graph {graph!r} has no nodes"
        columns = ("node", "type", "status", "phase", *(["rows"] if counted else []), "why")
        screen.table(columns, rows, empty)
        for stage in (reply.get("graph") or {}).get("stages") or []:
            screen.note(_stage(stage))
        return None

    run(screen, tenant, work)


def _stage(stage: Reply) -> str:
    """How far a blueprint in phases is, and what keeps it from going on."""
    names = stage.get("phases") or []
    at = int(stage.get("index") or 0)
    said = f"blueprint {stage.get('name')!r} is in phase {stage.get('phase')!r}, {at + 1} of {len(names)}"
    if stage.get("problem"):
        return f"{said}; {names[at + 1] if at + 1 < len(names) else 'the next'!r} cannot begin: {stage['problem']}"
    missing = int(stage.get("missing") or 0)
    late = ", and out of time" if stage.get("timed_out") else ""
    if missing:
        return f"{said}: {missing} of its nodes {'is' if missing == 1 else 'are'} not as declared{late}"
    return said + late


def _amount(info: Reply | None) -> str:
    """Rows of a table, and how fast they came."""
    rows, pace = (info or {}).get("rows"), (info or {}).get("rows_per_second")
    if not isinstance(rows, int):
        return "-"
    return f"{rows:,}" + (f" ({pace:,}/s)" if isinstance(pace, int) else "")


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


@get.command("leftovers")
def get_leftovers(
    graph: OneGraphArgument = "",
    graph_option: OneGraphOption = "",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """What is there though nobody desires it. `holdfast import` makes a blueprint of it."""
    graph = graph_of(graph, graph_option, "main")

    def tell(screen: Screen, reply: Reply) -> None:
        rows: list[Row] = [
            [str(one.get("id")), str(one.get("type")), _clock(one.get("since")), cell(one.get("detail"))]
            for one in reply.get("leftovers", [])
        ]
        screen.table(("node", "type", "found", "what becomes of it"), rows, f"graph {graph!r} has no leftovers")

    def document(reply: Reply) -> Reply:
        return {"graph": graph, "leftovers": reply.get("leftovers", [])}

    show(output, tenant, "get", {"graph": graph, "nodes": []}, tell, document)


@get.command("blueprint")
def get_blueprint(
    graph: OneGraphArgument = "",
    graph_option: OneGraphOption = "",
    name: Annotated[str, typer.Option(help="Its owner.")] = "main",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """The newest blueprint of an owner, as it was applied."""
    graph = graph_of(graph, graph_option, "main")
    show(
        output, tenant, "blueprint", {"graph": graph, "name": name},
        lambda screen, reply: screen.say(readable(str(reply["document"]))),
        lambda reply: yaml.safe_load(str(reply["document"])),
    )  # fmt: skip


@get.command("faults")
def get_faults(
    graph: OneGraphArgument = "",
    graph_option: OneGraphOption = "",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Faults of a graph that are not over yet."""
    graph = graph_of(graph, graph_option, "main")

    def tell(screen: Screen, reply: Reply) -> None:
        rows: list[Row] = [
            [_clock(f.get("time")), Text(str(f.get("type")), style="red"), str(f.get("node")),
             ": ".join(str(f[k]) for k in ("reason", "detail") if f.get(k))]
            for f in reply.get("faults", [])
        ]  # fmt: skip
        screen.table(("time", "fault", "node", "why"), rows, f"no recent faults in graph {graph!r}")

    show(output, tenant, "faults", {"graph": graph}, tell)


@get.command("domains")
def get_domains(tenant: TenantOption = "default", output: OutputOption = Format.TEXT) -> None:
    """The domains that announced themselves."""

    def tell(screen: Screen, reply: Reply) -> None:
        columns = ("domain", "versions", "live", "types", "instances")
        rows: list[Row] = [[_styled(c, d.get(c)) for c in columns] for d in reply.get("domains", [])]
        screen.table(columns, rows, "no domain has announced itself")

    show(output, tenant, "domains", {}, tell)


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
    workitem_list(graph, graph_option, everything, mine, False, tenant, output)


def explain(
    graph: GraphArgument, node: NodeArgument, tenant: TenantOption = "default", output: OutputOption = Format.TEXT
) -> None:
    """Say why a node is as it is, what it waits for, and what comes next."""
    show(output, tenant, "explain", {"graph": graph, "node": node}, tell_node)


def plan(
    file: FileOption = "",
    again: AgainOption = False,
    graph: GraphOption = "main",
    name: NameOption = "",
    only: OnlyOption = None,
    omit: ExceptOption = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="End with 5 if it would change anything.")
    ] = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Preview what a blueprint would do. Changes nothing."""
    screen = Screen(output)

    async def work(session: Session) -> Exit:
        blueprint, _ = await blueprint_of(session, graph, file, again, name, only, omit)
        body = {"graph": graph, "blueprint": blueprint}
        reply = await session.planner("plan", body, limit=PLAN_LIMIT)
        changes = sum(int((reply.get("counts") or {}).get(k, 0)) for k in ("add", "update", "move", "remove"))
        if screen.json:
            screen.document(reply)
        else:
            _tell_plan(screen, reply, changes)
        return Exit.CHANGES if changes and detailed_exitcode else Exit.OK

    run(screen, tenant, work)


_SIGNS = {"add": ("+", "green"), "update": ("~", "yellow"), "move": (">", "cyan"), "remove": ("-", "red")}


def _tell_plan(screen: Screen, reply: Reply, changes: int) -> None:
    for step in reply.get("steps", []):
        sign, style = _SIGNS.get(str(step.get("action")), ("?", ""))
        line = Text.assemble((f"{sign} {step.get('node')}", style), f"  {step.get('type', '')}")
        for key, word in (("reason", ""), ("after", "after "), ("gate", "asks: ")):
            if step.get(key):
                line.append(f"  {word}{cell(step[key])}", style="dim")
        screen.say(line)
        for one in step.get("references", []):
            screen.say(Text(f"    {_reference(one)}", style="red" if one.get("problem") else "dim"))
    for one in reply.get("may_follow", []):
        screen.say(Text(f"? {one.get('node')}  made anew if {cell(one.get('references'))} changes", style="dim"))
    counts = reply.get("counts") or {}
    shown = [k for k in ("add", "update", "move", "remove") if k != "move" or counts.get(k)]
    told = ", ".join(f"{counts.get(k, 0)} to {k}" for k in shown)
    screen.say(f"{told}, {counts.get('unchanged', 0)} unchanged" if changes else "nothing would change")
    if reply.get("removals_blocked"):
        asks = "a person will be asked first, `apply --allow-removals` consents"
        screen.say(Text(f"blast radius: {cell(reply['removals_blocked'])}; {asks}", style="red"))
    for warning in reply.get("warnings") or []:
        screen.note(f"warning: {warning}")


def _reference(one: Reply) -> str:
    """One reference of a step: its place in the spec, and its value or when that will be known."""
    if "value" in one:
        return f"{one.get('at')} = {cell(one['value'])}  ({one.get('ref')})"
    why = f"; now {one['problem']}" if one.get("problem") else ""
    return f"{one.get('at')}: known after {one.get('known_after')}  ({one.get('ref')}{why})"


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
