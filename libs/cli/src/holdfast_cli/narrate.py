"""One line for one event, as a person wants to read it."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from .session import Seen

_STYLE = {
    "graph": "cyan",
    "node": "yellow",
    "fault": "red",
    "workitem": "magenta",
}
_QUIET = {("node", "progress")}


def narrate(seen: Seen, *, everything: bool = False) -> Text | None:
    """The line, or None for an event that would only be noise (unless ``everything``)."""
    if (seen.family, seen.name) in _QUIET and not everything:
        return None
    clock = seen.time[11:19] or "--:--:--"
    head = Text.assemble(
        (clock, "dim"), " ", (f"{seen.family}.{seen.name}", _STYLE.get(seen.family, "")), " ", seen.graph
    )
    told = _told(seen)
    return Text.assemble(head, "  ", told) if told else head


def _told(seen: Seen) -> str:
    data = seen.data
    if seen.family == "workitem":
        return _workitem(seen.name, data)
    if seen.family == "graph":
        return _graph(seen.name, data)
    node = str(data.get("node") or seen.node)
    why = ": ".join(str(data[key]) for key in ("reason", "detail") if data.get(key))
    return f"{node}  {why}".strip()


def _workitem(name: str, data: dict[str, Any]) -> str:
    text = f"{data.get('id', '')}  {data.get('title', '')}".strip()
    if name == "created" and data.get("decide"):
        return f"{text}  ->  {data['decide']}"
    if data.get("outcome"):
        return f"{text}  {data['outcome']} by {data.get('actor', '?')}"
    return text


def _graph(name: str, data: dict[str, Any]) -> str:
    if name == "rejected":
        problems = data.get("problems") or []
        places = "; ".join(f"{p.get('path', '')}: {p.get('message', '')}" for p in problems[:3])
        return places or str(data.get("reason", ""))
    if name == "situation":
        return f"{data.get('name')} at {data.get('zone')}: {data.get('count')} faults, {_some(data.get('nodes'))}"
    if name == "phase_advanced":
        return f"{data.get('from')} -> {data.get('phase')}"
    if name == "timed_out":
        return f"{data.get('of')} {data.get('phase') or data.get('name')}, missing: {_some(data.get('missing'))}"
    shown = ("version", "nodes", "added", "updated", "moved", "removed", "failed")
    parts = [f"{key} {_count(data[key])}" for key in shown if data.get(key)]
    if data.get("reason"):
        parts.append(str(data["reason"]))
    return ", ".join(parts)


def _some(names: Any) -> str:
    known = [str(name) for name in names or ()]
    return ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")


def _count(value: Any) -> Any:
    return len(value) if isinstance(value, list) else value
