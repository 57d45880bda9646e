"""What follows from an answered gate depends on the type of its node; questions that nobody needs are withdrawn."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_model.messages import Action, Observation, Outcome, Status, StepOutcome
from holdfast_model.mutations import declaration
from holdfast_model.names import HUMAN_REVIEW
from holdfast_model.reconciler import CloseIntent, Ended, ItemIntent
from holdfast_model.rows import Gating, Node, Tombstone, declare

from .reconciling import INFO, Planner, node

WITHDRAWN = "the node changed or was removed"


@pytest.mark.parametrize("after_human", [True, False])
def test_an_answer_is_kept_for_later_while_the_type_of_its_node_is_unknown(after_human: bool) -> None:
    # Given a node for which a person is asked, and a new owner that has not heard of its type yet

    catalog = {"thing": msgspec.structs.replace(INFO, after_human=after_human)}
    planner = Planner(node(Gating.ALL))
    planner.reconciler.on_catalog(0.0, catalog)
    planner.turn()
    (intent,) = planner.todo.values()
    assert isinstance(intent, ItemIntent)
    end = Ended(intent.request, "w1", "COMPLETED", "done", by="p", at=1.0)
    planner.restart()
    # When the answer comes
    planner.reconciler.on_decision(1.0, end)
    planner.turn()
    # Then nothing is concluded from it
    assert planner.record.status is None
    assert planner.todo
    # And when the type is known, and the item asked after again
    planner.reconciler.on_catalog(2.0, catalog)
    planner.reconciler.on_decision(2.0, end)
    planner.turn()
    assert not [f for f in planner.todo if f.startswith("o:")]
    if after_human:
        (step,) = planner.sent
        assert (step.action, step.decision.workitem) == (Action.PROVISION, "w1")
    else:
        assert planner.sent == []
        assert planner.record.reason == "attested"


def test_the_question_about_a_review_that_left_while_nobody_owned_the_graph_is_withdrawn() -> None:
    # Given a person who is asked about a review, which leaves no tombstone
    planner = Planner(node())
    d = declare(declaration("human-review-a", HUMAN_REVIEW, {"target": "a", "episode": "e1"}, "ALL"))
    review = Node("human-review-a", d.type, d.spec, d.digest, (), Gating.ALL, Gating.NONE, "policy:ladder")
    planner.reconciler.on_graph(1.0, {review.id: review}, {})
    planner.turn()
    (asked,) = planner.todo.values()
    planner.reconciler.on_item_opened(1.0, asked.request, "w1")
    planner.turn()
    assert planner.todo == {}
    # When the next owner finds that the review has left
    planner.restart()
    planner.turn()
    # Then the question is withdrawn
    assert planner.todo == {f"c:{asked.request}": CloseIntent(asked.request, asked.caller_ref, WITHDRAWN)}


@pytest.mark.parametrize("opened", [True, False])
def test_the_question_about_a_removal_is_withdrawn_when_the_node_is_back_before_anybody_looks(opened: bool) -> None:
    # Given a node that is there, and a person who is asked about its removal
    planner = Planner(node(Gating.DEPROVISION_ONLY))
    planner.catalog = {"thing": INFO}
    planner.reconciler.on_catalog(0.0, planner.catalog)
    planner.turn()
    (step,) = planner.sent
    seen = Observation(Status.PRESENT)
    done = StepOutcome("a", step.operation, step.attempt, Outcome.SUCCEEDED, observation=seen)
    planner.reconciler.on_outcomes(1.0, [done])
    tomb = Tombstone("a", "thing", step.spec, step.digest, gating=Gating.DEPROVISION_ONLY)
    planner.reconciler.on_graph(1.0, {"a": None}, {tomb.key: tomb})
    planner.turn()
    (asked,) = planner.todo.values()
    if opened:
        planner.reconciler.on_item_opened(1.0, asked.request, "w1")
        planner.turn()
    # When the next owner finds that the node is wanted again
    planner.restart()
    planner.turn()
    # Then the question is withdrawn, or not asked at all if it comes after that
    questions = {field: intent for field, intent in planner.todo.items() if not field.startswith("b:")}
    assert questions == {f"c:{asked.request}": CloseIntent(asked.request, asked.caller_ref, WITHDRAWN)}
