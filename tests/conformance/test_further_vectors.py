"""Vectors of our own: what others of the same kinds may ask for, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from .adapters import adapter_for
from .deviations import read_rules
from .running import Verdict, judge
from .vectors import Case

RULES = read_rules()
FAILED = {"kind": "FAILED", "reason": "down"}
COMPLETED = {"type": "io.casehub.desiredstate.reconciliation.completed", "subject": "t1"}
RECOVERED = {"type": "io.casehub.desiredstate.node.recovered", "subject": "a"}
FAULTED = {"type": "io.casehub.desiredstate.node.faulted", "subject": "a"}
REF = "desiredstate-approval:t:n:PROVISION"
NODE = {"tenant": "t", "node": "n", "action": "PROVISION"}
ASKED = {"op": "record_pending", **NODE, "plan": "p"}
INGEST = {"nodes": [{"id": "in", "type": "ingestion"}], "edges": []}
DOWN = {"op": "fault", "node": "in", "type": "PROVISION_FAILED", "tenant": "t", "detail": "down"}
QUIET: dict[str, Any] = {"emits": []}
POLICY = {"fault_types": ["PROVISION_FAILED"], "action": "ADD_REVIEW"}


def graph(*nodes: Any, edges: Any = ()) -> dict[str, Any]:
    return {"nodes": list(nodes), "edges": list(edges)}


def verdict_on(file: str, given: dict[str, Any], when: list[dict[str, Any]], then: dict[str, Any]) -> tuple[Any, ...]:
    judged = judge(case := Case(file, "made-up", "normative", given, when, then), adapter_for(case), RULES)
    return (judged.verdict, *judged.needed) if judged.verdict is not Verdict.FAILED else (judged.verdict, judged.why)


@pytest.mark.parametrize(
    ("file", "given", "when", "then"),
    [
        pytest.param(
            "graph", {"graph": graph("a", {"id": "b", "type": "u"}, "c", edges=[["c", "a"]])},
            [{"op": "filter_types", "types": ["t"]}, {"op": "try_mutate_views"}],
            {"read_only": ["node_ids", "edges", "dependencies_of", "dependents_of"], "edges": [["c", "a"]]},
            id="views of a filtered graph",
        ),
        pytest.param(
            "mutations", {"kind": "diff", "current": graph("a", "b"), "adapted": graph("a", "b", edges=[["a", "b"]])},
            [{"op": "diff"}], {"apply_in_order": {"error": None, "edges": [["a", "b"]]}},
            id="a difference that can be applied",
        ),
        pytest.param(
            "mutations",
            {"kind": "diff", "current": graph("a", "b", edges=[["b", "a"]]),
             "adapted": graph("a", "b", edges=[["a", "b"]])},
            [{"op": "diff"}],
            {"apply_in_order": {"error": "CYCLE"}, "order_constraints": [["ADD_EDGE", "REMOVE_EDGE"]]},
            id="an edge that turns round",
        ),
        pytest.param(
            "fault_engine", {"kind": "cycle", "desired": graph(), "actual": {}}, [{"op": "cycle"}],
            {"steps": [{"reads": 1, "executed": None, "faults": [], "events": []}]},
            id="an empty graph is read",
        ),
        pytest.param(
            "fault_engine",
            {"kind": "cycle", "desired": graph("a"), "actual": {"a": "ABSENT"}, "outcomes": {"a": FAILED}},
            [{"op": "cycle"}],
            {"steps": [{"events": [
                {**FAULTED, "data": {"nodeId": "a", "faultType": "PROVISION_FAILED", "reason": "down"}},
                {**COMPLETED, "data": {"tenancyId": "t1", "faultCount": 1}},
            ]}]},
            id="what a fault event says",
        ),
        pytest.param(
            "threshold", {"kind": "policy", "policies": {}, "graphs": {}},
            [{"op": "build_policy", "policy": {**POLICY, "threshold": n}} for n in (0, 1, -1)],
            {"steps": [{"error": "INVALID_POLICY"}, {}, {"error": "INVALID_POLICY"}]},
            id="some policies can be built",
        ),
        pytest.param(
            "approval",
            {"kind": "executor", "tenant": "t", "action": "PROVISION", "node": {"id": "n"}, "provisioner": "FAIL:full",
             "approval_handler": "SCRIPTED", "human_handler": "RETURNS:SUCCEEDED"},
            [{"op": "execute", "approval": {"kind": "NONE"}}],
            {"steps": [{"outcome": {"kind": "FAILED", "reason": "full"}, "human_handler_called": 0}]},
            id="a handler of people that nobody needs",
        ),
        pytest.param(
            "work_items", {"kind": "approval_handler", "store_contract": "EITHER"},
            [ASKED, {"op": "set_status", "caller_ref": REF, "status": "CANCELLED", "outcome": "too-late"},
             {"op": "check", **NODE}],
            {"steps": [None, None, {"kind": "REJECTED", "reason_has": ["cancelled", "n", "too-late"]}]},
            id="an ending and its outcome",
        ),
        pytest.param(
            "work_items", {"kind": "approval_handler", "store_contract": "OBSOLETE_ACTIVE_ONLY"},
            [ASKED, {"op": "set_status", "caller_ref": REF, "status": "EXPIRED", "outcome": " "},
             {"op": "acknowledge_rejection", **NODE}, {"op": "check", **NODE}],
            {"steps": [None, None, None, {"kind": "REJECTED", "reason_has": ["expired"]}]},
            id="an acknowledged rejection",
        ),
        pytest.param(
            "routing", {"kind": "provisioners", "provisioners": [{"name": "A", "types": ["a"], "result": "PENDING:p"}]},
            [{"op": "provision", "node": {"id": "x", "type": "a"}}],
            {"routed_to": "A", "result": {"kind": "PENDING_APPROVAL", "plan": "p"}},
            id="a provisioner that asks",
        ),
        pytest.param(
            "resync", {"provisioners": [{"name": "p", "types": ["a"], "interval": "PT90S"}]},
            [{"op": "start", "graph": graph({"id": "n", "type": "a"})}, {"op": "interval_for", "type": "a"}],
            {"steps": [{"groups": {"PT1M30S": ["a"]}}, {"interval": "PT90S"}]},
            id="durations in either spelling",
        ),
        pytest.param(
            "resync", {"router": False},
            [{"op": "start", "graph": graph("a")}, {"op": "update_desired", "graph": graph({"id": "b", "type": "u"})}],
            {"steps": [{"single_timer": "PT5M"}, {"groups": {}, "timers_replaced": False}]},
            id="one timer for everything",
        ),
        pytest.param(
            "pipeline", {"kind": "compile", "blueprint": {"ingestions": [{"id": "i", "source": "k"}],
                                                          "cleansers": [{"id": "k"}]}},
            [{"op": "compile"}], {"error": {"kind": "CYCLE"}},
            id="an ingestion of what comes of it",
        ),
        pytest.param(
            "pipeline",
            {"kind": "policy", "policy": "ESCALATION",
             "graph": graph(*INGEST["nodes"], {"id": "human-review-in", "type": "human-review"})},
            [DOWN] * 5, {"steps": [QUIET] * 5},
            id="a person is asked already",
        ),
    ],
)  # fmt: skip
def test_it_holds(file: str, given: dict[str, Any], when: list[dict[str, Any]], then: dict[str, Any]) -> None:
    assert verdict_on(file, given, when, then) == (Verdict.PASSED,)


@pytest.mark.parametrize(
    ("rule", "file", "given", "when", "then"),
    [
        pytest.param(
            "a success is a recovery", "fault_engine",
            {"kind": "cycle", "desired": graph("a"), "actual": {"a": "ABSENT"}, "outcomes": {"a": FAILED}},
            [{"op": "cycle"}, {"op": "cycle", "outcomes": {}}], {"steps": [None, {"events": [COMPLETED]}]},
            id="it succeeds at the second try",
        ),
        pytest.param(
            "a changed node is made anew", "lifecycle", {"single": graph("a")},
            [{"op": "start", "actual": {"a": "PRESENT"}},
             {"op": "replace", "single": graph({"id": "a", "spec": {"v": 2}})},
             {"op": "cycle", "actual": {"a": "PRESENT"}}, {"op": "stop"}],
            {"steps": [None, None, {"executed": None}, None]},
            id="another spec, of a graph that is stopped later",
        ),
        pytest.param(
            "a rejection is not acknowledged away", "work_items",
            {"kind": "approval_handler", "store_contract": "OBSOLETE_ANY"},
            [ASKED, {"op": "set_status", "caller_ref": REF, "status": "REJECTED"},
             {"op": "acknowledge_rejection", **NODE}, {"op": "check", **NODE}],
            {"steps": [None, None, None, {"kind": "NONE"}]},
            id="a rejection that is to be forgotten",
        ),
        pytest.param(
            "a pending review is asked again", "pipeline", {"kind": "ai_review", "agent_reply": "", "target": "in"},
            [{"op": "provision_review"}] * 2, {"review": "PENDING", "agent_calls": 1},
            id="a reviewer who says nothing",
        ),
        pytest.param(
            "an unresolved review asks a person at once", "pipeline",
            {"kind": "policy", "policy": "ESCALATION",
             "graph": graph(*INGEST["nodes"], {"id": "ai-review-in", "type": "ai-review"})},
            [{"op": "set_review", "review": "ai-review-in", "target": "in", "state": "UNRESOLVED"}, DOWN],
            {"steps": [None, QUIET]},
            id="a review from before",
        ),
    ],
)  # fmt: skip
def test_a_decision_is_followed_instead(
    rule: str, file: str, given: dict[str, Any], when: list[dict[str, Any]], then: dict[str, Any]
) -> None:
    assert verdict_on(file, given, when, then) == (Verdict.DEVIATION, rule)


def test_a_simulated_backend_excuses_nothing_that_gold_asks() -> None:
    sink = {"id": "out", "destination": "s3://out", "format": "parquet", "approval_required": True}
    given = {"kind": "provision", "blueprint": {"sinks": [sink]}}
    ask = [{"op": "provision", "node": "out"}]
    plan = {"kind": "PENDING_APPROVAL", "plan": "gold-tier:out"}
    assert verdict_on("pipeline", given, ask, {"result": plan}) == (Verdict.PASSED,)
    assert verdict_on("pipeline", given, ask, {"result": {**plan, "plan": "x"}})[0] is Verdict.FAILED
