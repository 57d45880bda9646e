"""Deletions of everything that leave alone what some owners declare."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast_model.desired import DesiredGraph
from holdfast_model.mutations import AddNode, UpdateNode, declaration
from holdfast_model.names import GraphRef
from holdfast_model.rows import declare

OWNERS = ("main", "extra", "more")
declared = st.dictionaries(st.sampled_from(OWNERS), st.sets(st.sampled_from("abcd"), min_size=1))


def make(nodes: dict[str, set[str]]) -> DesiredGraph:
    graph = DesiredGraph(GraphRef("t", "g"))
    for owner, ids in nodes.items():
        graph.declare(owner, [(i, declare(declaration(i, "thing", {"of": owner}))) for i in sorted(ids)])
    return graph


@given(declared, st.sets(st.sampled_from(OWNERS)))
def test_clearing_leaves_exactly_what_the_kept_owners_declare(nodes: dict[str, set[str]], keep: set[str]) -> None:
    graph, before = make(nodes), make(nodes)
    change = graph.clear(keep)
    kept = {owner: ids for owner, ids in nodes.items() if owner in keep}
    assert {o: set(ids) for o, ids in graph.owned.items() if ids} == kept
    assert set(graph.nodes) == set().union(*kept.values())
    assert set(change.removed) == set(before.nodes) - set(graph.nodes)
    assert {node for node, _ in graph.gone} == set(change.removed)
    # Everything else is as if only the kept owners had ever declared anything.
    alone = make(kept)
    assert graph.nodes == alone.nodes


def test_reviews_stay_with_the_nodes_they_are_about() -> None:
    graph = make({"main": {"a"}, "extra": {"b"}})
    graph.apply(UpdateNode("a", declaration("a", "thing", {"fixed": True})), "policy:ai-review")
    for target in "ab":
        graph.apply(AddNode(declaration(f"r-{target}", "human-review", {"target": target})), "policy:ladder")
    graph.clear({"main"})
    assert sorted(graph.nodes) == ["a", "r-a"]
    assert graph.nodes["a"].owner == "policy:ai-review"
