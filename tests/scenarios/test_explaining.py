"""``explain`` says of every condition a node can be in exactly what it is, what it waits for, and what comes next."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio

from holdfast_model.messages import Observation, Status
from holdfast_model.reconciler.conditions import Condition, Remark
from holdfast_testkit.servers import Server
from holdfast_testkit.system import System
from holdfast_testkit.waiting import STARTING, eventually

from . import explained_elsewhere, explained_people, explained_steps  # noqa: F401 - they register their cases
from .conftest import Stage
from .explained import CASES, STEP, Case, at, cases, says, told
from .puppet import Puppet, doll, puppet

NOT_HERE = {Condition.UNANSWERED, Condition.FORGETTING}
"""Shown below, by tests of their own."""


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.__name__)
@pytest.mark.asyncio(loop_scope="session")
async def test_explain_says(case: Case, stage: Stage) -> None:
    await case(stage)


def test_every_condition_and_remark_has_a_case_on_real_servers() -> None:
    missing = ({*Condition, *Remark} - CASES.keys()) - NOT_HERE
    assert not missing, f"nobody shows what explain says of {sorted(missing)}"


@pytest_asyncio.fixture(loop_scope="session")
async def alone(own_nats: Server, own_redis: Server) -> AsyncIterator[Stage]:
    """A tenant of a planner that is all by itself, and soon takes a step for lost."""
    hasty = {"HOLDFAST_START_WITHIN": "1", "HOLDFAST_GRACE": "1"}
    async with System(own_nats.url, own_redis.url, services=(), env=hasty) as system:
        stage = Stage(await nats.connect(system.nats_url), "lonely")
        await stage.listen()
        yield stage
        await stage.client.close()


@pytest.mark.asyncio(loop_scope="session")
async def test_explain_says_that_a_step_was_not_answered_and_that_nobody_takes_questions(alone: Stage) -> None:
    # Given a domain that takes a step and never answers, nor says how things are
    made = Puppet(alone.client, alone.tenant, timeout=1.0)
    await made.announce()
    node = {"id": "a", "type": made.type, "spec": {}}
    await alone.publish("g", {"nodes": [node, {"id": "door", "type": "nobodys", "spec": {}, "gating": "ALL"}]})
    taken = await made.take()
    made.silent = True

    # Then explain says so
    reply = await told(alone, "a", Condition.UNANSWERED)
    what = f"operation {taken[1].operation}, attempt 1"
    why = f"{what}, was not answered in time, so nobody knows what it did; domain '{made.domain}' is asked how it is"
    says(reply, f"a is observing: {why}", f"an observation, then {STEP} if that is needed")
    assert reply["last_outcomes"][0]["outcome"] == "not answered"

    # And of a question that no work-items service has taken, that nobody has
    await alone.publish("h", {"nodes": [{"id": "door", "type": made.type, "spec": {}, "gating": "ALL"}]})
    made.silent = False
    reply = await told(alone, "door", Condition.HUMAN_GATE, graph="h")
    request = reply["because"]["request"]
    why = f"waits for a person: work-items has not taken the question yet (request {request})"
    says(reply, f"door is waiting: {why}", "the question is asked once work-items is running")


@pytest.mark.asyncio(loop_scope="session")
async def test_explain_says_that_no_fault_policy_has_taken_up_a_fault(alone: Stage) -> None:
    # Given a node that drifts, and no service that would ask anybody
    made = await puppet(alone, on_drift="hold")
    made.seen["a"] = Observation(Status.DRIFTED, "crooked")
    await alone.publish("k", {"nodes": [doll(made, "a")]})

    # Then explain does not say that nobody would be asked
    nobody = "the fault-policy service has not taken up its fault"
    await told(alone, "a", Condition.HELD, graph="k")

    async def fault_is_written() -> bool:  # after the node was found to be held
        return nobody in (await alone.explain("a", "k"))["summary"]

    await eventually(fault_is_written)
    reply = await told(alone, "a", Condition.HELD, graph="k")
    next = "nothing, until it is well again or its spec changes; holdfast unblock k a has it mended"
    says(reply, f"a is held: held because of crooked; nobody is asked yet: {nobody}", next)


@pytest.mark.asyncio(loop_scope="session")
async def test_what_people_read_on_the_command_line_is_the_same(stage: Stage) -> None:
    await stage.publish("g", {"nodes": [{"id": "a", "type": "prop", "spec": {"fail": 9, "again": 60}}]})
    reply = await told(stage, "a", Condition.BACKOFF)
    command = [str(Path(sys.executable).with_name("holdfast")), "explain", "g", "a", "-t", stage.tenant]
    url = str(stage.client.connected_url.geturl())  # type: ignore[union-attr]
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "HOLDFAST_NATS_URL": url}, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(process.communicate(), STARTING)
    lines = printed.decode().splitlines()
    until = at(reply["because"]["until"])
    why = f"backing off until {until}, then attempt 2; last error: flaky: attempt 1 fails"
    assert lines[0] == f"a is backoff: {why}"
    assert f"  - {why}" in lines
    assert lines[-1] == f"next: {STEP} at {until}; holdfast unblock g a does it at once"
