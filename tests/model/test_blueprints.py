"""Blueprints as documents: parts, targets, renames and ladders, each problem with its place."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_model.blueprint import ANY_OWNER, declarations, parse_blueprint, warnings_of
from holdfast_model.blueprint_parts import Compose
from holdfast_model.composing import MAX_JOINS, compose
from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Cycle, Disagreement, Invalid
from holdfast_model.graph import Graph
from holdfast_model.messages import NodeDeclaration
from holdfast_model.mutations import AddNode, UpdateNode, declaration
from holdfast_model.names import GraphRef
from holdfast_model.rows import Declaration
from holdfast_model.targeting import Target, idle_patterns, select

REF = GraphRef("t", "g")
LADDER = {"name": "l", "faults": ["PROVISION_FAILED"], "rungs": [{"when": "count >= 2"}]}


def every(node: str, type: str) -> bool:
    """Every node is written now."""
    return True


def node(id: str, *needs: str, value: int = 1, type: str = "thing") -> NodeDeclaration:
    return NodeDeclaration(id, type, msgspec.Raw(json.dumps({"value": value}).encode()), depends_on=tuple(needs))


def declared(*nodes: NodeDeclaration) -> list[tuple[str, Declaration]]:
    return declarations(nodes)


def raw(id: str, *needs: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "thing", "depends_on": list(needs), **more}


def refused(document: dict[str, Any]) -> list[str]:
    with pytest.raises(Invalid) as caught:
        parse_blueprint(json.dumps(document).encode())
    return [p.path for p in caught.value.problems]


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"parts": []}, "/parts"),
        ({"parts": [{"nodes": []}] * 101}, "/parts"),
        ({"parts": [{"nodes": []}], "compose": "glue"}, "/compose"),
        ({"parts": [{"nodes": []}, {}]}, "/parts/1"),
        ({"parts": [{"nodes": []}, {"domain": "x"}]}, "/parts/1/spec"),
        ({"parts": [{"nodes": []}, {"domain": "no good", "spec": 1}]}, "/parts/1/domain"),
        ({"parts": [{"nodes": []}], "nodes": []}, "/parts"),
        ({"parts": [{"nodes": []}, {"nodes": [], "colour": 1}]}, "/parts/1/colour"),
        ({"parts": [{"nodes": []}, {"nodes": [raw("a"), raw("b", spek=1)]}]}, "/parts/1/nodes/1/spek"),
        ({"nodes": [raw("a"), raw("b", "x", 1)]}, "/nodes/1/depends_on/1"),
        ({"nodes": [], "spec": {}}, "/spec"),
        ({"nodes": [], "mode": "look"}, "/mode"),
        ({"nodes": [], "only": [""]}, "/only/0"),
        ({"nodes": [], "only": ["a", 1]}, "/only/1"),
        ({"nodes": [], "except": ["a", ""]}, "/except/1"),
        ({"nodes": [], "moved": [{"from": "a"}]}, "/moved/0"),
        ({"nodes": [], "moved": [{"from": "a", "to": "b"}, {"from": "c", "to": "d", "x": 1}]}, "/moved/1/x"),
        ({"nodes": [], "moved": [{"from": "a", "to": "a"}]}, "/moved/0"),
        ({"nodes": [], "moved": [{"from": "a", "to": ""}]}, "/moved/0/to"),
        ({"nodes": [], "moved": [{"from": "a", "to": "b"}, {"from": "a", "to": "c"}]}, "/moved/1/from"),
        ({"nodes": [], "moved": [{"from": "a", "to": "c"}, {"from": "b", "to": "c"}]}, "/moved/1/to"),
        ({"nodes": [], "moved": [{"from": "a", "to": "b"}, {"from": "b", "to": "c"}]}, "/moved/0/to"),
        ({"nodes": [], "moved": [{"from": "a", "to": "b"}, {"from": "b", "to": "a"}]}, "/moved/0/to"),
        ({"nodes": [], "ladders": [{"name": "l"}]}, "/ladders/0"),
        ({"nodes": [], "ladders": [{**LADDER, "faults": ["NO_SUCH"]}]}, "/ladders/0/faults/0"),
        ({"nodes": [], "ladders": [LADDER, {**LADDER, "name": "m", "rungs": [{"when": "conut > 1"}]}]},
         "/ladders/1/rungs/0/when"),
        ({"nodes": [], "ladders": [LADDER, LADDER]}, "/ladders/1/name"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_document_is_told_with_its_place(document: dict[str, Any], place: str) -> None:
    assert place in refused(document)


def test_renames_that_hang_together_are_told_as_chain_or_cycle() -> None:
    def told(*pairs: tuple[str, str]) -> str:
        with pytest.raises(Invalid) as caught:
            parse_blueprint(json.dumps({"nodes": [], "moved": [{"from": a, "to": b} for a, b in pairs]}).encode())
        return caught.value.message

    assert "a chain: a -> b -> c; write 'a' -> 'c'" in told(("a", "b"), ("b", "c"))
    assert "a cycle: a -> b -> a" in told(("a", "b"), ("b", "a"))


def test_a_deletion_without_a_name_is_meant_for_everything() -> None:
    assert parse_blueprint(b'{"delete": true}').name == ANY_OWNER
    assert parse_blueprint(b"# the name does not matter\ndelete: true\n").name == ANY_OWNER
    assert parse_blueprint(b'{"delete": true, "name": "main"}').name == "main"
    assert parse_blueprint(b'{"nodes": []}').name == "main"


def test_an_unknown_conflict_strategy_is_accepted_with_a_warning() -> None:
    blueprint = parse_blueprint(b'{"nodes": [], "conflict": "loudest_wins"}')
    assert warnings_of(blueprint) == ["unknown conflict strategy 'loudest_wins': last_writer_wins is used"]


def test_parts_name_their_domains_once() -> None:
    parts = [{"domain": "x", "spec": 1}, {"nodes": []}, {"domain": "y", "spec": 1}, {"domain": "x", "spec": 2}]
    assert parse_blueprint(json.dumps({"parts": parts}).encode()).domains == ["x", "y"]


# ---- composing


def edges_of(nodes: list[tuple[str, Declaration]]) -> set[tuple[str, str]]:
    return {(id, target) for id, d in nodes for target in d.depends_on}


ids = st.integers(0, 9)
parts_of_nodes = st.lists(
    st.dictionaries(ids, st.tuples(st.integers(1, 2), st.sets(ids, max_size=3)), max_size=6), min_size=1, max_size=4
)


@settings(max_examples=300, deadline=None)
@given(parts_of_nodes, st.sampled_from(list(Compose)))
def test_parts_compose_as_graphs_do(parts: list[dict[int, tuple[int, set[int]]]], how: Compose) -> None:
    """The fold over whole parts, against the pure graph's overlay and connect, one after the other."""
    sources = [
        [node(f"n{i}", *(f"n{t}" for t in sorted(needs) if t in part and t < i), value=value)
         for i, (value, needs) in part.items()]
        for part in parts
    ]  # fmt: skip
    try:
        graph = Graph.of(sources[0])
        for source in sources[1:]:
            other = Graph.of(source)
            graph = graph.overlay(other) if how is Compose.OVERLAY else graph.connect(other)
    except (Disagreement, Cycle) as expected:
        declared_parts = [declarations(s) for s in sources]
        with pytest.raises(Disagreement if isinstance(expected, Disagreement) else Invalid):
            DesiredGraph(REF).declare("main", compose(declared_parts, how))
        return
    composed = compose([declarations(s) for s in sources], how)
    DesiredGraph(REF).declare("main", composed)
    assert {id for id, _ in composed} == set(graph.nodes)
    assert edges_of(composed) == graph.edges


