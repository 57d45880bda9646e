"""Preferences: how often a tenant, or the whole platform, wants types looked at again.

They are kept in the store. Every replica follows them: a hint tells of a change, and they are read again often in case
one is lost. No tenant is told of another's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdfast_bus import Bus, Inbound, subjects
from holdfast_model.durations import format_duration
from holdfast_model.errors import Invalid
from holdfast_model.manifest import RESYNC_DEFAULT
from holdfast_model.names import check_label
from holdfast_model.reconciler import TypeInfo
from holdfast_model.resync import check_interval, interval_for, type_of
from holdfast_store.domains import Preferences

from . import requests

log = logging.getLogger("holdfast.planner")

PLATFORM = ""
Named = Mapping[str, str | int | float]
_NONE: Named = {}


class PreferenceBook:
    """What is preferred now. ``listeners`` hear whose preferences changed (``PLATFORM``: everybody's)."""

    def __init__(self, stored: Preferences) -> None:
        self._stored = stored
        self._kept: dict[str, Named] = {}
        self.listeners: list[Callable[[str], None]] = []
        self._reading = asyncio.Lock()

    def of(self, tenant: str) -> tuple[Named, Named]:
        """The tenant's own and the platform's, by name: the closest first."""
        return self._kept.get(tenant, _NONE), self._kept.get(PLATFORM, _NONE)

    async def refresh(self) -> None:
        """Read them again, and tell of what changed. Raises Unavailable."""
        async with self._reading:  # what was read first must not replace what was read later
            await self._refresh()

    async def _refresh(self) -> None:
        found: dict[str, dict[str, str | int | float]] = {}
        for (tenant, name), value in (await self._stored.all()).items():
            if _usable(tenant, name, value):
                found.setdefault(tenant, {})[name] = value  # type: ignore[assignment]
        before, self._kept = self._kept, dict(found)
        for tenant in sorted({*before, *found}):
            if before.get(tenant) != found.get(tenant):
                for listener in self.listeners:
                    listener(tenant)


def _usable(tenant: str, name: str, value: object) -> bool:
    """Whether a stored value may be followed. They are checked when they are set, but not by everybody who could."""
    try:
        type_of(name)
        check_interval(value)  # type: ignore[arg-type]
    except Invalid as error:
        log.warning("preference %s of %s is left aside: %s", name, tenant or "the platform", error.message)
        return False
    return True


class PreferenceRpc:
    """``rpc.planner.pref_set|pref_get|pref_unset|pref_list``. ``infos``: how types are treated now."""

    def __init__(
        self, bus: Bus, stored: Preferences, book: PreferenceBook, infos: Callable[[], Mapping[str, TypeInfo]]
    ) -> None:
        self._bus = bus
        self._stored = stored
        self._book = book
        self._infos = infos

    def register(self) -> None:
        """Answer on any replica, and hear of changes that others made."""
        for verb, handler in {
            "pref_set": self.set,
            "pref_get": self.get,
            "pref_unset": self.unset,
            "pref_list": self.list,
        }.items():
            self._bus.rpc(subjects.rpc_planner(verb), queue="planner")(handler)
        self._bus.listen(subjects.PREFERENCES)(self.changed)

    async def changed(self, _: Inbound) -> None:
        """Somebody changed a preference."""
        await self._book.refresh()

    async def set(self, body: bytes) -> dict[str, Any]:
        """Keep a preference. One that is too low, or means nothing, is refused and changes nothing."""
        request = msgspec.json.decode(body, type=requests.SetPreference)
        type_of(request.name)
        value = format_duration(check_interval(request.value, "/value"))
        await self._stored.set(_whose(request), request.name, value)
        await self._tell()
        return self._told(request.tenant, request.name)

    async def unset(self, body: bytes) -> dict[str, Any]:
        """Forget a preference; one that is not set is no error."""
        request = msgspec.json.decode(body, type=requests.OfPreference)
        type_of(request.name)
        await self._stored.unset(_whose(request), request.name)
        await self._tell()
        return self._told(request.tenant, request.name)

    async def get(self, body: bytes) -> dict[str, Any]:
        """The value in force for a tenant, and where it comes from."""
        request = msgspec.json.decode(body, type=requests.OfPreference)
        type_of(request.name)
        _whose(request)
        await self._book.refresh()
        return self._told(PLATFORM if request.platform else request.tenant, request.name)

    async def list(self, body: bytes) -> dict[str, Any]:
        """The tenant's preferences and those of the platform."""
        request = msgspec.json.decode(body, type=requests.List)
        check_label(request.tenant, "tenant", "/tenant")
        await self._book.refresh()
        mine, platform = self._book.of(request.tenant)
        return {"preferences": [self._told(request.tenant, name) for name in sorted({*mine, *platform})]}

    async def _tell(self) -> None:
        await self._book.refresh()
        await self._bus.hint(subjects.PREFERENCES)

    def _told(self, tenant: str, name: str) -> dict[str, Any]:
        mine, platform = self._book.of(tenant)
        info = self._infos().get(type_of(name))
        declared = {type_of(name): info.resync} if info is not None else {}
        levels = {
            "tenant": mine.get(name) if tenant else None,
            "platform": platform.get(name),
            "manifest": format_duration(info.resync) if info is not None else None,
            "default": format_duration(RESYNC_DEFAULT),
        }
        value = format_duration(interval_for(type_of(name), declared, mine, platform))
        return {
            "name": name, "value": value, "source": next(s for s, v in levels.items() if v is not None), **levels,
        }  # fmt: skip


def _whose(request: requests.OfPreference) -> str:
    check_label(request.tenant, "tenant", "/tenant")
    return PLATFORM if request.platform else request.tenant
