"""Phases, timers, claims and gating, as rules without a world."""

from __future__ import annotations

import pytest

from holdfast_model.errors import Claimed, Invalid
from holdfast_model.gatings import merged, needs_human
from holdfast_model.graph import Graph
from holdfast_model.messages import Action, Observation, ObserveReply, Status
from holdfast_model.mutations import declaration
from holdfast_model.phases import CompleteWhen, GraphPhase, begin, due
from holdfast_model.resync import Timers, check_interval, interval_for
from holdfast_model.routing import Claims, questions
from holdfast_model.routing import merged as merged_answers
from holdfast_model.rows import Gating


def graph(*nodes: str) -> Graph:
    return Graph.of([declaration(n, "t") for n in nodes])


def phase(id: str, *nodes: str, when: CompleteWhen = CompleteWhen.ALL_PRESENT) -> GraphPhase:
    return GraphPhase(id, graph(*nodes), when)


# ---- phases


def test_a_phase_is_complete_when_all_of_its_own_nodes_are_present() -> None:
    build = phase("build", "a", "b")
    present = {"a": Status.PRESENT, "b": Status.PRESENT, "added-by-a-policy": Status.ABSENT}
    assert build.is_complete(present)
    assert not build.is_complete({"a": Status.PRESENT})
    assert not build.is_complete(present | {"b": Status.UNKNOWN})
    assert phase("empty").is_complete({})
    assert not phase("for ever", when=CompleteWhen.NEVER).is_complete({})


def test_a_lifecycle_moves_one_phase_at_a_time_and_ends_with_the_last() -> None:
    # Given
    cycle = begin([phase("one"), phase("two"), phase("three", "a")])
    # When, then
    second = cycle.next({})
    assert second is not None
    assert second.phase.id == "two"
    third = second.next({})
    assert third is not None
    assert third.next({}) is third
    assert third.next({"a": Status.PRESENT}) is None


def test_the_same_phases_keep_the_place_and_changed_ones_start_over() -> None:
    here = begin([phase("one"), phase("two", "a")]).next({})
    assert here is not None
    assert begin([phase("one"), phase("two", "a")], here) is here
    assert begin([phase("one"), phase("two", "a", "b")], here).index == 0
    assert begin([phase("one")], here).index == 0


def test_phases_must_be_some_and_have_names_of_their_own() -> None:
    with pytest.raises(Invalid):
        begin([])
    with pytest.raises(Invalid) as refused:
        begin([phase("one"), GraphPhase("one", graph(), deadline=0.0)])
    assert [p.path for p in refused.value.problems] == ["/phases/1/id", "/phases/1/deadline"]


def test_the_earliest_deadline_counts() -> None:
    assert due(100.0, 10.0, None, 120.0) == 110.0
    assert due(100.0, 30.0, 120.0) == 120.0
    assert due(100.0, None, None) is None


# ---- timers


def test_the_closest_preference_wins_over_the_manifest() -> None:
    declared, platform, tenant = {"a": 30.0}, {"desiredstate.resync.a": "PT1H"}, {"desiredstate.resync.a": "10s"}
    assert interval_for("a", declared, tenant, platform) == 10.0
    assert interval_for("a", declared, {}, platform) == 3600.0
    assert interval_for("a", declared) == 30.0
    assert interval_for("nobody's", declared) == 300.0


def test_an_interval_below_the_floor_is_refused() -> None:
    assert check_interval("PT1S") == 1.0
    with pytest.raises(Invalid):
        check_interval("PT0.5S", "/value")


def test_types_of_one_interval_share_a_timer_which_stays_while_nothing_changes() -> None:
    intervals = {"a": 1.0, "b": 5.0, "c": 1.0}
    timers = Timers().regrouped(["c", "a", "b", "a"], intervals.__getitem__)
    assert timers.groups == {1.0: ("a", "c"), 5.0: ("b",)}
    assert timers.regrouped(["a", "b", "c"], intervals.__getitem__) is timers
    assert timers.regrouped(["a"], intervals.__getitem__).groups == {1.0: ("a",)}


# ---- claims and observers


def test_a_type_belongs_to_the_domain_that_claimed_it_first() -> None:
    claims = Claims([("one", ["a", "b"])])
    with pytest.raises(Claimed) as refused:
        claims.claim("two", ["c", "b"])
    assert (refused.value.type, refused.value.owner) == ("b", "one")
    assert claims.types == {"a", "b"}
    claims.claim("one", ["b", "c"])
    assert claims.domain_of("c") == "one"


def test_every_type_is_asked_for_by_itself_and_discovery_also_for_nothing() -> None:
    # Given
    desired = Graph.of([declaration("x", "a"), declaration("y", "b"), declaration("z", "unclaimed")], [("x", "y")])
    claims = Claims([("one", ["a", "b", "c"])])
    # When
    asked = {q.type: q for q in questions(desired, claims, discovers=["c"])}
    # Then
    assert {t: [n.node for n in q.nodes] for t, q in asked.items()} == {"a": ["x"], "b": ["y"], "c": []}
    assert asked["a"].nodes[0].depends_on == ("y",)
    assert asked["c"].discover
    answers = [ObserveReply({"x": Observation(Status.DRIFTED)}), ObserveReply({}, leftovers=["stray"])]
    assert merged_answers(desired, claims, answers) == {
        "x": Status.DRIFTED,
        "stray": Status.PRESENT,
        "z": Status.UNKNOWN,
    }


# ---- gating


def test_gating_can_be_raised_but_not_lowered() -> None:
    assert merged(Gating.PROVISION_ONLY, Gating.DEPROVISION_ONLY) is Gating.ALL
    for one in Gating:
        assert merged(one, Gating.NONE) is one
        assert merged(one, Gating.ALL) is Gating.ALL
    assert needs_human(Action.PROVISION, Gating.NONE, Gating.PROVISION_ONLY)
    assert not needs_human(Action.DEPROVISION, Gating.NONE, Gating.PROVISION_ONLY)
