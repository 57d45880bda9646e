"""Bulk commits: whole hashes are laid out in chunks beside the live ones and renamed in the transaction.

So a commit of very many nodes holds the server up no longer than a small one. The staged keys expire by themselves
should their writer die.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import msgspec

from holdfast_model.errors import HoldfastError
from holdfast_model.names import GraphRef
from holdfast_model.rows import Row, Tombstone

from . import keys
from .kv import Changed, Cmd, Kv, Watch, Word, hset_chunks
from .log import encode

CHUNK = 1000
_LIVES = 600  # seconds; a stage that takes longer aborts its transaction, because it is watched


class Whole(msgspec.Struct):
    """The new content of a graph's hashes, where they are replaced as a whole (None = changed field by field)."""

    rows: Mapping[str, Row] | None = None
    gone: Mapping[str, Tombstone] | None = None

    def __bool__(self) -> bool:
        return self.rows is not None or self.gone is not None


class Stage:
    """Staged hashes of one commit."""

    def __init__(self, ref: GraphRef, token: str, whole: Whole) -> None:
        named = {keys.node(ref): ("node", whole.rows), keys.gone(ref): ("gone", whole.gone)}
        self._content = {
            live: (keys.stage(ref, token, name), content)
            for live, (name, content) in named.items()
            if content is not None
        }

    @property
    def _staged(self) -> list[str]:
        return [key for key, content in self._content.values() if content]

    async def lay_out(self, kv: Kv, watch: Watch) -> None:
        """Write everything, then put the staged keys under ``watch``. Raises Changed when they are gone already."""
        for key, content in self._content.values():
            for i, chunk in enumerate(_chunks(content)):
                await kv.run(*hset_chunks(key, chunk), *([("EXPIRE", key, _LIVES)] if i == 0 else []))
        staged = self._staged
        if staged:
            _, present = await watch.read(("WATCH", *staged), ("EXISTS", *staged))
            if present != len(staged):
                raise Changed("what was staged has expired")

    def rename_cmds(self, live: str) -> list[Cmd] | None:
        """Put the staged hash in the place of ``live``; None when that one is not replaced."""
        if live not in self._content:
            return None
        key, content = self._content[live]
        # Unlinked first, because RENAME over a large hash frees it on the spot.
        return [("UNLINK", live), *([("PERSIST", key), ("RENAME", key, live)] if content else [])]

    async def discard(self, kv: Kv) -> None:
        """Drop what was staged; what cannot be dropped now expires."""
        with suppress(HoldfastError):
            await kv.run(*[("UNLINK", key) for key in self._staged])


def _chunks(content: Mapping[str, Row] | Mapping[str, Tombstone]) -> Iterator[Sequence[tuple[Word, Word]]]:
    items = iter(content.items())
    while chunk := [(field, encode(value)) for field, value in islice(items, CHUNK)]:
        yield chunk


def hash_cmds(key: str, fields: Sequence[tuple[str, bytes | None]]) -> list[Cmd]:
    """Set and delete single fields."""
    cmds = hset_chunks(key, [(f, v) for f, v in fields if v is not None])
    gone = [f for f, v in fields if v is None]
    cmds += [("HDEL", key, *gone[i : i + CHUNK]) for i in range(0, len(gone), CHUNK)]
    return cmds
