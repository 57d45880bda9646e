"""Applying a part of a blueprint: which of its nodes are declared, while the rest stays as it was declared. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate

import msgspec

from .errors import Invalid, Problem
from .rows import Declaration

_TYPE = "type:"

Declared = Sequence[tuple[str, Declaration]]


class Target(msgspec.Struct, frozen=True):
    """Patterns: ids, globs (``*``, ``?``, ``[...]``) or ``type:<type>``. An empty ``only`` means every node."""

    only: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.only or self.omit)

    def selects(self) -> Callable[[str, str], bool]:
        """Whether a node, by its id and type, is among the selected ones."""
        chosen = _matcher(self.only) if self.only else _everything
        if not self.omit:
            return chosen
        left_out = _matcher(self.omit)
        return lambda node, type: chosen(node, type) and not left_out(node, type)


def select(new: Declared, before: Mapping[str, Declaration], target: Target) -> list[tuple[str, Declaration]]:
    """What the owner declares, if only the selected nodes of its new version count.

    ``before``: what it declares so far. A selected node becomes as the new version says, and goes if that leaves it
    out. Any other stays as it was; one that is new comes only if a selected node needs it. Raises Invalid where no
    node of either version is selected.
    """
    wanted = dict(new)
    selected = target.selects()
    named = {node for node, d in wanted.items() if selected(node, d.type)}
    removed = {node for node, d in before.items() if node not in wanted and selected(node, d.type)}
    if not named and not removed:
        what = f"only {', '.join(target.only)}" if target.only else "everything"
        but = f" except {', '.join(target.omit)}" if target.omit else ""
        text = f"no node matches: {what}{but}"
        hint = "give ids, globs like 'sales-*', or type:<type>; `holdfast plan` without a selection lists the ids"
        raise Invalid(text, [Problem("/only" if target.only else "/except", text)], hint=hint)
    queue = list(named)
    for node in queue:  # grows while it is walked
        for need in wanted[node].depends_on:
            if need in wanted and need not in before and need not in named:
                named.add(need)
                queue.append(need)
    out = [
        (node, d if node in named else before[node]) for node, d in wanted.items() if node in named or node in before
    ]
    out += [(node, d) for node, d in before.items() if node not in wanted and node not in removed]
    return out


def idle_patterns(new: Declared, before: Mapping[str, Declaration], target: Target) -> list[str]:
    """Warnings for patterns that match nothing: they are probably misspelt."""
    nodes = {**before, **dict(new)}
    return [
        f"{field} {pattern!r} matches no node"
        for field, patterns in (("only", target.only), ("except", target.omit))
        for pattern in patterns
        if pattern not in nodes and not any(map(_matcher((pattern,)), nodes, (d.type for d in nodes.values())))
    ]


def _everything(node: str, type: str) -> bool:
    return True


def _matcher(patterns: Sequence[str]) -> Callable[[str, str], bool]:
    """Whether a node is named by one of these patterns. An id counts as itself, whatever characters it holds."""
    types = {p.removeprefix(_TYPE) for p in patterns if p.startswith(_TYPE)}
    exact = frozenset(patterns)
    globs = [translate(p) for p in patterns if any(c in p for c in "*?[")]
    found = re.compile("|".join(globs)).match if globs else None

    def matches(node: str, type: str) -> bool:
        return node in exact or type in types or (found is not None and found(node) is not None)

    return matches
