"""Renames in turns that are lost, and in graphs that are taken over before anybody has heard of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import Raw

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Invalid
from holdfast_model.messages import Action, NodeDeclaration, Observation, Outcome, Status, StepBatch, StepOutcome
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Reconciler, Record, Turn, TypeInfo
from holdfast_model.rows import Declaration, declare, digest_of

REF = GraphRef("acme", "shop")
BUDGET = {("d", "a"): 4}
INFO = {"a": TypeInfo("d", "1", True, 3600.0, 10.0, 8)}
PRESENT = Observation(Status.PRESENT, outputs={"v": 1})


class Rig:
    """A graph and its reconciler, what it wrote, and the world: everything that was provisioned is there."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ids = itertools.count()
        self.graph = DesiredGraph(REF)
        self.graph.tracking = True
        self.rows: dict[str, Record] = {}
        self.todo: dict[str, Any] = {}
        self.counter = 0
        self.sent: list[StepBatch] = []
        self.there: set[str] = set()
        self.start()

    def start(self) -> None:
        """A new owner takes the graph over."""
        self.it = Reconciler(REF, "inc", 1, lambda: f"id-{next(self.ids)}")
        self.it.on_catalog(self.now, INFO)
        nodes, gone = dict(self.graph.nodes), list(self.graph.gone.values())
        self.it.load(self.now, nodes, gone, dict(self.rows), dict(self.todo), counter=self.counter)
        self.graph.drain()

    def declare(
        self, edges: Mapping[str, str] | None = None, moved: Mapping[str, str] | None = None, *nodes: str
    ) -> None:
        spec = Raw(b"{}")
        wanted = [(n, Declaration("a", spec, digest_of("a", spec), ((edges or {})[n],) if n in (edges or {}) else ()))
                  for n in nodes]  # fmt: skip
        self.graph.declare("main", wanted, moved=tuple((moved or {}).items()))
        self.graph.take_delta()

    def take(self) -> None:
        self.it.on_graph(self.now, *self.graph.drain())

    def turn(self, *, lose: int = 0) -> Turn:
        for _ in range(lose):
            self.it.rollback(self.it.finish(self.now, BUDGET))
        turn = self.it.finish(self.now, BUDGET)
        for hash, change in ((self.rows, turn.rows), (self.todo, turn.todo)):
            for field, value in change.items():
                hash.pop(field, None) if value is None else hash.__setitem__(field, value)  # type: ignore[attr-defined]
        self.counter = int(turn.meta.get("counter", self.counter))
        self.sent += [d.batch for d in turn.dispatch]
        if turn.forget:
            self.graph.forget(turn.forget)
            self.graph.take_delta()
        return turn

    def look(self, turn: Turn) -> None:
        """Answer what is asked: whatever was provisioned is there, by whatever name."""
        for look in turn.look:
            seen = {i.node: PRESENT if self.there else Observation(Status.ABSENT) for i in look.nodes}
            self.it.on_observed(self.now, look, seen)

    def settle(self) -> list[str]:
        """Go on until nothing happens; returns the steps."""
        steps: list[str] = []
        for _ in range(20):
            turn = self.turn()
            self.look(turn)
            for dispatch in turn.dispatch:
                steps += [f"{s.action[0]} {s.node}" for s in dispatch.batch.steps]
                self.answer(dispatch.batch)
            if turn.forget:
                self.take()
        return steps

    def answer(self, batch: StepBatch) -> None:
        for step in batch.steps:
            made = step.action is Action.PROVISION
            seen = PRESENT if made else Observation(Status.ABSENT)
            if made:
                self.there.add(step.node)
            outcome = StepOutcome(step.node, step.operation, step.attempt, Outcome.SUCCEEDED, observation=seen)
            self.it.on_outcomes(self.now, [outcome])


def made(*nodes: str, **edges: str) -> Rig:
    rig = Rig()
    rig.declare(edges, None, *nodes)
    rig.take()
    rig.settle()
    return rig


@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize("lose", [0, 2])
def test_the_record_goes_with_the_name(taken_over: bool, lose: int) -> None:
    rig = made("a", "top", top="a")
    before = rig.rows["a"]
    rig.declare({"top": "b"}, {"a": "b"}, "b", "top")
    if taken_over:
        rig.start()
    else:
        rig.take()
    rig.look(rig.turn(lose=lose))
    assert rig.settle() == []
    assert set(rig.rows) == {"b", "top"}
    assert (rig.rows["b"].operation, rig.rows["b"].digest) == (before.operation, before.digest)
    assert rig.rows["top"].uses == ("b",)
    # A new owner knows it, too
    rig.start()
    assert rig.settle() == []


