"""What a request may ask for, and what a decision may bring."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast_model.errors import Forbidden, Invalid
from holdfast_model.messages import Action
from holdfast_model.names import GraphRef
from holdfast_model.work_items import (
    CreateWorkItem,
    PermittedOutcome,
    Verb,
    WorkItem,
    WorkItemCommand,
    WorkItemStatus,
    approval_ref,
    gate_ref,
)
from holdfast_model.work_items_create import Defaults

from .building import after, do, new, person


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"title": "  "}, "/title"),
        ({"title": "x" * 501}, "/title"),
        ({"tenant": "a.b"}, "/tenant"),
        ({"graph": "a>"}, "/graph"),
        ({"expires_at": after(hours=-1)}, "/expiresAt"),
        ({"claim_deadline": after()}, "/claimDeadline"),
        ({"permitted_outcomes": (PermittedOutcome("a"), PermittedOutcome("a"))}, "/permittedOutcomes/1/name"),
        ({"permitted_outcomes": (PermittedOutcome("a", condition="=="),)}, "/permittedOutcomes/0/condition"),
        ({"output_data_schema": {"type": "nonsense"}}, "/outputDataSchema"),
        ({"input_data_schema": {"required": ["a"]}, "payload": "{}"}, "/payload"),
        ({"input_data_schema": {"type": "object"}, "payload": "{"}, "/payload"),
    ],
)
def test_a_bad_request_is_refused_with_the_place(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        new(**fields)
    assert [p.path for p in caught.value.problems] == [path]


def test_a_misspelt_key_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError, match="outcom"):
        msgspec.json.decode(b'{"tenant":"t","id":"i","outcom":"reject"}', type=WorkItemCommand)


def test_a_named_assignee_starts_with_the_item() -> None:
    item = new(assignee_id="ann")
    assert (item.status, item.assignee_id) == (WorkItemStatus.ASSIGNED, "ann")


def test_an_excluded_assignee_is_refused() -> None:
    with pytest.raises(Forbidden, match="excluded"):
        new(assignee_id="ann", excluded_users=("ann",))


def test_absent_deadlines_take_the_defaults_and_null_means_none() -> None:
    defaults = Defaults(expiry=7200, claim=3600)
    asked = {"tenant": "t", "title": "x"}

    def deadlines(text: dict[str, Any]) -> tuple[object, object]:
        decoded = msgspec.json.decode(msgspec.json.encode(text), type=CreateWorkItem)
        item = new(defaults, claim_deadline=decoded.claim_deadline, expires_at=decoded.expires_at)
        return item.claim_deadline, item.expires_at

    assert deadlines(asked) == (after(hours=1), after(hours=2))
    assert deadlines(asked | {"claimDeadline": None, "expiresAt": None}) == (None, None)
    late = "2026-03-02T18:00:00+02:00"
    assert deadlines(asked | {"claimDeadline": None, "expiresAt": late}) == (None, after(hours=4))


def test_an_item_survives_its_json() -> None:
    item = new(Defaults(), permitted_outcomes=(PermittedOutcome("a"),), types=("x/y",), payload="{}")
    text = msgspec.json.encode(item)
    assert msgspec.json.decode(text, type=WorkItem) == item
    assert {"tenancyId", "callerRef", "assigneeId", "candidateGroups"} <= set(msgspec.json.decode(text))
    assert b'"createdAt":"2026-03-02T12:00:00Z"' in text


# Decisions.

CHOICES = (PermittedOutcome("approve"), PermittedOutcome("reject"))


@pytest.mark.parametrize("verb", [Verb.COMPLETE, Verb.REJECT])
def test_an_outcome_that_is_not_offered_is_refused(verb: Verb) -> None:
    with pytest.raises(Invalid, match="approve, reject"):
        do(verb, new(permitted_outcomes=CHOICES), person("ann"), outcome="aprove")


def test_a_decision_may_name_no_outcome() -> None:
    assert do(Verb.COMPLETE, new(permitted_outcomes=CHOICES), person("ann")).item.outcome == ""


def test_any_outcome_goes_where_none_is_offered() -> None:
    assert do(Verb.COMPLETE, new(), person("ann"), outcome="whatever").item.outcome == "whatever"


@pytest.mark.parametrize(
    ("condition", "data", "allowed"),
    [
        ("data.amount <= 100", {"amount": 50}, True),
        ("data.amount <= 100", {"amount": 500}, False),
        ("data.amount <= 100", None, False),
        ("'chiefs' in groups", None, True),
        ("actor == 'bob'", None, False),
        ("payload.risk == 'low' && item.priority == 'MEDIUM'", None, True),
        ("payload.risk", None, False),
        ("1 / 0 == 1", None, False),
    ],
)
def test_a_condition_decides_whether_an_outcome_is_available(
    condition: str, data: dict[str, Any] | None, allowed: bool
) -> None:
    item = new(permitted_outcomes=(PermittedOutcome("pay", condition=condition),), payload='{"risk":"low"}')

    def decide() -> WorkItem:
        return do(Verb.COMPLETE, item, person("ann", "chiefs"), outcome="pay", data=data).item

    if allowed:
        assert decide().outcome == "pay"
    else:
        with pytest.raises(Invalid) as caught:
            decide()
        assert caught.value.problems[0].path == "/outcome"


def test_the_data_of_a_completion_follows_the_schema() -> None:
    item = new(output_data_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})

    with pytest.raises(Invalid) as caught:
        do(Verb.COMPLETE, item, person("ann"), data={"n": "x"})
    assert caught.value.problems[0].path == "/data/n"
    with pytest.raises(Invalid):
        do(Verb.COMPLETE, item, person("ann"))

    assert do(Verb.COMPLETE, item, person("ann"), data={"n": 1}).item.data == {"n": 1}
    assert do(Verb.REJECT, item, person("ann")).item.status is WorkItemStatus.REJECTED


# References.


@pytest.mark.parametrize(
    ("ref", "node", "gate", "approval"),
    [
        (
            GraphRef("acme", "main"),
            "db-1",
            "desiredstate:acme:db-1:provision",
            "desiredstate-approval:acme:db-1:PROVISION",
        ),
        (
            GraphRef("acme", "shop"),
            "a:b/ c",
            "desiredstate:acme/shop:a%3Ab%2F%20c:provision",
            "desiredstate-approval:acme/shop:a%3Ab%2F%20c:PROVISION",
        ),
    ],
)
def test_references_name_tenant_graph_node_and_action(ref: GraphRef, node: str, gate: str, approval: str) -> None:
    assert gate_ref(ref, node, Action.PROVISION) == gate
    assert approval_ref(ref, node, Action.PROVISION) == approval
    assert gate_ref(ref, node, Action.DEPROVISION) != gate
