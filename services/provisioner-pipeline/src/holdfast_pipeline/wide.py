"""Whole numbers of a query that could wrap at 2**63, as polars has them do in silence.

A table tells how large its numbers are and how many rows it has. Where sums and products of them could get beyond
int64, the query is computed with 128 bits, and a result that int64 cannot hold is an error that names its column.
Everywhere else nothing is done, so that this costs nothing but a look at the largest numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import polars as pl

from .tables import collected

_BITS = 63
_TRIED = 5
_TEXT = re.compile(r"'(?:[^']|'')*'|(\"(?:[^\"]|\"\")*\")")
_ALL_COLUMNS = re.compile(r"count ?\( ?\* ?\)|\.\*|\bselect (?:distinct )?\*|, ?\*|\(\*", re.IGNORECASE)
_SUM = re.compile(r"\bsum ?\(", re.IGNORECASE)
_POWER = re.compile(r"\bpow(?:er)? ?\(|<<", re.IGNORECASE)
_NUMBER = re.compile(r"\b\d+\b")

Tables = Mapping[str, pl.LazyFrame]


def computed(text: str, tables: Tables, compute: Callable[[Tables], pl.LazyFrame]) -> pl.LazyFrame:
    """What ``compute`` makes of ``tables``, with 128 bits where whole numbers could wrap. ``text``: the SQL of it.

    Columns and types are those that ``compute`` says. Collecting raises where a whole number does not fit its type."""
    plain = compute(tables)
    if not _may_wrap(text, tables):
        return plain
    wanted = plain.collect_schema()
    try:
        wide = compute({name: _widened(frame) for name, frame in tables.items()})
        given = wide.collect_schema()
        if given.names() != wanted.names():
            return plain
        # Not all that SQL can do is there for so many bits; what a few rows cannot do is done as it always was.
        few = {name: _widened(frame.head(_TRIED)) for name, frame in tables.items()}
        compute(few).collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return plain
    return wide.with_columns(pl.col(n).cast(t) for n, t in wanted.items() if given[n] != t)


def _widened(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.with_columns(pl.col(n).cast(pl.Int128) for n, t in frame.collect_schema().items() if t == pl.Int64)


def _may_wrap(text: str, tables: Tables) -> bool:
    """Whether sums and products in ``text`` could get beyond int64; rather too often than not often enough."""
    text = _TEXT.sub(lambda found: found[1] or "''", text)
    bare = _ALL_COLUMNS.sub(" ", text)
    sums, products, steps = bool(_SUM.search(text)), bare.count("*"), bare.count("+") + bare.count("-")
    power = bool(_POWER.search(text))
    if not (sums or products or steps or power):
        return False
    largest, rows = max((int(n) for n in _NUMBER.findall(bare)), default=0), 1
    found = False
    for name, frame in tables.items():
        whole = [n for n, t in frame.collect_schema().items() if t == pl.Int64 and _named(n, text)]
        if not whole:
            continue
        found = True
        ends = [pl.col(whole).min().name.suffix("\x00min"), pl.col(whole).max().name.suffix("\x00max")]
        height, *values = collected(frame.select(pl.len().alias("\x00rows"), *ends), name).row(0)
        largest = max([largest, *(abs(v) for v in values if v is not None)])
        rows = max(rows, height)
    if not found:
        return False
    reads = max(1, len(re.findall(r"\b(?:from|join)\b", text, re.IGNORECASE)))
    bits = largest.bit_length() + (rows.bit_length() * reads if sums else 0)
    return power or bits * (products + 1) + steps >= _BITS


def _named(column: str, text: str) -> bool:
    quoted = re.escape(column.replace('"', '""'))
    return re.search(rf"(?<!\w){quoted}(?!\w)", text, re.IGNORECASE) is not None
