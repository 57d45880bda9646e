"""Counting faults: who counts, how counts are kept, and the stock policy that acts from the n-th fault on.

Counts belong to (namespace, tenant, graph, node). In the store they are one document per node
(:class:`Tally` per namespace), so that a node that leaves takes all of its counts along in one stroke;
:class:`FaultCounts` is the same thing in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Sequence
from enum import Enum
from typing import Any

import msgspec

from .errors import Invalid, Problem
from .events import Fault, FaultType
from .mutations import AddNode, Mutation, declaration
from .names import DEFAULT_GRAPH, HUMAN_REVIEW

DEFAULT_THRESHOLD = 3


class Admission(Enum):
    """What a policy does with a fault before it looks any closer."""

    IGNORE = "ignore"
    FORGET = "forget"
    COUNT = "count"


def admit(
    fault_type: str,
    node_type: str | None,
    *,
    faults: Collection[str],
    node_types: Collection[str] = (),
    ignored: Collection[str] = (),
) -> Admission:
    """The checks before counting, in their fixed order. ``node_type`` is None when the node left the graph.

    Ignored type, node absent (its count is dropped), fault type, node type; an empty ``node_types`` means
    all.
    """
    if node_type is not None and node_type in ignored:
        return Admission.IGNORE
    if node_type is None:
        return Admission.FORGET
    if fault_type not in faults or (node_types and node_type not in node_types):
        return Admission.IGNORE
    return Admission.COUNT


class ReviewMark(msgspec.Struct, frozen=True, array_like=True):
    """When a ladder added a review and when it first found it resolved, as counts; 0 = not (known) yet."""

    added: int = 0
    resolved: int = 0


class Tally(msgspec.Struct, frozen=True, omit_defaults=True):
    """Faults of one node in one namespace. ``episode`` is that of the newest one counted.

    ``keeps``: recovery does not clear this count.
    """

    count: int
    episode: str = ""
    reviews: dict[str, ReviewMark] = {}
    keeps: bool = False


NodeCounts = dict[str, Tally]
"""All counts of one node: namespace -> tally. One field of the ``counts`` hash, named by the node's id."""

_DECODER = msgspec.json.Decoder(dict[str, Tally])


def encode_counts(counts: NodeCounts) -> bytes:
    """The stored form of a node's counts."""
    return msgspec.json.encode(counts)


def decode_counts(data: bytes | None) -> NodeCounts:
    """A node's counts from their stored form; None stands for no counts."""
    return _DECODER.decode(data) if data else {}


def without_episode(counts: NodeCounts, episode: str) -> NodeCounts:
    """The counts that outlive the end of ``episode``: of other episodes, and those that recovery keeps."""
    return {n: t for n, t in counts.items() if t.keeps or t.episode != episode}


class FaultCounts:
    """Counts in memory, per (namespace, tenant, graph, node). A count that was never raised is 0."""

    def __init__(self) -> None:
        self._graphs: dict[tuple[str, str], dict[str, NodeCounts]] = {}

    def get(self, namespace: str, tenant: str, node: str, *, graph: str = DEFAULT_GRAPH) -> int:
        tally = self._graphs.get((tenant, graph), {}).get(node, {}).get(namespace)
        return tally.count if tally else 0

    def increment(self, namespace: str, tenant: str, node: str, *, graph: str = DEFAULT_GRAPH) -> int:
        """Raise a count by one and return it."""
        counts = self._graphs.setdefault((tenant, graph), {}).setdefault(node, {})
        counts[namespace] = Tally(self.get(namespace, tenant, node, graph=graph) + 1)
        return counts[namespace].count

    def remove(self, namespace: str, tenant: str, node: str, *, graph: str = DEFAULT_GRAPH) -> None:
        """Forget a count; one that was never raised is fine. The next increment returns 1."""
        nodes = self._graphs.get((tenant, graph), {})
        nodes.get(node, {}).pop(namespace, None)
        if not nodes.get(node, True):
            del nodes[node]

    reset = remove

    def evict(self, namespace: str, tenant: str, retained: Collection[str], *, graph: str = DEFAULT_GRAPH) -> None:
        """Forget the counts of one namespace for all nodes but ``retained``."""
        for node in self._others(tenant, graph, retained):
            self.remove(namespace, tenant, node, graph=graph)

    def evict_across(self, tenant: str, retained: Collection[str], *, graph: str = DEFAULT_GRAPH) -> None:
        """Forget the counts of every namespace for all nodes but ``retained`` (those still in the graph)."""
        for node in self._others(tenant, graph, retained):
            del self._graphs[tenant, graph][node]

    def evict_tenant(self, tenant: str) -> None:
        """Forget everything about a tenant."""
        for key in [k for k in self._graphs if k[0] == tenant]:
            del self._graphs[key]

    def _others(self, tenant: str, graph: str, retained: Collection[str]) -> list[str]:
        return [n for n in self._graphs.get((tenant, graph), {}) if n not in retained]


