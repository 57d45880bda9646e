"""Sets of node ids that mostly hold one or a few: a tuple while small, a set beyond.

A set of one id takes 216 bytes, a tuple 48; a graph of 100,000 nodes has nearly as many of them. Tuples are also
shared between copies of a graph, where sets have to be copied.
"""

from __future__ import annotations

_SMALL = 8

Fan = tuple[str, ...] | set[str]


def joined(fan: Fan | None, node: str) -> Fan:
    """``fan`` with ``node``; a set is changed in place."""
    if not fan:
        return (node,)
    if node in fan:
        return fan
    if isinstance(fan, set):
        fan.add(node)
        return fan
    return (*fan, node) if len(fan) < _SMALL else {*fan, node}


def left(fan: Fan, node: str) -> Fan:
    """``fan`` without ``node``; a set is changed in place."""
    if isinstance(fan, set):
        fan.discard(node)
        return fan
    return tuple(other for other in fan if other != node) if node in fan else fan


def copied(fans: dict[str, Fan]) -> dict[str, Fan]:
    """An independent copy of a mapping of fans."""
    return {target: fan if isinstance(fan, tuple) else set(fan) for target, fan in fans.items()}
