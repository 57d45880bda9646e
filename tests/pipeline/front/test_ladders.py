from __future__ import annotations

import pytest

from holdfast_model.events import Fault, FaultType
from holdfast_model.ladders import CompiledLadder, Review, compile_ladders
from holdfast_model.mutations import AddNode
from holdfast_model.thresholds import NodeCounts
from holdfast_pipeline import specs
from holdfast_pipeline.ladders import ESCALATION, LADDERS, OUTCOMES, QUARANTINE


def failure(**changes: object) -> Fault:
    fields: dict[str, object] = {"reason": "temporary", "detail": "down", "episode": "e1"} | changes
    return Fault("f", "i", "t", "g", "ingest", FaultType.PROVISION_FAILED, specs.INGESTION, 0.0, **fields)  # type: ignore[arg-type]


def climb(
    ladder: CompiledLadder, fault: Fault, counts: NodeCounts, reviews: dict[str, Review]
) -> tuple[list[str], NodeCounts]:
    counted = ladder.count(fault, fault.node_type, counts, reviews)
    mutations, counts = ladder.climb(fault, counted, reviews, {"ingest"} | set(reviews))
    return [m.node.id for m in mutations if isinstance(m, AddNode)], counts


def test_the_ladders_are_valid() -> None:
    assert len(compile_ladders(LADDERS)) == 3


def test_three_failures_are_retried_and_the_fourth_asks_the_reviewer() -> None:
    ladder = CompiledLadder(ESCALATION)
    counts: NodeCounts = {}
    asked = []
    for _ in range(4):
        added, counts = climb(ladder, failure(), counts, {})
        asked.append(added)
    assert asked == [[], [], [], ["ai-review-ingest"]]


def test_a_permanent_failure_asks_the_reviewer_at_once() -> None:
    added, _ = climb(CompiledLadder(ESCALATION), failure(permanent=True), {}, {})
    assert added == ["ai-review-ingest"]


@pytest.mark.parametrize(
    ("state", "added"), [("PENDING", []), ("RESOLVED", []), ("UNRESOLVED", ["human-review-ingest"])]
)
def test_what_the_reviewer_said_decides_about_a_person(state: str, added: list[str]) -> None:
    ladder = CompiledLadder(ESCALATION)
    counts: NodeCounts = {}
    for _ in range(4):
        _, counts = climb(ladder, failure(), counts, {})
    asked, _ = climb(ladder, failure(), counts, {"ai-review-ingest": Review(state, "e1")})
    assert asked == added


def test_a_resolution_that_did_not_help_asks_a_person_in_the_end() -> None:
    ladder = CompiledLadder(ESCALATION)
    counts: NodeCounts = {}
    for _ in range(4):
        _, counts = climb(ladder, failure(), counts, {})
    resolved = {"ai-review-ingest": Review("RESOLVED", "e1")}
    asked = []
    for _ in range(5):
        added, counts = climb(ladder, failure(), counts, resolved)
        asked += added
    assert "human-review-ingest" in asked


def test_a_validator_that_is_degraded_for_another_reason_asks_nobody() -> None:
    fault = Fault("f", "i", "t", "g", "v", FaultType.NODE_DEGRADED, specs.VALIDATOR, 0.0, "vanished")
    added, _ = climb(CompiledLadder(QUARANTINE), fault, {}, {})
    assert added == []


def test_every_hold_offers_its_choices_and_every_failure_a_way_on() -> None:
    assert OUTCOMES[specs.VALIDATOR]["quarantined"] == ["accept-rows", "drop-rows", "retry"]
    assert OUTCOMES[specs.SCHEMA]["schema_drift"] == ["accept", "reject"]
    assert all(OUTCOMES[kind]["*"] == ["retry", "give-up"] for kind in specs.SPEC_OF_TYPE)
