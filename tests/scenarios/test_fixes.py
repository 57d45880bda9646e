"""Fixes that a reviewer proposes: to a person, or applied at once; they hold until the blueprint changes the node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_testkit.waiting import eventually

from .conftest import Stage, graph, part

pytestmark = pytest.mark.asyncio(loop_scope="session")


def bad(type: str = "watched", *, to: Any = "good", path: str = "/value", **more: Any) -> dict[str, Any]:
    """A node that fails for ever, whose reviewer proposes to change one member of its spec."""
    fix = {"patch": [{"op": "replace", "path": path, "value": to}], "note": "try that"}
    return part("w", "bad", type=type, bad=True, fix=fix, **more)


async def test_a_person_agrees_to_a_proposed_fix(stage: Stage) -> None:
    # Given a node that fails for ever and a reviewer who knows why
    node = bad()
    await stage.publish("g", graph(node, part("b")))
    item = await stage.item()
    assert [o["name"] for o in item["permittedOutcomes"]] == ["apply-fix", "mend", "give-up"]
    payload = json.loads(item["payload"])
    assert payload["advice"]["fix"]["patch"][0] == {"op": "replace", "path": "/value", "value": "good"}
    assert payload["context"]["spec"]["value"] == "bad"
    fault = stage.of("fault.default.g.provision_failed")[0]
    assert "spec" not in fault["context"], "faults are told to all"

    # When a person agrees
    await stage.complete(item, "apply-fix")

    # Then the node is as the fix says, in the name of the review, and the log names the person
    await stage.converged()
    assert stage.things() == {"w": "good", "b": 1}
    told = await stage.explain("w")
    assert told["desired"]["owner"] == "policy:ai-review"
    assert told["mutations"][0]["actor"] == "ann"

    async def no_review_is_left() -> bool:  # the fault-policy service takes them away when it hears of the recovery
        return set(await stage.phases("g")) == {"w", "b"}

    await eventually(no_review_is_left)

    # And it stays so until the blueprint changes that node
    await stage.publish("g", graph(node, part("b", 2)))
    await eventually(lambda: stage.things() == {"w": "good", "b": 2})
    await stage.publish("g", graph(part("w", "better", type="watched"), part("b", 2)))
    await eventually(lambda: stage.things() == {"w": "better", "b": 2})


async def test_a_fix_is_applied_at_once_where_the_ladder_says_so(stage: Stage) -> None:
    await stage.publish("g", graph(bad("manual", review="RESOLVED")))
    await stage.converged()
    assert (stage.things(), stage.items()) == ({"w": "good"}, 0)
    assert stage.lines("steps") == ["w", "w"]


async def test_a_fix_that_the_schema_refuses_is_told_and_not_offered(stage: Stage) -> None:
    await stage.publish("g", graph(bad(to="not a number", path="/slow", slow=0.0)))
    item = await stage.item()
    assert [o["name"] for o in item["permittedOutcomes"]] == ["mend", "give-up"]
    told = await stage.wait_for("graph.default.g.policy_failed")
    assert (told["node"], told["kind"], told["problems"][0]["path"]) == ("w", "FIX_INVALID", "/spec/slow")