def test_unequal_shared_nodes_are_refused_with_their_places() -> None:
    first, second = declared(node("a"), node("b")), declared(node("c"), node("b", value=2))
    with pytest.raises(Disagreement) as caught:
        compose([first, second], Compose.OVERLAY, [{}, {"b": "/parts/1/nodes/1"}])
    assert [p.path for p in caught.value.problems] == ["/parts/1/nodes/1"]
    assert caught.value.nodes == ("b",)


def test_a_part_may_depend_on_nodes_of_another() -> None:
    composed = compose([declared(node("a", "b")), declared(node("b"))], Compose.OVERLAY)
    assert edges_of(composed) == {("a", "b")}


def test_a_node_that_is_leaf_and_root_cannot_be_connected_to_itself() -> None:
    with pytest.raises(Cycle) as caught:
        compose([declared(node("a")), declared(node("a"), node("b"))], Compose.CONNECT)
    assert [p.path for p in caught.value.problems] == ["/parts/1"]


def test_large_parts_are_composed_in_linear_time_and_too_many_edges_are_refused() -> None:
    # Given chains of 20,000 nodes, they connect by one edge each
    def chain(name: str) -> list[tuple[str, Declaration]]:
        return declarations([node(f"{name}{i}", *([f"{name}{i - 1}"] if i else [])) for i in range(20_000)])

    composed = compose([chain("a"), chain("b"), chain("c")], Compose.CONNECT)
    assert len(composed) == 60_000
    assert {("a19999", "b0"), ("b19999", "c0")} <= edges_of(composed)

    # But leaves times roots may be beyond all bounds
    wide = [declared(*(node(f"{name}{i}") for i in range(1_001))) for name in ("x", "y")]
    with pytest.raises(Invalid, match=str(MAX_JOINS)) as caught:
        compose(wide, Compose.CONNECT)
    assert caught.value.problems[0].path == "/parts/1"


