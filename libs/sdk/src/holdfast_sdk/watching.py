"""Runs an author's ``watch``: what it yields has nodes observed. A hint only, so failures cost nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from holdfast_model.errors import HoldfastError

from .handlers import Watcher

log = logging.getLogger("holdfast.sdk")

Tell = Callable[[str, str, bytes], Awaitable[None]]
"""(tenant, graph, body of a ``state`` event)."""

PAUSE = (1.0, 60.0)


async def watch(watcher: Watcher, tell: Tell, type: str) -> None:
    """Run until cancelled; a watcher that ends or fails is started again, after a growing pause."""
    pause = PAUSE[0]
    while True:
        try:
            async for changed in watcher():
                fields = ("node", "status", "fault", "detail")
                body = {name: value for name in fields if (value := getattr(changed, name))}
                await tell(changed.tenant, changed.graph, msgspec.json.encode(body))
                pause = PAUSE[0]
        except HoldfastError as e:
            log.warning("watch of %s: %s", type, e.message)
        except Exception as e:
            log.warning("watch of %s failed", type, exc_info=e)
        await asyncio.sleep(pause)
        pause = min(pause * 2, PAUSE[1])
