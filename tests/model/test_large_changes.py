"""Large changes of a desired graph end where small ones do."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Cycle, Dangling, HoldfastError
from holdfast_model.fans import joined, left
from holdfast_model.messages import NodeDeclaration
from holdfast_model.mutations import AddDependency, AddNode, RemoveNode
from holdfast_model.names import GraphRef
from holdfast_model.rows import Declaration, Row, declare

REF = GraphRef("acme", "shop")
POLICY = "policy:test"


def declared(ids: list[int], dice: random.Random, count: int = 0) -> list[tuple[str, Declaration]]:
    """Nodes that depend on earlier ones of the same list."""
    out = []
    for at, i in enumerate(ids):
        needs = tuple(f"n{j}" for j in sorted({dice.choice(ids[:at]) for _ in range(dice.randrange(3))} if at else ()))
        spec = msgspec.Raw(b'{"count":%d}' % count)
        out.append((f"n{i}", declare(NodeDeclaration(f"n{i}", "thing", spec, depends_on=needs))))
    return out


def shape(graph: DesiredGraph) -> dict[str, Any]:
    """Everything that can be seen of a graph."""
    order = sorted(graph.nodes, key=graph.order_of)
    places = {node: at for at, node in enumerate(order)}
    assert all(places[n] > places[d] for n, seen in graph.nodes.items() for d in seen.depends_on)
    return {
        "rows": graph.rows,
        "nodes": graph.nodes,
        "gone": graph.gone,
        "owned": {owner: set(ids) for owner, ids in graph.owned.items() if ids},
        "below": {n: graph.dependents(n) for n in graph.nodes},
    }


def test_a_graph_that_is_built_at_once_is_the_one_that_grew() -> None:
    for seed in range(30):
        dice = random.Random(seed)
        # Given a graph that grew by a blueprint, a second owner and a policy
        grown = DesiredGraph(REF)
        ids = list(range(1, 60))
        grown.declare("main", declared(ids, dice))
        grown.declare("other", declared([*ids[::7], 100, 101], dice, 1))
        a, b = sorted(grown.nodes, key=grown.order_of)[:2]
        grown.apply(AddDependency((b, a)), POLICY)
        for node in dice.sample(sorted(grown.nodes), 6):
            grown.apply(RemoveNode(node), POLICY)
        grown.apply(AddNode(NodeDeclaration("r", "human-review", msgspec.Raw(b'{"target":"n1"}'))), POLICY)
        # When its rows are loaded at once
        built = DesiredGraph(REF)
        built.load(grown.rows, grown.gone.values())
        # Then both are the same
        assert shape(built) == shape(grown)
        assert built.reviews_of("n1") == grown.reviews_of("n1") == {"r"}
        # And stay the same under what follows, dangling edges included
        back = declared([70, *ids[::2], *ids[1::2]], dice, 2)
        assert tried(built, back) == tried(grown, back)
        assert shape(built) == shape(grown)


def tried(graph: DesiredGraph, nodes: list[tuple[str, Declaration]]) -> Any:
    try:
        change = graph.declare("main", nodes)
        return sorted(change.added), sorted(change.updated), sorted(change.removed)
    except HoldfastError as e:
        return type(e)


def test_a_draft_changes_nothing_until_it_is_adopted() -> None:
    dice = random.Random(1)
    # Given a graph that somebody follows
    graph = DesiredGraph(REF)
    graph.declare("main", declared(list(range(40)), dice))
    graph.take_delta()
    graph.tracking = True
    before = shape(graph)
    frozen = {part: dict(value) for part, value in before.items()}
    # When a draft of it is changed
    draft = graph.draft()
    change = draft.declare("main", declared(list(range(20, 60)), dice, 1))
    draft.apply(RemoveNode("n25"), POLICY)
    # Then the graph is as it was
    assert shape(graph) == before == frozen
    # When it is adopted / Then the graph is the draft, and its follower is told what changed
    expected = shape(draft)
    graph.adopt(draft)
    assert shape(graph) == expected
    assert graph.mark() == 0
    nodes, gone = graph.drain()
    assert {*change.added, *change.updated, *change.removed, "n25"} <= nodes.keys()
    assert {key[0] for key in gone} >= {f"n{i}" for i in range(20)}


@pytest.mark.parametrize("size", [3, 1500])
def test_a_first_declaration_that_does_not_fit_leaves_the_graph_empty(size: int) -> None:
    graph = DesiredGraph(REF)
    good = declared(list(range(size)), random.Random(size))
    spec = msgspec.Raw(b"{}")
    dangling = ("x", Declaration("thing", spec, "d", ("nowhere",)))
    loop = [("x", Declaration("thing", spec, "d", ("y",))), ("y", Declaration("thing", spec, "d", ("x",)))]
    # When / Then
    with pytest.raises(Dangling) as dangles:
        graph.declare("main", [*good, dangling], pointers={"x": "/nodes/7"})
    assert dangles.value.problems[0].path == "/nodes/7/depends_on/0"
    with pytest.raises(Cycle):
        graph.declare("main", [*good, *loop])
    assert shape(graph) == shape(DesiredGraph(REF))
    assert not graph.delta()
    # And what fits is taken
    assert len(graph.declare("main", good).added) == size


def test_an_unchanged_node_whose_dependency_goes_is_refused_with_its_place() -> None:
    graph = DesiredGraph(REF)
    a, b = declared([1], random.Random(0))[0], ("b", Declaration("thing", msgspec.Raw(b"{}"), "d", ("n1",)))
    graph.declare("main", [a, b])
    with pytest.raises(Dangling) as dangles:
        graph.declare("main", [b], pointers={"b": "/nodes/0"})
    assert dangles.value.problems[0].path == "/nodes/0/depends_on/0"
    assert set(graph.nodes) == {"n1", "b"}


def test_a_large_change_can_be_undone() -> None:
    dice = random.Random(2)
    graph = DesiredGraph(REF)
    # Given
    graph.declare("main", declared(list(range(2000)), dice))
    before, mark = {p: dict(v) for p, v in shape(graph).items()}, graph.mark()
    # When
    graph.clear()
    graph.declare("main", declared(list(range(1000, 3000)), dice, 1))
    graph.undo(mark)
    # Then
    assert shape(graph) == before


def test_a_fan_of_any_size_is_a_set() -> None:
    dice = random.Random(3)
    fan: Any = None
    kept: set[str] = set()
    for _ in range(500):
        node = f"n{dice.randrange(30)}"
        if dice.random() < 0.6 or fan is None:
            fan = joined(fan, node)
            kept.add(node)
        else:
            fan = left(fan, node)
            kept.discard(node)
        assert set(fan) == kept
        assert len(fan) == len(kept)


def test_a_snapshot_touches_only_what_differs_and_shares_the_rest() -> None:
    dice = random.Random(4)
    # Given a graph that somebody follows, and what others have made of it
    graph, other = DesiredGraph(REF), DesiredGraph(REF)
    nodes = declared(list(range(30)), dice)
    for each in (graph, other):
        each.declare("main", nodes)
        each.take_delta()
    graph.tracking = True
    leaf = next(n for n in other.nodes if not other.dependents(n))
    target = next(n for n in other.nodes if other.dependents(n))
    other.apply(RemoveNode(leaf), POLICY)
    other.apply(RemoveNode(target), POLICY)
    users = graph.dependents(target)
    rows = {n: msgspec.json.decode(msgspec.json.encode(r), type=Row) for n, r in other.rows.items()}
    kept = {n: graph.rows[n] for n in rows if rows[n] == graph.rows[n]}
    # When its snapshot is loaded
    graph.load(rows, other.gone.values())
    # Then followers hear of what went and of those whose edges changed, and rows that are the same are the same objects
    assert shape(graph) == shape(other)
    touched, gone = graph.drain()
    assert touched.keys() == {leaf, target, *users}
    assert {key[0] for key in gone} == {leaf, target}
    assert kept
    assert all(graph.rows[n] is row for n, row in kept.items())
