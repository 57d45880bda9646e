"""What one fault leads to, and what the end of an episode clears: the decisions of the fault-policy service.

The harness for authors of domains takes the same ones, so that a test sees what production does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from .desired import DesiredGraph
from .errors import Invalid, NotFound
from .events import Fault
from .fault_engine import POLICY_ERROR, EvaluateRequest, Evaluation, Owned, Policy, PolicyFailure, evaluate, failed
from .ladders import ANSWERS, PENDING, RESOLVED, CompiledLadder, Review
from .manifest import OwnedLadder
from .messages import Status
from .mutations import AddNode, Mutation, RemoveNode, declaration
from .names import BUILT_IN_TYPES, HUMAN_REVIEW
from .reconciler.records import Record
from .rows import POLICY_OWNER, Node
from .situations import CompiledSituation
from .thresholds import Admission, NodeCounts, Tally, without_episode

SHOWN_SPEC = 65536
"""Specs up to so many bytes are shown to reviews; a review is a node and is written with the graph."""


class Verdict(StrEnum):
    """What became of a fault."""

    COUNTED = "counted"
    LEFT = "left"  # its node is not in the graph any more
    ENDED = "ended"  # its episode, or the form of the node it speaks of, is over


class Policies(msgspec.Struct, frozen=True):
    """What looks after the nodes of one type: the domain's ladders, and those that blueprints brought along.

    ``evaluates``: the domain has a policy of its own to ask, in the version ``version``.
    ``problem`` says why its ladders cannot be used, "" when they can.
    """

    domain: str = ""
    ladders: tuple[CompiledLadder, ...] = ()
    own: tuple[tuple[OwnedLadder, CompiledLadder], ...] = ()
    evaluates: bool = False
    problem: str = ""
    situations: tuple[CompiledSituation, ...] = ()
    version: str = ""

    def zones(self, fault: Fault, node: Node | None) -> tuple[list[tuple[CompiledSituation, str]], list[PolicyFailure]]:
        """The situations in which a fault of ``node`` counts, each with its zone; and those that could not say so."""
        found: list[tuple[CompiledSituation, str]] = []
        failures: list[PolicyFailure] = []
        for situation in self.situations if node is not None else ():
            if node is None or not situation.covers(fault):
                continue
            try:
                zone = situation.zone(fault, node)
            except Invalid as error:
                failures.append(PolicyFailure(POLICY_ERROR, error.message, (situation.name,)))
            else:
                found += [(situation, zone)] if zone else []
        return found, failures

    def consults(self, node: str) -> tuple[str, ...]:
        """Ids of the nodes whose state a fault of ``node`` may depend on."""
        ladders = (*(ladder for _, ladder in self.own), *self.ladders)
        return tuple(dict.fromkeys(i for ladder in ladders for i in ladder.consults(node)))

    def of(self, owners: Collection[str]) -> tuple[CompiledLadder, ...]:
        """The ladders for a node that ``owners`` declare. A blueprint's comes first, and takes the place of one of the
        same name that the domain brings."""
        mine = tuple(ladder for owned, ladder in self.own if owned.concerns(owners))
        named = {ladder.name for ladder in mine}
        return (*mine, *(ladder for ladder in self.ladders if ladder.name not in named))


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
    for ladder in policies.of([owner for owner, _ in case.graph.rows[fault.node].declarations]):
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
    return Ruling(verdict, counts, (*_outdated(case, found), *found.mutations))


def _outdated(case: Case, found: Evaluation) -> list[Owned]:
    """Removals of reviews of this node that are about an earlier episode, but for those that are asked for anew."""
    anew = {o.mutation.node.id for o in found.nodes if isinstance(o.mutation, AddNode)}
    now = case.fault.episode
    return [
        Owned(case.graph.nodes[i].owner, RemoveNode(i))
        for i, episode in _reviews_added(case.graph, case.fault.node)
        if now and episode and episode != now and i not in anew
    ]


def _reviews_added(graph: DesiredGraph, node: str) -> list[tuple[str, str]]:
    """(id, episode) of the reviews of a node that policies have added."""
    return [
        (i, str(_spec(graph.nodes[i]).get("episode", "")))
        for i in sorted(graph.reviews_of(node))
        if graph.nodes[i].owner.startswith(POLICY_OWNER)
    ]


def question(case: Case, policies: Policies) -> EvaluateRequest | None:
    """What to ask the domain's own policy about a fault; None where it has none or the fault is no matter any more."""
    if not policies.evaluates or standing(case) is not Verdict.COUNTED:
        return None
    node = case.graph.nodes[case.fault.node]
    if node.type in BUILT_IN_TYPES:
        return None
    count = _count_own(case.counts, policies.domain, case.fault)[own_namespace(policies.domain)].count
    reviews = {i: r.state for i, r in case.reviews.items()}
    return EvaluateRequest(case.fault, node, count, reviews, policies.version)


