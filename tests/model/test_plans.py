"""The pure planner: each cell of its matrix, its options, and the order of its steps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_model.graph import Graph
from holdfast_model.manifest import OnDrift, OnUnknown
from holdfast_model.messages import Status
from holdfast_model.mutations import declaration
from holdfast_model.plans import REMOVE, UNKNOWN_TYPE, Options, Plan, plan
from holdfast_model.rows import Tombstone

HELD = Options(on_drift=OnDrift.HOLD)
EAGER = Options(on_unknown=OnUnknown.PROVISION, adopt_orphans=REMOVE)


def grave(id: str, *depends_on: str) -> Tombstone:
    made = declaration(id, "t")
    return Tombstone(id, made.type, made.spec, "d", depends_on)


def ids(made: Plan) -> tuple[list[str], list[str]]:
    return [s.node.id for s in made.removals], [s.node.id for s in made.additions]


@pytest.mark.parametrize(
    ("status", "options", "added", "list_of"),
    [
        (Status.PRESENT, Options(), [], ""),
        (Status.ABSENT, Options(), ["a"], ""),
        (Status.DRIFTED, Options(), ["a"], ""),
        (Status.DRIFTED, HELD, [], "held"),
        (Status.UNKNOWN, Options(), [], "waiting"),
        (Status.UNKNOWN, EAGER, ["a"], ""),
    ],
)
def test_what_happens_to_a_desired_node(status: Status, options: Options, added: list[str], list_of: str) -> None:
    made = plan(Graph.of([declaration("a", "t")]), {"a": status}, options=options)
    assert ids(made) == ([], added)
    assert [name for name in ("held", "waiting", "forgotten", "reported") if getattr(made, name)] == (
        [list_of] if list_of else []
    )


@pytest.mark.parametrize(
    ("status", "removed", "list_of"),
    [
        (Status.PRESENT, ["a"], ""),
        (Status.DRIFTED, ["a"], ""),
        (Status.ABSENT, [], "forgotten"),
        (Status.UNKNOWN, [], "waiting"),
    ],
)
def test_what_happens_to_what_was_ours(status: Status, removed: list[str], list_of: str) -> None:
    made = plan(Graph(), {"a": status}, gone=[grave("a")])
    assert ids(made) == (removed, [])
    assert not list_of or getattr(made, list_of) == ("a",)
    assert all(s.node.type == "t" for s in made.removals)


def test_what_never_was_ours_is_reported_unless_it_may_be_removed() -> None:
    seen = {"x": Status.PRESENT, "y": Status.DRIFTED, "z": Status.ABSENT, "u": Status.UNKNOWN}
    assert plan(Graph(), seen).is_empty
    assert plan(Graph(), seen).reported == ("x", "y")
    removed = plan(Graph(), seen, options=EAGER)
    assert ids(removed) == (["x", "y"], [])
    assert {s.node.type for s in removed.removals} == {UNKNOWN_TYPE}


def test_types_may_be_treated_differently() -> None:
    graph = Graph.of([declaration("a", "t"), declaration("b", "u")])
    made = plan(graph, dict.fromkeys("ab", Status.DRIFTED), by_type={"u": HELD})
    assert ids(made) == ([], ["a"])
    assert made.held == ("b",)


def test_dependents_are_removed_first_and_contradicting_orders_hinder_nothing() -> None:
    seen = dict.fromkeys("abc", Status.PRESENT)
    assert ids(plan(Graph(), seen, gone=[grave("a"), grave("b", "a"), grave("c", "b")]))[0] == ["c", "b", "a"]
    assert sorted(ids(plan(Graph(), seen, gone=[grave("a", "b"), grave("b", "a")]))[0]) == ["a", "b"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_dependencies_are_added_first(data: st.DataObject) -> None:
    names = "abcdef"
    edges = [(b, a) for i, a in enumerate(names) for b in names[i + 1 :] if data.draw(st.booleans())]
    seen = {n: data.draw(st.sampled_from(Status)) for n in names}
    order = ids(plan(Graph.of([declaration(n, "t") for n in names], edges), seen, options=EAGER))[1]
    assert set(order) == {n for n in names if seen[n] is not Status.PRESENT}
    assert all(order.index(b) < order.index(a) for a, b in edges if a in order and b in order)
