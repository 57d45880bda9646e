"""What an outcome says, and what it does not say, of a node that is not wanted any more."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from holdfast_model.manifest import OwnedLadder, Rung
from holdfast_model.messages import Action, Observation, Outcome, Status, StepOutcome
from holdfast_model.reconciler import Phase
from holdfast_model.rows import Tombstone

from .reconciling import INFO, Planner, node


@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.FAILED])
def test_a_removed_node_is_looked_at_when_its_provisioning_is_said_to_have_failed(outcome: Outcome) -> None:
    # Given a node that is not there, whose step is under way when it is removed
    planner, wanted = Planner(node()), node()
    planner.reconciler.on_catalog(0.0, {"thing": msgspec.structs.replace(INFO, observes=True)})
    planner.turn()
    (look,) = planner.looks
    planner.reconciler.on_observed(1.0, look, {"a": Observation(Status.ABSENT)})
    planner.turn()
    (step,) = planner.sent
    grave = Tombstone("a", wanted.type, wanted.spec, wanted.digest)
    planner.reconciler.on_graph(2.0, {"a": None}, {grave.key: grave})
    planner.turn()
    # When somebody who took it up again after a crash answers that it came too late, or failed
    planner.reconciler.on_outcomes(3.0, [StepOutcome("a", step.operation, step.attempt, outcome)])
    planner.turn()
    # Then it is looked at, and removed if it is there
    look = planner.looks[-1]
    assert [item.node for item in look.nodes] == ["a"]
    assert not planner.forgotten
    planner.reconciler.on_observed(4.0, look, {"a": Observation(Status.PRESENT)})
    planner.turn()
    assert [s.action for s in planner.sent] == [Action.PROVISION, Action.DEPROVISION]


@pytest.mark.parametrize("asked", [1e300, 0.0, -1e300])
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SKIPPED])
def test_a_pause_that_no_calendar_can_say_is_shortened(outcome: Outcome, asked: float) -> None:
    planner = Planner(node())
    planner.reconciler.on_catalog(0.0, {"thing": INFO})
    planner.turn()
    (step,) = planner.sent
    planner.reconciler.on_outcomes(1.0, [StepOutcome("a", step.operation, 1, outcome, retry_after=asked)])
    assert datetime.fromtimestamp(planner.record.next_try, UTC).year in (1970, 1971)
    assert planner.record.next_try > 1.0, "nor are faults raised as fast as messages come"


@pytest.mark.parametrize("status", [Status.ABSENT, Status.DRIFTED])
def test_what_is_said_to_be_made_and_is_not_is_made_again_after_growing_pauses(status: Status) -> None:
    """However the world changes meanwhile: with another token each time, it is no livelock."""
    planner, pauses = Planner(node()), []
    planner.reconciler.on_catalog(0.0, {"thing": msgspec.structs.replace(INFO, backoff_base=8.0, backoff_cap=1e6)})
    for n in range(6):
        now = planner.record.next_try
        planner.reconciler.on_time(now)
        planner.turn(now)
        step = planner.sent[n]
        seen = Observation(status, token=f"t{n}")
        planner.reconciler.on_outcomes(now, [StepOutcome("a", step.operation, 1, Outcome.SUCCEEDED, observation=seen)])
        pauses.append(planner.record.next_try - now)
        planner.turn(now)
        assert len(planner.sent) == n + 1, "not at once"
    assert min(pauses) > 0.5
    assert pauses[-1] > pauses[0]


def test_texts_that_no_event_could_carry_are_cut() -> None:
    planner = Planner(node())
    planner.reconciler.on_catalog(0.0, {"thing": INFO})
    planner.turn()
    (step,) = planner.sent
    failed = StepOutcome("a", step.operation, 1, Outcome.FAILED, "r" * 9_000_000, "d" * 9_000_000)
    planner.reconciler.on_outcomes(1.0, [failed])
    planner.reconciler.on_reported(1.0, "a", "node_degraded", "d" * 9_000_000, "e1")
    planner.turn()
    assert [len(fault.detail) < 70_000 and len(fault.reason) < 300 for fault in planner.faults] == [True, True]
    assert planner.faults[0].detail.endswith("(9,000,000 characters)")


def poisoned() -> Planner:
    """A node that failed so often that it is left alone for a while."""
    planner = Planner(node())
    planner.reconciler.on_catalog(0.0, {"thing": msgspec.structs.replace(INFO, covered=False)})
    now = 0.0
    for _ in range(5):
        planner.reconciler.on_time(now)
        planner.turn(now)
        step = planner.sent[-1]
        said = StepOutcome("a", step.operation, step.attempt, Outcome.FAILED)
        planner.reconciler.on_outcomes(now, [said])
        planner.turn(now)
        now = planner.record.next_try
    planner.reconciler.on_time(now)
    planner.turn(now)
    assert (len(planner.sent), planner.reconciler.core.units["a"].phase) == (5, Phase.QUARANTINED)
    return planner


LADDER = OwnedLadder("l", ["PROVISION_FAILED"], [Rung("true")])


def test_a_ladder_of_the_blueprint_ends_what_was_taken_for_poison() -> None:
    """What ladders look after is never quarantined for its failures, however late they come."""
    planner = poisoned()
    now = planner.record.next_try
    planner.reconciler.on_ladders([msgspec.structs.replace(LADDER, owner="other")])
    planner.turn(now)
    assert len(planner.sent) == 5, "it looks after what its own blueprint declares"
    planner.reconciler.on_ladders([LADDER])
    planner.turn(now)
    assert len(planner.sent) == 6


def test_a_ladder_of_the_domain_ends_what_was_taken_for_poison() -> None:
    planner = poisoned()
    now = planner.record.next_try
    planner.reconciler.on_catalog(now, {"thing": msgspec.structs.replace(INFO, covered=True)})
    planner.turn(now)
    assert len(planner.sent) == 6
