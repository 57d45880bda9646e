"""The options that commands share, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

from .screen import Format

TenantOption = Annotated[
    str, typer.Option("-t", "--tenant", envvar="HOLDFAST_TENANT", help="Whose graphs.", show_default=True)
]
OutputOption = Annotated[Format, typer.Option("-o", "--output", help="Text for people or JSON for scripts.")]
GraphOption = Annotated[str, typer.Option("-g", "--graph", help="Which graph.")]
OneGraphArgument = Annotated[str, typer.Argument(metavar="[GRAPH]", help="Which graph.", show_default=False)]
OneGraphOption = Annotated[str, typer.Option("-g", "--graph", help="The same as the argument.", show_default=False)]
AnyGraphArgument = Annotated[
    str, typer.Argument(metavar="[GRAPH]", help="Which graph (all if not given).", show_default=False)
]
GraphArgument = Annotated[str, typer.Argument(help="Name of the graph.", show_default=False)]
NodeArgument = Annotated[str, typer.Argument(help="Id of the node.", show_default=False)]
MaybeNodeArgument = Annotated[str, typer.Argument(help="Id of a node (the whole graph if not given).")]
FileOption = Annotated[
    str, typer.Option("-f", "--file", help="Blueprint, YAML or JSON; - reads standard input.", show_default=False)
]
AgainOption = Annotated[
    bool,
    typer.Option("--again", help="Instead of a file: the newest blueprint once more, for a new version of its domain."),
]
NameOption = Annotated[str, typer.Option(help="Owner: blueprints of different names build one graph.")]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="Declare these nodes only: an id, a glob or type:TYPE. May be repeated."),
]
ExceptOption = Annotated[
    list[str] | None,
    typer.Option("--except", help="Leave these nodes as they were declared. May be repeated."),
]
TimeoutOption = Annotated[str, typer.Option("--timeout", help="How long to wait, like 90s or 5m.")]


def graph_of(argument: str, option: str, default: str = "") -> str:
    """The graph a command names, as its argument or as its option."""
    if argument and option and argument != option:
        raise typer.BadParameter(f"the graph is named twice: {argument!r} and {option!r}")
    return argument or option or default
