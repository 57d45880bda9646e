"""Counts, mutations and the merging of several policies."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_model.errors import Invalid, Permanent
from holdfast_model.fault_engine import CONFLICT, POLICY_ERROR, Policy, evaluate, policy_failed
from holdfast_model.mutations import (
    AddDependency,
    AddNode,
    NodeDeclaration,
    RemoveNode,
    UpdateNode,
    canonical,
    declaration,
    decode_mutations,
    encode_mutations,
)
from holdfast_model.thresholds import (
    FaultCounts,
    ReviewMark,
    Tally,
    ThresholdPolicy,
    add_review,
    decode_counts,
    encode_counts,
    without_episode,
)

from .ladders_of_pipeline import fault


def says(name, *mutations):
    return Policy(name, lambda: mutations)


def test_mutations_survive_the_wire():
    given = [AddNode(declaration("a", "t", {"x": 1})), AddDependency(("a", "b")), RemoveNode("c")]

    assert [canonical(m) for m in decode_mutations(encode_mutations(given))] == [canonical(m) for m in given]


def test_an_update_that_would_rename_is_refused():
    with pytest.raises(Invalid):
        UpdateNode("a", declaration("b", "t"))
    with pytest.raises(Invalid):
        decode_mutations(b'[{"kind":"UPDATE_NODE","id":"a","node":{"id":"b","type":"t"}}]')


def test_a_mutation_of_unknown_kind_is_refused():
    with pytest.raises(Invalid, match="MOVE"):
        decode_mutations(b'[{"kind":"MOVE","id":"a"}]')


def test_mutations_that_differ_in_spelling_only_are_equal():
    one = AddNode(NodeDeclaration("a", "t", msgspec.Raw(b'{"x":1,"y":2}')))
    other = AddNode(NodeDeclaration("a", "t", msgspec.Raw(b'{ "y": 2, "x": 1 }')))

    found = evaluate([says("p", one), says("q", other)])

    assert found.failure is None
    assert [(o.owner, o.mutation) for o in found.mutations] == [("policy:p", one)]


def test_node_mutations_come_before_edge_mutations():
    add, edge = AddNode(declaration("a", "t")), AddDependency(("a", "b"))

    found = evaluate([says("p", edge, add), says("q", edge)])

    assert [o.mutation for o in found.mutations] == [add, edge]


def test_a_conflict_drops_everything_and_names_node_and_policies():
    found = evaluate(
        [says("p", RemoveNode("a")), says("q", AddNode(declaration("a", "t"))), says("r", RemoveNode("z"))]
    )

    assert found.mutations == ()
    assert found.failure is not None
    assert (found.failure.kind, found.failure.node) == (CONFLICT, "a")
    assert found.failure.policies == ("p", "q")


@pytest.mark.parametrize("error", [Permanent("no"), ZeroDivisionError("no")])
def test_an_exception_in_one_policy_drops_the_mutations_of_that_fault(error):
    def boom():
        raise error

    found = evaluate([says("p", RemoveNode("a")), Policy("q", boom)])

    assert found.mutations == ()
    assert found.failure is not None
    assert (found.failure.kind, found.failure.policies) == (POLICY_ERROR, ("q",))


def test_the_event_of_a_failure_names_the_fault_and_is_the_same_when_repeated():
    found = evaluate([says("p", RemoveNode("a"), AddNode(declaration("a", "t")))])
    assert found.failure is not None

    event = policy_failed(fault(), found.failure, 5.0)

    assert (event.id, event.family, event.name) == ("f1.policy_failed", "graph", "policy_failed")
    assert event.data["conflict"]["mutations"][0] == {"kind": "REMOVE_NODE", "id": "a"}
    assert msgspec.json.decode(msgspec.json.encode(event.data)) == event.data


def test_counts_of_one_node_survive_storage():
    counts = {"l": Tally(4, "e1", {"ai-review-n": ReviewMark(4, 0)}), "m": Tally(1)}

    assert decode_counts(encode_counts(counts)) == counts
    assert decode_counts(None) == {}


def test_recovery_clears_the_counts_of_that_episode_where_the_ladder_resets():
    counts = {"a": Tally(4, "e1"), "b": Tally(2, "e2"), "c": Tally(3, "e1", keeps=True)}

    assert without_episode(counts, "e1") == {"b": counts["b"], "c": counts["c"]}


def test_counts_of_graphs_and_tenants_are_apart():
    counts = FaultCounts()
    counts.increment("ns", "t1", "n")
    counts.increment("ns", "t1", "n", graph="other")
    counts.increment("ns", "t2", "n")

    counts.evict_across("t1", [])
    assert [counts.get("ns", "t1", "n", graph=g) for g in ("main", "other")] == [0, 1]
    counts.evict_tenant("t1")
    assert counts.get("ns", "t1", "n", graph="other") == 0
    assert counts.get("ns", "t2", "n") == 1


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"fault_types": [], "action": add_review()}, "/fault_types"),
        ({"fault_types": ["NOPE"], "action": add_review()}, "/fault_types"),
        ({"fault_types": ["NODE_DEGRADED"], "action": None}, "/action"),
        ({"fault_types": ["NODE_DEGRADED"], "action": add_review(), "threshold": 0}, "/threshold"),
    ],
)
def test_a_threshold_policy_that_cannot_work_is_refused(given, path):
    with pytest.raises(Invalid) as caught:
        ThresholdPolicy(**given)

    assert [p.path for p in caught.value.problems] == [path]


def test_a_threshold_policy_acts_on_every_fault_at_or_past_its_threshold():
    policy = ThresholdPolicy(["PROVISION_FAILED"], add_review())
    counts = FaultCounts()

    fired = [len(policy.on_fault(fault(), "ingestion", (), counts)) for _ in range(5)]

    assert fired == [0, 0, 1, 1, 1]
