"""Missed deadlines and the decisions on them, with virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast_model.errors import Invalid
from holdfast_model.work_items import (
    TERMINAL,
    BreachDecision,
    Chained,
    EscalateTo,
    Exhausted,
    Extend,
    Fail,
    Verb,
    WorkItem,
    WorkItemStatus,
)
from holdfast_model.work_items_breach import Deadline, next_deadline
from holdfast_model.work_items_create import Defaults
from holdfast_model.work_items_deadlines import breach

from .building import after, do, in_status, new, person

S = WorkItemStatus


def due(deadline: Deadline, policy: BreachDecision | None, **fields: Any) -> WorkItem:
    """An item whose deadline of this kind passes in an hour."""
    if deadline is Deadline.EXPIRY:
        return new(expires_at=after(hours=1), on_expiry=policy, **fields)
    return new(claim_deadline=after(hours=1), on_claim_expiry=policy, **fields)


both = pytest.mark.parametrize("deadline", list(Deadline))


@both
def test_nothing_happens_before_the_deadline(deadline: Deadline) -> None:
    assert breach(due(deadline, None), after(minutes=59)).empty


@both
def test_the_default_is_to_fail(deadline: Deadline) -> None:
    change = breach(due(deadline, None), after(hours=1))

    assert change.item.status is S.EXPIRED
    assert change.events[-1].name == "expired"
    assert [e.name for e in change.events][:-1] == (["claim_expired"] if deadline is Deadline.CLAIM else [])
    assert change.events[-1].data["breach"] == {"kind": "fail"}


@both
def test_fail_keeps_its_reason(deadline: Deadline) -> None:
    item = breach(due(deadline, Fail("too late")), after(hours=2)).item
    assert item.resolution == "too late"


@both
def test_an_escalation_goes_back_to_the_pool_for_its_groups(deadline: Deadline) -> None:
    item = due(deadline, EscalateTo(("chiefs",), deadline=600), candidate_groups=("ops",))

    change = breach(item, after(hours=1))

    assert (change.item.status, change.item.candidate_groups) == (S.PENDING, ("chiefs",))
    assert change.events[0].name == "sla_reassigned"
    assert next_deadline(change.item) == (deadline, after(hours=1, minutes=10))


def test_an_escalated_expiry_takes_the_item_from_its_holder() -> None:
    item = msgspec.structs.replace(due(Deadline.EXPIRY, EscalateTo(("chiefs",))), status=S.IN_PROGRESS,
                                   assignee_id="ann")  # fmt: skip

    item = breach(item, after(hours=1)).item

    assert (item.status, item.assignee_id, item.expires_at) == (S.PENDING, "", after(hours=25))


@both
def test_an_extension_counts_from_now(deadline: Deadline) -> None:
    change = breach(due(deadline, Extend(300)), after(hours=3))

    assert change.events[0].name == "sla_extended"
    assert next_deadline(change.item) == (deadline, after(hours=3, minutes=5))
    assert change.item.status is S.PENDING


@both
def test_exhausted_is_escalated(deadline: Deadline) -> None:
    change = breach(due(deadline, Exhausted()), after(hours=1))
    assert (change.item.status, change.events[-1].name) == (S.ESCALATED, "escalated")


@both
def test_a_chain_falls_back_when_its_first_cannot_run(deadline: Deadline) -> None:
    item = due(deadline, Chained(EscalateTo(()), Extend(60)))
    assert breach(item, after(hours=1)).events[0].name == "sla_extended"


@both
def test_a_chain_of_which_nothing_can_run_is_escalated(deadline: Deadline) -> None:
    item = due(deadline, Chained(EscalateTo(()), EscalateTo(())))
    assert breach(item, after(hours=1)).item.status is S.ESCALATED


def test_a_chain_of_tiers_remembers_its_place_in_the_groups_alone() -> None:
    tiers = Chained(EscalateTo(("a",), 60), Chained(EscalateTo(("b",), 60), Fail("nobody came")))
    item, seen = due(Deadline.EXPIRY, tiers, candidate_groups=("ops",)), []

    for hour in (1, 2, 3):
        item = breach(item, after(hours=hour)).item
        seen.append((item.status, item.candidate_groups))

    assert seen == [(S.PENDING, ("a",)), (S.PENDING, ("b",)), (S.EXPIRED, ("b",))]


@both
def test_an_escalation_to_nobody_changes_only_the_history(deadline: Deadline) -> None:
    field = "on_expiry" if deadline is Deadline.EXPIRY else "on_claim_expiry"
    item = msgspec.structs.replace(due(deadline, None), **{field: EscalateTo(())})

    change = breach(item, after(hours=1))

    assert (change.item, change.events) == (item, ())
    assert [a.event for a in change.audit] == ["BREACH_POLICY_MISCONFIGURED"]


def test_an_escalation_to_nobody_is_refused_when_the_item_is_asked_for() -> None:
    with pytest.raises(Invalid) as caught:
        due(Deadline.EXPIRY, EscalateTo(()))
    assert caught.value.problems[0].path == "/onExpiry/groups"


@pytest.mark.parametrize("status", [s for s in S if s is not S.PENDING])
def test_the_time_to_claim_runs_only_while_pending(status: WorkItemStatus) -> None:
    item = msgspec.structs.replace(in_status(status), claim_deadline=after(hours=1))
    assert breach(item, after(hours=9)).empty


@pytest.mark.parametrize("status", [*sorted(TERMINAL), S.SUSPENDED])
def test_ended_and_suspended_items_have_no_running_clock(status: WorkItemStatus) -> None:
    item = msgspec.structs.replace(in_status(status), expires_at=after(hours=1))
    assert next_deadline(item) is None
    assert breach(item, after(hours=9)).empty


def test_a_resumed_item_cannot_be_expired_for_not_being_claimed() -> None:
    item = new(Defaults(expiry=None, claim=3600))
    for verb in (Verb.CLAIM, Verb.SUSPEND, Verb.RESUME):
        item = do(verb, item, person("ann")).item
    assert next_deadline(item) is None


def test_expiry_wins_a_tie() -> None:
    item = new(expires_at=after(hours=1), claim_deadline=after(hours=1))
    assert [e.name for e in breach(item, after(hours=1)).events] == ["expired"]
