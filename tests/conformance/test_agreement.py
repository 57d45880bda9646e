"""The reconciler, step by step, does what the pure planner plans at once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_model.messages import Action, Status
from holdfast_model.plans import plan

from . import vectors
from .world import REFERENCE, World

NODES = "abcdef"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_planned_is_carried_out_in_an_order_that_the_plan_allows(data: st.DataObject) -> None:
    # Given
    edges = [[b, a] for i, a in enumerate(NODES) for b in NODES[i + 1 :] if data.draw(st.booleans())]
    chosen = [n for n in NODES if data.draw(st.integers(0, 3))]
    kept = [e for e in edges if set(e) <= set(chosen)]
    desired = {"nodes": chosen, "edges": kept}
    seen = {n: data.draw(st.sampled_from(Status)) for n in (*NODES, "stray") if data.draw(st.booleans())}
    world = World(desired)
    world.actual = seen
    # When
    cycle = world.run_cycle()
    planned = plan(vectors.graph(desired), seen, options=REFERENCE)
    # Then
    done = {a: [n for n, action in cycle.steps if action is a] for a in Action}
    assert set(done[Action.PROVISION]) == {s.node.id for s in planned.additions}
    assert set(done[Action.DEPROVISION]) == {s.node.id for s in planned.removals}
    order = done[Action.PROVISION]
    assert all(order.index(b) < order.index(a) for a, b in kept if a in order and b in order)
    again = world.run_cycle()
    assert {n for n, _ in again.steps} == {n for n, _ in cycle.steps}, "the same world asks for the same steps"