# ---- targets


def chosen(
    new: list[tuple[str, Declaration]], before: list[tuple[str, Declaration]], **target: Any
) -> dict[str, bytes]:
    found = select(new, dict(before), Target(**{k: tuple(v) for k, v in target.items()}))
    return {id: bytes(d.spec) for id, d in found}


OLD, NEW = b'{"value": 1}', b'{"value": 2}'


def test_only_the_selected_nodes_become_as_the_new_version_says() -> None:
    before = declared(node("a"), node("b"), node("c"))
    new = declared(node("a", value=2), node("b", value=2), node("d", value=2))
    assert chosen(new, before, only=["a"]) == {"a": NEW, "b": OLD, "c": OLD}
    assert chosen(new, before, omit=["a"]) == {"a": OLD, "b": NEW, "d": NEW}
    assert chosen(new, before, only=["a", "c"]) == {"a": NEW, "b": OLD}, "a selected node that is left out goes"


def test_what_a_selected_node_newly_needs_comes_along() -> None:
    before = declared(node("old"))
    new = declared(node("a", "b", "old"), node("b", "c"), node("c"), node("d"), node("old", value=2))
    assert chosen(new, before, only=["a"]) == {"a": OLD, "b": OLD, "c": OLD, "old": OLD}


def test_nodes_are_selected_by_glob_and_type() -> None:
    new = declared(node("sales-1"), node("sales-2", type="other"), node("x[1]"), node("y"))
    assert set(chosen(new, [], only=["sales-*"])) == {"sales-1", "sales-2"}
    assert set(chosen(new, [], only=["type:other", "x[1]"])) == {"sales-2", "x[1]"}
    assert set(chosen(new, [], only=["sales-*"], omit=["type:other"])) == {"sales-1"}


def test_a_selection_that_matches_nothing_is_an_error_and_an_idle_pattern_a_warning() -> None:
    new = declared(node("a"))
    with pytest.raises(Invalid, match="no node matches: only b, type:c") as caught:
        chosen(new, [], only=["b", "type:c"])
    assert caught.value.problems[0].path == "/only"
    with pytest.raises(Invalid, match="everything except") as caught:
        chosen(new, [], omit=["*"])
    assert caught.value.problems[0].path == "/except"
    assert idle_patterns(new, {}, Target(("a", "b*"), ("c",))) == [
        "only 'b*' matches no node",
        "except 'c' matches no node",
    ]


# ---- conflicts


