"""Small facts about units and names that several concerns ask for."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from holdfast_model.rows import Node

from .records import Unit

_T = TypeVar("_T", str, Unit)


def union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Both without repetition; the very same object where the second adds nothing."""
    if first is second or not second:
        return first
    if not first:
        return second
    return first if set(second) <= set(first) else tuple(dict.fromkeys((*first, *second)))


def review_spec(node: Node) -> dict[str, object]:
    """The spec of a built-in review node."""
    spec = msgspec.json.decode(node.spec)
    return spec if isinstance(spec, dict) else {}


def discard(index: dict[str, dict[_T, None]], key: str, value: _T) -> None:
    """Take a value out of an index that holds no empty entries."""
    found = index.get(key)
    if found is not None:
        found.pop(value, None)
        if not found:
            del index[key]


def parent_of(unit: Unit) -> str | None:
    """The first node that a desired one depends on, as events name it."""
    return unit.node.depends_on[0] if unit.node is not None and unit.node.depends_on else None


def lacks(uses: tuple[str, ...], edges: tuple[str, ...]) -> bool:
    """Whether what a thing was made with leaves out some of these edges."""
    return uses != edges and not set(edges).issubset(uses)
