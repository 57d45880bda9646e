"""Commands about data pipelines: where rows come from, rows, what changed, and making tables again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text
from rich.tree import Tree

from .applying import newest, submit
from .exits import CommandError, Exit
from .options import GraphArgument, OutputOption, TenantOption, TimeoutOption
from .screen import Format, Row, Screen, cell
from .session import Reply, Session, run

DOMAIN = "pipeline"
LOOK_LIMIT = 30.0
TABLE_KEYS = ("ingestions", "cleansers", "enrichers", "validators", "transformers", "sinks")
"""Keys of a pipeline's spec whose stages have tables."""

OWN_COLUMNS = frozenset({"_tag", "_sha", "_batch", "_errors", "_breach"})
"""Columns that Holdfast keeps beside the data, and people seldom want to see."""

pipeline = typer.Typer(no_args_is_help=True, help="Look into the tables of a pipeline, and make them again.")

StageArgument = Annotated[str, typer.Argument(help="Id of a stage.", show_default=False)]
MaybeStageArgument = Annotated[str, typer.Argument(help="Id of a stage (the whole graph if not given).")]
AsOfOption = Annotated[str, typer.Option("--as-of", help="A version, a time, or how long ago (2h).")]


@pipeline.command()
def lineage(
    graph: GraphArgument,
    stage: MaybeStageArgument = "",
    file: Annotated[str, typer.Option("--file", help="What this file went into.")] = "",
    as_of: AsOfOption = "",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Which files and versions made a table; with --file, what a file went into."""
    screen = Screen(output)

    async def work(session: Session) -> None:
        body = {"graph": graph, "stage": stage, "file": file, "as_of": as_of}
        reply = await session.domain(DOMAIN, "lineage", body, limit=LOOK_LIMIT)
        if screen.json:
            return screen.document(reply)
        if file:
            return _tell_file(screen, reply)
        if stage:
            return _tell_stage(screen, reply)
        rows: list[Row] = [
            [_name(s), s["layer"], str(s["version"]), cell(s.get("rows")), cell(s.get("at")), _made_from(s)]
            for s in reply["stages"]
        ]
        return screen.table(
            ("stage", "layer", "version", "rows", "made at", "made from"), rows, f"graph {graph!r} has no tables yet"
        )

    run(screen, tenant, work)


def _name(stage: Reply) -> str:
    return f"{stage['stage']} ({stage['type']})"


def _made_from(stage: Reply) -> str:
    inputs = [f"{i['stage']}@{i['version']}" for i in stage.get("inputs") or []]
    return ", ".join([*inputs, *(stage.get("lookups") or [])]) or "files"


def _tell_stage(screen: Screen, reply: Reply) -> None:
    known = {(v["stage"], v["version"]): v for v in reply["made_from"]}

    def label(version: Reply) -> Text:
        text = Text.assemble((version["stage"], "bold"), f" version {version['version']}")
        if version.get("gone"):
            return text.append(f"  gone: {version['gone']}", style="red")
        text.append(f"  {cell(version.get('rows'))} rows  {version.get('at', '')}", style="dim")
        if version.get("lookups"):
            text.append(f"  joined with {', '.join(version['lookups'])}", style="dim")
        return text

    shown: set[tuple[str, int]] = set()

    def grow(tree: Tree, version: Reply) -> None:
        for made in version.get("inputs") or []:
            place = (made["stage"], made["version"])
            found = known.get(place)
            if found is None:
                tree.add(f"{made['stage']} version {made['version']}")
            elif place in shown:
                tree.add(Text.assemble(label(found), ("  (see above)", "dim")))
            else:
                shown.add(place)
                grow(tree.add(label(found)), found)

    first = reply["made_from"][0]
    root = Tree(label(first))
    grow(root, first)
    screen.wide.print(root)
    rows: list[Row] = [[f["file"], str(f["rows"]), f["sha"][:12]] for f in reply["files"]]
    screen.say("")
    screen.table(("file", "rows of it", "sha256"), rows, "no file has a row in it")
    if reply["files_total"] > len(reply["files"]):
        screen.note(f"the first {len(reply['files'])} of {reply['files_total']} files")
    kept = ", ".join(f"{v['version']} ({cell(v['rows'])} rows, {v['at']})" for v in reply["versions"] if v["kept"])
    screen.say(Text.assemble(("\nversions kept: ", "bold"), kept or "none"))
    screen.say(Text.assemble(("goes into: ", "bold"), ", ".join(reply["goes_into"]) or "nothing yet"))


def _tell_file(screen: Screen, reply: Reply) -> None:
    detail = f": {reply['detail']}" if reply.get("detail") else ""
    screen.say(Text.assemble((reply["file"], "bold"), f"  {reply['state']}{detail}"))
    rows: list[Row] = [
        [_name(s), s["layer"], str(s["version"]), _share(s), str(s.get("quarantined") or "-")]
        for s in reply["stations"]
    ]
    screen.table(("in", "layer", "version", "rows of it", "quarantined"), rows, "none of its rows is in any table")


def _share(station: Reply) -> str:
    return "added up" if station.get("rows") is None else str(station["rows"])


@pipeline.command()
def preview(
    graph: GraphArgument,
    stage: StageArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many rows.", min=1, max=1000)] = 20,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="The rows that a validator set apart.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Holdfast's own columns too.")] = False,
    as_of: AsOfOption = "",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Rows of a stage's table, as a table."""
    screen = Screen(output)

    async def work(session: Session) -> None:
        body = {"graph": graph, "stage": stage, "limit": limit, "quarantine": quarantine, "as_of": as_of}
        reply = await session.domain(DOMAIN, "preview", body, limit=LOOK_LIMIT)
        if screen.json:
            return screen.document(reply)
        empty = f"{stage!r} has no rows{' set apart' * quarantine}"
        _tell_rows(screen, reply["columns"], reply["rows"], empty, frozenset() if wide else OWN_COLUMNS)
        version = f", version {reply['version']}" if reply["version"] is not None else ""
        return screen.note(Text(f"{len(reply['rows'])} of {reply['total']} rows{version}, {reply['at']}", style="dim"))

    run(screen, tenant, work)


def _tell_rows(
    screen: Screen, columns: list[Reply], rows: list[list[Any]], empty: str, hidden: frozenset[str] = frozenset()
) -> None:
    shown = [i for i, c in enumerate(columns) if c["name"] not in hidden]
    cells: list[Row] = [["∅" if row[i] is None else str(row[i]) for i in shown] for row in rows]
    screen.table([columns[i]["name"] for i in shown], cells, empty)


@pipeline.command()
def diff(
    graph: GraphArgument,
    stage: StageArgument,
    before: Annotated[str, typer.Option("--from", help="A version, a time, or how long ago.", show_default=False)],
    after: Annotated[str, typer.Option("--to", help="Likewise; the newest if not given.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many rows of each kind.", min=0, max=100)] = 10,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """What changed in a table between two versions."""
    screen = Screen(output)

    async def work(session: Session) -> None:
        body = {"graph": graph, "stage": stage, "before": before, "after": after, "limit": limit}
        reply = await session.domain(DOMAIN, "diff", body, limit=LOOK_LIMIT)
        if screen.json:
            return screen.document(reply)
        screen.say(
            f"{stage}: version {reply['before']} ({reply['rows_before']} rows) -> "
            f"version {reply['after']} ({reply['rows_after']} rows)"
        )
        for word, key in (("new", "added"), ("gone", "removed"), ("of another type", "changed")):
            if reply[f"columns_{key}"]:
                screen.say(f"columns {word}: {', '.join(reply[f'columns_{key}'])}")
        if reply["note"]:
            screen.say(reply["note"])
        for sign, key, style in (("+", "added", "green"), ("-", "removed", "red")):
            if reply[key] is not None:
                screen.say(Text(f"{sign}{reply[key]} rows", style=style))
                if reply[f"{key}_rows"]:
                    _tell_rows(screen, reply["columns"], reply[f"{key}_rows"], "")
        return None

    run(screen, tenant, work)


@pipeline.command()
def rerun(
    graph: GraphArgument,
    stage: Annotated[str, typer.Option("--from", help="The stage to make again.", show_default=False)],
    name: Annotated[str, typer.Option(help="Owner of the blueprint that declares the stage.")] = "main",
    wait: Annotated[bool, typer.Option("--wait", help="Follow until converged.")] = False,
    timeout: TimeoutOption = "5m",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Make a stage's table again, and with it everything below it.

    Applies the newest blueprint with another `run` of that stage; for an ingestion, all its files are read again.
    """
    screen = Screen(output)

    async def work(session: Session) -> Exit:
        kept = await newest(session, graph, name)
        blueprint = again(str(kept["document"]), stage, datetime.now(UTC).isoformat(timespec="milliseconds"))
        return await submit(session, screen, graph, blueprint, timeout if wait else "", kept.get("after"))

    run(screen, tenant, work)


def again(document: str, stage: str, run: str) -> Reply:
    """A blueprint that asks for ``stage`` to be made again. Raises CommandError where it declares no such stage."""
    blueprint = yaml.safe_load(document)
    known: list[str] = []
    for part in _pipelines(blueprint):
        spec = part.get("spec") or {}
        for key in TABLE_KEYS:
            for entry in spec.get(key) or []:
                if entry.get("id") == stage:
                    entry["run"] = run
                    return dict(blueprint)
                known.append(str(entry.get("id")))
    raise CommandError(
        f"the blueprint declares no stage {stage!r} with a table",
        hint=f"stages: {', '.join(known)}" if known else "is it a pipeline? --name says whose blueprint to take",
        code="not_found",
    )


def _pipelines(blueprint: Reply) -> list[Reply]:
    """The pipelines of a blueprint: itself, its parts, the graphs of its phases."""
    inner = [*(blueprint.get("parts") or []), *(blueprint.get("phases") or [])]
    inner += [phase["graph"] for phase in blueprint.get("phases") or [] if isinstance(phase.get("graph"), dict)]
    return [part for part in (blueprint, *inner) if part.get("domain") == DOMAIN]
