"""The net under lost messages: faults that no message delivered, and what nodes and episodes left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from holdfast_model.errors import Permanent, Temporary, Unavailable
from holdfast_model.events import Fault
from holdfast_model.names import PARTITIONS, GraphRef
from holdfast_store import keys
from holdfast_store.graphs import GraphStore

from .handlers import Handlers

log = logging.getLogger("holdfast.fault_policy")

PAGE = 500
"""Faults of one graph taken in one sweep; the next sweep takes the next ones."""
RETRY = 1.0
"""Seconds after a sweep that the store did not allow."""


class Sweep:
    """Looks at every graph at once and then every ``interval`` seconds, and handles faults older than ``age`` seconds.

    Faults raised before this process began are taken whatever their age: their messages may be held for somebody who
    was killed, and come again only after a while. Any replica may do it at any time: handling a fault twice is
    impossible. ``now``: seconds since the epoch.
    """

    def __init__(
        self,
        store: GraphStore,
        handlers: Handlers,
        *,
        interval: float,
        age: float,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._interval = interval
        self._age = age
        self._now = now
        self._began = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin sweeping."""
        self._began = self._now()
        self._task = asyncio.create_task(self._run(), name="sweep of faults")

    async def stop(self) -> None:
        """End sweeping; a fault under way is left to the next one."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def check(self) -> None:
        """Raise Temporary when the sweep has ended. For readiness."""
        if self._task is not None and self._task.done():
            raise Temporary("the sweep of faults has ended")

    async def turn(self) -> int:
        """Look once; returns how many faults were found and handled. Raises Unavailable when the store is."""
        taken = 0
        for partition in range(PARTITIONS):
            for ref in await self._store.graphs(partition):
                taken += await self._graph(ref)
                await self._handlers.tidy(ref)
        return taken

    async def _run(self) -> None:
        while True:
            pause = self._interval
            try:
                taken = await self.turn()
            except Temporary as error:
                log.warning("sweep of faults: %s", error)
                pause = min(RETRY, self._interval)
            except Exception:  # one bad turn must not end all later ones
                log.exception("sweep of faults failed")
            else:
                if taken:
                    log.info("sweep: handled %d faults that no message delivered", taken)
            await asyncio.sleep(pause)

    async def _graph(self, ref: GraphRef) -> int:
        taken = 0
        for fault in await self._overdue(ref):
            try:
                outcome = await self._handlers.handle(ref, fault)
            except Unavailable:
                raise
            except (Permanent, Temporary) as error:
                log.warning("graph %s: fault %s is left to the next sweep: %s", ref, fault, error)
            else:
                taken += outcome.verdict is not None
        return taken

    async def _overdue(self, ref: GraphRef) -> list[str]:
        """Ids of faults that are old enough, oldest first."""
        ids: list[str] = []
        cursor: object = 0
        while len(ids) < PAGE:
            ((cursor, page),) = await self._store.kv.run(("SSCAN", keys.faults(ref), int(str(cursor)), "COUNT", PAGE))
            ids += [i.decode() for i in page]
            if not cursor:
                break
        if not ids:
            return []
        bodies = await self._store.kv.run(*[("GET", keys.fault(ref, i)) for i in ids])
        found = {i: _raised_at(b) for i, b in zip(ids, bodies, strict=True)}
        latest = max(self._began, self._now() - self._age)
        return sorted((i for i, at in found.items() if at <= latest), key=lambda i: found[i])


def _raised_at(body: bytes | None) -> float:
    """When a fault was raised (s since the epoch). One that cannot be read is old: handling it says what is
    wrong.
    """
    if body is None:
        return float("inf")
    try:
        return msgspec.json.decode(body, type=Fault).time
    except msgspec.DecodeError:
        return 0.0
