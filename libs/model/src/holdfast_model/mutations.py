"""Changes of a desired graph as data: what policies emit, what the log keeps, what the bus carries.

The wire form is JSON tagged by ``kind``: ``ADD_NODE {node}``, ``UPDATE_NODE {id, node}``,
``REMOVE_NODE {id}``, ``ADD_EDGE {edge}``, ``REMOVE_EDGE {edge}``. An edge is ``[from, to]``: *from* depends
on *to*. How a mutation applies to a graph is the graph's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from .errors import Invalid, Problem
from .messages import NodeDeclaration


class AddNode(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="ADD_NODE"):
    """Declare a node; one with the same id of the same owner is overwritten and keeps its edges."""

    node: NodeDeclaration


class UpdateNode(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="UPDATE_NODE"):
    """Replace the declaration of a node that is there; its edges stay as they are.

    Raises Invalid if the payload carries another id: an update never renames.
    """

    id: str
    node: NodeDeclaration

    def __post_init__(self) -> None:
        if self.node.id != self.id:
            text = f"an update of node {self.id!r} carries a node with the id {self.node.id!r}"
            raise Invalid(text, [Problem("/node/id", text)])


class RemoveNode(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="REMOVE_NODE"):
    """Remove a node and its edges on both sides."""

    id: str


class AddDependency(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="ADD_EDGE"):
    """Make ``edge[0]`` depend on ``edge[1]``."""

    edge: tuple[str, str]


class RemoveDependency(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="REMOVE_EDGE"):
    """Make ``edge[0]`` no longer depend on ``edge[1]``."""

    edge: tuple[str, str]


NodeMutation = AddNode | UpdateNode | RemoveNode
EdgeMutation = AddDependency | RemoveDependency
Mutation = AddNode | UpdateNode | RemoveNode | AddDependency | RemoveDependency

_MANY = msgspec.json.Decoder(list[Mutation])


def target(mutation: NodeMutation) -> str:
    """The id of the node that a node mutation is aimed at."""
    return mutation.node.id if isinstance(mutation, AddNode) else mutation.id


def canonical(mutation: Mutation) -> bytes:
    """Bytes that are equal if and only if two mutations mean the same, however their specs were written."""
    plain = msgspec.json.decode(msgspec.json.encode(mutation))
    return msgspec.json.encode(plain, order="deterministic")


def encode_mutations(mutations: Iterable[Mutation]) -> bytes:
    """A JSON list of mutations."""
    return msgspec.json.encode(list(mutations))


def decode_mutations(data: bytes) -> list[Mutation]:
    """The mutations of a JSON list; raises Invalid with a pointer to the first one that is not valid."""
    try:
        return _MANY.decode(data)
    except msgspec.DecodeError as e:
        text = f"not a list of mutations: {e}"
        raise Invalid(text, [Problem("", text)]) from e


def node_and_edge_parts(mutations: Sequence[Mutation]) -> tuple[list[NodeMutation], list[EdgeMutation]]:
    """Split a list, keeping the order inside both halves: node mutations apply before edge mutations."""
    nodes: list[NodeMutation] = []
    edges: list[EdgeMutation] = []
    for mutation in mutations:
        if isinstance(mutation, AddDependency | RemoveDependency):
            edges.append(mutation)
        else:
            nodes.append(mutation)
    return nodes, edges


def declaration(id: str, type: str, spec: Any = None, gating: str = "NONE") -> NodeDeclaration:
    """A node declaration with ``spec`` given as plain data."""
    raw = msgspec.Raw(msgspec.json.encode(spec or {}, order="deterministic"))
    return NodeDeclaration(id, type, raw, gating)
