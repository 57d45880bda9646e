"""The in-memory twin of :mod:`holdfast_store.redis_kv`, for simulations and fast tests.

Several clients share one :class:`MemoryServer`. WATCH behaves as on the server: any write to a watched key
aborts (a SET of the same value and an expiry too), and a key that is missing at WATCH and still missing at
EXEC does not. Time comes from the injected clock, so expiry is as virtual as the rest of a simulation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from holdfast_model.errors import Permanent

from .kv import Changed, Cmd
from .memory_commands import COMMANDS
from .memory_space import Refused, Store, Stream, ZSet

MOVED = "a watched key has moved"
Stage = Literal["run", "read", "commit", "committed"]
Hook = Callable[[Stage, Sequence[Cmd]], Awaitable[None]]
"""Called before every effect, and as ``committed`` after EXEC but before its reply is handed back.

It may yield to other tasks, write through another client, or raise: Unavailable before an effect, Ambiguous
at ``committed`` (it was written, the reply is lost) or at ``commit`` (it was not), anything else as a crash.
"""


class MemoryServer:
    """Keys, their expiry and how often each was written. ``clock`` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._store = Store(clock)

    def execute(self, cmd: Cmd) -> Any:
        """One command, atomically. Raises Permanent where the server would refuse it."""
        command = COMMANDS.get(str(cmd[0]))
        if command is None:
            raise Permanent(f"the store refuses {cmd[0]!r}: unknown command")
        try:
            return command(self._store, [_word(w) for w in cmd[1:]])
        except Refused as e:
            raise Permanent(f"the store refuses {' '.join(str(w)[:40] for w in cmd[:2])}: {e}") from None

    def writes(self, key: str) -> int:
        """How often ``key`` was written, dropped or has expired; what WATCH compares."""
        return self._store.writes(key.encode())

    def dump(self) -> dict[str, Any]:
        """Every live key with its value as plain Python data, for invariants and for debugging."""
        out: dict[str, Any] = {}
        for key in self._store.live_keys():
            value = self._store.get(key)
            if isinstance(value, ZSet):
                value = dict(value)
            elif isinstance(value, Stream):
                value = list(value.entries)
            out[key.decode()] = value
        return out


class MemoryKv:
    """:class:`~holdfast_store.kv.Kv` on a :class:`MemoryServer`. ``hook`` sits between any two effects."""

    def __init__(self, server: MemoryServer, hook: Hook | None = None) -> None:
        self.server = server
        self.hook = hook

    async def run(self, *cmds: Cmd) -> list[Any]:
        await self._between("run", cmds)
        return _all(self.server, cmds)

    @asynccontextmanager
    async def watching(self, *keys: str) -> AsyncIterator[MemoryWatch]:
        yield MemoryWatch(self, keys)

    async def ping(self) -> None:
        await self._between("run", (("PING",),))

    async def close(self) -> None:
        """Nothing is open."""

    async def _between(self, stage: Stage, cmds: Sequence[Cmd]) -> None:
        if self.hook is not None:
            await self.hook(stage, cmds)
        else:
            await asyncio.sleep(0)  # others get a turn, as with a real round trip


class MemoryWatch:
    """:class:`~holdfast_store.kv.Watch` of the twin."""

    def __init__(self, kv: MemoryKv, keys: Sequence[str]) -> None:
        self._kv = kv
        self._keys = keys
        self._seen: dict[str, int] | None = None
        self._done = False

    async def read(self, *cmds: Cmd) -> list[Any]:
        if self._done:
            raise Permanent("this transaction has been committed")
        await self._kv._between("read", cmds)
        if self._seen is None:
            self._seen = {k: self._kv.server.writes(k) for k in self._keys}
        replies: list[Any] = []
        for cmd in cmds:
            if cmd[0] == "WATCH":
                self._seen.update((str(k), self._kv.server.writes(str(k))) for k in cmd[1:] if k not in self._seen)
                replies.append(True)
            else:
                replies += _all(self._kv.server, (cmd,))
        return replies

    async def commit(self, *cmds: Cmd) -> list[Any]:
        if self._seen is None:
            await self.read()
        if self._done:
            raise Permanent("this transaction has been committed")
        self._done = True
        kv, seen = self._kv, self._seen or {}
        await kv._between("commit", cmds)
        if any(kv.server.writes(k) != n for k, n in seen.items()):
            raise Changed(MOVED)
        unknown = next((c for c in cmds if str(c[0]) not in COMMANDS), None)
        if unknown is not None:
            raise Permanent(f"the store refuses {unknown[0]!r}: unknown command")
        replies = _all(kv.server, cmds)
        await kv._between("committed", cmds)
        return replies


def _all(server: MemoryServer, cmds: Sequence[Cmd]) -> list[Any]:
    """Every command, even after one that was refused: the server does not roll back either."""
    replies: list[Any] = []
    refused: Permanent | None = None
    for cmd in cmds:
        try:
            replies.append(server.execute(cmd))
        except Permanent as e:
            refused = refused or e
    if refused is not None:
        raise refused
    return replies


def _word(word: str | bytes | int | float) -> bytes:
    if isinstance(word, bytes):
        return word
    return word.encode() if isinstance(word, str) else repr(word).encode()
