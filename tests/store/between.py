"""Standing between a store and its Kv: counting what passes, meddling before or after EXEC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from holdfast_store.kv import Cmd, Kv, Watch

Meddle = Callable[[], Awaitable[None]]


class Between:
    """A Kv that passes everything on. ``before_commit`` runs ahead of every EXEC, ``after_commit`` before its reply."""

    def __init__(self, kv: Kv) -> None:
        self._kv = kv
        self.before_commit: Meddle | None = None
        self.after_commit: Meddle | None = None
        self.before_read: Meddle | None = None
        self.sent: list[Cmd] = []
        self.round_trips = 0

    @property
    def sent_bytes(self) -> int:
        return sum(len(w) if isinstance(w, str | bytes) else len(str(w)) for cmd in self.sent for w in cmd)

    def reset(self) -> None:
        self.sent.clear()
        self.round_trips = 0

    def note(self, cmds: tuple[Cmd, ...]) -> None:
        self.round_trips += 1
        self.sent += cmds

    async def run(self, *cmds: Cmd) -> list[Any]:
        self.note(cmds)
        return await self._kv.run(*cmds)

    @asynccontextmanager
    async def watching(self, *keys: str) -> AsyncIterator[_Watch]:
        async with self._kv.watching(*keys) as watch:
            yield _Watch(self, watch)


class _Watch:
    def __init__(self, between: Between, watch: Watch) -> None:
        self._between = between
        self._watch = watch

    async def read(self, *cmds: Cmd) -> list[Any]:
        if self._between.before_read is not None:
            await self._between.before_read()
        self._between.note(cmds)
        return await self._watch.read(*cmds)

    async def commit(self, *cmds: Cmd) -> list[Any]:
        if self._between.before_commit is not None:
            await self._between.before_commit()
        self._between.note(cmds)
        replies = await self._watch.commit(*cmds)
        if self._between.after_commit is not None:
            await self._between.after_commit()
        return replies


def times(n: int, meddle: Meddle) -> Meddle:
    """``meddle`` for the first ``n`` calls, then nothing."""
    left = n

    async def limited() -> None:
        nonlocal left
        if left > 0:
            left -= 1
            await meddle()

    return limited
