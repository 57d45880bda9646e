"""The outbox of one graph, published in order by its owner; what the bus has stored is taken out."""

from __future__ import annotations

import asyncio
import logging

from holdfast_bus import Bus
from holdfast_model.errors import HoldfastError
from holdfast_model.names import GraphRef
from holdfast_store.graphs import GraphStore

log = logging.getLogger("holdfast.planner")

_PAGE = 500
_IDLE = 5.0


class Relay:
    """Starts over at the first entry that is not acknowledged; ids of events make repetition harmless."""

    def __init__(self, ref: GraphRef, store: GraphStore, bus: Bus) -> None:
        self._ref = ref
        self._store = store
        self._bus = bus
        self._kicked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._kicked.set()
        self._task = asyncio.create_task(self._run(), name=f"relay {self._ref}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=5)

    def kick(self) -> None:
        """There is something in the outbox."""
        self._kicked.set()

    async def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                async with asyncio.timeout(_IDLE):
                    await self._kicked.wait()
            except TimeoutError:
                pass  # the net under a lost kick
            self._kicked.clear()
            try:
                while await self._publish():
                    pass
                pause = 0.1
            except HoldfastError as error:
                log.warning("events of graph %s wait: %s", self._ref, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
                self._kicked.set()

    async def _publish(self) -> bool:
        """One page; True while there may be more."""
        entries = await self._store.outbox(self._ref, count=_PAGE)
        if not entries:
            return False
        await self._bus.publish_events([event for _, event in entries])
        await self._store.outbox_ack(self._ref, [entry for entry, _ in entries])
        return len(entries) == _PAGE
