"""The port to the store: a small subset of Redis with WATCH/MULTI. All store logic is written once, over it.

A command is a tuple of Redis words, ``("HSET", key, field, value)``; words are str, bytes, int or float.
Replies are bytes (never decoded), ints or None, shaped like this whatever the adapter:

=============================================  ==========================================
GET HGET RPOP TYPE                             bytes | None (TYPE: ``b"none"`` for no key)
SET                                            True, or None when NX/XX refused it
MGET HMGET                                     list[bytes | None]
HGETALL                                        dict[bytes, bytes]
HKEYS HVALS SMEMBERS(-> set) ZRANGE            list[bytes]
HSCAN                                          (int cursor, dict[bytes, bytes])
SCAN SSCAN                                     (int cursor, list[bytes])
ZSCORE                                         float | None;  ZMSCORE: list[float | None]
ZRANGE.. WITHSCORES                            list[(bytes, float)]
XADD                                           bytes id
XRANGE XREVRANGE                               list[(bytes id, dict[bytes, bytes])]
RENAME, HMSET                                  True
all that count (DEL HSET EXISTS INCR XLEN ..)  int (EXPIRE, PERSIST, HSETNX, SISMEMBER: 1 or 0)
=============================================  ==========================================

Errors: model ``Unavailable`` when the store does not answer and nothing was written (or only a plain ``run``
was under way), :class:`Changed` and :class:`Ambiguous` from ``commit``, and model ``Permanent`` for a command
that the store refuses (a bug: wrong type, wrong words).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from holdfast_model.errors import Temporary

__all__ = ["Ambiguous", "Changed", "Cmd", "Kv", "KvClient", "Watch", "Word", "hset_chunks"]

Word = str | bytes | int | float
Cmd = tuple[Word, ...]


class Changed(Temporary):
    """A watched key moved (or expired) before EXEC. Nothing was written; read again and decide again."""

    code = "changed"


class Ambiguous(Temporary):
    """The connection broke during EXEC: all of it was written, or nothing. Look for its id."""

    code = "ambiguous"


class Watch(Protocol):
    """One optimistic transaction on one leased connection. It commits once; leaving the block gives it up."""

    async def read(self, *cmds: Cmd) -> list[Any]:
        """Run ``cmds`` in one round trip. The first call sends WATCH ahead of them in the same round trip.

        ``("WATCH", key, ...)`` among ``cmds`` watches further keys from there on.
        """
        ...

    async def commit(self, *cmds: Cmd) -> list[Any]:
        """MULTI, ``cmds``, EXEC in one round trip; the replies of ``cmds``.

        With no ``cmds`` it only confirms that nothing watched has moved. Raises Changed when something has,
        Ambiguous when the connection broke or the time limit passed.
        """
        ...


class Kv(Protocol):
    async def run(self, *cmds: Cmd) -> list[Any]:
        """Run ``cmds`` in one pipelined round trip, without a transaction. Never sent twice.

        After Unavailable some of them may have run. Writes sent this way must be safe to repeat.
        """
        ...

    def watching(self, *keys: str) -> AbstractAsyncContextManager[Watch]:
        """A transaction that holds only while ``keys`` stay untouched; with no keys a plain MULTI/EXEC."""
        ...


class KvClient(Kv, Protocol):
    """A :class:`Kv` with the life of its connections, as composition roots hand it on."""

    async def ping(self) -> None:
        """Raise Unavailable when the store does not answer. For readiness."""
        ...

    async def close(self) -> None:
        """Give the connections up."""
        ...


def hset_chunks(key: str, fields: Iterable[tuple[Word, Word]], size: int = 500) -> list[Cmd]:
    """HSET commands of at most ``size`` fields each, so that no single one blocks the server for long."""
    cmds: list[Cmd] = []
    words: list[Word] = ["HSET", key]
    for field, value in fields:
        words += (field, value)
        if len(words) >= 2 + 2 * size:
            cmds.append(tuple(words))
            words = ["HSET", key]
    if len(words) > 2:
        cmds.append(tuple(words))
    return cmds
