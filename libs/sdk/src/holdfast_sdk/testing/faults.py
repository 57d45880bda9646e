"""What faults lead to in a test: the domain's ladders and its own policy, as the fault-policy service applies them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from holdfast_model.desired import POLICY_OWNER, DesiredGraph
from holdfast_model.errors import Invalid, NotFound
from holdfast_model.events import Fault
from holdfast_model.fault_engine import EvaluateRequest, Owned, Policy, evaluate
from holdfast_model.ladders import ANSWERS, PENDING, RESOLVED, Review, compile_ladders
from holdfast_model.manifest import Ladder
from holdfast_model.messages import Status
from holdfast_model.mutations import Mutation, RemoveNode
from holdfast_model.names import BUILT_IN_TYPES, HUMAN_REVIEW
from holdfast_model.reconciler import Record
from holdfast_model.thresholds import Admission, NodeCounts, without_episode

Ask = Callable[[EvaluateRequest], Awaitable[Sequence[Mutation]]]


class FaultHandling:
    """Counts faults per node and turns them into mutations of the desired graph. ``failures``: policies that broke."""

    def __init__(self, domain: str, ladders: Sequence[Ladder], ask: Ask | None) -> None:
        self.failures: list[str] = []
        self._domain = domain
        self._ladders = compile_ladders(ladders)
        self._ask = ask
        self._counts: dict[str, NodeCounts] = {}
        self._faults: dict[tuple[str, str], int] = {}

    async def handle(self, fault: Fault, graph: DesiredGraph, record: Callable[[str], Record | None]) -> None:
        """Let every policy look at a fault, and apply what they agree on."""
        node = graph.nodes.get(fault.node)
        if node is None or node.type in BUILT_IN_TYPES:
            return
        counts = self._counts.get(node.id, {})
        asked: list[Policy] = []
        climbed: dict[str, NodeCounts] = {}
        reviews = {i: r for i in self._consulted(node.id) if (r := _review(graph, i, record(i))) is not None}
        for ladder in self._ladders:
            counts = ladder.count(fault, node.type, counts, reviews)
            if ladder.admission(fault, node.type) is not Admission.COUNT:
                continue

            def climb(ladder: Any = ladder, counts: NodeCounts = counts) -> Sequence[Mutation]:
                mutations, climbed[ladder.name] = ladder.climb(fault, counts, reviews, graph.nodes)
                return list(mutations)

            asked.append(Policy(ladder.name, climb))
        if self._ask is not None:
            asked.append(await self._own(self._ask, fault, graph, reviews))
        found = evaluate(asked)
        if found.failure is not None:
            self.failures.append(found.failure.message)
        else:
            for name, tallies in climbed.items():
                counts = {**counts, name: tallies[name]}
            _apply(graph, found.mutations)
        self._counts[node.id] = counts

    def recovered(self, node: str, episode: str, graph: DesiredGraph) -> None:
        """An episode ended: its counts and the reviews that were added for it go."""
        self._counts[node] = without_episode(self._counts.get(node, {}), episode)
        _apply(
            graph,
            [
                Owned(graph.nodes[i].owner, RemoveNode(i))
                for i in sorted(graph.reviews_of(node))
                if graph.nodes[i].owner.startswith(POLICY_OWNER) and _episode(graph, i) == episode
            ],
        )

    def _consulted(self, node: str) -> tuple[str, ...]:
        return tuple(i for ladder in self._ladders for i in ladder.consults(node))

    async def _own(self, ask: Ask, fault: Fault, graph: DesiredGraph, reviews: dict[str, Review]) -> Policy:
        key = (fault.node, fault.episode)
        self._faults[key] = count = self._faults.get(key, 0) + 1
        states = {i: r.state for i, r in reviews.items()}
        request = EvaluateRequest(fault, graph.nodes[fault.node], count, states)
        try:
            answer = await ask(request)
        except Exception as e:  # noqa: BLE001 - the author's code; its failure is what the service would tell
            error = e

            def broken() -> Sequence[Mutation]:
                raise error

            return Policy(self._domain, broken)
        return Policy(self._domain, lambda: answer)


def _apply(graph: DesiredGraph, mutations: Sequence[Owned]) -> None:
    for owned in mutations:
        try:
            graph.apply(owned.mutation, owned.owner)
        except (Invalid, NotFound):
            continue  # it no longer fits the newest graph: dropped, as everywhere


def _review(graph: DesiredGraph, id: str, record: Record | None) -> Review | None:
    node = graph.nodes.get(id)
    if node is None:
        return None
    if record is None or record.digest != node.digest:
        return Review(PENDING, _episode(graph, id))
    if node.type == HUMAN_REVIEW:
        return Review(RESOLVED if record.status is Status.PRESENT else PENDING, _episode(graph, id))
    return Review(record.reason if record.reason in ANSWERS else PENDING, _episode(graph, id))


def _episode(graph: DesiredGraph, id: str) -> str:
    spec = msgspec.json.decode(graph.nodes[id].spec)
    return str(spec.get("episode", "")) if isinstance(spec, dict) else ""
