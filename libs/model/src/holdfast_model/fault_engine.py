"""Several policies on one fault: their mutations are merged, or dropped together when they cannot be.

Equal mutations collapse; different mutations of one node conflict. A conflict, or an exception in one
policy, drops the mutations of that fault, and of that fault only: the graph goes on, and an event
``policy_failed`` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from .errors import HoldfastError
from .events import Event, Family, Fault, GraphEvent
from .mutations import (
    AddDependency,
    Mutation,
    RemoveDependency,
    canonical,
    target,
)
from .reasons import FailureKind
from .rows import Node

CONFLICT, POLICY_ERROR = FailureKind.CONFLICT, FailureKind.POLICY_ERROR


class Policy(msgspec.Struct, frozen=True):
    """A policy ready to be asked about one fault. ``owner`` declares what it adds (``policy:<name>``)."""

    name: str
    ask: Callable[[], Sequence[Mutation]]

    @property
    def owner(self) -> str:
        return f"policy:{self.name}"


class Owned(msgspec.Struct, frozen=True):
    """A mutation and the owner in whose name it is applied."""

    owner: str
    mutation: Mutation


class PolicyFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a fault led to no mutation. ``node`` and ``mutations`` (the first two that differ) for a
    conflict.
    """

    kind: str
    message: str
    policies: tuple[str, ...]
    node: str = ""
    mutations: tuple[Mutation, ...] = ()


class Evaluation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the policies ask for: node mutations (one per node) before edge mutations, or the failure."""

    nodes: tuple[Owned, ...] = ()
    edges: tuple[Owned, ...] = ()
    failure: PolicyFailure | None = None

    @property
    def mutations(self) -> tuple[Owned, ...]:
        return (*self.nodes, *self.edges)


def evaluate(policies: Iterable[Policy]) -> Evaluation:
    """Ask every policy and merge the answers. Never raises: whatever a policy does wrong is a failure."""
    emitted: list[tuple[str, Owned]] = []
    for policy in policies:
        try:
            emitted += [(policy.name, Owned(policy.owner, m)) for m in policy.ask()]
        except HoldfastError as e:
            return failed(policy.name, e.message)
        except Exception as e:  # noqa: BLE001 - policies are foreign code; theirs must not end the handling
            return failed(policy.name, f"{type(e).__name__}: {e}")
    return merge(emitted)


def failed(policy: str, message: str) -> Evaluation:
    """The outcome when one policy could not answer."""
    return Evaluation(failure=PolicyFailure(POLICY_ERROR, message, (policy,)))


def merge(emitted: Iterable[tuple[str, Owned]]) -> Evaluation:
    """Collapse equal mutations and find conflicts among ``(policy, mutation)`` pairs, in the order of
    policies.
    """
    nodes: dict[str, tuple[bytes, str, Owned]] = {}
    edges: dict[bytes, Owned] = {}
    for policy, owned in emitted:
        mutation = owned.mutation
        meaning = canonical(mutation)
        if isinstance(mutation, AddDependency | RemoveDependency):
            edges.setdefault(meaning, owned)
            continue
        known = nodes.setdefault(target(mutation), (meaning, policy, owned))
        if known[0] != meaning:
            return Evaluation(failure=_conflict(target(mutation), known[1:], (policy, owned)))
    return Evaluation(tuple(o for _, _, o in nodes.values()), tuple(edges.values()))


def _conflict(node: str, first: tuple[str, Owned], second: tuple[str, Owned]) -> PolicyFailure:
    names = tuple(dict.fromkeys((first[0], second[0])))
    message = f"different mutations of node {node!r} by {' and '.join(names)}"
    return PolicyFailure(CONFLICT, message, names, node, (first[1].mutation, second[1].mutation))


def policy_failed(fault: Fault, failure: PolicyFailure, now: float) -> Event:
    """The event that tells of a failure. Its id derives from the fault's: a repetition is a duplicate."""
    data: dict[str, Any] = {
        "fault": fault.id,
        "faulttype": fault.type.value,
        "node": fault.node,
        "kind": failure.kind,
        "message": failure.message,
        "policies": list(failure.policies),
    }
    if failure.kind == CONFLICT:
        data["conflict"] = {"node": failure.node, "mutations": _plain(failure.mutations)}
    return Event(
        f"{fault.id}.policy_failed", Family.GRAPH, GraphEvent.POLICY_FAILED, fault.tenant, fault.graph, now, data,
        node=fault.node,
    )  # fmt: skip


def _plain(mutations: Sequence[Mutation]) -> Any:
    return msgspec.json.decode(msgspec.json.encode(mutations))


class EvaluateRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of ``rpc.domain.<domain>.evaluate``: ask a domain's own policy about a fault of one of its nodes.

    ``node`` is the declaration in force; ``count`` the faults of this node in its episode, this one included;
    ``reviews`` the state of the reviews the domain's ladders may have added; ``domain_version``: the version that
    should answer, an older one leaves the request to it ("": whoever is asked).
    """

    fault: Fault
    node: Node
    count: int
    reviews: dict[str, str] = {}
    domain_version: str = ""


class EvaluateReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the domain's policy asks for; owned by ``policy:<domain>``."""

    mutations: list[Mutation] = []
