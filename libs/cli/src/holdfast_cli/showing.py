"""What most commands that only look have in common: one question to the planner, its answer for people or scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .screen import Format, Screen
from .session import Reply, Session, run


def show(
    output: Format,
    tenant: str,
    verb: str,
    body: Mapping[str, object],
    tell: Callable[[Screen, Reply], None],
    document: Callable[[Reply], Any] = lambda reply: reply,
) -> None:
    """Ask the planner and show what it says: by ``tell`` to people, as a JSON ``document`` to scripts."""
    screen = Screen(output)

    async def work(session: Session) -> None:
        reply = await session.planner(verb, body)
        if screen.json:
            return screen.document(document(reply))
        return tell(screen, reply)

    run(screen, tenant, work)
