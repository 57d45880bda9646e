"""Several declarations as one: overlaid, or each one after the next. Pure; what graphs do one by one, for large parts.

The rules are those of :meth:`.graph.Graph.overlay` and :meth:`.graph.Graph.connect`, folded from the left. Edges may
also lead out of a part, to another part or to what another blueprint declares: they neither make a root nor a leaf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .blueprint_parts import Compose
from .errors import Cycle, Disagreement, Invalid, Problem
from .rows import Declaration

MAX_JOINS = 1_000_000
"""Edges that connecting may add: leaves times roots grow fast."""

Declared = Sequence[tuple[str, Declaration]]


def compose(
    parts: Sequence[Declared], how: Compose, places: Sequence[Mapping[str, str]] = ()
) -> list[tuple[str, Declaration]]:
    """All parts as one declaration, nodes in the order in which they are first named.

    ``places``: of each part, where its nodes stand in the document, for errors; a node that it leaves out stands at
    ``/parts/<i>``. Raises Disagreement where a shared node is not equal in all parts but its edges, before anything is
    done; Cycle where a leaf and a root are the same node; Invalid where too many edges would come of it.
    """
    _refuse_unequal(parts, places)
    nodes: dict[str, Declaration] = {}
    edges: dict[str, dict[str, None]] = {}  # of nodes whose edges are not what one part says of them
    used: set[str] = set()
    leaves: dict[str, None] = {}
    joins = 0
    for i, part in enumerate(parts):
        ids = {node for node, _ in part}
        roots = tuple(node for node, d in part if ids.isdisjoint(d.depends_on)) if how is Compose.CONNECT else ()
        joins += len(leaves) * len(roots)
        if joins > MAX_JOINS:
            text = f"{len(leaves)} leaves before it times {len(roots)} roots: at most {MAX_JOINS} edges can be added"
            hint = "put one node between the parts on which the leaves depend, and which depends on the roots"
            raise Invalid(f"parts cannot be connected: {text}", [Problem(f"/parts/{i}", text)], hint=hint)
        if leaves and roots:
            _join(nodes, edges, leaves, dict.fromkeys(roots), f"/parts/{i}")
            used.update(roots)
        for node, new in part:
            old = nodes.setdefault(node, new)
            if old is not new:
                edges.setdefault(node, dict.fromkeys(old.depends_on)).update(dict.fromkeys(new.depends_on))
            used.update(new.depends_on)
            leaves[node] = None
        if how is Compose.CONNECT:
            leaves = {node: None for node in leaves if node not in used}
    return [(node, _with_edges(d, edges.get(node))) for node, d in nodes.items()]


def _join(
    nodes: Mapping[str, Declaration],
    edges: dict[str, dict[str, None]],
    leaves: Mapping[str, None],
    roots: Mapping[str, None],
    place: str,
) -> None:
    for leaf in leaves:
        if leaf in roots:
            raise Cycle((leaf, leaf), pointer=place)
        edges.setdefault(leaf, dict.fromkeys(nodes[leaf].depends_on)).update(roots)


def _with_edges(node: Declaration, edges: Mapping[str, None] | None) -> Declaration:
    if edges is None or tuple(edges) == node.depends_on:
        return node
    return msgspec.structs.replace(node, depends_on=tuple(edges))


def _refuse_unequal(parts: Sequence[Declared], places: Sequence[Mapping[str, str]]) -> None:
    first: dict[str, tuple[int, Declaration]] = {}
    problems: dict[str, Problem] = {}
    for i, part in enumerate(parts):
        for node, new in part:
            at, old = first.setdefault(node, (i, new))
            if at != i and node not in problems and not old.same_content(new):
                place = places[i].get(node, f"/parts/{i}") if places else f"/parts/{i}"
                text = f"node {node!r} is not the same as in part {at}; parts may share a node only if they agree on it"
                problems[node] = Problem(place, text)
    if problems:
        names = ", ".join(list(problems)[:10])
        raise Disagreement(list(problems), f"the parts declare {names} differently", list(problems.values()))
