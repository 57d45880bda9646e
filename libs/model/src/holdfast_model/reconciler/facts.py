"""Small facts about units and names that several concerns ask for."""

from __future__ import annotations

import msgspec

from holdfast_model.rows import Node

from .records import Unit


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


def parent_of(unit: Unit) -> str | None:
    """The first node that a desired one depends on, as events name it."""
    return unit.node.depends_on[0] if unit.node is not None and unit.node.depends_on else None
