"""The difference of two graphs as mutations.

A fragment speaks only of the node types that it holds: nodes of other types, and edges to them, are left as they
are. An empty fragment therefore changes nothing, and cannot be used to delete.
"""

from __future__ import annotations

from .graph import Graph, same_node
from .mutations import AddDependency, AddNode, Mutation, RemoveDependency, RemoveNode, UpdateNode


def diff(current: Graph, fragment: Graph) -> list[Mutation]:
    """What makes ``current`` agree with ``fragment``: nodes that are new or changed, nodes that go, edges that are
    new, edges that go, in this order.

    An edge that shall point the other way closes a cycle until the old one is gone: whoever applies the list learns
    of that, drops the mutation and finds it in the next difference again.
    """
    types = {n.type for n in fragment.nodes.values()}
    scope = {i for i, n in current.nodes.items() if n.type in types} | fragment.nodes.keys()
    mutations: list[Mutation] = []
    for id, node in fragment.nodes.items():
        old = current.nodes.get(id)
        if old is None:
            mutations.append(AddNode(node))
        elif not same_node(old, node):
            mutations.append(UpdateNode(id, node))
    mutations += [RemoveNode(i) for i in current.nodes if i in scope and i not in fragment.nodes]
    added = fragment.edges - current.edges
    gone = {(a, b) for a, b in current.edges - fragment.edges if a in scope and b in scope}
    mutations += [AddDependency(edge) for edge in sorted(added)]
    mutations += [RemoveDependency(edge) for edge in sorted(gone)]
    return mutations
