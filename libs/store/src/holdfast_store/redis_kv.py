"""The port on Redis (6.2 or newer) over redis-py's asyncio connections.

Connections come from a bounded pool of our own, because redis-py's client sends MULTI/EXEC again after a
broken connection and turns a lost reply of EXEC into a WatchError. Here nothing is ever sent twice: what
broke before EXEC is Unavailable, what broke during EXEC is Ambiguous, and the id that was written decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import hiredis
from redis import exceptions as rx
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from holdfast_model.errors import HoldfastError, Permanent, Unavailable

from .kv import Ambiguous, Changed, Cmd

_NOT_NOW = (rx.ReadOnlyError, rx.OutOfMemoryError, rx.TryAgainError, rx.ClusterDownError)
_NOT_NOW_CODES = ("MISCONF", "NOREPLICAS", "BUSY ", "LOADING", "MASTERDOWN")
_BROKEN = (rx.RedisError, OSError, asyncio.IncompleteReadError)  # OSError includes every TimeoutError
_UNWATCH: Cmd = ("UNWATCH",)


class RedisKv:
    """:class:`~holdfast_store.kv.Kv` on one Redis server.

    ``connections``: most connections at once; who finds none free waits up to ``timeout`` seconds, which also
    bounds connecting and every round trip.
    """

    def __init__(self, url: str, *, connections: int = 16, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[AbstractConnection] = []
        self._dirty: set[AbstractConnection] = set()
        self._closed = False
        options: dict[str, Any] = dict(parse_url(url))
        self._connection_class: type[AbstractConnection] = options.pop("connection_class", Connection)
        options.update(
            protocol=2,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=timeout,
            socket_read_size=1 << 18,
            driver_info=None,
        )
        self._options = options

    async def run(self, *cmds: Cmd) -> list[Any]:
        if not cmds:
            return []
        async with self._lease() as connection:
            return _replies(cmds, await self._round_trip(connection, cmds))

    @asynccontextmanager
    async def watching(self, *keys: str) -> AsyncIterator[RedisWatch]:
        async with self._lease() as connection:
            watch = RedisWatch(self, connection, keys)
            try:
                yield watch
            finally:
                if watch.armed:
                    # UNWATCH goes ahead of its next use, without a round trip of its own.
                    self._dirty.add(connection)

    async def ping(self) -> None:
        """Raise Unavailable unless the server answers. For readiness checks."""
        await self.run(("PING",))

    async def close(self) -> None:
        """Close idle connections; those on lease are closed as they come back."""
        self._closed = True
        await self._drop_idle()

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    @asynccontextmanager
    async def _lease(self) -> AsyncIterator[AbstractConnection]:
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable("every connection to the store is busy") from None
        try:
            connection = self._idle.pop() if self._idle else self._connection_class(**self._options)
            try:
                yield connection
            except HoldfastError:
                await self._give_back(connection)
                raise
            except BaseException:
                # Cancelled with replies under way: nobody may read them as answers to something else.
                await self._discard(connection)
                raise
            await self._give_back(connection)
        finally:
            self._slots.release()

    async def _give_back(self, connection: AbstractConnection) -> None:
        if self._closed or not connection.is_connected:
            await self._discard(connection)
        else:
            self._idle.append(connection)

    async def _discard(self, connection: AbstractConnection) -> None:
        self._dirty.discard(connection)
        await connection.disconnect(nowait=True)

    async def _round_trip(self, connection: AbstractConnection, cmds: Sequence[Cmd]) -> list[Any]:
        """Send ``cmds`` in one piece and read every reply; a refused command's reply is an exception."""
        demoted = False
        try:
            async with asyncio.timeout(self._timeout):
                if not connection.is_connected:
                    await connection.connect()  # type: ignore[no-untyped-call]
                    self._dirty.discard(connection)
                unwatch = connection in self._dirty
                self._dirty.discard(connection)
                sent = (_UNWATCH, *cmds) if unwatch else cmds
                packed = b"".join([hiredis.pack_command(c) for c in sent])  # type: ignore[arg-type]
                await connection.send_packed_command(packed, check_health=False)
                replies = []
                for _ in sent:
                    try:
                        replies.append(await connection.read_response())
                    except rx.ResponseError as e:
                        replies.append(e)
                        demoted = demoted or isinstance(e, rx.ReadOnlyError)
                if demoted:  # the next connection finds the new primary
                    await self._discard(connection)
                return replies[1:] if unwatch else replies
        except _BROKEN as e:
            # A broken connection seldom comes alone: the idle ones were most likely cut by the same cause.
            await self._discard(connection)
            await self._drop_idle()
            raise Unavailable(f"the store does not answer: {type(e).__name__}: {e}") from e
        except BaseException:
            await self._discard(connection)
            raise


