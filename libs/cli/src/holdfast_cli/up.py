"""``holdfast up``: everything on this machine, without containers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from holdfast_bus import subjects

from .connection import STATE_FOLDER, Found, find
from .embedded.processes import Process
from .embedded.programs import Layout
from .embedded.stack import Stack
from .exits import CommandError, Exit
from .narrate import narrate
from .options import OutputOption
from .screen import Format, Screen, status
from .session import connected, finish

EVENTS = (subjects.GRAPH_EVENTS, subjects.NODE_EVENTS, subjects.FAULTS, subjects.WORKITEM_EVENTS)


def up(
    data: Annotated[Path, typer.Option(help="Root of the pipelines' files.")] = Path("data"),
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="Also run a domain of yours: path.py:name (repeatable).")
    ] = None,
    dungeon: Annotated[bool, typer.Option("--dungeon", help="Also run the dungeon, for `holdfast play`.")] = False,
    planners: Annotated[int, typer.Option(min=1, max=16, help="How many planners.")] = 1,
    state: Annotated[Path, typer.Option(help="Servers' data, logs and the connection.")] = Path(STATE_FOLDER),
    port: Annotated[int, typer.Option(help="Port of NATS (another one if it is taken).")] = 4222,
    output: OutputOption = Format.TEXT,
) -> None:
    """Run NATS, Redis and all services here, until Ctrl-C."""
    screen = Screen(output)
    layout = Layout(state.resolve(), data.resolve(), planners, tuple(domain or ()), port, dungeon)
    finish(screen, lambda: _up(screen, layout))


async def _up(screen: Screen, layout: Layout) -> Exit:
    running = find({}, layout.state.parent)
    if running.source.startswith(str(layout.state)):
        raise CommandError(
            f"Holdfast runs here already, on {running.url}",
            hint="use it, stop it with Ctrl-C where it runs, or choose another --state folder",
        )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)

    def changed(process: Process) -> None:
        if screen.json:
            screen.line({"process": process.program.name, "state": process.state, "pid": process.pid})
        elif not screen.live:
            screen.say(f"{process.program.name} {process.state}")

    stack = Stack(layout, changed)
    screen.note(f"starting Holdfast; files under {layout.data}, logs under {layout.state / 'logs'}")
    with Live(console=screen.out, auto_refresh=False, transient=True) as live:
        painter = asyncio.create_task(_paint(screen, live, stack))
        starting = asyncio.create_task(stack.start())
        waiting = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                _welcome(screen, stack)
                following = asyncio.create_task(_follow(screen, stack))
                await stopped.wait()
                await _cancel(following)
            screen.note("stopping")
        finally:
            for task in (starting, waiting, painter):
                await _cancel(task)
            await stack.stop()
    return Exit.OK


async def _cancel(task: asyncio.Task[object] | asyncio.Task[None] | asyncio.Task[bool]) -> None:
    if task.done() and not task.cancelled():
        return
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _welcome(screen: Screen, stack: Stack) -> None:
    if screen.json:
        screen.line({"ready": True, "nats_url": stack.plan.nats_url, "pid": os.getpid()})
        return
    screen.say(Text.assemble(("Holdfast is up", "bold green"), f" on {stack.plan.nats_url}; Ctrl-C stops it"))
    screen.say("try: holdfast apply -f blueprint.yaml --wait    holdfast watch    holdfast workitem list")


async def _follow(screen: Screen, stack: Stack) -> None:
    """Show what happens, on the running system, as any subscriber would see it."""
    async with connected("default", Found(stack.plan.nats_url, "here")) as session:
        async with session.events(EVENTS) as events:
            while True:
                seen = await events.get()
                text = narrate(seen)
                if text is not None and not screen.json:
                    screen.say(text)


async def _paint(screen: Screen, live: Live, stack: Stack) -> None:
    while screen.live:
        live.update(_table(stack), refresh=True)
        await asyncio.sleep(0.25)


def _table(stack: Stack) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for column in ("process", "state", "pid", "restarts"):
        table.add_column(column)
    for process in stack.processes:
        restarts = str(max(0, process.starts - 1) or "")
        table.add_row(process.program.name, status(process.state), str(process.pid or ""), restarts)
    return Group(Text(""), table)
