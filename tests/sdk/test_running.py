"""The runner without a bus: what steps cost, and handlers that resist."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from holdfast_model.messages import Outcome, Step, StepBatch, StepOutcome
from holdfast_sdk import Context, Domain, Node
from holdfast_sdk.running import Batch, Runner
from holdfast_testkit.waiting import LIMIT

from .peer import step

STEPS = 20_000
SIZE = 256


class Nothing:
    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> None:
        return None


class Stubborn:
    """Ignores its first ``patience`` cancellations."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> None:
        while self.patience:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                self.patience -= 1


def runner(handler: object, **options: Any) -> Runner:
    domain = Domain("d")
    domain.node_type("script", **options)(type(handler))
    return Runner(domain.bind([handler])["script"])


def batch(first: int, count: int, **spec: Any) -> bytes:
    steps = [step(f"n{i}", i + 1, **spec) for i in range(first, first + count)]
    return msgspec.json.encode(StepBatch(f"b{first}", "t", "g", "i", 1, 1, "1", time.time() + 60, steps))


async def bare(bodies: list[bytes]) -> float:
    """CPU seconds of the least that could be done: decode, one task with a limit per step, encode."""
    handler = Nothing()
    began = time.process_time()
    for body in bodies:
        steps = msgspec.json.decode(body, type=StepBatch).steps

        async def one(of: Step) -> StepOutcome:
            async with asyncio.timeout(60):
                await handler.provision(of, None)  # type: ignore[arg-type]
                return StepOutcome(of.node, of.operation, of.attempt, Outcome.SUCCEEDED)

        outcomes = await asyncio.gather(*(asyncio.create_task(one(of)) for of in steps))
        assert len(msgspec.json.encode(outcomes)) > len(outcomes)
    return time.process_time() - began


async def run_all(bodies: list[bytes]) -> float:
    """CPU seconds of the same with the runner."""
    run = runner(Nothing(), batch=SIZE, concurrency=SIZE)
    began = time.process_time()
    sent = 0
    for body in bodies:
        waiting = Batch(msgspec.json.decode(body, type=StepBatch))
        run.start(waiting)
        while not await waiting.next_part(0.05):
            sent += len(msgspec.json.encode(waiting.take()))
        sent += len(msgspec.json.encode(waiting.take()))
    assert sent > 0
    return time.process_time() - began


async def test_a_step_without_work_costs_little_more_than_a_task_of_its_own() -> None:
    # Given batches as they come from the bus
    bodies = [batch(first, min(SIZE, STEPS - first)) for first in range(0, STEPS, SIZE)]
    # When they are decoded, run and their outcomes encoded, as often as it takes others to leave the caches alone
    for _ in range(3):
        spent, least = await run_all(bodies), await bare(bodies)
        print(f"{spent / STEPS * 1e6:.1f} us a step, {spent / least:.2f} of the least")
        if spent < 2 * least:
            break
    # Then that is of the order of a bare task for each
    assert spent < 2 * least


async def test_a_handler_that_ignores_its_cancellation_does_not_hang_the_stop() -> None:
    handler = Stubborn(patience=1000)
    run = runner(handler, timeout=60)
    waiting = Batch(msgspec.json.decode(batch(0, 1), type=StepBatch))
    run.start(waiting)
    await asyncio.sleep(0)
    began = time.monotonic()
    run.stop()
    await run.abandon()
    assert time.monotonic() - began < LIMIT
    assert waiting.left == 1
    handler.patience = 1  # so that the test's loop can end


async def test_a_cancellation_that_was_swallowed_once_is_repeated() -> None:
    run = runner(Stubborn(patience=2), timeout=60)
    waiting = Batch(msgspec.json.decode(batch(0, 1), type=StepBatch))
    run.start(waiting)
    await asyncio.sleep(0)
    await run.abandon()
    assert run.running == 0


async def test_a_handler_that_turns_its_timeout_into_success_has_succeeded() -> None:
    run = runner(Stubborn(patience=1), timeout=0.05)
    waiting = Batch(msgspec.json.decode(batch(0, 1), type=StepBatch))
    run.start(waiting)
    assert await waiting.next_part(LIMIT)
    (outcome,) = waiting.take()
    assert outcome.outcome is Outcome.SUCCEEDED
