"""Following a graph until it is what was declared: events as they come, counts on one live line."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from rich.live import Live
from rich.text import Text

from holdfast_model.errors import Unavailable

from .exits import CommandError
from .narrate import narrate
from .screen import Screen
from .session import Reply, Seen, Session

POLL = 1.0


@dataclass(slots=True)
class Wait:
    """What is known of the wait so far. ``version``: the one that must converge (0: any)."""

    graph: str
    version: int
    counts: Reply = field(default_factory=dict)
    ended: str = ""

    def on_event(self, seen: Seen) -> None:
        """Take in an event; a graph that was rejected or deleted will not converge."""
        if seen.family != "graph" or seen.graph != self.graph:
            return
        if seen.name == "accepted" and self.version == 0:
            self.version = int(seen.data.get("version", 0))
        if seen.name in ("rejected", "deleted"):
            self.ended = seen.name

    def on_counts(self, counts: Reply) -> None:
        """Take in the planner's own count, which alone says that a graph converged."""
        self.counts = counts
        if counts.get("status") == "converged" and int(counts.get("version", 0)) >= self.version > 0:
            self.ended = "converged"

    def line(self, elapsed: float) -> Text:
        """The live line."""
        counts = self.counts
        parts = [f"{counts.get('present', 0)}/{counts.get('nodes', 0)} present"]
        parts += [
            f"{counts[key]} {label}"
            for key, label in (("in_flight", "running"), ("waiting", "waiting"), ("failed", "failed"))
            if counts.get(key)
        ]
        text = f"{self.graph}: {counts.get('status', 'asking')}  {' · '.join(parts)}  {elapsed:.0f} s"
        return Text(text, style="bold")


async def until_converged(
    session: Session, screen: Screen, events: asyncio.Queue[Seen], wait: Wait, limit: float
) -> None:
    """Return when the graph converged. Raises TimeoutError after ``limit`` seconds, CommandError when it cannot."""
    started = time.monotonic()
    with Live(console=screen.err, auto_refresh=False, transient=True) as live:
        next_poll = started
        while not wait.ended:
            now = time.monotonic()
            if now - started > limit:
                raise TimeoutError
            if now >= next_poll:
                next_poll = now + POLL
                counts = await _counts(session, wait.graph)
                if counts is not None:
                    wait.on_counts(counts)
            if screen.live:
                live.update(wait.line(now - started), refresh=True)
            if wait.ended:
                break
            try:
                seen = await asyncio.wait_for(events.get(), max(0.05, next_poll - time.monotonic()))
            except TimeoutError:
                continue
            wait.on_event(seen)
            if seen.family == "graph" and seen.name in ("converged", "reconciled"):
                next_poll = 0.0
            if text := narrate(seen):
                screen.note(text)
    if wait.ended != "converged":
        raise CommandError(f"graph {wait.graph!r} was {wait.ended} while waiting", code=wait.ended)


async def _counts(session: Session, graph: str) -> Reply | None:
    """The planner's counts of one graph; None while it does not answer or knows none yet."""
    try:
        reply = await session.planner("list")
    except Unavailable:
        return None
    return next((g for g in reply.get("graphs", []) if g.get("graph") == graph), None)
