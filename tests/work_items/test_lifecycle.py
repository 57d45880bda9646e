"""Every legal and illegal transition, and what each legal one does."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from holdfast_model.errors import Forbidden, Invalid, Stale, from_body, to_body
from holdfast_model.work_items import ACTIVE, TERMINAL, DeclineTarget, Verb, WorkItemStatus
from holdfast_model.work_items_change import WrongState
from holdfast_model.work_items_create import Defaults, create
from holdfast_model.work_items_lifecycle import LEGAL

from .building import ID, NO_DEADLINES, NOW, after, do, in_status, new, person, request

S = WorkItemStatus
ARGUMENTS: dict[Verb, dict[str, Any]] = {
    Verb.DELEGATE: {"to": "bob"},
    Verb.ESCALATE: {"target_groups": ("chiefs",)},
    Verb.EXTEND: {"expires_at": after(hours=9)},
    Verb.NOTE: {"note": "hm"},
}
RESULT = {
    Verb.CLAIM: S.ASSIGNED,
    Verb.START: S.IN_PROGRESS,
    Verb.COMPLETE: S.COMPLETED,
    Verb.REJECT: S.REJECTED,
    Verb.RELEASE: S.PENDING,
    Verb.SUSPEND: S.SUSPENDED,
    Verb.RESUME: S.IN_PROGRESS,
    Verb.DELEGATE: S.DELEGATED,
    Verb.ACCEPT: S.ASSIGNED,
    Verb.DECLINE: S.PENDING,
    Verb.ESCALATE: S.PENDING,
    Verb.CANCEL: S.CANCELLED,
    Verb.OBSOLETE: S.OBSOLETE,
    Verb.FAULT: S.FAULTED,
}


def test_active_and_terminal_are_exact_complements() -> None:
    assert set(S) == ACTIVE | TERMINAL
    assert set() == ACTIVE & TERMINAL
    assert (len(ACTIVE), len(TERMINAL)) == (5, 7)
    for status in S:
        assert status.active is not status.terminal


def test_every_verb_says_from_where_it_is_legal() -> None:
    assert set(LEGAL) == set(Verb)


@pytest.mark.parametrize(("verb", "status"), [(v, s) for v, s in product(Verb, S) if s in LEGAL[v]])
def test_a_legal_verb_leads_to_its_status(verb: Verb, status: WorkItemStatus) -> None:
    item = in_status(status)

    change = do(verb, item, person("ann"), **ARGUMENTS.get(verb, {}))

    assert change.item.status is RESULT.get(verb, status)
    assert change.audit
    assert change.item.version == (item.version if verb is Verb.NOTE else item.version + 1)


@pytest.mark.parametrize(
    ("verb", "status"),
    [(v, s) for v, s in product(Verb, S) if s not in LEGAL[v] and v not in (Verb.OBSOLETE, Verb.FAULT)],
)
def test_an_illegal_verb_is_a_conflict_that_shows_the_item(verb: Verb, status: WorkItemStatus) -> None:
    item = in_status(status)

    with pytest.raises(WrongState) as caught:
        do(verb, item, person("ann"), **ARGUMENTS.get(verb, {}))

    assert caught.value.code == "conflict"
    assert caught.value.current == item
    assert caught.value.hint


@pytest.mark.parametrize("status", sorted(TERMINAL))
@pytest.mark.parametrize("verb", [Verb.COMPLETE, Verb.REJECT, Verb.CANCEL, Verb.FAULT, Verb.OBSOLETE])
def test_an_automated_ending_leaves_an_ended_item_alone(verb: Verb, status: WorkItemStatus) -> None:
    item = in_status(status)

    change = do(verb, item, person("planner", system=True), version=7)

    assert change.item is item
    assert change.empty


@pytest.mark.parametrize("verb", [Verb.FAULT, Verb.OBSOLETE])
def test_fault_and_obsolete_never_conflict(verb: Verb) -> None:
    item = in_status(S.COMPLETED)
    assert do(verb, item, person("planner")).empty


def test_a_wrong_state_is_no_lost_race_to_its_caller() -> None:
    with pytest.raises(WrongState) as caught:
        do(Verb.CLAIM, in_status(S.COMPLETED), person("ann"))

    error = from_body(to_body(caught.value))

    assert error.__class__.__name__ == "IllegalState"
    assert error.current is not None


def test_the_usual_way_leaves_one_line_of_history_for_each_transition() -> None:
    item, lines = new(), []
    for verb in (Verb.CLAIM, Verb.START, Verb.COMPLETE):
        change = do(verb, item, person("ann"), outcome="done" if verb is Verb.COMPLETE else "")
        item = change.item
        lines += [(a.event, a.version) for a in change.audit]

    assert lines == [("ASSIGNED", 2), ("STARTED", 3), ("COMPLETED", 4)]
    assert (item.outcome, item.decided_by, item.completed_at) == ("done", "ann", NOW)


@pytest.mark.parametrize(
    ("status", "names"),
    [
        (S.PENDING, ["assigned", "started", "completed"]),
        (S.ASSIGNED, ["started", "completed"]),
        (S.IN_PROGRESS, ["completed"]),
    ],
)
def test_completing_makes_the_missing_transitions(status: WorkItemStatus, names: list[str]) -> None:
    change = do(Verb.COMPLETE, in_status(status), person("ann"), outcome="fixed", data={"by": 3}, note="ok")

    assert [e.name for e in change.events] == names
    assert [a.event.lower() for a in change.audit] == names
    assert change.item.version == 2
    last = change.events[-1].data
    assert (last["status"], last["outcome"], last["data"], last["note"]) == (
        "COMPLETED", "fixed", {"by": 3}, "ok",
    )  # fmt: skip
    assert len({e.id for e in change.events}) == len(names)


def test_rejecting_from_the_pool_assigns_first() -> None:
    change = do(Verb.REJECT, new(), person("ann"), note="against policy")

    assert [e.name for e in change.events] == ["assigned", "rejected"]
    assert (change.item.status, change.item.resolution) == (S.REJECTED, "against policy")


def test_created_names_the_command_that_decides() -> None:
    change = create(request(graph="shop", caller_ref="x:y", request="g1"), ID, NOW, NO_DEADLINES)

    (event,) = change.events
    assert (event.name, event.graph, event.node, event.type) == (
        "created", "shop", ID, "io.casehub.work.workitem.created",
    )  # fmt: skip
    assert event.data["decide"] == f"holdfast decide {ID} OUTCOME"
    assert (event.data["callerRef"], event.data["request"]) == ("x:y", "g1")


def test_an_item_of_no_graph_is_announced_under_the_placeholder() -> None:
    assert do(Verb.CLAIM, new(), person("ann")).events[0].graph == "_"


def test_a_stale_version_is_refused_with_the_current_item() -> None:
    item = do(Verb.CLAIM, new(), person("ann")).item

    with pytest.raises(Stale) as caught:
        do(Verb.START, item, person("ann"), version=1)

    assert caught.value.current == item
    assert do(Verb.START, item, person("ann"), version=2).item.version == 3


@pytest.mark.parametrize("verb", [v for v in Verb if v not in (Verb.ACCEPT, Verb.DECLINE, Verb.RESUME)])
def test_a_command_needs_an_actor(verb: Verb) -> None:
    status = next(iter(sorted(LEGAL[verb])))
    with pytest.raises(Invalid, match="actor"):
        do(verb, in_status(status), person(" "), **ARGUMENTS.get(verb, {}))


# Authorisation.


@pytest.mark.parametrize("verb", [Verb.CLAIM, Verb.COMPLETE, Verb.REJECT])
def test_who_is_no_candidate_may_not_take_it(verb: Verb) -> None:
    item = new(candidate_users=("bobby",), candidate_groups=("admins",))

    with pytest.raises(Forbidden, match="not a candidate"):
        do(verb, item, person("bob", "admin"))

    assert do(verb, item, person("bobby")).item.assignee_id == "bobby"
    assert do(verb, item, person("eve", "admins")).item.assignee_id == "eve"


def test_empty_candidate_lists_mean_everybody_but_the_excluded() -> None:
    item = new(excluded_users=("mallory",))
    assert do(Verb.CLAIM, item, person("anyone")).item.status is S.ASSIGNED
    with pytest.raises(Forbidden, match="excluded"):
        do(Verb.CLAIM, item, person("mallory"))


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        (Verb.START, S.ASSIGNED),
        (Verb.COMPLETE, S.ASSIGNED),
        (Verb.COMPLETE, S.IN_PROGRESS),
        (Verb.REJECT, S.IN_PROGRESS),
        (Verb.RELEASE, S.ASSIGNED),
        (Verb.SUSPEND, S.IN_PROGRESS),
        (Verb.RESUME, S.SUSPENDED),
        (Verb.DELEGATE, S.ASSIGNED),
    ],
)
def test_only_its_holder_moves_a_held_item_and_an_operator_leaves_a_trace(verb: Verb, status: WorkItemStatus) -> None:
    item = in_status(status, holder="ann")

    with pytest.raises(Forbidden, match="assigned to ann"):
        do(verb, item, person("bob"), to="cat")
    change = do(verb, item, person("root", operator=True), to="cat")

    assert "operator override" in change.audit[-1].detail
    assert change.audit[-1].actor == "root"


def test_an_operator_may_claim_what_excludes_them_and_the_history_says_so() -> None:
    change = do(Verb.CLAIM, new(excluded_users=("root",)), person("root", operator=True))
    assert "operator override: root is excluded" in change.audit[0].detail


def test_an_automated_caller_is_no_candidate_yet_may_complete() -> None:
    change = do(Verb.COMPLETE, new(candidate_users=("ann",)), person("engine", system=True))
    assert change.item.status is S.COMPLETED


# Delegation, suspension, the pool's clock.


def test_a_delegation_is_accepted_only_by_its_target() -> None:
    item = do(Verb.DELEGATE, in_status(S.IN_PROGRESS), person("ann"), to="bob").item
    assert (item.status, item.assignee_id, item.owner, item.delegation_chain) == (
        S.DELEGATED, "bob", "ann", ("ann",),
    )  # fmt: skip
    with pytest.raises(Forbidden, match="delegated to bob"):
        do(Verb.ACCEPT, item, person("root", operator=True))

    item = do(Verb.ACCEPT, item, person("bob")).item
    item = do(Verb.DELEGATE, item, person("bob"), to="cat").item

    assert (item.owner, item.delegation_chain) == ("ann", ("ann", "bob"))


@pytest.mark.parametrize(
    ("target", "status", "holder"),
    [(DeclineTarget.POOL, S.PENDING, ""), (DeclineTarget.DELEGATOR, S.ASSIGNED, "ann")],
)
def test_a_declined_delegation_goes_to_its_target(target: DeclineTarget, status: WorkItemStatus, holder: str) -> None:
    item = do(Verb.DELEGATE, in_status(S.ASSIGNED), person("ann"), to="bob", decline_target=target).item

    item = do(Verb.DECLINE, item, person("bob")).item

    assert (item.status, item.assignee_id) == (status, holder)


def test_nobody_delegates_to_an_excluded_person() -> None:
    with pytest.raises(Forbidden, match="excluded"):
        do(Verb.DELEGATE, in_status(S.ASSIGNED, excluded_users=("bob",)), person("ann"), to="bob")


def test_a_suspension_moves_the_expiry_by_its_length() -> None:
    item = in_status(S.IN_PROGRESS, expires_at=after(hours=2))
    item = do(Verb.SUSPEND, item, person("ann"), after(hours=1)).item

    item = do(Verb.RESUME, item, person("ann"), after(hours=4)).item

    assert (item.status, item.expires_at, item.suspended_at) == (S.IN_PROGRESS, after(hours=5), None)


def test_a_release_leaves_the_unused_time_to_claim() -> None:
    item = new(Defaults(expiry=None, claim=3600))
    item = do(Verb.CLAIM, item, person("ann"), after(minutes=20)).item
    assert item.claim_deadline is None

    item = do(Verb.RELEASE, item, person("ann"), after(minutes=50)).item

    assert (item.status, item.assignee_id) == (S.PENDING, "")
    assert item.claim_deadline == after(minutes=90)


def test_an_extension_must_be_later() -> None:
    item = new(expires_at=after(hours=1))
    with pytest.raises(Invalid, match="not later"):
        do(Verb.EXTEND, item, person("ann"), expires_at=after(minutes=30))
    assert do(Verb.EXTEND, item, person("ann"), expires_at=after(hours=2)).item.expires_at == after(hours=2)


def test_a_note_is_history_and_nothing_else() -> None:
    item = in_status(S.COMPLETED)
    change = do(Verb.NOTE, item, person("ann"), note="well done")
    assert (change.item, change.events) == (item, ())
    assert [(a.event, a.detail) for a in change.audit] == [("NOTE", "well done")]
