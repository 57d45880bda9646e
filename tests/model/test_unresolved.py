"""Nodes of which nobody knows what they should be: a reference in their spec has no value."""

from __future__ import annotations

import pytest

from holdfast_model.messages import Observation, Outcome, Status, StepOutcome, Touch
from holdfast_model.mutations import declaration
from holdfast_model.rows import Gating, Node, declare

from .reconciling import INFO, Planner, node

PRESENT = Observation(Status.PRESENT, outputs={"v": 1})


def referring(*, observe: bool) -> dict[str, Node]:
    """A node made from what another one publishes that is not there."""
    user = declare(declaration("a", "thing", {"of": {"$ref": "b#/v"}}))
    other = declare(declaration("b", "thing", {}))
    nodes = ((d, name) for d, name in ((user, "a"), (other, "b")))
    return {
        name: Node(name, d.type, d.spec, d.digest, d.depends_on, Gating.NONE, Gating.NONE, "main", d.refs, observe)
        for d, name in nodes
    }


@pytest.mark.parametrize("observe", [True, False])
def test_a_step_for_what_it_was_before_does_not_make_it_what_is_declared(observe: bool) -> None:
    # Given a step under way for a node that refers to another from now on
    planner = Planner(node())
    planner.reconciler.on_catalog(0.0, {"thing": INFO})
    planner.turn()
    (step,) = planner.sent
    planner.reconciler.on_graph(2.0, referring(observe=observe), {})
    # When that step succeeds
    outcome = StepOutcome("a", step.operation, step.attempt, Outcome.SUCCEEDED, observation=PRESENT)
    planner.reconciler.on_outcomes(3.0, [outcome])
    planner.turn()
    # Then it is not as declared: nobody knows what that is
    assert not planner.reconciler.core.units["a"].current


@pytest.mark.parametrize("observe", [True, False])
def test_what_another_step_saw_of_it_does_not_make_it_what_is_declared(observe: bool) -> None:
    # Given a step under way, and a node that refers to what is not known
    planner = Planner(node())
    planner.reconciler.on_catalog(0.0, {"thing": INFO})
    planner.turn()
    (step,) = planner.sent
    nodes = referring(observe=observe)
    user = Node("c", *(getattr(nodes["a"], f) for f in Node.__struct_fields__[1:]))
    planner.reconciler.on_graph(2.0, {"b": nodes["b"], "c": user}, {})
    planner.reconciler.core.units["c"].tick = 0
    # When the step has seen the node's thing
    touch = (Touch("c", PRESENT),)
    outcome = StepOutcome("a", step.operation, step.attempt, Outcome.SUCCEEDED, observation=PRESENT, touch=touch)
    planner.reconciler.on_outcomes(3.0, [outcome])
    planner.turn()
    # Then it is not as declared
    assert planner.record.status is Status.PRESENT
    assert not planner.reconciler.core.units["c"].current


def test_a_step_for_what_it_was_before_says_nothing_of_what_is_only_observed_now() -> None:
    # Given a step under way for a node that is another one from now on, and only observed
    planner = Planner(node())
    planner.reconciler.on_catalog(0.0, {"thing": INFO})
    planner.turn()
    (step,) = planner.sent
    d = declare(declaration("a", "thing", {"v": 2}))
    watched = Node("a", d.type, d.spec, d.digest, (), Gating.NONE, Gating.NONE, "main", observe=True)
    planner.reconciler.on_graph(2.0, {"a": watched}, {})
    # When that step succeeds
    outcome = StepOutcome("a", step.operation, step.attempt, Outcome.SUCCEEDED, observation=PRESENT)
    planner.reconciler.on_outcomes(3.0, [outcome])
    planner.turn()
    # Then what is there is what it was sent for
    assert (planner.record.digest, planner.reconciler.core.units["a"].current) == (step.digest, False)


def test_what_was_there_is_looked_at_when_a_step_for_another_form_may_have_been_run() -> None:
    # Given a node that is there, is edited, and becomes what it was while the step for that is under way
    planner = Planner(node())
    planner.reconciler.on_catalog(0.0, {"thing": INFO})
    planner.turn()
    (made,) = planner.sent
    done = StepOutcome("a", made.operation, made.attempt, Outcome.SUCCEEDED, observation=PRESENT)
    planner.reconciler.on_outcomes(1.0, [done])
    planner.turn()
    d = declare(declaration("a", "thing", {"v": 2}))
    edited = Node("a", d.type, d.spec, d.digest, (), Gating.NONE, Gating.NONE, "main")
    planner.reconciler.on_graph(2.0, {"a": edited}, {})
    planner.turn()
    step = planner.sent[-1]
    assert step.digest == d.digest
    planner.reconciler.on_graph(3.0, {"a": node()}, {})
    planner.turn()
    # When nobody knows whether that step was run
    planner.reconciler.on_outcomes(4.0, [StepOutcome("a", step.operation, step.attempt, Outcome.EXPIRED)])
    # Then it does not count as declared
    assert not planner.reconciler.core.units["a"].current