@pytest.mark.parametrize("taken_over", [False, True])
def test_an_old_name_that_is_used_again_before_anybody_looked_is_something_new(taken_over: bool) -> None:
    rig = made("a")
    operation = rig.rows["a"].operation
    rig.declare({}, {"a": "b"}, "b")
    rig.declare({}, {}, "a", "b")
    if taken_over:
        rig.start()
    else:
        rig.take()
    turn = rig.turn()
    assert turn.rows["b"] is not None
    assert turn.rows["b"].operation == operation
    assert rig.rows.get("a") is None


def test_several_renames_at_once_are_followed() -> None:
    rig = made("a")
    for old, new in (("a", "b"), ("b", "c"), ("c", "d")):
        rig.declare({}, {old: new}, new)
    rig.take()
    assert rig.settle() == []
    assert set(rig.rows) == {"d"}


@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize("answered", [False, True])
def test_a_step_under_way_ends_under_the_new_name(taken_over: bool, answered: bool) -> None:
    rig = Rig()
    rig.declare({}, None, "a")
    rig.take()
    rig.look(rig.turn())
    rig.turn()
    (batch,) = rig.sent
    rig.declare({}, {"a": "b"}, "b")
    if taken_over:
        rig.start()
    else:
        rig.take()
    assert rig.turn().dispatch == []
    if answered:
        rig.answer(batch)
        turn = rig.turn()
        assert (turn.todo, turn.rows["b"] and turn.rows["b"].operation) == ({f"b:{batch.batch}": None}, 1)
    else:
        rig.there.add("b")
        rig.now += 10_000
        rig.it.on_time(rig.now)
    assert rig.settle() == []
    assert (set(rig.rows), rig.todo) == ({"b"}, {})


def test_a_removal_waits_for_what_was_made_with_it_under_whatever_name() -> None:
    # Given a removal that waits for what stood on it, is edited, and may not be made anew yet
    rig = made("a", "top", top="a")
    rig.it.on_paused(rig.now, True, "top")
    edited = Raw(b'{"x":1}')
    rig.graph.declare("main", [("top", Declaration("a", edited, digest_of("a", edited)))])
    rig.graph.take_delta()
    rig.take()
    assert rig.settle() == []
    # When that gets another name, the removal knows, and so does a new owner
    rig.graph.declare("main", [("peak", Declaration("a", edited, digest_of("a", edited)))], moved=[("top", "peak")])
    rig.graph.take_delta()
    rig.take()
    assert rig.settle() == []
    rig.start()
    assert rig.settle() == []
    rig.it.on_paused(rig.now, False, "peak")
    assert rig.settle() == ["P peak", "D a"]


def test_what_is_renamed_and_removed_before_anybody_looked_is_removed() -> None:
    rig = made("a", "top", top="a")
    rig.declare({"peak": "b"}, {"a": "b", "top": "peak"}, "b", "peak")
    rig.declare({}, None)
    rig.take()
    assert rig.settle() == ["D peak", "D b"]
    assert rig.rows == {}


def test_renames_of_what_is_still_being_removed_are_refused() -> None:
    rig = made("a", "b")
    rig.declare({}, None, "a")
    with pytest.raises(Invalid, match="still being removed"):
        rig.declare({}, {"a": "b"}, "b")
    assert set(rig.graph.nodes) == {"a"}


def test_a_later_version_without_the_rename_does_not_forget_it() -> None:
    rig = made("a")
    rig.declare({}, {"a": "b"}, "b")
    spec = Raw(b'{"x":1}')
    rig.graph.declare("main", [("b", Declaration("a", spec, digest_of("a", spec)))])
    rig.graph.take_delta()
    rig.take()
    assert rig.settle() == ["P b"]
    assert (rig.graph.nodes["b"].was, rig.rows["b"].operation) == (("a",), 2)


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_is_removed_wanted_again_and_renamed_before_anybody_looked_is_the_same(taken_over: bool) -> None:
    rig = made("a", "top", top="a")
    rig.declare({}, None)
    rig.take()
    rig.turn()  # both are to be removed by now
    rig.declare({"top": "a"}, {}, "a", "top")
    rig.declare({"top": "b"}, {"a": "b"}, "b", "top")
    if taken_over:
        rig.start()
    else:
        rig.take()
    rig.settle()
    assert set(rig.rows) == {"b", "top"}
    assert (rig.rows["b"].status, rig.rows["b"].digest) == (Status.PRESENT, rig.graph.nodes["b"].digest)


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_is_renamed_removed_and_wanted_again_before_anybody_looked_is_the_same(taken_over: bool) -> None:
    rig = made("a")
    operation = rig.rows["a"].operation
    rig.declare({}, {"a": "b"}, "b")
    rig.declare({}, None)
    rig.declare({}, {}, "b")
    if taken_over:
        rig.start()
    else:
        rig.take()
    rig.settle()
    assert (rig.rows["b"].operation, rig.rows["b"].status) == (operation, Status.PRESENT)
    assert rig.settle() == []


