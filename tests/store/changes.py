"""Changes of a graph for the tests of the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.messages import NodeDeclaration
from holdfast_model.mutations import AddNode, Mutation, RemoveNode
from holdfast_model.names import GraphRef
from holdfast_model.rows import declare
from holdfast_store.commits import Extra, Op
from holdfast_store.kv import Cmd

REF = GraphRef("acme", "shop")


def op(name: str) -> Op:
    return Op(name, "tester", "because")


def node(id: str, count: int = 0, needs: Sequence[str] = ()) -> NodeDeclaration:
    return NodeDeclaration(id, "thing", msgspec.Raw(b'{"count":%d}' % count), depends_on=tuple(needs))


def count_of(graph: DesiredGraph, id: str) -> int:
    seen = graph.nodes.get(id)
    return int(msgspec.json.decode(seen.spec)["count"]) if seen else 0


class Do:
    """A change made of a function; remembers how often it was applied."""

    def __init__(
        self,
        how: Callable[[DesiredGraph, list[Any]], Extra | None],
        *,
        watch: Sequence[str] = (),
        reads: Sequence[Cmd] = (),
    ) -> None:
        self._how = how
        self.watch = watch
        self.reads = reads
        self.applied = 0

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        self.applied += 1
        return self._how(graph, reads) or Extra()


def mutate(*mutations: Mutation, **extra: Any) -> Do:
    def how(graph: DesiredGraph, reads: list[Any]) -> Extra:
        for mutation in mutations:
            graph.apply(mutation, "tester")
        return Extra(mutations=list(mutations), **extra)

    return Do(how)


def add(id: str, count: int = 0, needs: Sequence[str] = (), **extra: Any) -> Do:
    return mutate(AddNode(node(id, count, needs)), **extra)


def remove(id: str) -> Do:
    return mutate(RemoveNode(id))


def increment(id: str) -> Do:
    """Read, add one, write: what a lost update would show."""
    return Do(lambda graph, _: (graph.apply(AddNode(node(id, count_of(graph, id) + 1)), "tester"), Extra())[1])


def blueprint(ids: Sequence[str], count: int = 0, owner: str = "main") -> Do:
    """Make ``ids`` the whole declaration of ``owner``."""
    declared = [(i, declare(node(i, count))) for i in ids]
    return Do(lambda graph, _: (graph.declare(owner, declared), Extra())[1])
