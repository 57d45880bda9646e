"""What happens by the clock: the catalog read again, waiting blueprints resumed, open WorkItems asked after."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from holdfast_model.errors import HoldfastError

from .admission import Admission
from .catalog import Catalog
from .owning import Ownership
from .settings import PlannerSettings

log = logging.getLogger("holdfast.planner")


class Keeper:
    """The periodic tasks of a planner; one that fails is logged and tried at its next time."""

    def __init__(self, catalog: Catalog, ownership: Ownership, admission: Admission, settings: PlannerSettings) -> None:
        self._catalog = catalog
        self._ownership = ownership
        self._admission = admission
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._resuming: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._catalog.listeners.append(self._catalog_changed)
        self._catalog.came.append(self._domain_came)
        self._tasks = [
            asyncio.create_task(self._every(self._settings.catalog_interval, self._catalog.refresh)),
            asyncio.create_task(self._every(self._settings.item_poll_interval, self._ask_after_items)),
        ]
        for domain in self._catalog.live_domains():
            self._domain_came(domain)

    async def stop(self) -> None:
        tasks = [*self._tasks, *self._resuming]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    async def _every(self, interval: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                await work()
            except HoldfastError as error:
                log.warning("%s", error)

    def _catalog_changed(self) -> None:
        for graph in self._ownership.graphs:
            graph.catalog_changed()

    def _domain_came(self, domain: str) -> None:
        task = asyncio.create_task(self._resume(domain))
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)

    async def _resume(self, domain: str) -> None:
        try:
            await self._admission.resume(domain)
        except HoldfastError as error:
            log.warning("blueprints that wait for %s cannot be admitted yet: %s", domain, error)

    async def _ask_after_items(self) -> None:
        for graph in self._ownership.graphs:
            graph.ask_after_items()
