"""What explain says of moments that are over before anybody could ask: pure."""

from __future__ import annotations

import itertools

import msgspec

from holdfast_model.messages import Status
from holdfast_model.mutations import declaration
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Reconciler, Record, TypeInfo
from holdfast_model.reconciler.conditions import Condition, condition_of
from holdfast_model.reconciler.records import grave_field
from holdfast_model.rows import Node, Tombstone, declare
from holdfast_planner.explaining import explain, find
from holdfast_planner.sentences import Known, instant


def test_a_removed_node_that_is_gone_is_forgotten_by_the_transaction_under_way() -> None:
    ids = (f"id-{n}" for n in itertools.count())
    reconciler = Reconciler(GraphRef("acme", "shop"), "i1", 1, lambda: next(ids))
    reconciler.on_catalog(0.0, {"t": TypeInfo("d", "1", True, 300.0, 10.0, 8)})
    tomb = Tombstone("a", "t", msgspec.Raw(b"{}"), "d1")
    gone = Record(type="t", status=Status.ABSENT, operation=1, attempt=1)
    reconciler.load(0.0, {}, [tomb], {grave_field("a", "t"): gone}, {}, counter=1)

    turn = reconciler.finish(0.0, {})

    unit = find(reconciler, "a")
    assert unit is not None
    assert (turn.forget, condition_of(reconciler.core, unit)) == ([("a", "t")], Condition.FORGETTING)
    told = explain(reconciler, unit, Known())
    assert told["summary"] == "a is removing: it is gone, and about to be forgotten"
    assert told["next"] == "it is forgotten"


def test_a_time_beyond_all_calendars_can_be_spoken_of() -> None:
    assert instant(1e15) == instant(1e300) == "a time that no calendar has"


def test_a_fault_that_nobody_has_taken_up_for_long_is_spoken_of() -> None:
    reconciler = Reconciler(GraphRef("acme", "shop"), "i1", 1, lambda: "id")
    reconciler.on_catalog(0.0, {"t": TypeInfo("d", "1", True, 300.0, 10.0, 8)})
    d = declare(declaration("a", "t", {}))
    node = Node("a", "t", d.spec, d.digest, (), d.gating, d.spec_gating, "main")
    failed = Record(type="t", status=Status.ABSENT, operation=1, attempt=1, permanent=d.digest, error="no", fault="f1")
    reconciler.load(100.0, {"a": node}, (), {"a": failed}, {}, counter=1)
    reconciler.finish(100.0, {})

    unit = find(reconciler, "a")
    assert unit is not None

    def said(at: float) -> str:
        told: str = explain(reconciler, unit, Known(unhandled={"f1": at}))["because"]["text"]
        return told

    assert said(at=95.0) == "failed for good; last error: no"
    assert said(at=60.0) == "failed for good; last error: no; the fault-policy service has not taken up its fault"
