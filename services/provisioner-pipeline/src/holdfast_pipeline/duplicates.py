"""Rows that agree in their keys: which one of each set stays, and which keys more than one row has.

Both group rows by their keys, and a group costs 60 to 130 bytes. So that any number of rows can be looked at, rows are
put into buckets by the hash of their keys, and one bucket is looked at at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from .specs import Deduplication
from .tables import collected

BUCKET = 4_000_000
"""Rows that are compared at a time: 250 to 500 MB."""
_PLACE = "\x00place"  # names no column can have
_ROWS = "\x00rows"


@dataclass(frozen=True)
class Places:
    """A number for every row of a frame that grows with ``_file``, then ``_row``; it says nothing of when or where
    the row arrived. ``total``: numbers that there are."""

    files: pl.Series
    offsets: pl.Series
    total: int

    @classmethod
    def of(cls, frame: pl.LazyFrame) -> Places:
        found = collected(frame.group_by("_file").agg(pl.col("_row").max()), "rows of each file").sort("_file")
        ends = (found["_row"] + 1).cum_sum()
        total = int(ends[-1]) if len(ends) else 0
        return cls(found["_file"], ends.shift(1, fill_value=0), total)

    @property
    def place(self) -> pl.Expr:
        """The row's number."""
        if len(self.files) < 2:
            return pl.col("_row")
        file = pl.col("_file").cast(pl.Enum(self.files)).to_physical()
        return file.map_batches(self.offsets.gather, return_dtype=pl.Int64, is_elementwise=True) + pl.col("_row")


def deduplicated(
    frame: pl.LazyFrame,
    how: Deduplication,
    keys: Sequence[str],
    places: Places,
    rows: int,
    bucket: int = BUCKET,
) -> tuple[pl.LazyFrame, int, int]:
    """One row of each set that agrees in ``keys``; also how many rows there were, and how many are kept.

    Null keys are equal. ``rows``: at least as many as ``frame`` has; ``places`` has a place for each. What is kept in
    mind of the outcome is one bit per place.
    """
    order = list(how.order_by)
    narrow = frame.select(*dict.fromkeys([*keys, *order]), places.place.alias(_PLACE))
    schema = narrow.collect_schema()
    whole = bool(order) or any(schema[k].is_nested() for k in keys)
    chosen = pl.Series([False]).new_from_index(0, places.total)
    given = 0
    for part in _buckets(narrow, keys, rows, bucket):
        if whole:
            ordered = collected(part, "deduplication").sort([*order, _PLACE], nulls_last=False)
            given += ordered.height
            winners = ordered.unique(subset=keys, keep=how.keep, maintain_order=True)[_PLACE]
        else:
            place = pl.col(_PLACE).min() if how.keep == "first" else pl.col(_PLACE).max()
            groups = part.group_by(keys).agg(place, pl.len().alias(_ROWS)).select(_PLACE, _ROWS)
            found = collected(groups, "deduplication")
            given += int(found[_ROWS].sum())
            winners = found[_PLACE]
        if winners.len():
            chosen = chosen.scatter(winners, True)
    kept = places.place.map_batches(chosen.gather, return_dtype=pl.Boolean, is_elementwise=True)
    return frame.filter(kept), given, int(chosen.sum() or 0)


@dataclass(frozen=True)
class Copies:
    """Which rows agree with another one in some keys: one bit for each place."""

    places: Places
    bits: pl.Series

    @property
    def copy(self) -> pl.Expr:
        """Whether the row is one of them."""
        return self.places.place.map_batches(self.bits.gather, return_dtype=pl.Boolean, is_elementwise=True)


def copied(frame: pl.LazyFrame, keys: Sequence[str], rows: int, bucket: int = BUCKET) -> Copies | None:
    """The rows whose keys another row has, too; a key with a null has no copies. None where there are no such rows.

    ``rows``: at least as many as there are. However many rows and copies there are, one bucket is held at a time."""
    found: Copies | None = None
    for part in _buckets(frame.drop_nulls(keys), keys, rows, bucket):
        counted = part.group_by(keys).len(_ROWS)
        twice = collected(counted.filter(pl.col(_ROWS) > 1).select(keys), "copies")
        if not twice.height:
            continue
        if found is None:
            places = Places.of(frame)
            found = Copies(places, pl.Series([False]).new_from_index(0, places.total))
        where = part.select(*keys, found.places.place.alias(_PLACE))
        at = collected(where.join(twice.lazy(), on=keys, how="semi").select(_PLACE), "copies")[_PLACE]
        found = Copies(found.places, found.bits.scatter(at, True))
    return found


def _buckets(frame: pl.LazyFrame, keys: Sequence[str], rows: int, bucket: int) -> Iterator[pl.LazyFrame]:
    schema = frame.collect_schema()
    plain = [k for k in keys if not schema[k].is_nested()]
    number = max(1, -(-rows // bucket)) if plain else 1
    if number == 1:
        yield frame
        return
    hashed = pl.struct(plain).hash() % number
    for at in range(number):
        yield frame.filter(hashed == at)
