"""The conformance vectors about compiling, layers, policies and review replies, run through the real code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast_model.errors import Dangling, Invalid
from holdfast_model.events import Fault, FaultType
from holdfast_model.ladders import CompiledLadder, Review
from holdfast_model.messages import Observation, Status
from holdfast_model.mutations import AddNode, Mutation
from holdfast_model.thresholds import NodeCounts, Tally
from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.ladders import DRIFT, ESCALATION, QUARANTINE
from holdfast_pipeline.reviewer import Case, Reply, verdict
from holdfast_pipeline.wiring import LayerViolation, check_layers, layer_of, wire
from holdfast_sdk import Reviewed
from holdfast_sdk.reviews import answer_of

FOLDER = Path(os.environ.get("HOLDFAST_CONFORMANCE", Path(__file__).parents[4] / "shared" / "conformance"))
KINDS = ("compile", "layers", "policy", "ai_review")
LADDERS = {"ESCALATION": ESCALATION, "QUARANTINE": QUARANTINE, "SCHEMA_DRIFT": DRIFT}


def cases(kind: str) -> list[Any]:
    path = FOLDER / "pipeline.json"
    if path.exists():
        known = json.loads(path.read_text())["cases"]
        return [pytest.param(c, id=c["name"]) for c in known if c["given"]["kind"] == kind]
    reason = f"no conformance vectors in {FOLDER}; set HOLDFAST_CONFORMANCE"
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]


@pytest.mark.parametrize("case", cases("compile"))
def test_blueprints_are_wired_as_the_vector_says(case: dict[str, Any]) -> None:
    expected = case["then"]
    try:
        wiring = wire(parse(case["given"]["blueprint"]))
    except Invalid as e:
        assert "error" in expected
        assert_error(e, expected["error"])
        return
    assert "error" not in expected
    edges = {(n.id, d) for n in wiring.values() for d in n.depends_on}
    needed = {d for _, d in edges}
    if "nodes" in expected:
        assert {n.id: {"type": n.type, "layer": n.layer} for n in wiring.values()} == expected["nodes"]
    if "edges" in expected:
        assert edges == {(a, b) for a, b in expected["edges"]}
    if "roots" in expected:
        assert {n.id for n in wiring.values() if not n.depends_on} == set(expected["roots"])
    if "leaves" in expected:
        assert {n.id for n in wiring.values() if n.id not in needed} == set(expected["leaves"])
    if "version" in expected:
        assert len(wiring) + len(edges) == expected["version"]
    assert not {n.type for n in wiring.values()} & set(expected.get("absent_types", ()))
    for id, gating in expected.get("gating", {}).items():
        node = wiring[id]
        effective = {node.gating, node.spec_gating}
        assert gating == {
            "node": node.gating,
            "spec": node.spec_gating,
            "PROVISION": bool(effective & {"ALL", "PROVISION_ONLY"}),
            "DEPROVISION": bool(effective & {"ALL", "DEPROVISION_ONLY"}),
        }


@pytest.mark.parametrize("case", cases("layers"))
def test_layers_are_as_the_vector_says(case: dict[str, Any]) -> None:
    for op in case["when"]:
        if op["op"] == "layer_of":
            layers = [layer_of(t) for t in op["types"]]
            assert [None if found is None else found.name for found in layers] == case["then"]["layers"]
            continue
        types = {n["id"]: n["type"] for n in case["given"]["graph"]["nodes"]}
        try:
            for node, dependency in case["given"]["graph"]["edges"]:
                check_layers(node, types[node], [(dependency, types[dependency], "")])
            assert case["then"].get("valid") is True
        except LayerViolation as e:
            assert_error(e, case["then"]["error"])


@pytest.mark.parametrize("case", cases("policy"))
def test_ladders_answer_as_the_vector_says(case: dict[str, Any]) -> None:
    world = World(LADDERS[case["given"]["policy"]], case["given"]["graph"]["nodes"])
    for op, expected in zip(case["when"], case["then"]["steps"], strict=True):
        world.run(op)
        for wanted, actual in zip((expected or {}).get("emits", []), world.emitted, strict=False):
            assert_emitted(actual, wanted)
        if expected is not None and "emits" in expected:
            assert len(world.emitted) == len(expected["emits"])
        for namespace, tenant, node, count in (expected or {}).get("counts", []):
            assert world.count(namespace, tenant, node) == count


@pytest.mark.parametrize("case", cases("ai_review"))
async def test_replies_are_read_as_the_vector_says(case: dict[str, Any]) -> None:
    calls = 0

    class Scripted:
        async def review(self, asked: Case) -> Reply:
            nonlocal calls
            calls += 1
            return Reply(case["given"]["agent_reply"])

    seen = Observation(Status.ABSENT)
    for _ in case["when"]:
        if seen.status is Status.PRESENT:
            continue  # what is PRESENT gets no step
        reply = await Scripted().review(Case(case["given"]["target"]))
        seen = answer_of(Reviewed(verdict(reply.text), reply.text))
    assert seen.reason == case["then"]["review"]
    assert calls == case["then"]["agent_calls"]


class World:
    """One ladder, a graph's nodes by id, and counts by tenant."""

    def __init__(self, ladder: Any, nodes: list[dict[str, Any]]) -> None:
        self.ladder = CompiledLadder(ladder)
        self.types = {n["id"]: n["type"] for n in nodes}
        self.reviews: dict[str, Review] = {}
        self.reasons: dict[str, str] = {}
        self.counts: dict[tuple[str, str], NodeCounts] = {}
        self.emitted: list[Mutation] = []

    def run(self, op: Mapping[str, Any]) -> None:
        match op["op"]:
            case "set_review":
                self.reviews[op["review"]] = Review(op["state"])
            case "set_stage":
                self.reasons[op["node"]] = op["state"].lower()
            case "apply_emitted":
                self.types |= {m.node.id: m.node.type for m in self.emitted if isinstance(m, AddNode)}
                self.emitted = []
            case "fault":
                self.emitted = self.fault(op)

    def fault(self, op: Mapping[str, Any]) -> list[Mutation]:
        node, kind = op["node"], self.types[op["node"]]
        fault = Fault(
            "f", "i", op["tenant"], "main", node, FaultType(op["type"]), kind, 0.0,
            self.reasons.get(node, ""), op["detail"], episode="e",
        )  # fmt: skip
        key = (op["tenant"], node)
        before = self.counts.get(key, {})
        counted = self.ladder.count(fault, kind, before, self.reviews)
        if counted == before:
            return []
        mutations, self.counts[key] = self.ladder.climb(fault, counted, self.reviews, self.types)
        return mutations

    def count(self, namespace: str, tenant: str, node: str) -> int:
        assert namespace == self.ladder.name
        return self.counts.get((tenant, node), {}).get(namespace, Tally(0)).count


