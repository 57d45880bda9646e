"""import: a blueprint of what is there already."""

from __future__ import annotations

from typing import Annotated

import typer
import yaml

from .options import OneGraphArgument, OneGraphOption, OutputOption, TenantOption, graph_of
from .screen import Format, Screen
from .session import Session, run

SEARCH_LIMIT = 120.0


def import_(
    graph: OneGraphArgument = "",
    graph_option: OneGraphOption = "",
    type: Annotated[str, typer.Option("--type", help="Only things of this type.", show_default=False)] = "",
    name: Annotated[str, typer.Option(help="The owner that shall declare them.")] = "imported",
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Print a blueprint of what is there and nobody desires, for `holdfast apply -f -`. Changes nothing."""
    screen = Screen(output)
    graph = graph_of(graph, graph_option, "main")

    async def work(session: Session) -> None:
        body = {"graph": graph, "type": type, "name": name}
        reply = await session.planner("import", body, limit=SEARCH_LIMIT)
        found, kept = len(reply.get("found", [])), reply.get("kept", 0)
        for warning in reply.get("warnings") or []:
            screen.note(f"warning: {warning}")
        if screen.json:
            return screen.document(reply["document"])
        kept_too = f", and {kept} that {name!r} declares already" if kept else ""
        screen.note(f"{found} found that nobody desires{kept_too}; take them on with `holdfast apply -g {graph} -f -`")
        return screen.say(yaml.safe_dump(reply["document"], sort_keys=False, allow_unicode=True).rstrip())

    run(screen, tenant, work)
