"""Entries of a graph's log: what replicas catch up from, and the audit trail.

Stream fields: ``v`` version; ``p`` stream id of the entry before (a replica that stands elsewhere loads afresh);
``ops`` JSON list of :class:`LogOp`; then ``n<id>`` -> row and ``g<type> <id>`` -> tombstone (both JSON, empty =
removed), or ``reload`` = 1 where the change was too large to be spelled out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast_model.rows import Delta, Row, Tombstone

from .kv import Word

NO_ENTRY = b"0-0"
"""Stands for the id of the last entry while the log is empty."""

Position = tuple[int, int]

encode = msgspec.json.Encoder().encode
decode_row = msgspec.json.Decoder(Row).decode
decode_tombstone = msgspec.json.Decoder(Tombstone).decode


class LogOp(msgspec.Struct, frozen=True, omit_defaults=True):
    """One caller's part of a commit. ``mutations`` are as the model writes them, or whatever the caller noted."""

    id: str
    actor: str
    cause: str = ""
    mutations: list[Any] = []


class LogEntry(msgspec.Struct, frozen=True):
    """One commit. ``at`` is in seconds since the epoch, by the store's clock."""

    id: str
    version: int
    previous: str
    at: float
    ops: list[LogOp]
    delta: Delta
    reload: bool = False


class EncodedDelta(msgspec.Struct):
    """A delta with every value encoded once, for the hashes and for the log (None = removed)."""

    rows: list[tuple[str, bytes | None]]
    gone: list[tuple[str, bytes | None]]

    def __len__(self) -> int:
        return len(self.rows) + len(self.gone)


_decode_ops = msgspec.json.Decoder(list[LogOp]).decode


def encode_delta(delta: Delta) -> EncodedDelta:
    return EncodedDelta(
        [(i, None if r is None else encode(r)) for i, r in delta.rows.items()],
        [(f, None if t is None else encode(t)) for f, t in delta.gone.items()],
    )


def entry_words(version: int, previous: bytes, ops: list[LogOp], delta: EncodedDelta | None) -> list[Word]:
    """The fields of an entry; ``delta`` None makes it a ``reload``."""
    words: list[Word] = ["v", version, "p", previous, "ops", encode(ops)]
    if delta is None:
        words += ("reload", 1)
        return words
    for node, row in delta.rows:
        words += ("n" + node, row or b"")
    for field, tombstone in delta.gone:
        words += ("g" + field, tombstone or b"")
    return words


def delta_of(fields: Mapping[bytes, bytes]) -> Delta:
    """What the entry changed."""
    delta = Delta({}, {})
    for field, value in fields.items():
        if field.startswith(b"n"):
            delta.rows[field[1:].decode()] = decode_row(value) if value else None
        elif field.startswith(b"g"):
            delta.gone[field[1:].decode()] = decode_tombstone(value) if value else None
    return delta


def entry_of(entry_id: bytes, fields: Mapping[bytes, bytes]) -> LogEntry:
    return LogEntry(
        entry_id.decode(),
        int(fields[b"v"]),
        fields[b"p"].decode(),
        position(entry_id)[0] / 1000,
        _decode_ops(fields[b"ops"]),
        delta_of(fields),
        b"reload" in fields,
    )


def position(entry_id: bytes) -> Position:
    """A stream id as numbers that compare."""
    ms, _, seq = entry_id.partition(b"-")
    return int(ms), int(seq)