def assert_error(error: Invalid, expected: Mapping[str, Any]) -> None:
    match expected["kind"]:
        case "DANGLING":
            assert isinstance(error, Dangling)
            assert "edge" not in expected or list(error.edge) == expected["edge"]
        case "LAYER_VIOLATION":
            assert isinstance(error, LayerViolation)
            facts = {
                "node": error.node,
                "dependency": error.dependency,
                "node_layer": error.node_layer.name,
                "dependency_layer": error.dependency_layer.name,
                "violation": error.violation,
                "kind": "LAYER_VIOLATION",
            }
            assert {key: facts[key] for key in expected} == expected
        case other:
            pytest.fail(f"unknown kind of error {other}")
    assert all(p.path.startswith("/") or p.path == "" for p in error.problems)


def assert_emitted(mutation: Mutation, expected: Mapping[str, Any]) -> None:
    assert isinstance(mutation, AddNode)
    assert expected["kind"] == "ADD_NODE"
    spec = msgspec.json.decode(mutation.node.spec)
    wanted = expected["node"]
    assert (mutation.node.id, mutation.node.type) == (wanted["id"], wanted["type"])
    assert mutation.node.gating == wanted["gating"]
    for key, value in wanted["spec"].items():
        if key.endswith("_has"):
            assert all(word.lower() in spec[key.removesuffix("_has")].lower() for word in value)
        else:
            assert spec[key] == value


def test_every_kind_of_this_part_is_run() -> None:
    assert all(cases(kind) for kind in KINDS)
