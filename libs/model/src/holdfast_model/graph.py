"""The desired graph as a value: nodes, edges and a version. Whatever changes it returns a new one.

:class:`~.desired.DesiredGraph` is what services keep and change in place; a :class:`Graph` is for those who compare,
combine and plan. An edge ``(a, b)`` says that *a* depends on *b*.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

import msgspec

from .errors import Cycle, Dangling, Disagreement, NotFound, Problem
from .messages import NodeDeclaration
from .mutations import AddDependency, AddNode, Mutation, RemoveDependency, RemoveNode, UpdateNode
from .order import TopologicalOrder
from .rows import Declaration, Node, declare

Edge = tuple[str, str]


class NoSuchNode(NotFound):
    """A mutation is aimed at a node that is not in the graph."""

    def __init__(self, node: str) -> None:
        super().__init__(f"node {node!r} is not in the graph")
        self.node = node


class Graph:
    """See the module. Every change counts as a version, also one that changes nothing.

    Nodes are kept without ``depends_on``: the edges say that.
    """

    __slots__ = ("_above", "_below", "_nodes", "_version")

    def __init__(self) -> None:
        self._nodes: Mapping[str, NodeDeclaration] = MappingProxyType({})
        self._above: Mapping[str, frozenset[str]] = {}
        self._below: Mapping[str, frozenset[str]] = {}
        self._version = 0

    @classmethod
    def of(cls, nodes: Iterable[NodeDeclaration], edges: Iterable[Edge] = ()) -> Graph:
        """A graph built step by step: one version for each node and for each edge, ``depends_on`` included.

        Raises Dangling or Cycle.
        """
        given = list(nodes)
        named = [(n.id, target) for n in given for target in n.depends_on]
        return cls()._with_all(given, [*named, *edges])

    @classmethod
    def seen(cls, nodes: Mapping[str, Node], version: int = 0) -> Graph:
        """A merged graph as a value, at ``version``. Its edges have been checked already."""
        graph = cls()
        graph._nodes = MappingProxyType(
            {n.id: NodeDeclaration(n.id, n.type, n.spec, n.gating.value, n.spec_gating.value) for n in nodes.values()}
        )
        below: dict[str, set[str]] = {}
        for node in nodes.values():
            for target in node.depends_on:
                below.setdefault(target, set()).add(node.id)
        graph._above = {n.id: frozenset(n.depends_on) for n in nodes.values() if n.depends_on}
        graph._below = {target: frozenset(users) for target, users in below.items()}
        graph._version = version
        return graph

    # ---- reading; nothing of what is returned can be changed

    @property
    def nodes(self) -> Mapping[str, NodeDeclaration]:
        """By id, in the order in which they were first added."""
        return self._nodes

    @property
    def edges(self) -> frozenset[Edge]:
        return frozenset((source, target) for source, targets in self._above.items() for target in targets)

    @property
    def version(self) -> int:
        return self._version

    @property
    def is_empty(self) -> bool:
        return not self._nodes

    @property
    def roots(self) -> frozenset[str]:
        """Nodes that depend on nothing."""
        return frozenset(n for n in self._nodes if n not in self._above)

    @property
    def leaves(self) -> frozenset[str]:
        """Nodes on which nothing depends."""
        return frozenset(n for n in self._nodes if n not in self._below)

    def dependencies_of(self, node: str) -> frozenset[str]:
        return self._above.get(node, frozenset())

    def dependents_of(self, node: str) -> frozenset[str]:
        return self._below.get(node, frozenset())

    # ---- changing

    def with_node(self, node: NodeDeclaration) -> Graph:
        """The graph with a node added or, by its id, overwritten; its edges stay."""
        bare = msgspec.structs.replace(node, depends_on=()) if node.depends_on else node
        return self._next(nodes={**self._nodes, node.id: bare})

    def without_node(self, node: str) -> Graph:
        """The graph without a node and its edges on both sides."""
        nodes = {i: n for i, n in self._nodes.items() if i != node}
        above, below = dict(self._above), dict(self._below)
        for target in above.pop(node, ()):
            _drop(below, target, node)
        for user in below.pop(node, ()):
            _drop(above, user, node)
        return self._next(nodes, above, below)

    def with_edge(self, source: str, target: str) -> Graph:
        """The graph in which ``source`` depends on ``target``. Raises Dangling, then Cycle (also for a self loop)."""
        if source not in self._nodes or target not in self._nodes:
            raise Dangling(source, target, missing=source if source not in self._nodes else target)
        path = self._path(target, source)
        if path:
            raise Cycle((source, *path))
        above, below = dict(self._above), dict(self._below)
        above[source] = self.dependencies_of(source) | {target}
        below[target] = self.dependents_of(target) | {source}
        return self._next(above=above, below=below)

    def without_edge(self, source: str, target: str) -> Graph:
        """The graph without an edge; its ends need not exist."""
        above, below = dict(self._above), dict(self._below)
        _drop(above, source, target)
        _drop(below, target, source)
        return self._next(above=above, below=below)

    def apply(self, mutation: Mutation) -> Graph:
        """The graph after a mutation. Raises NoSuchNode (an update of a node that is not there), Dangling or Cycle."""
        match mutation:
            case AddNode(node=node):
                return self.with_node(node)
            case UpdateNode(id=id, node=node):
                if id not in self._nodes:
                    raise NoSuchNode(id)
                return self.with_node(node)
            case RemoveNode(id=id):
                return self.without_node(id)
            case AddDependency(edge=(source, target)):
                return self.with_edge(source, target)
            case RemoveDependency(edge=(source, target)):
                return self.without_edge(source, target)

    # ---- combining

    def overlay(self, other: Graph) -> Graph:
        """Both graphs in one. Raises Disagreement, before anything is done, where a shared node is not equal in all
        parts, and Cycle where their edges form one together.
        """
        unequal = [i for i, n in other.nodes.items() if i in self._nodes and not same_node(self._nodes[i], n)]
        if unequal:
            text = f"the graphs declare {', '.join(unequal)} differently"
            raise Disagreement(unequal, text, [Problem("", text)])
        new = [node for id, node in other.nodes.items() if id not in self._nodes]
        return self._with_all(new, sorted(other.edges - self.edges))

    def connect(self, other: Graph) -> Graph:
        """Both graphs in one, this one after the other: every leaf of this depends on every root of the other."""
        return self.overlay(other)._with_all((), [(a, b) for a in sorted(self.leaves) for b in sorted(other.roots)])

    def filter_by_types(self, types: Collection[str]) -> Graph:
        """The graph without the nodes of all other types: one version for each that goes."""
        nodes = {i: n for i, n in self._nodes.items() if n.type in types}
        # What comes of a frozenset and the keys of a dict is a set that could be changed.
        above = {i: frozenset(t & nodes.keys()) for i, t in self._above.items() if i in nodes}
        below = {i: frozenset(u & nodes.keys()) for i, u in self._below.items() if i in nodes}
        gone = len(self._nodes) - len(nodes)
        return self._next(nodes, {i: t for i, t in above.items() if t}, {i: u for i, u in below.items() if u}, gone)

    # ---- inside

    def _next(
        self,
        nodes: Mapping[str, NodeDeclaration] | None = None,
        above: Mapping[str, frozenset[str]] | None = None,
        below: Mapping[str, frozenset[str]] | None = None,
        steps: int = 1,
    ) -> Graph:
        graph = Graph()
        graph._nodes = self._nodes if nodes is None else MappingProxyType(dict(nodes))
        graph._above = self._above if above is None else above
        graph._below = self._below if below is None else below
        graph._version = self._version + steps
        return graph

    def _with_all(self, nodes: Collection[NodeDeclaration], edges: Collection[Edge]) -> Graph:
        """All of these in one go, in O(nodes + edges). Where something is wrong, one by one, to name the first."""
        known = {**self._nodes, **{n.id: msgspec.structs.replace(n, depends_on=()) for n in nodes}}
        above: dict[str, set[str]] = {i: set(t) for i, t in self._above.items()}
        below: dict[str, set[str]] = {i: set(u) for i, u in self._below.items()}
        for source, target in edges:
            above.setdefault(source, set()).add(target)
            below.setdefault(target, set()).add(source)
        if above.keys() <= known.keys() and below.keys() <= known.keys() and _is_acyclic(known, above):
            return self._next(known, _frozen(above), _frozen(below), len(nodes) + len(edges))
        graph = self
        for node in nodes:
            graph = graph.with_node(node)
        for source, target in edges:
            graph = graph.with_edge(source, target)
        return graph

    def _path(self, start: str, goal: str) -> list[str]:
        """A shortest way from ``start`` over dependencies to ``goal``, both included; empty when there is none."""
        came_from = {start: ""}
        queue = [start]
        for node in queue:
            if node == goal:
                path = [node]
                while came_from[path[-1]]:
                    path.append(came_from[path[-1]])
                return path[::-1]
            for target in sorted(self.dependencies_of(node)):
                if target not in came_from:
                    came_from[target] = node
                    queue.append(target)
        return []


def same_node(one: NodeDeclaration, other: NodeDeclaration) -> bool:
    """Equal in all parts but their edges; specs that differ in spelling only are equal."""
    return one.id == other.id and _bare(one).same_as(_bare(other))


def _bare(node: NodeDeclaration) -> Declaration:
    return declare(msgspec.structs.replace(node, depends_on=()))


def _is_acyclic(nodes: Iterable[str], above: Mapping[str, Iterable[str]]) -> bool:
    try:
        TopologicalOrder().rebuild({node: above.get(node, ()) for node in nodes})
    except Cycle:
        return False
    return True


def _frozen(ends: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {node: frozenset(others) for node, others in ends.items()}


def _drop(edges: dict[str, frozenset[str]], node: str, other: str) -> None:
    left = edges.get(node, frozenset()) - {other}
    if left:
        edges[node] = left
    else:
        edges.pop(node, None)