def test_names_that_change_places_at_once_are_told_apart() -> None:
    rig = made("a", "x")
    operations = {name: rig.rows[name].operation for name in ("a", "x")}
    rig.declare({}, {"x": "y"}, "a", "y")
    rig.declare({}, {"a": "x"}, "x", "y")
    rig.take()
    assert rig.settle() == []
    assert {name: rig.rows[name].operation for name in ("x", "y")} == {"x": operations["a"], "y": operations["x"]}
    rig.start()
    assert rig.settle() == []


def test_what_is_removed_under_a_new_name_makes_room_for_what_comes_to_its_old_one() -> None:
    rig = made("a", "b")
    operations = {name: rig.rows[name].operation for name in ("a", "b")}
    rig.declare({}, {"a": "x"}, "x", "b")
    rig.declare({}, {"b": "a"}, "x", "a")
    rig.declare({}, {}, "a")
    rig.take()
    assert rig.settle() == ["D x"]
    assert {field: rec.operation for field, rec in rig.rows.items()} == {"a": operations["b"]}


def version(rig: Rig, spec: bytes = b"", name: str = "top", *moved: tuple[str, str]) -> None:
    """Declare ``a`` and something made from a ``spec``, if there is one."""
    specs = {"a": b"{}", name: spec} if spec else {"a": b"{}"}
    nodes = [(id, declare(NodeDeclaration(id, "a", Raw(text)))) for id, text in specs.items()]
    rig.graph.declare("main", nodes, moved=moved)
    rig.graph.take_delta()


@pytest.mark.parametrize("taken_over", [False, True])
def test_values_of_references_that_went_with_the_rename_are_forgotten(taken_over: bool) -> None:
    rig = made("a")
    version(rig, b'{"x":{"$ref":"a#/v"}}')
    rig.take()
    rig.settle()
    assert rig.rows["top"].refs == {"a#/v": 1}
    version(rig, b'{"x":2}', "peak", ("top", "peak"))
    if taken_over:
        rig.start()
    else:
        rig.take()
    assert rig.settle() == ["P peak"]
    assert rig.rows["peak"].refs is None


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_it_was_made_from_is_known_when_a_rename_leaves_a_reference_without_value(taken_over: bool) -> None:
    # Given something that was made, and then renamed and edited to refer to what nobody publishes
    rig = made("a")
    version(rig, b'{"x":{"$ref":"a#/v"}}')
    rig.take()
    rig.settle()
    version(rig, b'{"x":{"$ref":"a#/w"}}', "peak", ("top", "peak"))
    rig.take()
    rig.settle()
    # When it goes, it is removed as what it was
    version(rig)
    if taken_over:
        rig.start()
    else:
        rig.take()
    assert rig.settle() == ["D peak"]
    (step,) = rig.sent[-1].steps
    assert bytes(step.spec) == b'{"x":1}'


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_is_held_is_told_again_under_its_new_name(taken_over: bool) -> None:
    """Its fault may not have been heard before it was renamed, and speaks of a node that there is not any more."""
    rig = made("a")
    rotten = Observation(Status.DRIFTED, reason="rot", hold=True)

    def see() -> list[tuple[str, str]]:
        """Look at everything, and see it rotten; returns the faults of that."""
        told: list[tuple[str, str]] = []
        for _ in range(3):
            turn = rig.turn()
            told += [(fault.node, fault.reason) for fault in turn.faults]
            for look in turn.look:
                rig.it.on_observed(rig.now, look, {item.node: rotten for item in look.nodes})
        return told

    rig.it.on_wake(rig.now, ["a"])
    assert see() == [("a", "rot")]
    rig.declare({}, {"a": "b"}, "b")
    if taken_over:
        rig.start()
    else:
        rig.take()
    assert see() == [("b", "rot")]
    rig.it.on_wake(rig.now, ["b"])
    assert see() == [], "and once only"