@pytest.mark.parametrize(
    ("strategy", "expected"), [("last_writer_wins", 2), ("first_writer_wins", 1), ("loudest_wins", 2)]
)
def test_two_owners_of_a_node_are_settled_by_the_strategy(strategy: str, expected: int) -> None:
    graph = DesiredGraph(REF)
    graph.declare("one", declared(node("a", value=1)))
    graph.declare("two", declared(node("a", value=2)), strategy)
    assert json.loads(bytes(graph.nodes["a"].spec)) == {"value": expected}


@pytest.mark.parametrize("strategy", ["last_writer_wins", "first_writer_wins", "fail"])
def test_an_absent_value_accepts_the_incoming_one(strategy: str) -> None:
    # Given a node that another blueprint only wants gone
    graph = DesiredGraph(REF)
    absent = Declaration("-", msgspec.Raw(b"{}"), "", absent=True)
    graph.declare("one", [("a", absent)])
    assert "a" not in graph

    # When somebody declares it, by whatever strategy, it is there
    graph.declare("two", declared(node("a", value=2)), strategy)
    assert json.loads(bytes(graph.nodes["a"].spec)) == {"value": 2}


@pytest.mark.parametrize(("strategy", "expected"), [("last_writer_wins", 1), ("first_writer_wins", 2)])
def test_who_writes_the_same_again_is_the_last_writer(strategy: str, expected: int) -> None:
    # Given a node that another blueprint took over
    graph = DesiredGraph(REF)
    ours, theirs = declared(node("a", value=1)), declared(node("a", value=2))
    graph.declare("one", ours)
    graph.declare("two", theirs)

    # When the first one is published again as it was, then that is what is in force, by the strategy
    change = graph.declare("one", ours, strategy, rewrite=every)
    assert json.loads(bytes(graph.nodes["a"].spec)) == {"value": expected}
    assert change.updated == (("a",) if expected == 1 else ())
    assert not graph.declare("one", ours, strategy, rewrite=every), "and once more changes nothing"


def test_what_was_not_selected_is_not_written_again() -> None:
    graph = DesiredGraph(REF)
    ours = declared(node("a", value=1), node("b", value=1))
    graph.declare("one", ours)
    graph.declare("two", declared(node("a", value=2), node("b", value=2)))
    change = graph.declare("one", ours, rewrite=Target(("b",)).selects())
    assert change.updated == ("b",)
    assert graph.nodes["a"].owner == "two"


def test_what_is_written_again_and_may_not_differ_is_refused() -> None:
    graph = DesiredGraph(REF)
    ours = declared(node("a", value=1))
    graph.declare("one", ours)
    graph.declare("two", declared(node("a", value=2)))
    with pytest.raises(Disagreement):
        graph.declare("one", ours, "fail", rewrite=every)
    assert graph.nodes["a"].owner == "two"


def test_what_a_policy_said_holds_when_its_blueprint_is_written_again() -> None:
    graph = DesiredGraph(REF)
    ours = declared(node("a", value=1))
    graph.declare("one", ours)
    graph.declare("two", declared(node("a", value=2)))
    graph.apply(UpdateNode("a", declaration("a", "thing", {"value": 3})), "policy:p")
    graph.declare("one", ours, rewrite=every)
    assert graph.nodes["a"].owner == "policy:p"
    assert [owner for owner, _ in graph.rows["a"].declarations] == ["two", "one", "policy:p"]


# ---- reviews


def test_a_node_called_like_an_open_review_is_refused_with_its_place() -> None:
    # Given a node with an open review
    graph = DesiredGraph(REF)
    graph.declare("main", declared(node("a", value=1)))
    review = declaration("human-review-a", "human-review", {"target": "a", "episode": "e1"})
    graph.apply(AddNode(review), "policy:ladder")

    # When a blueprint declares a node of that name, it is refused, and the review goes on
    body = declared(node("a", value=1), node("human-review-a"))
    with pytest.raises(Invalid) as refused:
        graph.declare("main", body, pointers={"human-review-a": "/nodes/1"})
    assert [p.path for p in refused.value.problems] == ["/nodes/1"]
    assert graph.nodes["human-review-a"].type == "human-review"

    # When the same version changes what the review is about, that ends the review, so nothing is in the way
    graph.declare("main", declared(node("a", value=2), node("human-review-a")))
    assert graph.nodes["human-review-a"].type == "thing"
