"""A removed node that is wanted again may be gone already, whatever was known of it last."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_model.messages import Action, Observation, Outcome, Status, StepOutcome
from holdfast_model.rows import Gating, Tombstone

from .reconciling import INFO, Planner, node


def make(planner: Planner) -> None:
    """Its step is sent, and succeeds."""
    planner.turn()
    (step,) = planner.sent
    there = Observation(Status.PRESENT, token="t1")
    planner.reconciler.on_outcomes(
        1.0, [StepOutcome("a", step.operation, step.attempt, Outcome.SUCCEEDED, observation=there)]
    )
    planner.turn()


def made_and_removed(gating: Gating) -> tuple[Planner, Tombstone]:
    """A node that nobody can look at: it was made, and is not wanted any more."""
    wanted, planner = node(gating), Planner(node(gating))
    planner.reconciler.on_catalog(0.0, {"thing": INFO})
    make(planner)
    grave = Tombstone("a", wanted.type, wanted.spec, wanted.digest, gating=gating)
    planner.reconciler.on_graph(2.0, {"a": None}, {grave.key: grave})
    planner.turn()
    return planner, grave


def test_what_a_person_was_asked_to_remove_is_made_again() -> None:
    # Given a node that a person is to remove
    planner, grave = made_and_removed(Gating.DEPROVISION_ONLY)
    assert [field[0] for field in planner.todo] == ["o"]
    # When it is wanted again before anybody knows whether that was done
    planner.reconciler.on_graph(3.0, {"a": planner.declared}, {grave.key: None})
    planner.turn()
    # Then it is made again, for nobody can see whether it is there
    assert [s.action for s in planner.sent] == [Action.PROVISION, Action.PROVISION]


def test_what_a_person_was_asked_to_remove_is_made_again_under_its_new_name() -> None:
    planner, grave = made_and_removed(Gating.DEPROVISION_ONLY)
    renamed = msgspec.structs.replace(planner.declared, id="b", was=("a",))
    planner.reconciler.on_graph(3.0, {"b": renamed}, {grave.key: None})
    planner.turn()
    assert [(s.action, s.node) for s in planner.sent] == [(Action.PROVISION, "a"), (Action.PROVISION, "b")]


def test_that_a_person_was_asked_is_not_forgotten_when_it_was_wanted_for_a_moment() -> None:
    # Given a node that a person is to remove, and that was wanted for a moment that nobody saw
    planner, grave = made_and_removed(Gating.DEPROVISION_ONLY)
    planner.reconciler.on_graph(3.0, {}, {grave.key: grave})
    # When it is wanted again, then it is made again
    planner.reconciler.on_graph(3.0, {"a": planner.declared}, {grave.key: None})
    planner.turn()
    assert [s.action for s in planner.sent] == [Action.PROVISION, Action.PROVISION]


@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.FAILED])
def test_what_may_have_been_removed_by_an_attempt_that_did_not_succeed_is_made_again(outcome: Outcome) -> None:
    # Given a node whose removal expired (perhaps after a crash, with its effect) or failed (perhaps half-way)
    planner, grave = made_and_removed(Gating.NONE)
    removal = planner.sent[-1]
    assert removal.action is Action.DEPROVISION
    planner.reconciler.on_paused(3.0, True)  # no other attempt follows
    planner.reconciler.on_outcomes(3.0, [StepOutcome("a", removal.operation, removal.attempt, outcome)])
    planner.turn()
    # When it is wanted again
    planner.reconciler.on_graph(4.0, {"a": planner.declared}, {grave.key: None})
    planner.reconciler.on_paused(4.0, False)
    planner.turn()
    # Then it is made again
    assert planner.sent[-1].action is Action.PROVISION
    assert planner.sent[-1].operation > removal.operation


def test_what_nobody_was_told_to_remove_stands_as_it_is() -> None:
    # Given a node that goes while steps are paused, so that nobody is told
    planner, wanted = Planner(node()), node()
    planner.reconciler.on_catalog(0.0, {"thing": INFO})
    make(planner)
    planner.reconciler.on_paused(2.0, True)
    grave = Tombstone("a", wanted.type, wanted.spec, wanted.digest)
    planner.reconciler.on_graph(2.0, {"a": None}, {grave.key: grave})
    planner.turn()
    # When it is wanted again, then nothing needs to be done
    planner.reconciler.on_graph(3.0, {"a": planner.declared}, {grave.key: None})
    planner.reconciler.on_paused(3.0, False)
    planner.turn()
    assert [s.action for s in planner.sent] == [Action.PROVISION]
