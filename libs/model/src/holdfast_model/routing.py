"""Who looks after which node type, whom to ask about what, and what the answers say together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from .errors import Claimed
from .graph import Graph
from .messages import NodeDeclaration, ObserveItem, ObserveReply, Status
from .rows import digest_of


class Claims:
    """Node type -> the one domain that claimed it.

    Raises Claimed where a type is claimed by two.
    """

    def __init__(self, domains: Iterable[tuple[str, Iterable[str]]] = ()) -> None:
        self._domains: dict[str, tuple[str, ...]] = {}
        self._of: dict[str, str] = {}
        for domain, types in domains:
            self.claim(domain, types)

    def claim(self, domain: str, types: Iterable[str]) -> None:
        """Take in a domain; nothing is taken in when one of its types belongs to another."""
        wanted = tuple(dict.fromkeys(types))
        for name in wanted:
            owner = self._of.get(name, domain)
            if owner != domain:
                raise Claimed(name, owner, domain)
        self._domains[domain] = tuple(dict.fromkeys((*self._domains.get(domain, ()), *wanted)))
        self._of.update(dict.fromkeys(wanted, domain))

    @property
    def types(self) -> frozenset[str]:
        """Every claimed type."""
        return frozenset(self._of)

    @property
    def domains(self) -> Mapping[str, tuple[str, ...]]:
        """The types of each domain, in the order in which they were claimed."""
        return self._domains

    def domain_of(self, node_type: str) -> str | None:
        return self._of.get(node_type)


class Question(msgspec.Struct, frozen=True):
    """What to ask an observer: nodes of one type. ``discover``: also what is there of this type undesired."""

    domain: str
    type: str
    nodes: tuple[ObserveItem, ...]
    discover: bool = False


def questions(desired: Graph, claims: Claims, discovers: Iterable[str] = ()) -> list[Question]:
    """Whom to ask about a graph, one question for each type, so that a slow type delays no other.

    Types in ``discovers`` are asked even when nothing of them is desired: there may be leftovers. What a node
    depends on is told whatever type it has.
    """
    by_type: dict[str, list[ObserveItem]] = {t: [] for t in discovers if claims.domain_of(t)}
    for node in desired.nodes.values():
        if claims.domain_of(node.type):
            by_type.setdefault(node.type, []).append(_item(node, desired))
    leftovers = frozenset(discovers)
    return [Question(claims.domain_of(t) or "", t, tuple(items), t in leftovers) for t, items in by_type.items()]


def merged(desired: Graph, claims: Claims, answers: Iterable[ObserveReply]) -> dict[str, Status]:
    """What all answers say together. Leftovers are there, so PRESENT unless their observer says otherwise. Nodes whose
    type nobody claims are UNKNOWN; nodes that their observer does not mention are left out, which whoever plans takes
    for UNKNOWN too.
    """
    seen: dict[str, Status] = {}
    for answer in answers:
        seen.update(dict.fromkeys(answer.leftovers, Status.PRESENT))
        seen.update((id, observation.status) for id, observation in answer.observations.items())
    seen.update((n.id, Status.UNKNOWN) for n in desired.nodes.values() if claims.domain_of(n.type) is None)
    return seen


def _item(node: NodeDeclaration, graph: Graph) -> ObserveItem:
    return ObserveItem(
        node.id, node.spec, digest_of(node.type, node.spec), tuple(sorted(graph.dependencies_of(node.id)))
    )