class RedisWatch:
    """:class:`~holdfast_store.kv.Watch` on one leased connection."""

    def __init__(self, kv: RedisKv, connection: AbstractConnection, keys: Sequence[str]) -> None:
        self._kv = kv
        self._connection = connection
        self._keys = keys
        self._done = False
        self.armed = False

    async def read(self, *cmds: Cmd) -> list[Any]:
        if self._done:
            raise Permanent("this transaction has been committed")
        if self.armed and not self._connection.is_connected:
            raise Unavailable("the connection that watched the keys is gone")
        if self.armed or not self._keys:
            self.armed = self.armed or any(cmd[0] == "WATCH" for cmd in cmds)
            return _replies(cmds, await self._kv._round_trip(self._connection, cmds)) if cmds else []
        self.armed = True
        replies = await self._kv._round_trip(self._connection, (("WATCH", *self._keys), *cmds))
        if isinstance(replies[0], Exception):
            raise _refusal(("WATCH",), replies[0])
        return _replies(cmds, replies[1:])

    async def commit(self, *cmds: Cmd) -> list[Any]:
        if not self.armed or not self._connection.is_connected:
            await self.read(*[] if self._keys else [("PING",)])  # WATCH, or only connect
        if self._done:
            raise Permanent("this transaction has been committed")
        self._done = True
        try:
            *queued, result = await self._kv._round_trip(self._connection, (("MULTI",), *cmds, ("EXEC",)))
        except Unavailable as e:
            raise Ambiguous(f"the reply of EXEC was lost: {e.message}") from e
        self.armed = False
        if result is None:
            raise Changed("a watched key has moved")
        if isinstance(result, Exception):
            refused = next(((c, r) for c, r in zip(cmds, queued[1:], strict=True) if isinstance(r, Exception)), None)
            raise _refusal(*refused) if refused else _refusal(("EXEC",), result)
        return _replies(cmds, result)


def _refusal(cmd: Cmd, error: Exception) -> HoldfastError:
    words = " ".join(str(w)[:40] for w in cmd[:2])
    if isinstance(error, _NOT_NOW) or str(error).startswith(_NOT_NOW_CODES):
        return Unavailable(f"the store cannot do {words} now: {error}")
    return Permanent(f"the store refuses {words}: {error}")


def _replies(cmds: Sequence[Cmd], raw: Sequence[Any]) -> list[Any]:
    out = []
    for cmd, reply in zip(cmds, raw, strict=True):
        if isinstance(reply, Exception):
            raise _refusal(cmd, reply)
        shape = _SHAPES.get(str(cmd[0]))
        out.append(shape(cmd, reply) if shape else reply)
    return out


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    it = iter(flat)
    return dict(zip(it, it, strict=True))


def _scored(cmd: Cmd, reply: list[bytes]) -> list[Any]:
    if "WITHSCORES" not in cmd:
        return reply
    it = iter(reply)
    return [(member, float(score)) for member, score in zip(it, it, strict=True)]


def _score(cmd: Cmd, reply: bytes | None) -> float | None:
    return None if reply is None else float(reply)


def _entries(cmd: Cmd, reply: list[Any]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return [(entry[0], _pairs(entry[1] or ())) for entry in reply]


def _ok(cmd: Cmd, reply: bytes | None) -> bool | None:
    return None if reply is None else True


_SHAPES: dict[str, Callable[[Cmd, Any], Any]] = {
    "HGETALL": lambda c, r: _pairs(r),
    "HSCAN": lambda c, r: (int(r[0]), _pairs(r[1])),
    "SCAN": lambda c, r: (int(r[0]), r[1]),
    "SSCAN": lambda c, r: (int(r[0]), r[1]),
    "SMEMBERS": lambda c, r: set(r),
    "ZSCORE": _score,
    "ZINCRBY": _score,
    "ZMSCORE": lambda c, r: [None if s is None else float(s) for s in r],
    "ZRANGE": _scored,
    "ZRANGEBYSCORE": _scored,
    "ZREVRANGE": _scored,
    "ZREVRANGEBYSCORE": _scored,
    "ZPOPMIN": lambda c, r: _scored((*c, "WITHSCORES"), r),
    "XRANGE": _entries,
    "XREVRANGE": _entries,
    "SET": _ok,
    "RENAME": _ok,
    "HMSET": _ok,
    "PING": _ok,
    "WATCH": _ok,
    "FLUSHALL": _ok,
}
