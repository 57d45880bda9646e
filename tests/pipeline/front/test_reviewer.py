from __future__ import annotations

import pytest

from holdfast_pipeline.reviewer import Case, RuleReviewer, verdict
from holdfast_sdk import PENDING, RESOLVED, UNRESOLVED, Verdict


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("RESOLVED", RESOLVED),
        ("it is resolved now", RESOLVED),
        ("UNRESOLVED: needs a person", UNRESOLVED),
        ("Partly RESOLVED, mostly UNRESOLVED", UNRESOLVED),
        ("I do not know", UNRESOLVED),
        ("", PENDING),
        ("  \n", PENDING),
    ],
)
def test_a_reply_is_read_by_its_words(reply: str, expected: Verdict) -> None:
    assert verdict(reply) is expected


@pytest.mark.parametrize(
    ("error", "word"),
    [
        ("OSError: [Errno 28] No space left on device: '/warehouse/x'", "disk is full"),
        ("PermissionError: [Errno 13] Permission denied: 'orders/a.csv'", "access"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'orders'", "uri"),
        ("cannot cast column 'amount' from str to i64", "type"),
        ("the step did not finish within 900 s and was ended", "time"),
        ("something nobody has ever seen", "person"),
        ("", "person"),
    ],
)
async def test_causes_that_need_a_person_are_named(error: str, word: str) -> None:
    reply = await RuleReviewer().review(Case("orders-raw", "permanent", error))
    assert verdict(reply.text) is UNRESOLVED
    assert word in reply.text


@pytest.mark.parametrize(
    "error", ["another writer was faster; try again", "input 'orders-raw' was made anew; plan again"]
)
async def test_passing_conditions_are_resolved_by_trying_again(error: str) -> None:
    assert verdict((await RuleReviewer().review(Case("x", "conflict", error))).text) is RESOLVED


async def test_a_renamed_column_is_found_and_a_fix_proposed() -> None:
    # Given a stage that asks for a column that has another name now
    error = 'unable to find column "region"; valid columns: ["regions", "net", "country"]'
    spec = {"sql": "select region, sum(net) from orders_valid group by region", "group_by": ["region", "regional"]}
    # When it is reviewed
    reply = await RuleReviewer().review(Case("by-region", "permanent", error, {"spec": spec}))
    # Then a person gets a patch that renames it, and only it
    assert verdict(reply.text) is UNRESOLVED
    assert reply.fix == [
        {"op": "replace", "path": "/sql", "value": "select regions, sum(net) from orders_valid group by regions"},
        {"op": "replace", "path": "/group_by/0", "value": "regions"},
    ]


async def test_a_missing_column_without_a_likeness_proposes_nothing() -> None:
    error = 'unable to find column "region"; valid columns: ["net"]'
    reply = await RuleReviewer().review(Case("by-region", "permanent", error))
    assert reply.fix == []
    assert "'region'" in reply.text
