"""Questions about things of any size: cut to what an item holds, so that somebody is asked at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from holdfast_model.work_items import CreateWorkItem
from holdfast_model.work_items_create import LEFT_OUT, MAX_TEXT, Defaults, create, fitted, payload_text


def test_a_question_of_any_length_is_taken() -> None:
    long = "x" * 3_000_000
    request = CreateWorkItem(
        tenant="t", title=f"approve {long}", description=long, plan_ref=long, caller_ref="%F0%9F%8E%89" * 256
    )
    item = create(fitted(request), "i1", datetime.now(UTC), Defaults()).item
    assert (len(item.title), len(item.description), item.title[-1]) == (500, MAX_TEXT, "…")
    assert item.caller_ref == request.caller_ref, "it is a key, and never cut"


def test_what_fits_is_left_as_it_is() -> None:
    request = CreateWorkItem(tenant="t", title="provision a", description="please")
    assert fitted(request) == request
    assert json.loads(payload_text({"node": "a", "spec": {"v": 1}})) == {"node": "a", "spec": {"v": 1}}


def test_a_payload_leaves_out_its_largest_members_and_names_them() -> None:
    large = {"node": "a", "spec": {"v": "x" * 3_000_000}, "summary": ["y" * 2_000_000], "plan": "p"}
    text = payload_text(large)
    assert json.loads(text) == {"node": "a", "plan": "p", LEFT_OUT: ["spec", "summary"]}
