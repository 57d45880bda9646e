"""Showing the graph while it works: each node as it gets there, each event as it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from rich.live import Live
from rich.text import Text

from holdfast_cli.exits import CommandError, Exit
from holdfast_cli.narrate import narrate
from holdfast_cli.screen import Screen, status
from holdfast_cli.session import Reply, Seen, Session
from holdfast_model.errors import NotFound, Temporary

POLL = 0.3
_QUIET = {("graph", "reconciled"), ("graph", "converged")}
"""Said at the end of every wave of work; the acts end with a word of their own."""


class Follower:
    """Polls the graph and drains its events while somebody waits for something."""

    def __init__(self, session: Session, screen: Screen, events: asyncio.Queue[Seen], graph: str, began: float) -> None:
        self.session = session
        self.screen = screen
        self.events = events
        self.graph = graph
        self.began = began
        self.summary: Reply = {}
        self.nodes: dict[str, Reply] = {}
        self.faults = 0
        self._told: dict[str, tuple[str, str]] = {}

    @property
    def clock(self) -> str:
        """Seconds since the demo began, as lines start with."""
        return f"{time.monotonic() - self.began:5.1f}s"

    async def until(self, what: str, reached: Callable[[], Awaitable[bool]], limit: float) -> None:
        """Show what happens until ``reached``; raises CommandError naming ``what`` after ``limit`` seconds."""
        ends = time.monotonic() + limit
        with Live(console=self.screen.out, auto_refresh=False, transient=True) as live:
            while True:
                await self._look()
                self._drain()
                if self.screen.live:
                    live.update(self._line(what), refresh=True)
                if await reached():
                    return
                if time.monotonic() > ends:
                    raise self._late(what, limit)
                await asyncio.sleep(POLL)

    async def _look(self) -> None:
        try:
            reply = await self.session.planner("get", {"graph": self.graph, "limit": 500}, limit=3.0)
        except (NotFound, Temporary):
            return
        self.summary = reply.get("graph") or {}
        self.nodes = {str(n["id"]): n for n in reply.get("nodes", [])}
        for id, node in self.nodes.items():
            now = (str(node.get("status")), str(node.get("reason") or ""))
            if self._told.get(id) != now:
                if now[0] == "PRESENT" or now[1]:
                    self._tell(id, node)
                self._told[id] = now
        for id in set(self._told) - set(self.nodes):
            del self._told[id]

    def _tell(self, id: str, node: Reply) -> None:
        why = str(node.get("reason") or "")
        line = Text.assemble((f"{self.clock}  ", "dim"), f"{node.get('type', ''):<13} {id:<30} ")
        line.append_text(status(str(node.get("status"))))
        self.screen.say(line.append(f"  {why}", style="dim") if why else line)

    def _drain(self) -> None:
        while not self.events.empty():
            seen = self.events.get_nowait()
            self.faults += seen.family == "fault"
            text = narrate(seen)
            if text is not None and (seen.family, seen.name) not in _QUIET:
                self.screen.say(Text.assemble((f"{self.clock}  ", "dim"), text))

    def _line(self, what: str) -> Text:
        present = sum(n.get("status") == "PRESENT" for n in self.nodes.values())
        busy = [id for id, n in self.nodes.items() if n.get("phase") == "running"]
        working = f"  working on {', '.join(busy[:4])}" if busy else ""
        return Text(f"{self.clock}  {present}/{len(self.nodes)} present{working}  (waiting until {what})", style="bold")

    def _late(self, what: str, limit: float) -> CommandError:
        lines = [
            f"  {id}: {n.get('status')} {n.get('phase') or ''} {n.get('reason') or ''} {n.get('detail') or ''}".rstrip()
            for id, n in self.nodes.items()
            if n.get("status") != "PRESENT"
        ]
        state = f"graph {self.summary.get('status', 'unknown')}"
        return CommandError(
            "\n".join((f"not within {limit:.0f} s: {what} ({state})", *lines)),
            hint="logs of every process are under .holdfast/demo/logs",
            exit=Exit.TIMED_OUT,
        )
