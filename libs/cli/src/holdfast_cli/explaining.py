"""``explain`` for people: one sentence first, then what supports it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from .screen import Screen, cell, status
from .session import Reply


def tell_node(screen: Screen, reply: Reply) -> None:
    """Print an explanation; only what the reply holds is shown."""
    screen.say(Text(str(reply.get("summary") or reply.get("node", "")), style="bold"))
    for title in ("desired", "observed", "state"):
        part = reply.get(title)
        if part:
            screen.say(Text(f"{title}", style="cyan"))
            for line in _pairs(part):
                screen.say(line)
    for title, key in (
        ("waits for", "waits"),
        ("last outcomes", "last_outcomes"),
        ("last changes", "mutations"),
    ):
        _list(screen, title, reply.get(key))
    if reply.get("next"):
        screen.say(Text.assemble(("next: ", "cyan"), cell(reply["next"])))


def _pairs(part: Any) -> Iterable[Text]:
    if not isinstance(part, Mapping):
        yield Text(f"  {cell(part)}")
        return
    for key, value in part.items():
        if value not in (None, "", [], {}):
            shown = status(value) if isinstance(value, str) else Text(cell(value))
            yield Text.assemble(f"  {key}: ", shown)


def _list(screen: Screen, title: str, entries: Any) -> None:
    if not entries:
        return
    screen.say(Text(title, style="cyan"))
    for entry in entries:
        if isinstance(entry, Mapping):
            told = entry.get("text") or entry.get("message")
            shown = told or ", ".join(f"{k} {cell(v)}" for k, v in entry.items() if v not in (None, "", [], {}))
        else:
            shown = cell(entry)
        screen.say(f"  - {shown}")
