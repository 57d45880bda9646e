"""WorkItems: what waits for a person, and deciding it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from .documents import read_data
from .exits import Exit
from .options import AnyGraphArgument, OneGraphOption, OutputOption, TenantOption, graph_of
from .screen import Format, Row, Screen, cell, status
from .session import Reply, Session, run

workitem = typer.Typer(no_args_is_help=True, help="Look at what waits for a person.")
AllOption = Annotated[bool, typer.Option("--all", help="Also the ones that have ended.")]
MineOption = Annotated[bool, typer.Option("--mine", help="Only what I may work on.")]
ItemArgument = Annotated[str, typer.Argument(help="Id of the WorkItem.", show_default=False)]
SHOWN = (
    "id", "graph", "description", "payload", "assigneeId", "expiresAt",
    "outcome", "decidedBy", "resolution", "data",
)  # fmt: skip
ACTIVE = ("PENDING", "ASSIGNED", "IN_PROGRESS", "SUSPENDED", "DELEGATED")


@workitem.command("list")
def workitem_list(
    graph: AnyGraphArgument = "",
    graph_option: OneGraphOption = "",
    everything: AllOption = False,
    mine: MineOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Ids only, one a line.")] = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """WorkItems, the most urgent first."""
    screen = Screen(output)
    graph = graph_of(graph, graph_option)

    async def work(session: Session) -> None:
        body: dict[str, object] = {"graph": graph} if graph else {}
        if not everything and not mine:
            body["status"] = ACTIVE
        if mine:
            body["actor"] = session.actor
        reply = await session.workitems("inbox" if mine else "list", body)
        if screen.json:
            return screen.document(reply)
        if quiet:
            for item in reply.get("items", []):
                screen.say(str(item.get("id")))
            return None
        rows: list[Row] = [
            [str(i.get("id")), status(str(i.get("status"))), cell(i.get("graph")), cell(i.get("priority")),
             str(i.get("title")), cell(outcomes(i)), cell(i.get("assigneeId"))]
            for i in reply.get("items", [])
        ]  # fmt: skip
        columns = ("id", "status", "graph", "priority", "title", "outcomes", "assignee")
        return screen.table(columns, rows, "nothing waits for a person")

    run(screen, tenant, work)


@workitem.command("show")
def workitem_show(item: ItemArgument, tenant: TenantOption = "default", output: OutputOption = Format.TEXT) -> None:
    """One WorkItem with its history."""
    screen = Screen(output)

    async def work(session: Session) -> None:
        found = await session.workitems("get", {"id": item})
        audit = await session.workitems("audit", {"id": item})
        if screen.json:
            return screen.document({"item": found, "audit": audit.get("entries", [])})
        return _tell(screen, found, audit)

    run(screen, tenant, work)


def outcomes(item: Reply) -> list[str]:
    """The names a person may choose from."""
    return [str(o.get("name")) if isinstance(o, dict) else str(o) for o in item.get("permittedOutcomes") or []]


def _readable(value: object) -> str:
    """JSON text (a payload) in lines; anything else as a cell."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            decoded = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
        if isinstance(decoded, dict):
            return "".join(f"\n    {key}: {cell(part)}" for key, part in decoded.items())
    return cell(value)


def _tell(screen: Screen, item: Reply, audit: Reply) -> None:
    screen.say(Text.assemble((str(item.get("title")), "bold"), "  ", status(str(item.get("status")))))
    for key in (
        "id",
        "graph",
        "description",
        "payload",
        "assigneeId",
        "expiresAt",
        "outcome",
        "decidedBy",
        "resolution",
        "data",
    ):
        if item.get(key) not in (None, "", [], {}):
            screen.say(Text.assemble((f"  {key}: ", "cyan"), _readable(item[key])))
    if outcomes(item) and str(item.get("status")) in ACTIVE:
        screen.say(
            Text.assemble(("  decide: ", "bold"), f"holdfast decide {item.get('id')} {'|'.join(outcomes(item))}")
        )
    for entry in audit.get("entries", []):
        screen.say(
            Text(
                f"  {cell(entry.get('time'))}  {entry.get('event')}  {entry.get('actor')}  {entry.get('detail', '')}",
                style="dim",
            )
        )


def decide(
    item: ItemArgument,
    outcome: Annotated[str, typer.Argument(help="One of the item's outcomes.", show_default=False)],
    note: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    data: Annotated[str, typer.Option(help="What the outcome needs: a JSON object, or @file.")] = "",
    version: Annotated[int, typer.Option(help="Refuse if the item changed since this version.")] = 0,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Decide a WorkItem."""
    screen = Screen(output)

    async def work(session: Session) -> Exit:
        body: dict[str, object] = {"id": item, "actor": session.actor, "outcome": outcome, "note": note}
        if data:
            body["data"] = read_data(data)
        if version:
            body["version"] = version
        reply = await session.workitems("complete", body)
        if screen.json:
            screen.document(reply)
        else:
            screen.say(f"WorkItem {item} {str(reply.get('status', 'COMPLETED')).lower()}: {outcome} by {session.actor}")
        return Exit.OK

    run(screen, tenant, work)
