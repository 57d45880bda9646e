"""Steps on a real server: what is answered, in which order it is acknowledged, and what a crash costs."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import msgspec
import pytest

from holdfast_bus.setup import ensure
from holdfast_bus.streams import DLQ, RESULTS, result_durable
from holdfast_model.messages import Action, Approval, Outcome, Progress, Status, Step
from holdfast_testkit.waiting import LIMIT, eventually

from .peer import PARTITION, planner_peer, running, step
from .scripted_domain import Script, scripted


async def test_a_step_runs_and_its_outcome_carries_the_observation(nats_url: str) -> None:
    # Given a running domain
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        # When steps of both actions are sent
        gone = Step("b", Action.DEPROVISION, 2, 1, "script", msgspec.Raw(b"{}"), "d1")
        await peer.send(step("a", do="output"), gone)
        # Then each outcome says what is there now
        a, b = await peer.outcome("a"), await peer.outcome("b")
    assert a.outcome is Outcome.SUCCEEDED
    assert a.observation is not None
    assert (a.observation.status, a.observation.outputs) == (Status.PRESENT, {"ip": "192.0.2.7"})
    assert b.observation is not None
    assert b.observation.status is Status.ABSENT


async def test_results_are_stored_before_the_steps_are_acknowledged(nats_url: str) -> None:
    # Given a server that cannot store results
    script = Script()
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), script):
        await peer.bus.js.delete_stream(RESULTS.name)
        # When a step has run
        await peer.send(step("a"))
        await eventually(lambda: script.started)
        await eventually(lambda: script.running == 0)
        # Then it is not acknowledged until its result is stored, and does not run again for that
        assert await peer.unacknowledged() == 1
        await ensure(peer.bus.js, streams=(RESULTS,), durables=(result_durable(PARTITION),))
        await peer.outcome("a")
        await peer.queue_empty()
    assert script.started == [("a", 1, 1)]


async def test_an_exception_fails_its_step_and_the_others_go_on(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        broken = [step("t", do="temporary"), step("p", do="permanent"), step("b", do="break"), step("c", do="cancel")]
        await peer.send(*broken, step("ok"))
        t, p, b, c = [await peer.outcome(n) for n in "tpbc"]
        ok = await peer.outcome("ok")
    assert (t.outcome, t.reason, t.detail, t.retry_after, t.permanent) == (Outcome.FAILED, "busy", "later", 7, False)
    assert (p.outcome, p.reason, p.permanent) == (Outcome.FAILED, "quota", True)
    assert (b.outcome, b.reason, b.detail) == (Outcome.FAILED, "exception", "ValueError: a bug")
    assert (c.outcome, c.reason) == (Outcome.FAILED, "cancelled")
    assert ok.outcome is Outcome.SUCCEEDED


async def test_a_step_that_takes_too_long_is_cancelled(nats_url: str) -> None:
    script = Script()
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(timeout=0.2), script):
        await peer.send(step("slow", do="sleep", seconds=30), step("ok"))
        slow, ok = await peer.outcome("slow"), await peer.outcome("ok")
    assert (slow.outcome, slow.reason, slow.permanent) == (Outcome.FAILED, "timeout", False)
    assert script.cancelled == ["slow"]
    assert ok.outcome is Outcome.SUCCEEDED


async def test_fast_steps_are_answered_while_a_slow_one_runs(nats_url: str) -> None:
    # Given a batch with one step that waits
    script = Script()
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), script):
        await peer.send(step("slow", do="wait"), step("a"), step("b"))
        # Then the others are answered meanwhile, the batch stays unacknowledged
        await peer.outcome("a")
        await peer.outcome("b")
        assert "slow" not in peer.outcomes
        assert await peer.unacknowledged() == 1
        # And the last part ends it
        script.gate.set()
        await peer.outcome("slow")
        await peer.queue_empty()
    assert len(peer.parts) == 2


async def test_a_step_that_starts_too_late_expires(nats_url: str) -> None:
    # Given one lane that is taken beyond start_by
    script = Script()
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(concurrency=1), script):
        await peer.send(step("old"), start_by=time.time() - 1)
        assert (await peer.outcome("old")).outcome is Outcome.EXPIRED
        await peer.send(step("first", do="wait"))
        await eventually(lambda: script.running == 1)
        start_by = time.time() + 0.2
        await peer.send(step("second"), start_by=start_by)
        await eventually(lambda: time.time() > start_by)
        script.gate.set()
        # Then the one that waited is not started
        assert (await peer.outcome("second")).outcome is Outcome.EXPIRED
        assert (await peer.outcome("first")).outcome is Outcome.SUCCEEDED
    assert [name for name, _, _ in script.started] == ["first"]


async def test_older_attempts_are_dropped_without_an_answer(nats_url: str) -> None:
    script = Script()
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), script):
        await peer.send(step("a", operation=5, attempt=2))
        await peer.outcome("a")
        await peer.send(step("a", operation=5, attempt=1), step("a", operation=4, attempt=9))
        await peer.queue_empty()
        await peer.send(step("a", operation=5, attempt=3))
        await eventually(lambda: peer.outcomes["a"].attempt == 3)
    assert script.started == [("a", 5, 2), ("a", 5, 3)]
    assert sum(len(part.outcomes) for _, part in peer.parts) == 2


async def test_attempts_of_one_operation_share_their_idempotency_key(nats_url: str) -> None:
    script = Script()
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), script):
        for sent, (operation, attempt) in enumerate(((1, 1), (1, 2), (2, 1)), 1):
            await peer.send(step("a", operation, attempt))
            await eventually(partial(lambda sent: len(script.keys) == sent <= len(peer.parts), sent))
    first, again, other = script.keys
    assert first == again != other


async def test_a_redelivered_step_that_still_runs_is_not_run_twice(nats_url: str) -> None:
    # Given a consumer that delivers again after a second, sooner than heartbeats come
    script = Script()
    async with planner_peer(nats_url, ack_wait=1.0) as peer, running(nats_url, scripted(), script) as service:
        await peer.send(step("a", do="wait"))
        # When the batch was delivered a second time
        await eventually(lambda: service.held >= 2, what="a second delivery")
        script.gate.set()
        # Then it ran once, and both deliveries are answered and acknowledged
        await peer.queue_empty()
    assert script.started == [("a", 1, 1)]
    assert peer.outcomes["a"].outcome is Outcome.SUCCEEDED


async def test_a_newer_attempt_waits_for_the_one_that_runs(nats_url: str) -> None:
    script = Script()
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), script) as service:
        await peer.send(step("a", do="wait"))
        await eventually(lambda: script.running == 1)
        await peer.send(step("a", attempt=2, do="wait"))
        await eventually(lambda: service.held == 2)
        assert script.running == 1
        script.gate.set()
        await eventually(lambda: "a" in peer.outcomes and peer.outcomes["a"].attempt == 2)
    assert script.started == [("a", 1, 1), ("a", 1, 2)]
    assert script.most == 1


async def test_no_more_than_its_concurrency_and_slots_are_taken(nats_url: str) -> None:
    # Given two lanes and batches of one: two run, one more is held
    script = Script()
    domain = scripted(concurrency=2, batch=1)
    async with planner_peer(nats_url) as peer, running(nats_url, domain, script) as service:
        for i in range(6):
            await peer.send(step(f"n{i}", do="wait"))
        await eventually(lambda: service.held == 3)
        assert peer.heard[-1].slots["script"] == 3
        script.gate.set()
        await peer.queue_empty()
    assert script.most == 2
    assert len(peer.outcomes) == 6


async def test_starts_are_spread_by_the_rate(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(rate="10/s", concurrency=64), Script()):
        began = time.monotonic()
        await peer.send(*(step(f"n{i}") for i in range(14)))
        await eventually(lambda: len(peer.outcomes) == 14)
    assert time.monotonic() - began > 0.35  # a burst of one second's worth, then ten a second


async def test_a_plan_is_asked_for_and_the_approval_comes_back(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        await peer.send(step("a", do="approve"))
        asked = await peer.outcome("a")
        consent = Approval("plan-1", "ann", 1.0, pins={"version": 9})
        await peer.send(msgspec.structs.replace(step("a", attempt=2, do="approve"), approval=consent))
        await eventually(lambda: peer.outcomes["a"].attempt == 2)
    assert (asked.outcome, asked.plan, asked.summary, asked.pins) == (
        Outcome.PENDING_APPROVAL, "plan-1", {"rows": 3}, {"version": 9},
    )  # fmt: skip
    done = peer.outcomes["a"].observation
    assert done is not None
    assert done.outputs == {"approved": "plan-1", "pins": {"version": 9}}


async def test_touched_nodes_travel_with_the_outcome(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        await peer.send(step("a", do="touch"))
        (touch,) = (await peer.outcome("a")).touch
    assert touch.node == "other"
    assert touch.observation is not None
    assert touch.observation.token == "t1"


async def test_a_result_too_large_for_the_bus_fails_its_step_only(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        await peer.send(step("a"), step("big", do="huge"), step("z"))
        big = await peer.outcome("big")
        a, z = await peer.outcome("a"), await peer.outcome("z")
        await peer.queue_empty()
    assert (big.outcome, big.reason, big.permanent) == (Outcome.FAILED, "unsendable_result", True)
    assert a.outcome is z.outcome is Outcome.SUCCEEDED


async def test_what_is_no_batch_goes_to_the_dead_letters(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        await peer.raw(b"noise")
        await peer.send(step("a"))
        await peer.outcome("a")

        async def buried() -> bool:
            info = await peer.bus.js.stream_info(DLQ.name)
            return info.state.messages == 1

        await eventually(buried)


async def test_progress_is_told_while_a_step_runs(nats_url: str) -> None:
    script = Script()
    heard: list[Progress] = []
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), script):
        subscription = await peer.bus.client.subscribe("node.acme.shop.progress")
        await peer.send(step("a", do="progress"))
        message = await subscription.next_msg(timeout=LIMIT)
        heard.append(msgspec.json.decode(message.data, type=Progress))
        script.gate.set()
        await peer.outcome("a")
    (progress,) = heard
    assert (progress.node, progress.done, progress.total, progress.unit) == ("a", 1, 4, "rows")


async def test_reviews_are_answered_on_their_own_queue(nats_url: str) -> None:
    async with planner_peer(nats_url, "script", "ai-review") as peer, running(nats_url, scripted(), Script()):
        await peer.send(step("ai-review-a", type="ai-review", target="a", error="disk full", context={"x": 1}))
        answer = (await peer.outcome("ai-review-a")).observation
    assert answer is not None
    assert (answer.status, answer.reason, answer.detail) == (Status.PRESENT, "RESOLVED", "a: disk full")
    assert answer.info == {"confidence": 0.9}


async def test_stopping_finishes_what_runs_and_hands_back_what_waits(nats_url: str) -> None:
    # Given one lane with a running step and others behind it
    script = Script()
    async with planner_peer(nats_url) as peer:
        async with running(nats_url, scripted(concurrency=1), script):
            await peer.send(step("a", do="wait"), step("b"), step("c"))
            await eventually(lambda: script.running == 1)
            asyncio.get_running_loop().call_later(0.3, script.gate.set)  # when it is stopping
        # When the service has stopped, then the running step succeeded and the others cost no attempt
        await eventually(lambda: len(peer.outcomes) == 3)
        assert {n: o.outcome for n, o in peer.outcomes.items()} == {
            "a": Outcome.SUCCEEDED,
            "b": Outcome.EXPIRED,
            "c": Outcome.EXPIRED,
        }
        await peer.queue_empty()
        assert peer.heard[-1].leaving


async def test_a_step_that_outlasts_the_stop_is_handed_back(nats_url: str) -> None:
    stubborn, fresh = Script(), Script()
    fresh.gate.set()
    async with planner_peer(nats_url) as peer:
        async with running(nats_url, scripted(timeout=60), stubborn):
            await peer.send(step("a", do="wait"))
            await eventually(lambda: stubborn.running == 1)
        assert stubborn.cancelled == ["a"]
        async with running(nats_url, scripted(timeout=60), fresh):
            assert (await peer.outcome("a")).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("version", ["1.0", "0.9"])
async def test_batches_of_this_or_an_older_version_run(nats_url: str, version: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted("1.0"), Script()):
        await peer.send(step("a"), version=version)
        await peer.outcome("a")


async def test_a_batch_for_a_newer_version_is_handed_to_it(nats_url: str) -> None:
    # Given an instance of version 1 that gets a batch for 1.10
    old, new = Script(), Script()
    async with planner_peer(nats_url) as peer:
        async with running(nats_url, scripted("1.9"), old):
            peer.newest = "1.9"
            await peer.send(step("a"), version="1.10")

            async def delivered() -> bool:
                info = await peer.bus.js.consumer_info("STEPS", "step=scripted=script")
                return (info.num_redelivered or 0) > 0 or (info.delivered.consumer_seq or 0) > 0

            await eventually(delivered)
            # When the newer version comes up, then it runs the batch
            peer.newest = "1.10"
            async with running(nats_url, scripted("1.10"), new):
                await peer.outcome("a")
    assert old.started == []
    assert new.started == [("a", 1, 1)]


async def test_a_burst_of_batches_is_answered_completely(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        await asyncio.gather(*(peer.send(*(step(f"n{b}-{i}") for i in range(16))) for b in range(50)))
        await eventually(lambda: len(peer.outcomes) == 800)
        await peer.queue_empty()
