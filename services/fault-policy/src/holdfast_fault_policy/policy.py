"""The decisions: what one fault leads to, and what the end of an episode clears. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from holdfast_model.desired import POLICY_OWNER, DesiredGraph
from holdfast_model.errors import Invalid
from holdfast_model.events import Fault
from holdfast_model.fault_engine import Owned, Policy, PolicyFailure, evaluate, failed
from holdfast_model.ladders import ANSWERS, PENDING, RESOLVED, CompiledLadder, Review
from holdfast_model.messages import Status
from holdfast_model.mutations import Mutation, RemoveNode
from holdfast_model.names import BUILT_IN_TYPES, HUMAN_REVIEW
from holdfast_model.reconciler.records import Record
from holdfast_model.rows import Node
from holdfast_model.thresholds import Admission, NodeCounts, Tally, without_episode


class Verdict(StrEnum):
    """What became of a fault."""

    COUNTED = "counted"
    LEFT = "left"  # its node is not in the graph any more
    ENDED = "ended"  # its episode, or the form of the node it speaks of, is over


class Policies(msgspec.Struct, frozen=True):
    """What looks after the nodes of one type. ``evaluates``: the domain has a policy of its own to ask.

    ``problem`` says why its ladders cannot be used, "" when they can.
    """

    domain: str = ""
    ladders: tuple[CompiledLadder, ...] = ()
    evaluates: bool = False
    problem: str = ""

    def consults(self, node: str) -> tuple[str, ...]:
        """Ids of the nodes whose state a fault of ``node`` may depend on."""
        return tuple(dict.fromkeys(i for ladder in self.ladders for i in ladder.consults(node)))


class Answer(msgspec.Struct, frozen=True):
    """What a domain's own policy said: mutations, or why it could not answer."""

    mutations: tuple[Mutation, ...] = ()
    error: str = ""


class Case(msgspec.Struct, frozen=True):
    """All that is known about one fault at one version of the graph.

    ``incarnation`` and ``record`` are the graph's and the node's newest; ``reviews`` are those consulted.
    """

    fault: Fault
    graph: DesiredGraph
    incarnation: str
    record: Record | None
    counts: NodeCounts
    reviews: Mapping[str, Review]


class Ruling(msgspec.Struct, frozen=True):
    """What to write: the node's counts from now on (None: none), mutations, and a failure to tell of."""

    verdict: Verdict
    counts: NodeCounts | None
    mutations: tuple[Owned, ...] = ()
    failure: PolicyFailure | None = None


def own_namespace(domain: str) -> str:
    """Where faults are counted on behalf of a domain's own policy."""
    return f"domain:{domain}"


def standing(case: Case) -> Verdict:
    """Whether a fault still speaks of something that is so.

    Faults of removed nodes and of ended episodes, forms and incarnations only delete themselves (and, when
    the node left, its counts).
    """
    fault = case.fault
    if fault.incarnation != case.incarnation:
        return Verdict.ENDED
    node = case.graph.nodes.get(fault.node)
    if node is None:
        return Verdict.LEFT
    if fault.node_type and fault.node_type != node.type:
        return Verdict.ENDED
    if case.record is None or (fault.episode and fault.episode != case.record.episode):
        return Verdict.ENDED
    return Verdict.COUNTED


def rule(case: Case, policies: Policies, answer: Answer | None = None) -> Ruling:
    """Count a fault and let the ladders, and the domain's own policy's ``answer``, say what it asks for."""
    verdict = standing(case)
    if verdict is Verdict.LEFT:
        return Ruling(verdict, None)
    if verdict is Verdict.ENDED:
        return Ruling(verdict, case.counts)
    fault, kind = case.fault, case.graph.nodes[case.fault.node].type
    if policies.problem:
        return Ruling(verdict, case.counts, failure=failed(policies.domain, policies.problem).failure)
    counts, asked = case.counts, []
    for ladder in policies.ladders:
        counts = ladder.count(fault, kind, counts, case.reviews)
        if ladder.admission(fault, kind) is Admission.COUNT:
            climb = _Climb(ladder, case, counts)
            asked.append(Policy(ladder.name, climb))
    if policies.evaluates and kind not in BUILT_IN_TYPES:
        counts = _count_own(counts, policies.domain, fault)
        asked.append(Policy(policies.domain, lambda: _said(answer)))
    found = evaluate(asked)
    if found.failure is not None:
        return Ruling(verdict, counts, failure=found.failure)
    for policy in asked:
        if isinstance(policy.ask, _Climb):
            counts = {**counts, policy.name: policy.ask.tally}
    return Ruling(verdict, counts, found.mutations)


class _Climb:
    """One ladder asked about one fault; keeps the tally with the mark of what it added."""

    def __init__(self, ladder: CompiledLadder, case: Case, counts: NodeCounts) -> None:
        self._ladder, self._case, self._counts = ladder, case, counts
        self.tally = counts[ladder.name]

    def __call__(self) -> Sequence[Mutation]:
        case = self._case
        mutations, counts = self._ladder.climb(case.fault, self._counts, case.reviews, case.graph.nodes)
        self.tally = counts[self._ladder.name]
        return mutations


def _count_own(counts: NodeCounts, domain: str, fault: Fault) -> NodeCounts:
    name = own_namespace(domain)
    old = counts.get(name)
    before = old.count if old and old.episode == fault.episode else 0
    return {**counts, name: Tally(before + 1, fault.episode)}


def _said(answer: Answer | None) -> Sequence[Mutation]:
    if answer is None:
        raise Invalid("the domain's policy was not asked")
    if answer.error:
        raise Invalid(answer.error)
    return answer.mutations


def review_of(node: Node | None, record: Record | None) -> Review | None:
    """A review as ladders see it, from its node and its state; None when the graph does not hold it.

    Its answer counts only for the form that is declared now. A person's review is resolved once it was
    answered.
    """
    if node is None:
        return None
    episode = str(_spec(node).get("episode", "")) if node.type in BUILT_IN_TYPES else ""
    if record is None or record.digest != node.digest:
        return Review(PENDING, episode)
    if node.type == HUMAN_REVIEW:
        return Review(RESOLVED if record.status is Status.PRESENT else PENDING, episode)
    return Review(_answer(record.reason), episode)


def _answer(reason: str) -> str:
    return reason if reason in ANSWERS else PENDING


def reviews_in(graph: DesiredGraph, records: Mapping[str, Record | None]) -> dict[str, Review]:
    """The reviews among ``records`` (id -> state row), as ladders see them."""
    found = {i: review_of(graph.nodes.get(i), r) for i, r in records.items()}
    return {i: r for i, r in found.items() if r is not None}


def recovered(graph: DesiredGraph, node: str, episode: str, counts: NodeCounts) -> tuple[NodeCounts, list[Owned]]:
    """What the end of an episode leaves: counts that stay, and the removal of reviews that policies added for it.

    Doing it again changes nothing.
    """
    gone = [
        Owned(graph.nodes[i].owner, RemoveNode(i))
        for i in sorted(graph.reviews_of(node))
        if graph.nodes[i].owner.startswith(POLICY_OWNER) and _spec(graph.nodes[i]).get("episode") == episode
    ]
    return without_episode(counts, episode), gone


def _spec(node: Node) -> dict[str, Any]:
    spec = msgspec.json.decode(node.spec)
    return spec if isinstance(spec, dict) else {}


def decode_records(ids: Iterable[str], rows: Sequence[bytes | None]) -> dict[str, Record | None]:
    """State rows by id, in the order in which they were asked for."""
    return {i: msgspec.json.decode(r, type=Record) if r else None for i, r in zip(ids, rows, strict=True)}
