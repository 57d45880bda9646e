"""Domains that say too much, or what nobody can read: people are asked all the same, and nothing waits for ever."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_model.messages import Observation, Outcome, Status
from holdfast_testkit.waiting import eventually

from .conftest import Stage
from .puppet import doll, puppet

pytestmark = pytest.mark.asyncio(loop_scope="session")
DEEP = b'{"a":' * 5_000 + b"1" + b"}" * 5_000


async def test_people_are_asked_about_things_of_any_size(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", {"nodes": [doll(made, "door", gating="ALL", v="x" * 2_000_000), doll(made, "p")]})

    # A node whose spec no WorkItem holds
    item = await stage.item()
    assert item["title"] == "provision door"
    await stage.complete(item, "done")
    await stage.phase_is("door", "present")

    # A plan whose name no title holds
    await made.end(await made.take(), Outcome.PENDING_APPROVAL, plan="P" * 10_000, detail="d" * 2_000_000)
    item = await stage.item(2)
    assert item["title"].startswith("approve provision of p: PPP")
    await stage.complete(item, "approve")
    taken = await made.take()
    assert taken[1].approval is not None
    assert taken[1].approval.plan == "P" * 10_000
    await made.end(taken)
    await stage.converged()


async def test_an_answer_that_nobody_can_read_is_an_unknown_state_and_asked_for_again(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", {"nodes": [doll(made, "a")]})
    await made.end(await made.take())
    await stage.converged()

    # Given an observer that says something unreadable, once
    made.silent = True

    async def nonsense(message: Any) -> None:
        await message.respond(b'{"observations": {"a": {"status": "PRESENT", "info": ' + DEEP + b"}}}")

    answering = await stage.client.subscribe(f"rpc.domain.{made.domain}.observe", cb=nonsense)
    await stage.report("g", node="a")
    await stage.phase_is("a", "observing")
    assert (await stage.explain("a"))["observed"]["reason"] == "observer_failed"

    # Then it is asked again by itself, and its next answer counts
    await answering.unsubscribe()
    made.seen["a"], made.silent = Observation(Status.PRESENT), False
    await stage.phase_is("a", "present")


@pytest.mark.parametrize("reply", [b"", b"[]", b'{"nodes": 5}', b'{"nodes": [], "x": ' + DEEP + b"}"])
async def test_a_blueprint_whose_compiler_answers_nonsense_is_rejected(stage: Stage, reply: bytes) -> None:
    made = await puppet(stage)

    async def nonsense(message: Any) -> None:
        await message.respond(reply)

    await stage.client.subscribe(f"rpc.domain.{made.domain}.compile", cb=nonsense)
    await stage.publish("g", {"domain": made.domain, "spec": {}})

    rejected = await stage.wait_for("graph.default.g.rejected")
    assert f"domain '{made.domain}' answered what is no compiled blueprint" in rejected["reason"]
    assert await eventually(lambda: rejected["problems"] != [])
