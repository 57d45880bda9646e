"""Rounds of observation: who is asked, when, and what regroups the timers."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Invalid
from holdfast_model.messages import Observation, Status
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Look, Reconciler, Record, Turn, TypeInfo
from holdfast_model.resync import next_round, preference_of, type_of
from holdfast_model.rows import Declaration

REF = GraphRef("acme", "shop")
START = 1_767_225_600.0


class Watched:
    """A graph in which every node is there; what is asked is answered at once, and kept."""

    def __init__(self, *types: str, now: float = START, resync: float = 300.0, **more: object) -> None:
        self.now = now
        self.graph = DesiredGraph(REF)
        self.graph.tracking = True
        ids = (f"id-{n}" for n in itertools.count())
        self.reconciler = Reconciler(REF, "i1", 1, lambda: next(ids))
        self.infos = {t: TypeInfo("d", "1", True, resync, 10.0, 8) for t in "abc"}
        self.reconciler.on_catalog(now, self.infos)
        self.asked: list[tuple[float, str]] = []
        self.declare(*types, load=more)

    def declare(self, *types: str, load: dict[str, object] | None = None) -> None:
        self.graph.declare("main", {t: Declaration(t, msgspec.Raw(b"{}"), "d") for t in types})
        nodes, gone = self.graph.drain()
        if load is None:
            self.reconciler.on_graph(self.now, nodes, gone)
        else:
            records = {t: Record(type=t, status=Status.PRESENT, digest="d") for t in types}
            self.reconciler.load(self.now, dict(self.graph.nodes), [], records, {}, counter=0, **load)  # type: ignore[arg-type]
        self.settle()

    def settle(self) -> Turn:
        while True:
            self.reconciler.on_time(self.now)
            turn = self.reconciler.finish(self.now, {})
            if not turn.look:
                return turn
            for look in turn.look:
                self.answer(look)

    def answer(self, look: Look) -> None:
        self.asked.append((self.now, look.type))
        self.reconciler.on_observed(self.now, look, {i.node: Observation(Status.PRESENT) for i in look.nodes})

    def until(self, end: float) -> list[tuple[float, str]]:
        """What is asked from now on until ``end``."""
        self.asked.clear()
        while True:
            wake = self.settle().wake_at
            assert wake is None or wake > self.now
            if wake is None or wake > end:
                self.now = end
                return list(self.asked)
            self.now = wake


def test_types_of_one_interval_are_asked_together_once_in_each_interval() -> None:
    watched = Watched("a", "b")

    rounds = watched.until(START + 900)

    assert len(rounds) == 6
    assert {t for _, t in rounds} == {"a", "b"}
    times = sorted({at for at, _ in rounds})
    assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx([300, 300])
    assert all(sorted(t for at, t in rounds if at == when) == ["a", "b"] for when in times)


def test_a_preference_regroups_at_once_and_for_its_type_only() -> None:
    watched = Watched("a", "b")
    watched.until(START + 1)

    watched.reconciler.on_preferences(watched.now, {preference_of("a"): "10s"})

    rounds = watched.until(START + 21)
    assert [t for _, t in rounds] == ["a", "a"]
    # And back, as soon as it is unset
    watched.reconciler.on_preferences(watched.now, {})
    assert "a" not in [t for _, t in watched.until(START + 41)] or len(watched.asked) == 2
    assert len([t for _, t in watched.until(START + 41 + 300) if t == "a"]) == 1


def test_the_tenant_s_preference_hides_the_platform_s() -> None:
    watched = Watched("a")
    watched.reconciler.on_preferences(watched.now, {preference_of("a"): "100s"}, {preference_of("a"): "1s"})
    assert len(watched.until(START + 200)) == 2


def test_a_type_that_comes_or_goes_with_the_graph_gets_or_loses_its_timer_at_once() -> None:
    watched = Watched("a")
    watched.declare("a", "b")

    assert [t for _, t in watched.until(START + 300)].count("b") == 1

    watched.declare("a")
    lost = watched.reconciler.core.by_type["b"]
    for grave in list(lost):
        watched.reconciler.on_graph(watched.now, {}, {(grave.id, "b"): None})
    assert "b" not in [t for _, t in watched.until(START + 900)]


def test_a_changed_manifest_regroups_at_once() -> None:
    watched = Watched("a")
    faster = {**watched.infos, "a": msgspec.structs.replace(watched.infos["a"], resync=5.0)}
    watched.reconciler.on_catalog(watched.now, faster)
    assert len(watched.until(START + 50)) == 10


def test_the_host_knows_when_to_wake_before_any_time_has_passed() -> None:
    watched = Watched()
    watched.graph.declare("main", {"a": Declaration("a", msgspec.Raw(b"{}"), "d")})
    watched.reconciler.on_graph(watched.now, *watched.graph.drain())

    turn = watched.reconciler.finish(watched.now, {})

    assert turn.wake_at is not None
    assert START < turn.wake_at <= START + 300


def test_rounds_do_not_depend_on_when_a_graph_was_loaded() -> None:
    early, late = Watched("a").until(START + 600), Watched("a", now=START + 123).until(START + 600)
    assert set(late) <= set(early)
    assert len(early) == 2


def test_graphs_are_spread_over_the_interval() -> None:
    dues = [next_round(f"acme/g{n}", 60.0, START) - START for n in range(600)]
    assert all(0 < due <= 60 for due in dues)
    per_second = [sum(int(due) == s for due in dues) for s in range(60)]
    assert max(per_second) < 30


def test_a_round_that_fell_due_while_the_graph_was_unloaded_is_held_when_it_is_loaded() -> None:
    due = next_round(str(REF), 300.0, START)
    assert Watched("a", now=due + 2).asked == []
    watched = Watched("a", now=due + 2, slept_until=due)
    assert [at for at, _ in watched.asked] == [due + 2]
    assert watched.until(due + 299) == []
    assert len(watched.until(due + 301)) == 1


@pytest.mark.parametrize("name", ["resync.a", "desiredstate.resync.", "desiredstate.resync.A b", ""])
def test_a_preference_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        type_of(name)
    assert refused.value.problems[0].path == "/name"
