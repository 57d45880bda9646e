"""A review that leaves while its target's episode goes on is asked for again."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_model.messages import Observation, Status
from holdfast_model.mutations import declaration
from holdfast_model.rows import Gating, Node, declare

from .reconciling import INFO, Planner, node

ODD = Observation(Status.DRIFTED, reason="odd", token="t1")


def review(episode: str) -> Node:
    d = declare(declaration("human-review-a", "human-review", {"target": "a", "episode": episode}, "ALL"))
    return Node("human-review-a", d.type, d.spec, d.digest, (), Gating.ALL, Gating.NONE, "policy:ladder")


def see(planner: Planner) -> None:
    look = planner.looks.pop()
    planner.reconciler.on_observed(1.0, look, {"a": ODD})
    planner.turn()


@pytest.mark.parametrize("owned", [True, False])
def test_a_held_node_is_told_of_again_when_its_review_went_with_a_form_that_nobody_saw(owned: bool) -> None:
    # Given a node that is held, and the review that its fault led to
    planner = Planner(node())
    catalog = {"thing": msgspec.structs.replace(INFO, observes=True, on_drift="hold")}
    planner.reconciler.on_catalog(0.0, catalog)
    planner.turn()
    see(planner)
    (fault,) = planner.faults
    asking = review(fault.episode)
    planner.reconciler.on_graph(2.0, {asking.id: asking}, {})
    planner.turn()
    assert planner.records[asking.id].gate is not None
    # When the node was something else for a moment, which took the review along
    if owned:
        planner.reconciler.on_graph(3.0, {asking.id: None}, {})
    else:
        planner.catalog = catalog
        planner.restart()
    planner.turn()
    see(planner)
    # Then it is still held, and told of again, in an episode of its own
    assert planner.sent == []
    assert [f.reason for f in planner.faults] == ["odd", "odd"]
    assert planner.faults[1].episode == planner.record.episode != fault.episode
