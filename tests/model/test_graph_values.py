"""Graphs as values keep what a naive model keeps, and never change."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_model.diffs import diff
from holdfast_model.errors import Cycle, Dangling, Disagreement, Invalid
from holdfast_model.graph import Graph, NoSuchNode
from holdfast_model.messages import NodeDeclaration
from holdfast_model.mutations import AddNode, RemoveNode, UpdateNode, declaration

IDS = st.sampled_from("abcde")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("with_node"), IDS, st.sampled_from(["t", "u"])),
        st.tuples(st.just("without_node"), IDS, st.just("")),
        st.tuples(st.just("with_edge"), IDS, IDS),
        st.tuples(st.just("without_edge"), IDS, IDS),
    ),
    max_size=40,
)


def make(nodes: str, *edges: str) -> Graph:
    return Graph.of([declaration(n, "t") for n in nodes], [(a, b) for a, b in edges])


class Naive:
    """Sets, and a search for paths that tries everything."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}
        self.edges: set[tuple[str, str]] = set()

    def apply(self, name: str, one: str, two: str) -> str:
        match name:
            case "with_node":
                self.nodes[one] = two
            case "without_node":
                self.nodes.pop(one, None)
                self.edges = {e for e in self.edges if one not in e}
            case "with_edge":
                if one not in self.nodes or two not in self.nodes:
                    return "dangling"
                if self.reaches(two, one):
                    return "cycle"
                self.edges.add((one, two))
            case "without_edge":
                self.edges.discard((one, two))
        return ""

    def reaches(self, start: str, goal: str) -> bool:
        return start == goal or any(self.reaches(b, goal) for a, b in self.edges if a == start)


def operate(graph: Graph, name: str, one: str, two: str) -> tuple[Graph, str]:
    try:
        match name:
            case "with_node":
                return graph.with_node(declaration(one, two)), ""
            case "without_node":
                return graph.without_node(one), ""
            case _:
                return getattr(graph, name)(one, two), ""
    except Dangling:
        return graph, "dangling"
    except Cycle as refused:
        return graph, "cycle" if is_path(refused.path, graph, (one, two)) else f"no cycle: {refused.path}"


def is_path(path: tuple[str, ...], graph: Graph, closing: tuple[str, str]) -> bool:
    """Whether each node of a cycle depends on the next, but for the edge that was refused, with which it begins."""
    steps = list(pairwise(path))
    return path[0] == path[-1] and steps[0] == closing and all(e in graph.edges for e in steps[1:])


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
def test_a_graph_is_what_a_naive_model_is(operations: list[tuple[str, str, str]]) -> None:
    graph, naive, steps = Graph(), Naive(), 0
    for name, one, two in operations:
        before = (dict(graph.nodes), graph.edges, graph.version)
        after, problem = operate(graph, name, one, two)
        assert problem == naive.apply(name, one, two)
        assert (dict(graph.nodes), graph.edges, graph.version) == before
        steps += not problem
        graph = after
        assert {i: n.type for i, n in graph.nodes.items()} == naive.nodes
        assert graph.edges == naive.edges
        assert graph.version == steps
        assert graph.roots == {n for n in naive.nodes if not any(a == n for a, _ in naive.edges)}
        assert graph.leaves == {n for n in naive.nodes if not any(b == n for _, b in naive.edges)}
        for node in naive.nodes:
            assert graph.dependencies_of(node) == {b for a, b in naive.edges if a == node}
            assert graph.dependents_of(node) == {a for a, b in naive.edges if b == node}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(IDS, IDS), max_size=12), st.lists(st.tuples(IDS, IDS), max_size=12))
def test_a_graph_that_was_built_at_once_is_the_one_that_was_built_step_by_step(
    first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    def at_once() -> Graph:
        return make("abcde").overlay(Graph.of([declaration(n, "t") for n in "abcde"], first + second))

    def by_steps() -> Graph:
        graph = make("abcde")
        for a, b in first + second:
            graph = graph.with_edge(a, b)
        return graph

    try:
        wanted: Any = by_steps().edges
    except Cycle as error:
        wanted = error.path
    try:
        found: Any = at_once().edges
    except Cycle as error:
        found = error.path
    assert found == wanted


def test_ends_of_edges_are_checked_before_cycles() -> None:
    with pytest.raises(Dangling):
        make("a").with_edge("x", "x")
    with pytest.raises(Cycle) as refused:
        make("a").with_edge("a", "a")
    assert refused.value.path == ("a", "a")


def test_overlay_refuses_nodes_that_differ_in_any_part_before_it_does_anything() -> None:
    # Given
    one = Graph.of([declaration("a", "t", {"x": 1})])
    # When, then
    others = [declaration("a", "u", {"x": 1}), declaration("a", "t", {"x": 2}), declaration("a", "t", {"x": 1}, "ALL")]
    for other in others:
        with pytest.raises(Disagreement) as refused:
            one.overlay(Graph.of([declaration("b", "t"), other]))
        assert refused.value.nodes == ("a",)
    assert one.overlay(Graph.of([NodeDeclaration("a", "t", one.nodes["a"].spec)])).version == 1


def test_connecting_makes_every_leaf_depend_on_every_root() -> None:
    connected = make("ab", "ab").connect(make("cd", "cd"))
    assert connected.edges == {("a", "b"), ("c", "d"), ("a", "d")}


def test_an_update_needs_its_node_and_never_renames_it() -> None:
    with pytest.raises(NoSuchNode):
        Graph().apply(UpdateNode("a", declaration("a", "t")))
    with pytest.raises(Invalid):
        UpdateNode("a", declaration("b", "t"))


@settings(max_examples=100, deadline=None)
@given(OPERATIONS, OPERATIONS)
def test_the_difference_makes_a_graph_agree_with_a_fragment(one: Any, two: Any) -> None:
    # Given
    current, fragment = Graph(), Graph()
    for operation in one:
        current, _ = operate(current, *operation)
    for operation in two:
        fragment, _ = operate(fragment, *operation)
    types = {n.type for n in fragment.nodes.values()}
    # When
    graph = current
    for mutation in diff(current, fragment):
        try:
            graph = graph.apply(mutation)
        except Cycle:
            continue  # an edge that shall point the other way: it is in the next difference again
    for mutation in diff(graph, fragment):
        graph = graph.apply(mutation)
    # Then
    assert {i: n.type for i, n in graph.nodes.items() if n.type in types} == {
        i: n.type for i, n in fragment.nodes.items()
    }
    assert {i for i, n in graph.nodes.items() if n.type not in types} == {
        i for i, n in current.nodes.items() if n.type not in types and i not in fragment.nodes
    }
    assert {(a, b) for a, b in graph.edges if a in fragment.nodes and b in fragment.nodes} == fragment.edges


def test_an_empty_fragment_changes_nothing() -> None:
    assert diff(make("ab", "ab"), Graph()) == []
    assert [type(m) for m in diff(make("ab"), make("ac"))] == [AddNode, RemoveNode]


def test_what_is_left_of_a_filtered_graph_cannot_be_changed() -> None:
    graph = make("ab", "ba").filter_by_types({"t"})
    assert isinstance(graph.dependencies_of("b"), frozenset)
    assert isinstance(graph.dependents_of("a"), frozenset)
