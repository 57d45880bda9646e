"""Ending tasks for sure, or at least in bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

log = logging.getLogger("holdfast.sdk")

AGAIN = 0.25


async def cancel_all(tasks: Iterable[asyncio.Task[None]], patience: float = 2.0) -> None:
    """Cancel tasks until they end, for at most ``patience`` seconds.

    Once is not enough: ``asyncio.wait_for`` (Python 3.11, used by the NATS client) swallows a cancellation that
    meets a result, and an author's handler may do so too.
    """
    pending = {task for task in tasks if not task.done()}
    rounds = max(1, round(patience / AGAIN))
    for _ in range(rounds):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)
    for task in pending:
        log.warning("%s does not end; leaving it behind", task.get_name())
