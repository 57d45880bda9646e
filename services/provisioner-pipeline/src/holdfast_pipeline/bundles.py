"""Small csv files with one header are read together, so that a thousand of them cost little more than their rows.

A scan costs milliseconds before its first row comes. The bytes of small files are read once to be looked at, and put
one after the other below their header when their rows are taken. Which rows are whose follows from the number of their
lines; anything that does not add up is an error, and then each file is read alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
from polars.io.plugins import register_io_source

from holdfast_model.errors import Permanent

from .casting import LINEAGE, cast, layout
from .drift import Columns, Tally, fitted, fitting, heading
from .files import SourceFile
from .ledger import Taken
from .reading import ROW, some, unmarked
from .specs import Contract, Source
from .texts import Unreadable, lines_in, opened

SMALL = 256 << 10
"""Bytes of a file up to which it is read together with others."""
FEW = 8
"""Files from which on it is worth it."""
BUNDLE = 16 << 20
"""Bytes that are read together at most; several copies of them are in memory for a moment."""
_OPTIONS = frozenset({"separator", "quote_char", "null_values"})
_INDEX = "\x00row"  # a name no header can have
_NUMBER = "\x00file"


@dataclass(frozen=True)
class _Member:
    header: bytes
    lines: int
    tally: Tally


class Bundles:
    """Of one source, while its files are looked at and landed."""

    def __init__(self, source: Source, contract: Contract | None) -> None:
        self._source = source
        self._contract = contract
        self._usable = source.format == "csv" and source.options.keys() <= _OPTIONS
        self._members: dict[str, _Member] = {}
        self._first: dict[bytes, Tally | None] = {}

    def content(self, file: SourceFile) -> bytes | None:
        """What is in a file that may be read together with others; None for any other. Temporary for the storage. It
        is for whoever lands the file to see that it did not change since it was listed."""
        if not self._usable or file.size > SMALL:
            return None
        with opened(file) as f:
            content = f.read(SMALL + 1)
        return content if len(content) <= SMALL else None

    def heading(self, file: SourceFile, content: bytes, known: Columns) -> Tally | None:
        """As :func:`.drift.heading`, without another look at the disk for all but the first of a header; None for a
        file that is to be read alone."""
        header, _, body = content.partition(b"\n")
        if not body or self._quote in header:
            return None
        if header not in self._first:
            self._first[header] = self._judged(file, header, known)
        first = self._first[header]
        if first is None:
            return None
        try:
            lines = lines_in(body, file, self._source)
        except Unreadable:
            return None  # examining it says why
        tally = first.another(file.name)
        self._members[file.name] = _Member(header, lines, tally)
        return tally

    @property
    def _quote(self) -> bytes:
        return str(self._source.options.get("quote_char", '"') or "\x00").encode()

    def _judged(self, file: SourceFile, header: bytes, known: Columns) -> Tally | None:
        """The tally of the first file of a header, if its names are as they are read: none empty, marked or twice."""
        tally = heading(file, self._source, self._contract, known)
        separator = str(self._source.options.get("separator", ","))
        try:
            names = header.removesuffix(b"\r").decode().split(separator)
        except UnicodeDecodeError:
            return None
        regular = all(names) and len(set(names)) == len(names) and tally is not None and tally.names == tuple(names)
        return tally if regular else None

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def rows(self, taken: Sequence[Taken], reading: str, batch: str) -> list[pl.LazyFrame]:
        """The rows of files that are contained, as they go into the table: one frame for each header."""
        of: dict[bytes, list[Taken]] = {}
        for t in taken:
            of.setdefault(self._members[t.file.name].header, []).append(t)
        return [self._frame(header, files, reading, batch) for header, files in of.items()]

    def _frame(self, header: bytes, taken: list[Taken], reading: str, batch: str) -> pl.LazyFrame:
        names = self._members[taken[0].file.name].tally.names
        empty = pl.DataFrame(schema={ROW: pl.Int64, **dict.fromkeys(names, pl.String)})
        schema = self._landing(empty, pl.Series([], dtype=pl.UInt32), [], reading, batch).schema

        def batches(
            with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            left = n_rows
            for files in _bundled(taken):
                frame = self._landing(*self._read(header, files), files, reading, batch)
                if left is not None:
                    frame = frame.head(left)
                    left -= frame.height
                frame = frame if with_columns is None else frame.select(with_columns)
                yield frame if predicate is None else frame.filter(predicate)
                if left == 0:
                    return

        return register_io_source(batches, schema=schema)

    def _read(self, header: bytes, taken: list[Taken]) -> tuple[pl.DataFrame, pl.Series]:
        """The rows of files as they are in them, counted, and to which of the files each belongs."""
        members = [self._members[t.file.name] for t in taken]
        bodies = [self._body(t.file, m) for t, m in zip(taken, members, strict=True)]
        options = self._source.options
        lines = pl.read_csv(
            b"\n".join([header, *(b.removesuffix(b"\n") for b in bodies), b""]), infer_schema=False,
            row_index_name=_INDEX, separator=str(options.get("separator", ",")),
            quote_char=str(options.get("quote_char", '"')) or None,
        )  # fmt: skip
        counts = pl.Series([m.lines for m in members], dtype=pl.UInt32)
        if lines.height != counts.sum():
            raise Permanent(f"{taken[0].file.name} and others: {lines.height} rows in {counts.sum()} lines")
        number = pl.select(pl.int_range(len(members), dtype=pl.UInt32).repeat_by(counts).explode()).to_series()
        row = lines[_INDEX].cast(pl.Int64) - (counts.cum_sum() - counts).cast(pl.Int64).gather(number)
        names = [n for n in lines.columns if n != _INDEX]
        there = lines.select(some(names)).to_series()
        rows = lines.select(row.alias(ROW), *unmarked(names, self._source)).filter(there)
        number = number.filter(there).alias(_NUMBER)
        _count(rows, number, [m.tally for m in members])
        return rows, number

    def _body(self, file: SourceFile, member: _Member) -> bytes:
        content = self.content(file)
        header, _, body = (content or b"").partition(b"\n")
        if header != member.header:
            raise Permanent(f"{file.name!r} changed while it was read")
        return body

    def _landing(
        self, rows: pl.DataFrame, number: pl.Series, taken: list[Taken], reading: str, batch: str
    ) -> pl.DataFrame:
        """Rows as they go into the table, with where they come from."""
        said = {
            "_file": [t.file.name for t in taken],
            "_tag": [f"{t.file.tag}~{reading}" for t in taken],
            "_sha": [t.sha for t in taken],
        }
        shaped = fitted(rows.lazy(), self._source, self._contract, None).collect()
        columns = [pl.Series(c, values, dtype=LINEAGE[c]).gather(number) for c, values in said.items()]
        return layout(shaped.lazy().with_columns(*columns, pl.lit(batch, dtype=pl.String).alias("_batch"))).collect()


def _bundled(taken: list[Taken]) -> Iterator[list[Taken]]:
    files: list[Taken] = []
    size = 0
    for t in taken:
        if files and size + t.file.size > BUNDLE:
            yield files
            files, size = [], 0
        files.append(t)
        size += t.file.size
    yield files


def _count(rows: pl.DataFrame, number: pl.Series, tallies: list[Tally]) -> None:
    """Count the values of each file in its tally."""
    fields = tallies[0].fields
    columns = [(pl.col(f.name), cast(pl.col(f.name), pl.String(), f)) for f in fields]
    asked = [e.is_not_null().alias(f"{kind}{i}") for i, pair in enumerate(columns) for kind, e in enumerate(pair)]
    flags = rows.select(number, *asked)
    for file, count, *counts in flags.group_by(_NUMBER).agg(pl.len(), pl.exclude(_NUMBER, "len").sum()).iter_rows():
        pairs = list(zip(counts[::2], counts[1::2], strict=True))
        for i, (there, fit) in enumerate(pairs):
            if fit * 2 < there:
                pairs[i] = rows.filter(number == file).select(fitting(fields[i])).row(0)
        tallies[file].count(count, pairs)
