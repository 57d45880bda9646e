"""Publishes what is committed: every tenant's outbox, in order, until the bus has stored it.

An event leaves the outbox after the bus acknowledged it. A crash in between publishes it once more under
the same id, so nothing is lost and subscribers drop what they have seen.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from holdfast_model.errors import Permanent
from holdfast_model.events import Event
from holdfast_store.work_items import WorkItemStore

log = logging.getLogger("holdfast.work_items")

BATCH = 256
LEASE = 5.0
"""Seconds for which one replica publishes alone. Two at once do no harm but send every event twice."""

Publish = Callable[[Sequence[Event]], Awaitable[None]]


class Relay:
    """``holder`` names this replica; ``publish`` returns when the bus has stored all it got, else raises."""

    def __init__(self, store: WorkItemStore, publish: Publish, holder: str) -> None:
        self._store = store
        self._publish = publish
        self._holder = holder

    async def turn(self) -> None:
        """Empty all outboxes that no other replica is at. Raises Unavailable when store or bus are."""
        tenants = await self._store.tenants()
        for tenant in await self._store.waiting(tenants) if tenants else []:
            if await self._store.take_relay(tenant, self._holder, LEASE):
                try:
                    await self.drain(tenant)
                except Permanent as error:
                    # Nobody else's events wait for this tenant's; its own stay in order and are kept.
                    log.error("the outbox of %s is stuck: %s", tenant, error)
                finally:
                    await self._store.leave_relay(tenant, self._holder)

    async def drain(self, tenant: str) -> int:
        """Publish one tenant's outbox; how many events."""
        count = 0
        while entries := await self._store.outbox(tenant, BATCH):
            await self._publish([event for _, event in entries])
            await self._store.published(tenant, [id for id, _ in entries])
            count += len(entries)
        return count
