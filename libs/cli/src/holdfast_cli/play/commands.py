"""``holdfast play``: what there is to play."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from holdfast_cli.documents import read_blueprint
from holdfast_cli.options import GraphOption, TenantOption
from holdfast_cli.screen import Screen
from holdfast_cli.session import Session, run

play = typer.Typer(no_args_is_help=True, help="See Holdfast at work.")


@play.callback()
def _play() -> None:
    """A group, so that ``holdfast play`` names what there is."""


@play.command("dungeon")
def play_dungeon(
    graph: GraphOption = "dungeon",
    file: Annotated[
        str, typer.Option("-f", "--file", help="Blueprint of another dungeon (YAML or JSON).", show_default=False)
    ] = "",
    tenant: TenantOption = "default",
) -> None:
    """Raid a dungeon and watch it being rebuilt. Arrows select, d x k r raid, 1-9 decide, q leaves."""
    screen = Screen()

    async def work(session: Session) -> None:
        from .app import DungeonApp  # its library takes longer to load than most commands take to run
        from .game import Game

        game = Game(session, graph)
        blueprint: Any = read_blueprint(file) if file else None
        await game.prepare(blueprint)
        await DungeonApp(game).run_async()

    run(screen, tenant, work)