def apply_all(graph: DesiredGraph, wanted: Sequence[Owned]) -> tuple[tuple[Owned, ...], tuple[str, ...]]:
    """Apply what fits the newest graph; returns that, and why the rest was dropped."""
    applied: list[Owned] = []
    dropped: list[str] = []
    for owned in wanted:
        try:
            graph.apply(owned.mutation, owned.owner)
        except (Invalid, NotFound) as error:
            dropped.append(f"{type(owned.mutation).__name__} by {owned.owner}: {error.message}")
        else:
            applied.append(owned)
    return tuple(applied), tuple(dropped)


def audit(applied: Sequence[Owned]) -> list[Any]:
    """Mutations for the log, each with the owner in whose name it was applied."""
    return [{**msgspec.json.decode(msgspec.json.encode(o.mutation)), "owner": o.owner} for o in applied]


class _Climb:
    """One ladder asked about one fault; keeps the tally with the mark of what it added."""

    def __init__(self, ladder: CompiledLadder, case: Case, counts: NodeCounts) -> None:
        self._ladder, self._case, self._counts = ladder, case, counts
        self.tally = counts[ladder.name]

    def __call__(self) -> Sequence[Mutation]:
        case = self._case
        nodes = case.graph.nodes
        mutations, counts = self._ladder.climb(case.fault, self._counts, case.reviews, nodes, self._declared)
        self.tally = counts[self._ladder.name]
        return [_with_spec(m, nodes[case.fault.node]) for m in mutations]

    def _declared(self, node: str) -> str | None:
        found = self._case.graph.nodes.get(node)
        return found.type if found is not None and not found.owner.startswith(POLICY_OWNER) else None


def _with_spec(mutation: Mutation, target: Node) -> Mutation:
    """A review also gets to see its target's spec (in the context). Faults do not carry it: they are told to all."""
    if not isinstance(mutation, AddNode) or mutation.node.type not in BUILT_IN_TYPES:
        return mutation
    spec = msgspec.json.decode(mutation.node.spec)
    if memoryview(target.spec).nbytes <= SHOWN_SPEC:
        spec["context"] = {**spec.get("context", {}), "spec": msgspec.json.decode(target.spec)}
    node = declaration(mutation.node.id, mutation.node.type, spec, mutation.node.gating)
    return AddNode(node)


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
    """What the end of an episode leaves: counts that stay, and the removal of what policies added for it.

    Reviews leave nothing behind; what a ladder added of a domain's type is deprovisioned like everything that is no
    longer wanted. Doing it again changes nothing.
    """
    gone = {i: graph.nodes[i].owner for i, about in _reviews_added(graph, node) if about == episode}
    for name, tally in counts.items():
        if tally.episode == episode:
            gone |= {i: f"{POLICY_OWNER}{name}" for i in tally.reviews if _made_by(graph, i, f"{POLICY_OWNER}{name}")}
    left = without_episode(counts, episode)
    for name, tally in left.items():
        if tally.reviews and tally.episode == episode:
            left[name] = msgspec.structs.replace(tally, reviews={})
    return left, [Owned(owner, RemoveNode(i)) for i, owner in sorted(gone.items())]


def _made_by(graph: DesiredGraph, id: str, owner: str) -> bool:
    node = graph.nodes.get(id)
    return node is not None and node.type not in BUILT_IN_TYPES and node.owner == owner


def is_over(counts: NodeCounts, record: Record | None) -> set[str]:
    """Episodes that have ended, but of which counts or added nodes are left: the end was told before they came."""
    now = record.episode if record is not None else ""
    return {t.episode for t in counts.values() if t.episode != now and (t.reviews or not t.keeps)}


def _spec(node: Node) -> dict[str, Any]:
    spec = msgspec.json.decode(node.spec)
    return spec if isinstance(spec, dict) else {}
