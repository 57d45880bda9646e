"""Renames: which of a blueprint's ``moved`` are still to be carried out, and whether a domain goes along. Pure.

The name of a node is a name in the graph; whether it is also the name by which a domain finds the thing, only the
domain knows. So it is asked: the thing is looked at under both names, as it is declared now. Where it is found under
the new name, the node is renamed, and its record goes with the name. Where it is found under the old name only, the
rename is refused: it would leave one thing behind and make another one. No type has to declare anything for this,
nothing has to be trusted, and somebody who renames the thing itself by hand may then say so with ``moved``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from .errors import Invalid, Problem
from .messages import Observation, Status
from .rows import Declaration

if TYPE_CHECKING:
    from .merged import MergedGraph

Rename = tuple[str, str]
"""(what a node was called, what it is called)"""

NAMES_KEPT = 8
"""Former names that a declaration remembers: for an owner of the graph that has not yet heard of the latest ones."""

_POLICY = "policy:"
_THERE = frozenset({Status.PRESENT, Status.DRIFTED})


def renames_in_force(
    graph: MergedGraph, owner: str, wanted: Mapping[str, Declaration], moved: Sequence[Rename]
) -> list[Rename]:
    """Those that change something: the owner declares the old name now, and its new version the new one.

    Entries that were carried out before, or speak of what never was, say nothing, so that they may stay in a blueprint.
    Raises Invalid, with pointers below ``/moved``.
    """
    found: list[Rename] = []
    problems: list[Problem] = []
    for i, (source, target) in enumerate(moved):
        wrong = _wrong(graph, owner, wanted, source, target)
        if wrong is None:
            found.append((source, target))
        elif wrong:
            place, text = wrong
            problems.append(Problem(f"/moved/{i}{place}", text))
    if problems:
        raise Invalid(f"the blueprint is not valid: {problems[0].message}", problems)
    return found


def _wrong(
    graph: MergedGraph, owner: str, wanted: Mapping[str, Declaration], source: str, target: str
) -> tuple[str, str] | tuple[()] | None:
    """None: it is to be carried out; (): there is nothing to do; else what is wrong with it, and where."""
    if source in wanted:
        return "/from", f"{source!r} is still declared; a node has one name"
    if target not in wanted:
        return "/to", f"{target!r} is not declared"
    row, node = graph.rows.get(source), graph.nodes.get(source)
    if row is None or node is None or row.of(owner) is None:
        return ()
    others = [o for o, d in row.declarations if o != owner and not o.startswith(_POLICY) and d.says_what]
    if others:
        return "/from", f"{source!r} is declared by blueprint {others[0]!r} too; it is for both to rename it"
    if any(id == target for id, _ in graph.gone):
        return "/to", f"another node {target!r} is still being removed; try it again"
    if target in graph.rows:
        return "/to", f"{target!r} is there already, beside {source!r}; what is renamed needs a new name"
    kind = wanted[target].type
    if kind != node.type:
        return "", f"{source!r} is a {node.type}, {target!r} would be a {kind}; what is renamed stays what it is"
    return None


def renamed(new: Declaration, source: str, old: Declaration | None) -> Declaration:
    """A declaration under its new name."""
    before = old.was if old is not None else ()
    return msgspec.structs.replace(new, was=(source, *before)[:NAMES_KEPT])


def judge(rename: Rename, kind: str, old: Observation, new: Observation, *, in_flight: bool = False) -> str:
    """Whether the domain goes along with a rename: "", or why not. ``old`` and ``new``: what is seen of the thing, as
    it is declared now, under either name; ``in_flight``: a step for it is under way."""
    source, target = rename
    for name, seen in ((source, old), (target, new)):
        if seen.status is Status.UNKNOWN:
            return f"{name!r} cannot be looked at ({seen.detail or seen.reason or 'unknown'}); try it again"
    if new.status in _THERE:
        if old.status in _THERE and old.token and new.token and old.token != new.token:
            return f"there is something else as {target!r} already"
        return ""
    if old.status in _THERE:
        return (
            f"its domain finds things of type {kind!r} by the node's name: there is one as {source!r}, and none as "
            f"{target!r}; rename the thing itself first, or leave out 'moved' to have it removed and made anew"
        )
    if in_flight:
        return f"{source!r} is not there yet, and a step for it is under way; try it again when that has ended"
    return ""  # nothing is there to be lost