Action = Callable[[Fault, Container[str]], Sequence[Mutation]]
"""What a policy does at its threshold: from the fault and the ids in the graph to mutations."""


def review_spec(fault: Fault, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """The spec of a review node: what is reviewed, in which form and episode, and what went wrong.

    ``target``, ``target_digest``, ``episode``, ``reason`` (the fault's code, else ``extra["reason"]``),
    ``error`` (the fault's detail) and ``context``; other keys of ``extra`` are kept.
    """
    given = extra or {}
    return {
        **given,
        "target": fault.node,
        "target_digest": fault.digest,
        "episode": fault.episode,
        "reason": fault.reason or given.get("reason", ""),
        "error": fault.detail,
        "context": {"fault": fault.type.value, "node_type": fault.node_type, **fault.context},
    }


def add_review(review_type: str = HUMAN_REVIEW) -> Action:
    """The stock action: add ``review-<node>``, gated for every action, without edges, unless it is there."""

    def act(fault: Fault, present: Container[str]) -> Sequence[Mutation]:
        node = f"review-{fault.node}"
        if node in present:
            return ()
        return (AddNode(declaration(node, review_type, review_spec(fault), gating="ALL")),)

    return act


class ThresholdPolicy:
    """Acts on every fault of a node from the ``threshold``-th on. Recovery does not lower the count.

    ``namespace`` keeps policies apart that share counts; by default it is derived from the fault types.
    Raises Invalid when fault types or action are missing or the threshold is below 1.
    """

    def __init__(
        self,
        fault_types: Iterable[str],
        action: Action | None,
        *,
        node_types: Iterable[str] = (),
        ignore_types: Iterable[str] = (),
        threshold: int = DEFAULT_THRESHOLD,
        namespace: str = "",
    ) -> None:
        problems = []
        known = {t.value for t in FaultType}
        self.fault_types = frozenset(fault_types)
        if not self.fault_types:
            problems.append(Problem("/fault_types", "a threshold policy needs fault types"))
        problems += [Problem("/fault_types", f"unknown fault type {t!r}") for t in sorted(self.fault_types - known)]
        if action is None:
            problems.append(Problem("/action", "a threshold policy needs an action"))
        if threshold < 1:
            problems.append(Problem("/threshold", f"threshold is {threshold}; at least 1"))
        if problems or action is None:
            raise Invalid("; ".join(p.message for p in problems), problems)
        self.action = action
        self.node_types = frozenset(node_types)
        self.ignore_types = frozenset(ignore_types)
        self.threshold = threshold
        self.namespace = namespace or ",".join(sorted(self.fault_types))

    def on_fault(
        self, fault: Fault, node_type: str | None, present: Container[str], counts: FaultCounts
    ) -> Sequence[Mutation]:
        """Count the fault in ``counts`` and return what it asks for. ``node_type`` None: the node left."""
        key = (self.namespace, fault.tenant, fault.node)
        match admit(
            fault.type.value,
            node_type,
            faults=self.fault_types,
            node_types=self.node_types,
            ignored=self.ignore_types,
        ):
            case Admission.IGNORE:
                return ()
            case Admission.FORGET:
                counts.remove(*key, graph=fault.graph)
                return ()
            case Admission.COUNT:
                reached = counts.increment(*key, graph=fault.graph) >= self.threshold
                return self.action(fault, present) if reached else ()
