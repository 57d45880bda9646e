"""Ladders decide from counts, reviews and faults alone."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_model.errors import Invalid
from holdfast_model.ladders import RESOLVED, UNRESOLVED, CompiledLadder, Review, compile_ladders, covered
from holdfast_model.manifest import AddNode as RungNode
from holdfast_model.manifest import Ladder, Manifest, NodeType, Rung, check_manifest
from holdfast_model.mutations import AddNode

from .ladders_of_pipeline import ESCALATION, LADDERS, QUARANTINE, SCHEMA_DRIFT, Climber


def the_node(mutations):
    """The only node that the mutations add, with its spec as plain data."""
    (mutation,) = mutations
    assert isinstance(mutation, AddNode)
    return mutation.node, msgspec.json.decode(mutation.node.spec)


# ---- escalation


def test_three_failures_are_left_to_the_retry():
    climber = Climber(ESCALATION)

    for _ in range(3):
        assert climber.fail() == []

    assert climber.count_of() == 3


def test_the_fourth_failure_asks_an_ai_to_review():
    climber = Climber(ESCALATION)
    climber.fail(times=3)

    node, spec = the_node(climber.fail(reason="io", context={"log": ["x"]}))

    assert (node.id, node.type, node.gating) == ("ai-review-ingest", "ai-review", "NONE")
    assert spec == {
        "target": "ingest",
        "target_digest": "d1",
        "episode": "e1",
        "reason": "io",
        "error": "down",
        "context": {"fault": "PROVISION_FAILED", "node_type": "ingestion", "log": ["x"]},
    }


def test_a_permanent_failure_fires_the_next_rung_at_once():
    climber = Climber(ESCALATION)

    node, _ = the_node(climber.fail(permanent=True))

    assert node.id == "ai-review-ingest"


def test_a_review_that_never_reaches_the_graph_is_asked_for_again():
    climber = Climber(ESCALATION)

    assert climber.fail(times=4) != []
    assert climber.fail() != []


@pytest.mark.parametrize("state", ["PENDING", RESOLVED])
def test_a_pending_or_resolved_review_adds_nothing(state):
    climber = Climber(ESCALATION)
    climber.apply(climber.fail(times=4))
    climber.reviews["ai-review-ingest"] = Review(state, "e1")

    assert climber.fail(times=3) == []


def test_an_unresolved_review_asks_a_person_gated_for_every_action():
    climber = Climber(ESCALATION)
    climber.apply(climber.fail(times=4))
    climber.reviews["ai-review-ingest"] = Review(UNRESOLVED, "e1")

    node, spec = the_node(climber.fail(detail="still down"))

    assert (node.id, node.type, node.gating) == ("human-review-ingest", "human-review", "ALL")
    assert spec["error"] == "still down"


def test_a_human_review_that_stands_is_not_added_again():
    climber = Climber(ESCALATION)
    climber.apply(climber.fail(times=4))
    climber.reviews["ai-review-ingest"] = Review(UNRESOLVED, "e1")
    climber.apply(climber.fail())

    assert climber.fail(times=5) == []


def test_a_resolved_review_followed_by_as_many_failures_again_counts_as_unresolved():
    climber = Climber(ESCALATION)
    climber.apply(climber.fail(times=4))
    assert climber.fail() == []  # while it is pending; does not count against the answer
    climber.reviews["ai-review-ingest"] = Review(RESOLVED, "e1")

    assert climber.fail(times=3) == []
    node, _ = the_node(climber.fail())

    assert node.id == "human-review-ingest"


def test_a_permanent_failure_after_a_resolved_review_asks_a_person():
    climber = Climber(ESCALATION)
    climber.apply(climber.fail(permanent=True))
    climber.reviews["ai-review-ingest"] = Review(RESOLVED, "e1")

    node, _ = the_node(climber.fail(permanent=True))

    assert node.id == "human-review-ingest"


@pytest.mark.parametrize("kind", ["ai-review", "human-review"])
def test_review_nodes_never_escalate_nor_count(kind):
    climber = Climber(ESCALATION)

    assert climber.fail(f"{kind}-x", node_type=kind, times=6) == []
    assert climber.count_of(f"{kind}-x") == 0


def test_built_in_types_never_escalate_even_if_the_ladder_does_not_skip_them():
    climber = Climber(msgspec.structs.replace(ESCALATION, node_types=[], skip_types=[]))

    assert climber.fail("ai-review-x", node_type="ai-review", times=6) == []


def test_other_faults_neither_count_nor_act():
    climber = Climber(ESCALATION)

    assert climber.fail(type="NODE_DEGRADED", times=5) == []
    assert climber.count_of() == 0


def test_a_node_that_left_loses_its_count():
    climber = Climber(ESCALATION)
    climber.fail(times=3)

    assert climber.fail(node_type=None) == []
    assert climber.count_of() == 0


def test_a_new_episode_starts_counting_afresh():
    climber = Climber(ESCALATION)
    climber.fail(times=3)

    assert climber.fail(episode="e2") == []
    assert climber.count_of() == 1


def test_a_ladder_that_never_resets_counts_on_over_episodes():
    climber = Climber(msgspec.structs.replace(ESCALATION, reset="never"))
    climber.fail(times=3)

    node, _ = the_node(climber.fail(episode="e2"))

    assert node.id == "ai-review-ingest"


def test_a_review_left_over_from_an_ended_episode_counts_as_absent_and_is_replaced():
    climber = Climber(ESCALATION)
    climber.apply(climber.fail(times=4))
    climber.reviews["ai-review-ingest"] = Review(RESOLVED, "e1")

    node, spec = the_node(climber.fail(times=4, episode="e2"))

    assert (node.id, spec["episode"]) == ("ai-review-ingest", "e2")


def test_nodes_are_counted_apart():
    climber = Climber(ESCALATION)
    climber.fail("a", times=3)

    assert climber.fail("b") == []
    assert the_node(climber.fail("a"))[0].id == "ai-review-a"


# ---- quarantine and schema drift


def test_a_quarantined_validator_goes_to_a_person_at_once():
    climber = Climber(QUARANTINE)

    node, spec = the_node(climber.fail("gate", node_type="validator", type="NODE_DEGRADED", reason="quarantined"))

    assert (node.id, node.gating, spec["reason"]) == ("human-review-gate", "ALL", "quarantined")


def test_quarantine_looks_at_validators_and_at_that_reason_only():
    climber = Climber(QUARANTINE)

    assert climber.fail("clean", node_type="cleanser", type="NODE_DEGRADED", reason="quarantined") == []
    assert climber.fail("gate", node_type="validator", type="NODE_DEGRADED", reason="gone") == []
    assert climber.fail("gate", node_type="validator", type="PROVISION_FAILED") == []


def test_schema_drift_goes_to_a_person_once_and_removes_nothing():
    climber = Climber(SCHEMA_DRIFT)

    asked = climber.fail("events", node_type="schema", type="NODE_DEGRADED")
    node, spec = the_node(asked)
    climber.apply(asked)

    assert (node.id, spec["reason"]) == ("human-review-events", "schema_drift")
    assert climber.fail("events", node_type="schema", type="NODE_DEGRADED") == []


# ---- what a rung may see and add


def test_the_first_rung_that_holds_decides_alone():
    ladder = Ladder(
        "two",
        ["PROVISION_FAILED"],
        [
            Rung("count == 1"),
            Rung("count >= 1", RungNode("a-{node}", "ai-review")),
            Rung("count >= 2", RungNode("b-{node}", "ai-review")),
        ],
    )
    climber = Climber(ladder)

    assert climber.fail() == []
    assert the_node(climber.fail())[0].id == "a-ingest"


def test_conditions_see_every_field_of_the_fault():
    when = (
        "fault.type == 'PROVISION_FAILED' && fault.node == node && fault.node_type == 'ingestion' "
        "&& fault.attempt == 3 && fault.reason == 'io' && has(fault.context.k) && size(fault.parents) == 0"
    )
    climber = Climber(Ladder("all", ["PROVISION_FAILED"], [Rung(when, RungNode("x-{node}", "ai-review"))]))

    assert climber.fail(attempt=3, reason="io", context={"k": 1}) != []
    assert climber.fail(attempt=3, reason="io") == []


def test_a_domains_own_type_gets_the_spec_as_the_ladder_states_it():
    add = RungNode("fix-{node}", "repair-job", spec={"mode": "full"})
    climber = Climber(Ladder("own", ["PROVISION_FAILED"], [Rung("true", add)]))

    node, spec = the_node(climber.fail())

    assert (node.type, spec) == ("repair-job", {"mode": "full"})


def test_only_the_placeholder_of_the_node_is_special_in_an_id():
    climber = Climber(Ladder("odd", ["PROVISION_FAILED"], [Rung("true", RungNode("r-{node}", "ai-review"))]))

    assert the_node(climber.fail("we{ir}d %s"))[0].id == "r-we{ir}d %s"


def test_an_id_that_gets_too_long_is_refused_with_the_place():
    climber = Climber(ESCALATION)

    with pytest.raises(Invalid) as caught:
        climber.fail("n" * 256, permanent=True)

    assert caught.value.problems[0].path == "/rungs/0/add/id"


def test_a_condition_that_fails_on_this_fault_is_an_error_with_the_place():
    rungs = [Rung("count < 0 || (has(fault.context.n) && fault.context.n > 1)")]
    climber = Climber(Ladder("typed", ["PROVISION_FAILED"], rungs))

    with pytest.raises(Invalid) as caught:
        climber.fail(context={"n": "many"})

    assert caught.value.problems[0].path == "/rungs/0/when"


def test_a_ladder_names_the_nodes_it_may_add_or_ask_about():
    rungs = [Rung("review('other-' + node) == ''", RungNode("ai-review-{node}", "ai-review"))]

    assert CompiledLadder(Ladder("l", ["PROVISION_FAILED"], rungs)).consults("x") == (
        "ai-review-x",
        "other-x",
    )


def test_a_type_is_covered_when_a_ladder_looks_after_it():
    assert covered(LADDERS, "sink")
    assert not covered(LADDERS, "ai-review")
    assert not covered([QUARANTINE], "sink")


# ---- validation


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"rungs": [Rung("count >=")]}, "/ladders/0/rungs/0/when"),
        ({"rungs": [Rung("true"), Rung("cuont > 3")]}, "/ladders/0/rungs/1/when"),
        ({"rungs": [Rung("revue('x') == ''")]}, "/ladders/0/rungs/0/when"),
        ({"rungs": [Rung("fault.nope == 1")]}, "/ladders/0/rungs/0/when"),
        ({"rungs": [Rung("count")]}, "/ladders/0/rungs/0/when"),
        ({"rungs": [Rung("count + 'a' == ''")]}, "/ladders/0/rungs/0/when"),
        ({"rungs": []}, "/ladders/0/rungs"),
        ({"faults": ["PROVISION_FAILD"]}, "/ladders/0/faults/0"),
        ({"faults": []}, "/ladders/0/faults"),
        ({"reset": "sometimes"}, "/ladders/0/reset"),
        ({"name": ""}, "/ladders/0/name"),
        ({"rungs": [Rung("true", RungNode("x", "Bad Type"))]}, "/ladders/0/rungs/0/add"),
        ({"rungs": [Rung("true", RungNode("x", "ai-review", "SOME"))]}, "/ladders/0/rungs/0/add/gating"),
    ],
)
def test_a_ladder_that_cannot_work_is_refused_with_the_place(change, path):
    with pytest.raises(Invalid) as caught:
        compile_ladders([msgspec.structs.replace(ESCALATION, **change)])

    assert [p.path for p in caught.value.problems] == [path]


def test_two_ladders_of_one_name_are_refused():
    with pytest.raises(Invalid) as caught:
        compile_ladders([ESCALATION, QUARANTINE, ESCALATION])

    assert [p.path for p in caught.value.problems] == ["/ladders/2/name"]


def test_a_manifest_with_a_bad_ladder_is_refused():
    bad = Ladder("l", ["PROVISION_FAILED"], [Rung("count >")])

    with pytest.raises(Invalid) as caught:
        check_manifest(Manifest("pipeline", "1", [NodeType("sink")], ladders=[bad]))

    assert [p.path for p in caught.value.problems] == ["/ladders/0/rungs/0/when"]


def test_the_ladders_of_a_pipeline_are_valid():
    check_manifest(Manifest("pipeline", "1", [NodeType("sink")], ladders=LADDERS))
