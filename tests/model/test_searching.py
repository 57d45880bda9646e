"""Searching for leftovers in turns that are lost, and in graphs that change meanwhile."""

from __future__ import annotations

import itertools

import msgspec
from msgspec import Raw

from holdfast_model.desired import DesiredGraph
from holdfast_model.messages import ObserveReply
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Found, Look, Reconciler, Settings, Turn, TypeInfo
from holdfast_model.reconciler.searching import found_in
from holdfast_model.rows import Declaration, Gating, digest_of

REF = GraphRef("acme", "shop")
BUDGET = {("d", "a"): 4}


class Rig:
    """A reconciler with one discovering type; :meth:`turn` commits, or loses, what it says."""

    def __init__(self, adopt: str = "remove", leftovers: bytes | None = None) -> None:
        self.now = 1000.0
        ids = itertools.count()
        self.graph = DesiredGraph(REF)
        self.graph.tracking = True
        self.core = Reconciler(REF, "inc", 1, lambda: f"id-{next(ids)}", Settings(adopt_after=10.0))
        self.core.load(self.now, {}, (), {}, {}, counter=0, leftovers=leftovers)
        info = TypeInfo("d", "1", True, 60.0, 10.0, 8, discover=True, adopt_orphans=adopt)
        self.core.on_catalog(self.now, {"a": info})
        self.core.on_domains({"d"})

    def declare(self, *nodes: str) -> None:
        spec = Raw(b"{}")
        self.graph.declare("main", [(n, Declaration("a", spec, digest_of("a", spec))) for n in nodes])
        self.take()

    def take(self) -> None:
        self.graph.take_delta()
        self.core.on_graph(self.now, *self.graph.drain())

    def turn(self, *, lose: bool = False) -> Turn:
        self.core.on_time(self.now)
        turn = self.core.finish(self.now, BUDGET)
        if lose:
            self.core.rollback(turn)
        elif turn.adopt:
            self.graph.adopt_leftovers(turn.adopt)
            self.take()
        return turn

    def search(self) -> Look:
        (look,) = [look for look in self.turn().look if look.discover]
        return look

    def answer(self, look: Look, *ids: str, lose: int = 0) -> Turn:
        found = Found(dict.fromkeys(ids))
        for _ in range(lose):
            self.core.on_found(self.now, look, found)
            self.turn(lose=True)
        self.core.on_found(self.now, look, found)
        return self.turn()


def leftovers(turn: Turn) -> list[str]:
    return [e.node for e in turn.events if e.name == "leftover"]


def test_a_turn_that_is_lost_tells_and_adopts_again() -> None:
    rig = Rig()
    told = rig.answer(rig.search(), "x", lose=2)
    assert leftovers(told) == ["x"]
    assert [one["id"] for one in msgspec.json.decode(told.meta["leftovers"])] == ["x"]
    rig.now += 10
    adopted = rig.answer(rig.search(), "x", lose=2)
    assert [(t.id, t.type, t.found) for t in adopted.adopt] == [("x", "a", True)]
    assert adopted.meta["leftovers"] == "[]"
    sent = rig.turn()
    assert [s.action for d in sent.dispatch for s in d.batch.steps] == ["DEPROVISION"]


def test_a_search_that_is_lost_is_asked_again() -> None:
    rig = Rig()
    rig.core.on_time(rig.now)
    rig.core.rollback(rig.core.finish(rig.now, BUDGET))
    assert rig.search().type == "a"


def test_what_is_declared_while_a_search_is_under_way_is_not_left_over() -> None:
    rig = Rig()
    look = rig.search()
    rig.declare("x")
    assert leftovers(rig.answer(look, "x")) == []


def test_what_was_removed_after_a_search_began_is_not_left_over() -> None:
    rig = Rig()
    rig.declare("x")
    look = rig.search()
    rig.graph.clear()
    rig.graph.forget([("x", "a")])
    rig.take()
    assert leftovers(rig.answer(look, "x")) == []


def test_a_leftover_that_is_declared_by_a_turn_that_is_lost_stays_declared() -> None:
    rig = Rig("report")
    rig.answer(rig.search(), "x", "y")
    rig.declare("x")
    turn = rig.turn(lose=True)
    assert [one["id"] for one in msgspec.json.decode(turn.meta["leftovers"])] == ["y"]
    assert [one["id"] for one in msgspec.json.decode(rig.turn().meta["leftovers"])] == ["y"]


def test_a_new_owner_knows_what_was_told_and_waits_for_its_round() -> None:
    first = Rig("report")
    told = first.answer(first.search(), "x")
    rig = Rig("report", told.meta["leftovers"].encode())
    assert rig.turn().look == []
    rig.now += 60
    assert leftovers(rig.answer(rig.search(), "x", "y")) == ["y"]


def test_an_adopted_leftover_that_another_graph_desires_by_now_is_let_go() -> None:
    rig = Rig()
    rig.answer(rig.search(), "x")
    rig.now += 10
    rig.core.on_paused(rig.now, True, "x")
    rig.answer(rig.search(), "x")
    rig.core.on_paused(rig.now, True, "x")  # its removal is held up
    rig.now += 60
    look = rig.search()
    assert [item.node for item in look.nodes] == ["x"]
    rig.core.on_found(rig.now, look, Found({"x": None}, elsewhere={"x"}))
    assert rig.turn().forget == [("x", "a")]


def test_ids_that_no_blueprint_could_name_are_passed_over_and_many_are_counted() -> None:
    rig = Rig("report")
    turn = rig.answer(rig.search(), "", "a\x00b", "x" * 300, *(f"n{i:04}" for i in range(1200)))
    assert len(leftovers(turn)) == 1000
    assert rig.core.core.search.more == {"a": 200}


def test_the_gating_of_a_leftover_is_that_of_its_removal_and_an_unknown_one_asks_for_everything() -> None:
    reply = ObserveReply({}, ["x", "y"], gates={"x": "DEPROVISION_ONLY", "y": "OF_A_LATER_VERSION"})
    rig = Rig()
    look = rig.search()
    rig.core.on_found(rig.now, look, found_in(reply))
    told = rig.turn()
    rig = Rig(leftovers=told.meta["leftovers"].encode())
    rig.turn()
    rig.now += 60
    look = rig.search()
    rig.core.on_found(rig.now, look, found_in(reply))
    adopted = {t.id: t.gating for t in rig.turn().adopt}
    assert adopted == {"x": Gating.DEPROVISION_ONLY, "y": Gating.ALL}
    assert not any(d.batch.steps for d in rig.turn().dispatch)
