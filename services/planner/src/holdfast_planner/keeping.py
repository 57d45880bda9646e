"""What happens by the clock: the catalog read again, waiting blueprints resumed, open WorkItems asked after."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from holdfast_model.errors import HoldfastError

from .admission import Admission
from .catalog import Catalog
from .owning import Ownership
from .preferences import PLATFORM, PreferenceBook
from .settings import PlannerSettings

log = logging.getLogger("holdfast.planner")


class Keeper:
    """The periodic tasks of a planner; one that fails is logged and tried at its next time."""

    def __init__(
        self,
        catalog: Catalog,
        preferences: PreferenceBook,
        ownership: Ownership,
        admission: Admission,
        settings: PlannerSettings,
    ) -> None:
        self._catalog = catalog
        self._preferences = preferences
        self._ownership = ownership
        self._admission = admission
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._resuming: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._catalog.listeners.append(self._catalog_changed)
        self._catalog.came.append(self._domain_came)
        self._preferences.listeners.append(self._preferences_changed)
        self._tasks = [
            asyncio.create_task(self._every(self._settings.catalog_interval, self._catalog.refresh)),
            asyncio.create_task(self._every(self._settings.catalog_interval, self._preferences.refresh)),
            asyncio.create_task(self._every(self._settings.item_poll_interval, self._ask_after_items)),
            asyncio.create_task(self._every(self._settings.poll_interval, self._resume_waiting)),
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
            except Exception:
                log.exception("what happens every %g s failed; it is tried again", interval)

    def _catalog_changed(self) -> None:
        for graph in self._ownership.graphs:
            graph.catalog_changed()
        self._ownership.stir()

    def _preferences_changed(self, tenant: str) -> None:
        for graph in self._ownership.graphs:
            if tenant in (PLATFORM, graph.ref.tenant):
                graph.preferences_changed()
        self._ownership.stir()

    def _domain_came(self, domain: str) -> None:
        task = asyncio.create_task(self._resume(domain))
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)

    async def _resume(self, domain: str) -> None:
        try:
            await self._admission.resume(domain)
        except HoldfastError as error:
            log.warning("blueprints that wait for %s cannot be admitted yet: %s", domain, error)

    async def _resume_waiting(self) -> None:
        """The net under a resumption that failed, or that came just before a blueprint began to wait."""
        for domain in self._catalog.live_domains():
            await self._admission.resume(domain)

    async def _ask_after_items(self) -> None:
        for graph in self._ownership.graphs:
            graph.ask_after_items()
            await self._admission.ask_after(graph.ref)
