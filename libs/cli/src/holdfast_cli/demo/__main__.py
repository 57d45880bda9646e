"""``python -m holdfast_cli.demo``: exit 0 only if every table was exactly right."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path

from rich.text import Text

from holdfast_cli.connection import STATE_FOLDER, Found
from holdfast_cli.embedded.programs import Layout
from holdfast_cli.embedded.stack import Stack
from holdfast_cli.exits import CommandError, Exit, command_error
from holdfast_cli.screen import Screen
from holdfast_cli.session import connected
from holdfast_model.errors import HoldfastError

from . import dataset
from .checking import Places
from .following import Follower
from .story import GRAPH, Story

TENANT = "default"
FOLDER = Path(STATE_FOLDER) / "demo"


async def demo(screen: Screen, folder: Path) -> Exit:
    """Everything from nothing in ``folder``, which is emptied first."""
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    layout = Layout(state=folder, data=folder / "data")
    dataset.write_first(layout.data)
    screen.say(Text("Starting NATS, Redis and every service as a process of its own ...", style="bold"))
    async with Stack(layout) as stack:
        names = ", ".join(f"{p.program.name} ({p.pid})" for p in stack.processes)
        screen.say(f"up in {time.monotonic() - began:.1f} s on {stack.plan.nats_url}: {names}")
        async with connected(TENANT, Found(stack.plan.nats_url, "the demo")) as session:
            async with session.events(session.graph_events(GRAPH)) as events:
                follower = Follower(session, screen, events, GRAPH, began)
                places = Places(layout.warehouse / TENANT / GRAPH, layout.data / "out")
                story = Story(session, screen, follower, layout.data, places)
                right = await story.tell()
                story.show_gold()
        restarts = sum(p.starts - 1 for p in stack.processes)
    took = time.monotonic() - began
    told = f"{follower.faults} faults told, {story.decided} decisions taken, {restarts} restarts, {took:.0f} s"
    screen.say(Text.assemble(("every table is exactly right" if right else "NOT right", "bold green"), f": {told}"))
    return Exit.OK if right else Exit.FAILED


def main() -> Exit:
    """Run it; whatever goes wrong is one readable block."""
    screen = Screen()
    try:
        return asyncio.run(demo(screen, FOLDER.resolve()))
    except CommandError as error:
        return screen.fail(error)
    except HoldfastError as error:
        return screen.fail(command_error(error))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
