"""A time limit that begins where a call begins to wait."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from holdfast_sdk.limiting import Limit
from holdfast_testkit.waiting import LIMIT


async def test_a_call_that_never_waits_cannot_be_late() -> None:
    async def quick() -> int:
        return 7

    # When there is no time at all / Then it is enough
    limit = Limit(0.0)
    assert await limit.run(quick()) == 7
    assert not limit.expired


async def test_a_call_that_waits_gets_its_results() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, future.set_result, 3)

    async def waits() -> int:
        await asyncio.sleep(0)
        return await future + await asyncio.sleep(0.01, 4)

    assert await Limit(5).run(waits()) == 7


async def test_a_late_call_is_cancelled() -> None:
    ended: list[str] = []

    async def late() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cleaned up")

    limit = Limit(0.02)
    with pytest.raises(TimeoutError):
        await limit.run(late())
    assert limit.expired
    assert ended == ["cleaned up"]
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_time_spent_before_the_first_wait_counts() -> None:
    async def busy_first() -> None:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
        await asyncio.sleep(3600)

    limit = Limit(0.02)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await limit.run(busy_first())
    assert time.monotonic() - began < LIMIT


async def test_a_timeout_of_the_call_itself_is_not_the_limits() -> None:
    async def gives_up() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(3600)

    limit = Limit(LIMIT)
    with pytest.raises(TimeoutError):
        await limit.run(gives_up())
    assert not limit.expired


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_is_passed_on(waits: bool) -> None:
    async def fails() -> None:
        if waits:
            await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Limit(5).run(fails())


async def test_cancelling_the_caller_cancels_the_call() -> None:
    seen: list[Any] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    limit = Limit(5)
    task = asyncio.create_task(limit.run(waits()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]
    assert not limit.expired
