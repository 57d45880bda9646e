"""What faults lead to in a test: the domain's ladders and its own policy, decided as the fault-policy service does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from holdfast_model.desired import DesiredGraph
from holdfast_model.events import Fault
from holdfast_model.fault_engine import EvaluateRequest
from holdfast_model.ladders import compile_ladders
from holdfast_model.manifest import Ladder
from holdfast_model.mutations import Mutation
from holdfast_model.policies import Answer, Case, Policies, apply_all, question, recovered, reviews_in, rule
from holdfast_model.reconciler import Record
from holdfast_model.thresholds import NodeCounts

Ask = Callable[[EvaluateRequest], Awaitable[Sequence[Mutation]]]


class FaultHandling:
    """Counts faults per node and turns them into mutations of the desired graph. ``failures``: policies that broke."""

    def __init__(self, domain: str, ladders: Sequence[Ladder], ask: Ask | None) -> None:
        self.failures: list[str] = []
        self._policies = Policies(domain, compile_ladders(ladders), evaluates=ask is not None)
        self._ask = ask
        self._counts: dict[str, NodeCounts] = {}

    async def handle(self, fault: Fault, graph: DesiredGraph, record: Callable[[str], Record | None]) -> None:
        """Let every policy look at a fault, and apply what they agree on."""
        node = fault.node
        reviews = reviews_in(graph, {i: record(i) for i in self._policies.consults(node)})
        case = Case(fault, graph, fault.incarnation, record(node), self._counts.get(node, {}), reviews)
        ruling = rule(case, self._policies, await self._answer(case))
        if ruling.failure is not None:
            self.failures.append(ruling.failure.message)
        apply_all(graph, ruling.mutations)
        self._counts[node] = ruling.counts or {}

    def recovered(self, node: str, episode: str, graph: DesiredGraph) -> None:
        """An episode ended: its counts and the reviews that were added for it go."""
        self._counts[node], removals = recovered(graph, node, episode, self._counts.get(node, {}))
        apply_all(graph, removals)

    async def _answer(self, case: Case) -> Answer | None:
        request = question(case, self._policies)
        if self._ask is None or request is None:
            return None
        try:
            return Answer(tuple(await self._ask(request)))
        except Exception as e:  # noqa: BLE001 - the author's code; its failure is what the service would tell
            return Answer(error=f"{type(e).__name__}: {e}")
