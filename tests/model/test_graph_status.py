"""The status of a graph as a whole: written by admissions too, so a turn may only write what it has seen."""

from __future__ import annotations

import itertools

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.messages import Status
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Reconciler, Record, TypeInfo
from holdfast_model.rows import Declaration

REF = GraphRef("acme", "shop")
NOW = 1_767_225_600.0


def loaded(*, declared: bool, converged: bool) -> Reconciler:
    """One node that is there, and is still declared or is being removed."""
    graph = DesiredGraph(REF)
    graph.declare("main", {"a": Declaration("a", msgspec.Raw(b"{}"), "d")})
    if not declared:
        graph.declare("main", {})
    ids = (f"id-{n}" for n in itertools.count())
    reconciler = Reconciler(REF, "i1", 1, lambda: next(ids))
    reconciler.on_catalog(NOW, {"a": TypeInfo("d", "1", True, 300.0, 10.0, 8)})
    records = {"a": Record(type="a", status=Status.PRESENT, digest="d")}
    gone = list(graph.gone.values())
    reconciler.load(NOW, dict(graph.nodes), gone, records, {}, counter=0, converged=converged)
    return reconciler


def test_a_turn_that_writes_the_status_fails_when_an_admission_came_between() -> None:
    turn = loaded(declared=True, converged=False).finish(NOW, {})
    assert turn.meta["status"] == "converged"
    assert turn.fenced_by_version


def test_a_turn_that_writes_rows_only_need_not_look_at_the_version() -> None:
    turn = loaded(declared=True, converged=True).finish(NOW, {})
    assert "status" not in turn.meta
    assert not turn.fenced_by_version


def test_a_graph_that_is_being_deleted_says_so_until_it_is_gone() -> None:
    reconciler = loaded(declared=False, converged=True)
    reconciler.deleting = True
    assert "status" not in reconciler.finish(NOW, {}).meta
