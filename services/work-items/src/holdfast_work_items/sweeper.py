"""Carries out deadlines. Each leaves the schedule in its own item's transaction, so that a crash loses none
and two
sweepers do no harm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from holdfast_model.errors import Conflict, Permanent
from holdfast_model.work_items_deadlines import breach
from holdfast_store.work_items import WorkItemStore

log = logging.getLogger("holdfast.work_items")

BATCH = 100
LATER = timedelta(hours=1)


class Sweeper:
    """``clock`` gives the time; ``changed`` is called after something happened."""

    def __init__(self, store: WorkItemStore, clock: Callable[[], datetime], changed: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed

    async def turn(self) -> None:
        """Carry out everything that is due by now. Raises Unavailable when the store is."""
        now = self._clock()
        tenants = await self._store.tenants()
        while tenants and (due := await self._store.due(tenants, now, BATCH)):
            for tenant, id in due:
                await self._carry_out(tenant, id, now)
            tenants = sorted({tenant for tenant, _ in due})
            if len(due) < BATCH:
                return

    async def _carry_out(self, tenant: str, id: str, now: datetime) -> None:
        try:
            change = await self._store.tick(tenant, id, now, lambda item: breach(item, now))
        except Conflict:
            return  # people are busy with it; the next sweep looks again
        except Permanent as error:
            log.error("the deadline of WorkItem %s (%s) cannot be carried out: %s", id, tenant, error)
            await self._store.postpone(tenant, id, now + LATER)
            return
        if change is not None:
            log.info("WorkItem %s (%s): %s", id, tenant, ", ".join(e.event for e in change.audit))
            self._changed()
