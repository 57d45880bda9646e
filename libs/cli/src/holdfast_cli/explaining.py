"""``explain`` for people: one sentence first, then what supports it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rich.text import Text

from .screen import Screen, cell, status
from .session import Reply

LONGEST = 160
_ROW = ("id", "type", "status", "reason", "detail", "digest", "depends_on", "info", "outputs", "removed", "current")
"""What the node's row repeats of the parts above it."""


def tell_node(screen: Screen, reply: Reply) -> None:
    """Print an explanation; only what the reply holds is shown."""
    screen.say(Text(str(reply.get("summary") or reply.get("node", "")), style="bold"))
    for title in ("desired", "observed", "state"):
        part = reply.get(title)
        lines = list(_pairs(part, _ROW if title == "state" else ()))
        if lines:
            screen.say(Text(title, style="cyan"))
            for line in lines:
                screen.say(line)
    for title, key in (
        ("waits for", "waits"),
        ("last outcomes", "last_outcomes"),
        ("last changes", "mutations"),
    ):
        _list(screen, title, reply.get(key))
    if reply.get("next"):
        screen.say(Text.assemble(("next: ", "cyan"), cell(reply["next"])))


def _pairs(part: Any, hidden: Collection[str]) -> Iterable[Text]:
    if part in (None, "", [], {}):
        return
    if not isinstance(part, Mapping):
        yield Text(f"  {cell(part)}")
        return
    for key, value in part.items():
        if value not in (None, "", [], {}) and key not in hidden:
            shown = status(value) if isinstance(value, str) else Text(cell(value))
            yield Text.assemble(f"  {key}: ", shown)


def _list(screen: Screen, title: str, entries: Any) -> None:
    if not entries:
        return
    screen.say(Text(title, style="cyan"))
    for entry in entries:
        if isinstance(entry, Mapping):
            told = entry.get("text") or entry.get("message")
            shown = told or ", ".join(f"{k} {_short(v)}" for k, v in entry.items() if v not in (None, "", [], {}))
        else:
            shown = cell(entry)
        screen.say(f"  - {shown}")


def _short(value: Any) -> str:
    text = cell(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
