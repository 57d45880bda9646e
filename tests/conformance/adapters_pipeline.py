"""pipeline.json: compiling, layers, ladders and review replies of the pipeline domain.

What a simulated backend of the reference does (stages that "run", worlds that are scripted) has no counterpart here:
stages work on files, and other tests run them. Those cases yield nothing, and deviate by rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast_model.errors import HoldfastError
from holdfast_model.events import Fault, FaultType
from holdfast_model.graph import Graph
from holdfast_model.ladders import UNRESOLVED, CompiledLadder, Review
from holdfast_model.messages import Observation, Status
from holdfast_model.mutations import AddNode, Mutation, declaration
from holdfast_model.names import AI_REVIEW, BUILT_IN_TYPES
from holdfast_model.rows import Gating
from holdfast_model.thresholds import NodeCounts, Tally
from holdfast_pipeline.approvals import plan_of
from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.ladders import DRIFT, ESCALATION, QUARANTINE, RETRIES
from holdfast_pipeline.reviewer import verdict
from holdfast_pipeline.wiring import Layer, Wired, check_layers, layer_of, wire
from holdfast_sdk import Reviewed, Verdict
from holdfast_sdk.reviews import answer_of

from . import vectors
from .adapters_graph import facts_of
from .adapters_people import needs
from .reading import plain
from .running import Run
from .vectors import Case, Json

LADDERS = {"ESCALATION": ESCALATION, "QUARANTINE": QUARANTINE, "SCHEMA_DRIFT": DRIFT}


def run_compile(case: Case) -> Run:
    for op in case.when:
        vectors.must_be(op, "compile")
    wiring = wire(parse(plain(case.given["blueprint"])))
    nodes = [
        msgspec.structs.replace(declaration(n.id, n.type, gating=n.gating), spec_gating=n.spec_gating)
        for n in wiring.values()
    ]
    graph = Graph.of(nodes, [(n.id, target) for n in wiring.values() for target in n.depends_on])
    types = {n.type for n in wiring.values()}
    return Run(
        {
            **facts_of(graph, case.then),
            "nodes": {n.id: {"type": n.type, "layer": named(n.layer)} for n in wiring.values()},
            "gating": {n.id: _gating(n) for n in wiring.values()},
            "absent_types": [t for t in case.then.get("absent_types", ()) if t not in types],
        }
    )


def named(layer: Layer | None) -> str | None:
    return None if layer is None else layer.name


def _gating(node: Wired) -> Json:
    return {"node": node.gating, "spec": node.spec_gating, **needs(Gating(node.gating), Gating(node.spec_gating))}


def run_layers(case: Case) -> Run:
    actual: Json = {}
    for op in case.when:
        if op["op"] == "layer_of":
            actual["layers"] = [named(layer_of(t)) for t in op["types"]]
            continue
        vectors.must_be(op, "validate_layers")
        graph = op.get("graph") or case.given["graph"]
        types = {n.id: n.type for n in vectors.nodes(graph)}
        for node, dependency in vectors.edges(graph):
            check_layers(node, types[node], [(dependency, types[dependency], "")])
        actual["valid"] = True
    return Run(actual)


# ---- ladders


def run_policy(case: Case) -> Run:
    climber = Climber(LADDERS[case.given["policy"]], case.given["graph"])
    steps = []
    for i, op in enumerate(case.when):
        emitted = climber.operate(op)
        step: Json = {"emits": [_emitted(m) for m in emitted]}
        wanted = case.step(i).get("counts", [])
        step["counts"] = [[ns, tenant, node, climber.count(ns, tenant, node)] for ns, tenant, node, _ in wanted]
        steps.append(step)
    return Run({"steps": steps}, climber.facts)


def _emitted(mutation: Mutation) -> Json:
    """A mutation with the codes of its spec in words too: vectors look for words."""
    plain = vectors.plain_mutation(mutation)
    spec = plain.get("node", {}).get("spec", {})
    if isinstance(spec.get("reason"), str):
        spec["reason"] = spec["reason"].replace("_", " ")
    return plain


def _types(graph: Json) -> dict[str, str]:
    return {n.id: n.type for n in vectors.graph(graph).nodes.values()}


class Climber:
    """One ladder, the nodes of a graph by id, and counts by tenant."""

    def __init__(self, ladder: Any, graph: Json) -> None:
        self.ladder = CompiledLadder(ladder)
        self.types: dict[str, str] = {}
        self.reviews: dict[str, Review] = {}
        self.set_graph(graph)
        self.reasons: dict[str, str] = {}
        self.counts: dict[tuple[str, str], NodeCounts] = {}
        self.emitted: list[Mutation] = []
        self.facts: set[str] = set()

    def operate(self, op: Mapping[str, Any]) -> list[Mutation]:
        match op["op"]:
            case "set_review":
                self.reviews[op["review"]] = Review(op["state"])
            case "set_stage":
                self.reasons[op["node"]] = str(op["state"]).lower()
            case "set_graph":
                self.set_graph(op["graph"])
            case "apply_emitted":
                self.apply_emitted()
            case "fault":
                self.emitted = self.fault(op)
                return self.emitted
            case _:
                raise vectors.unknown(op)
        return []

    def set_graph(self, graph: Json) -> None:
        """The nodes of the graph; a review there is pending, until its answer is known."""
        self.types = _types(graph)
        for node, kind in self.types.items():
            if kind in BUILT_IN_TYPES:
                self.reviews.setdefault(node, Review())

    def known(self) -> dict[str, Review]:
        """The reviews that ladders see. A reviewer's answer is a node's state: without the node there is none."""
        return {i: r for i, r in self.reviews.items() if i in self.types or not i.startswith(AI_REVIEW)}

    def apply_emitted(self) -> None:
        """The nodes are in the graph from now on; a review that is new there is pending."""
        for mutation in self.emitted:
            if isinstance(mutation, AddNode):
                self.types[mutation.node.id] = mutation.node.type
                if mutation.node.type in BUILT_IN_TYPES:
                    self.reviews.setdefault(mutation.node.id, Review())
        self.emitted = []

    def fault(self, op: Mapping[str, Any]) -> list[Mutation]:
        node = op["node"]
        kind = self.types.get(node)
        if kind is None:
            self.facts.add("fault_of_removed_node")
        fault = Fault(
            "f", "i", op["tenant"], "main", node, FaultType(op["type"]), kind or "", 0.0,
            self.reasons.get(node, ""), op.get("detail", ""), episode="e",
        )  # fmt: skip
        key = (op["tenant"], node)
        before = self.counts.get(key, {})
        reviews = self.known()
        counted = self.ladder.count(fault, kind, before, reviews)
        if kind is not None and kind not in BUILT_IN_TYPES and not self.ladder.covers(kind):
            self.facts.add("foreign_type")
        if counted == before or kind is None:
            self.counts[key] = counted
            return []
        tally = counted.get(self.ladder.name, Tally(0))
        answer = reviews.get(f"{AI_REVIEW}-{node}")
        if tally.count <= RETRIES and answer is not None and answer.state == UNRESOLVED:
            self.facts.add("answered_early")
        mutations, self.counts[key] = self.ladder.climb(fault, counted, reviews, self.types)
        return mutations

    def count(self, namespace: str, tenant: str, node: str) -> int:
        if namespace != self.ladder.name:
            return 0
        return self.counts.get((tenant, node), {}).get(namespace, Tally(0)).count


# ---- reviews


def run_ai_review(case: Case) -> Run:
    """What is PRESENT gets no step, so an answered review is not asked again."""
    calls = 0
    seen = Observation(Status.ABSENT)
    facts: set[str] = set()
    for op in case.when:
        vectors.must_be(op, "provision_review")
        reply = op.get("agent_reply", case.given["agent_reply"]) or ""
        if seen.status is Status.PRESENT:
            continue
        calls += 1
        if reply and not reply.strip():
            facts.add("blank_reply")
        if calls > 1:
            facts.add("asked_again")
        seen = answer_of(Reviewed(verdict(reply), reply))
    return Run({"result": {"kind": "SUCCESS"}, "review": seen.reason, "agent_calls": calls}, facts)


def run_observe(case: Case) -> Run:
    """Reviews are observed by their answer; the states of a simulated stage mean nothing here."""
    if case.given["type"] not in BUILT_IN_TYPES:
        return Run({}, {"simulated"}, aside=True)
    statuses = []
    for op in case.when:
        vectors.must_be(op, "observe_states")
        statuses += [_review_status(state) for state in op["states"]]
    return Run({"statuses": statuses})


def _review_status(state: str | None) -> str:
    if state is None:
        return Status.ABSENT.value
    return answer_of(Reviewed(Verdict(state), state)).status.value


# ---- the simulated backend


def run_provision(case: Case) -> Run:
    """Only what a person is asked about a stage of Gold is a fact about us; all else is the backend's."""
    op = case.when[-1] if case.when else {}
    if op.get("op") != "provision" or "approval" in op or case.given.get("backends") == 0:
        return run_simulated(case)
    try:
        node = wire(parse(plain(case.given.get("blueprint", {})))).get(str(op.get("node")))
    except HoldfastError:  # what the backend makes of it is its own affair
        return run_simulated(case)
    if node is None or node.spec_gating == "NONE":
        return run_simulated(case)
    return Run({"result": {"kind": "PENDING_APPROVAL", "plan": plan_of(node.id)}}, aside=True)


def run_simulated(case: Case) -> Run:
    """Stages work on files here: there is nothing to run."""
    return Run({}, {"simulated"}, aside=True)
