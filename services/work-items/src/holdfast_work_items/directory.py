"""Who is in which group: the port, and a directory in a file.

::

    groups:                     # of every tenant
      operators: [root]
      stewards: [ann, bob]
    tenants:
      acme:
        groups: {stewards: [carl]}      # added to those above
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Protocol

import msgspec

from holdfast_model.errors import Invalid, Problem

log = logging.getLogger("holdfast.work_items")

LOOK_EVERY = 2.0
"""Seconds between two looks at the file's time of change."""


class Directory(Protocol):
    async def groups_of(self, tenant: str, actor: str) -> frozenset[str]:
        """The groups of this person in this tenant; none if the directory does not know them."""
        ...


class _Groups(msgspec.Struct, forbid_unknown_fields=True):
    groups: dict[str, list[str]] = {}


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    groups: dict[str, list[str]] = {}
    tenants: dict[str, _Groups] = {}


class EmptyDirectory:
    """Nobody is in any group."""

    async def groups_of(self, tenant: str, actor: str) -> frozenset[str]:
        return frozenset()


class FileDirectory:
    """A directory in a YAML or JSON file, which may change while this runs. ``clock`` gives seconds.

    A file that cannot be read at first is an error; later, what was known before stays in force.
    """

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._known: _Document | None = None
        self._changed = 0.0
        self._looked = float("-inf")

    async def load(self) -> None:
        """Read the file now. Raises Invalid with what is wrong with it."""
        self._changed, self._known = await asyncio.to_thread(self._read)
        self._looked = self._clock()

    async def groups_of(self, tenant: str, actor: str) -> frozenset[str]:
        if self._known is None:
            await self.load()
        elif self._clock() - self._looked >= LOOK_EVERY:
            self._looked = self._clock()
            await self._refresh()
        known = self._known or _Document()
        return frozenset(
            group
            for groups in (known.groups, known.tenants.get(tenant, _Groups()).groups)
            for group, members in groups.items()
            if actor in members
        )

    async def _refresh(self) -> None:
        try:
            if await asyncio.to_thread(os.path.getmtime, self._path) != self._changed:
                await self.load()
                log.info("read the directory %s again", self._path)
        except (OSError, Invalid) as error:
            log.error("the directory stays as it was: %s", error)

    def _read(self) -> tuple[float, _Document]:
        try:
            changed = os.path.getmtime(self._path)
            with open(self._path, "rb") as file:
                return changed, msgspec.yaml.decode(file.read() or b"{}", type=_Document)
        except (OSError, msgspec.MsgspecError) as error:
            text = f"the directory file {self._path} cannot be read: {error}"
            raise Invalid(text, [Problem("", text)]) from error
