"""Reading one file of a source as a lazy frame: csv, ndjson and json as text, parquet and Delta with their types.

Each file is read alone, without type inference, so that one odd file cannot bend the others: ``01234`` stays text,
numbers of JSON keep every digit, keys that appear late are seen.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import polars as pl
from msgspec import Raw
from polars.io.plugins import register_io_source

from holdfast_model.errors import Permanent, Temporary

from .files import SourceFile
from .foreign import scan, unreadable_feature
from .specs import Source, stands_for_others
from .tables import Table, collected, mapped
from .texts import (
    CHUNK,
    MARK,
    Unreadable,
    assert_text,
    chunks_of,
    explained,
    is_blank,
    lines_of,
    preamble,
    unpacked,
    utf8,
)

ROW = "_row"
TEXT_FORMATS = frozenset({"csv", "ndjson", "json"})
_BATCH = 50_000
_GROUP = 50
_ARRAY = 256 << 20
"""Bytes of a JSON array that is taken: it is held in memory as a whole."""
_RENAMED = re.compile(r"_duplicated_\d+\Z")
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])
_PAIRS = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str)


def read(file: SourceFile, source: Source, *, lenient: bool = False, seen: bool = False) -> pl.LazyFrame:
    """The rows of a file with ``_row`` (0-based) first. A file without any column is a frame of ``_row`` alone.

    ``lenient`` takes what can be read: surplus cells and broken characters of a CSV and broken lines of NDJSON are
    dropped. ``seen``: the text was looked at already. Raises Unreadable (also while the frame is collected, as a
    polars error), Temporary for storage.
    """
    if isinstance(file.origin, Path) and file.origin != Path(os.fsencode(file.origin).decode(errors="replace")):
        raise Unreadable(f"{file.name}: its name is not UTF-8; rename it")
    try:
        if source.format in TEXT_FORMATS:
            if not seen:
                assert_text(file, source, lenient=lenient)
            return _csv(file, source, lenient) if source.format == "csv" else _objects(file, source.format, lenient)
        if source.format == "delta":
            table = Table.open(file.origin, version=int(file.tag.rpartition("-")[2]))
            if table is None:
                raise Temporary(f"{file.name!r} went away while it was read")
            if asked := unreadable_feature(table):
                raise Unreadable(f"{file.name}: the table uses {asked}, which cannot be read; write it without")
            frame = scan(table)
        else:
            frame = pl.scan_parquet([file.path], glob=False, hive_partitioning=False)
        names = _assert_names(frame.collect_schema().names(), file, lenient)
        return frame.select(names).with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))
    except (Permanent, Temporary):
        raise
    except Exception as e:
        raise unreadable(e, file, source) from e


def _assert_names(names: Iterable[str], file: SourceFile, lenient: bool) -> list[str]:
    """The names of the data columns. A NUL would end the process where they are handed to Delta's library."""
    names = list(names)
    for at, name in enumerate(names, start=1):
        why = _wrong_name(name)
        if why and not (name == ROW and lenient):
            raise Unreadable(f"{file.name}: column {at} is called {name[:40]!r}: {why}")
    return [n for n in names if n != ROW]


def _wrong_name(name: str) -> str:
    if name == ROW:
        return f"{ROW!r} is a reserved name"
    if stands_for_others(name):
        return "such a name stands for several columns; give it another one"
    return "it holds a NUL" if "\x00" in name else ""


def unreadable(error: BaseException, file: SourceFile, source: Source) -> BaseException:
    """Unreadable for what a reader raised about the content, Temporary about the storage."""
    found = mapped(error, file.name)
    return Unreadable(explained(file, source, str(found))) if isinstance(found, Permanent) else found


def _csv(file: SourceFile, source: Source, lenient: bool) -> pl.LazyFrame:
    options = source.options
    given: dict[str, Any] = {k: options[k] for k in ("comment_prefix",) if k in options}
    if "quote_char" in options:
        given["quote_char"] = options["quote_char"] or None
    given["separator"] = str(options.get("separator", ","))
    given["encoding"] = "utf8-lossy" if lenient or options.get("encoding") == "utf8-lossy" else "utf8"
    path = utf8(file, source, lenient=lenient)
    given["skip_lines"] = preamble(file, source, path)  # lines, whatever quotes are in them
    given["has_header"] = bool(options.get("has_header", True))
    index = "\x00row"  # a name no header can have
    try:
        frame = pl.scan_csv(
            path, infer_schema=False, glob=False, row_index_name=index, truncate_ragged_lines=lenient, **given
        )
        names = [n for n in frame.collect_schema().names() if n != index]
    except pl.exceptions.NoDataError:
        if options.get("skip_rows") and not is_blank(file, path):
            raise Unreadable(f"{file.name}: has no line after the first {options['skip_rows']} (skip_rows)") from None
        return pl.LazyFrame(schema={ROW: pl.Int64})
    if given["has_header"]:
        unnamed, nameless = _header(file, path, names, given)
    else:
        known = cast("list[str]", options.get("columns", []))[: len(names)]
        frame = frame.rename(dict(zip(names, known, strict=False)))
        names = [*known, *names[len(known) :]]
        unnamed, nameless = names[len(known) :] if known else [], 0
    if unnamed:
        filled = collected(frame.select(unmarked(unnamed, source)).select(pl.all().is_not_null().any()), file.name).row(
            0
        )
        # Lines that end by separators have no values there; a value without a name is a column called "".
        last = max((i for i, there in enumerate(filled, 1) if there), default=0)
        nameless += last
        names = [n for n in names if n not in unnamed[last:]]
    if nameless > 1 and given["has_header"] and not lenient:
        raise Unreadable(f"{file.name}: line 1 has {nameless} columns without a name, and values in them")
    quote = given.get("quote_char", '"')
    if given["has_header"] and quote and any(quote * 2 in n for n in names):  # polars leaves them doubled
        frame = frame.rename({n: n.replace(quote * 2, quote) for n in names})
        names = [n.replace(quote * 2, quote) for n in names]
    kept = _assert_names(names, file, lenient)
    frame = frame.filter(some(names))  # A blank line, or one of separators alone, is no row; one of markers is.
    return frame.select(pl.col(index).cast(pl.Int64).alias(ROW), *unmarked(kept, source))


def _header(file: SourceFile, path: Path, names: list[str], given: dict[str, Any]) -> tuple[list[str], int]:
    """The columns at the end that have no name, and how many before them have none. Raises Unreadable for a header
    that does not name columns."""
    wrong = next((n for n in names if "\r" in n or "\x00" in n), None)
    if wrong is not None:
        why = "a NUL; is its encoding UTF-16?" if "\x00" in wrong else "a carriage return; do lines end by CR alone?"
        raise Unreadable(
            f"{file.name}: line 1, column {names.index(wrong) + 1} is called {wrong[:40]!r}: it holds {why}"
        )
    if not any(n == "" or _RENAMED.search(n) for n in names):
        return [], 0
    # polars gives a name that comes twice another ending, so the header is read again as if it were a row.
    given = {**given, "null_values": None, "has_header": False}
    whole = pl.read_csv(path, infer_schema=False, n_rows=1, glob=False, **given, truncate_ragged_lines=True)
    raw = [n or "" for n in whole.row(0)] if whole.height else []
    if len(raw) != len(names):
        return [], 0
    twice = sorted({n for n in raw if n and raw.count(n) > 1})
    if twice:
        raise Unreadable(f"{file.name}: line 1 names columns twice: {', '.join(twice)}")
    named = max((i for i, n in enumerate(raw, 1) if n), default=0)
    return names[named:], raw[:named].count("")


def unmarked(names: Sequence[str], source: Source) -> list[pl.Expr]:
    """The columns, with null where the file has one of the source's markers (null_values)."""
    markers = source.options.get("null_values")
    if not isinstance(markers, list) or not markers:
        return [pl.col(n) for n in names]
    return [pl.when(~pl.col(n).is_in(markers)).then(pl.col(n)).alias(n) for n in names]


def some(names: Sequence[str]) -> pl.Expr:
    """Whether any column has a value. In groups: one expression over all takes time by the cube of their number."""
    groups = [names[i : i + _GROUP] for i in range(0, len(names), _GROUP)]
    return pl.any_horizontal(pl.coalesce(group).is_not_null() for group in groups) if groups else pl.lit(False)


def _objects(file: SourceFile, kind: str, lenient: bool) -> pl.LazyFrame:
    names: dict[str, None] = {}
    for _, keys in _decoded(file, kind, lenient):
        names.update(dict.fromkeys(keys))
    schema = pl.Schema({ROW: pl.Int64, **dict.fromkeys(_assert_names(names, file, lenient), pl.String)})

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        columns = [c for c in schema if with_columns is None or c in with_columns]
        for chunk in _chunked(_decoded(file, kind, lenient), n_rows):
            data: dict[str, list[Any]] = {c: [_text(o.get(c)) for _, o in chunk] for c in columns if c != ROW}
            if ROW in columns:
                data[ROW] = [row for row, _ in chunk]
            frame = pl.DataFrame(data, schema={c: schema[c] for c in columns})
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(batches, schema=schema)


def _chunked(
    rows: Iterable[tuple[int, dict[str, Raw]]], limit: int | None
) -> Iterator[list[tuple[int, dict[str, Raw]]]]:
    chunk: list[tuple[int, dict[str, Raw]]] = []
    for count, row in enumerate(rows):
        if limit is not None and count >= limit:
            break
        chunk.append(row)
        if len(chunk) >= _BATCH:
            yield chunk
            chunk = []
    yield chunk


def _decoded(file: SourceFile, kind: str, lenient: bool) -> Iterator[tuple[int, dict[str, Raw]]]:
    """(row number, object) of every object in the file."""
    with unpacked(file) as f:
        lines: Iterable[bytes | Raw] = lines_of(f, file) if kind == "ndjson" else _elements(f, file)
        row = 0
        for number, line in enumerate(lines, start=1):
            if isinstance(line, bytes) and not line.strip():
                continue
            if row == 0 and isinstance(line, bytes):
                line = line.removeprefix(MARK)
            try:
                plain = bytes(line)
                if not plain.isascii():
                    plain.decode()  # values are not looked at below
                found = _OBJECT.decode(line)
                if any("\x00" in key for key in found):
                    raise msgspec.DecodeError("a key holds a NUL")
                if not lenient and (twice := _named_twice(plain, found)) is not None:
                    raise msgspec.DecodeError(f"it names {twice[:40]!r} twice")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
                if not lenient:
                    place = f"line {number}" if kind == "ndjson" else f"element {number}"
                    raise Unreadable(f"{file.name}: {place} is no JSON object: {e}") from e
            else:
                yield row, found
            row += 1


def _named_twice(text: bytes, found: Mapping[str, Raw]) -> str | None:
    """A key that an object has twice; None when it has none. The decoder takes the last value and says nothing.

    Every member has a colon of its own, beside those within keys and values: where as many as there are members are
    left when those are taken off, there are no others."""
    colons = text.count(b":")
    if colons == len(found):
        return None
    colons -= sum(bytes(value).count(b":") for value in found.values()) + sum(key.count(":") for key in found)
    if colons == len(found):
        return None
    names = [name for name, _ in _PAIRS.decode(text.decode())]
    return next((name for name in names if names.count(name) > 1), None)


def _elements(f: IO[bytes], file: SourceFile) -> list[Raw]:
    pieces = list(islice(chunks_of(f, file), _ARRAY // CHUNK + 1))
    content = b"".join(pieces).removeprefix(MARK)
    if len(content) > _ARRAY:
        raise Unreadable(f"{file.name}: is longer than {_ARRAY >> 20} MB; use ndjson, which is read line by line")
    if not content.strip():
        return []
    try:
        return _LIST.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Unreadable(f"{file.name}: is no JSON array of objects: {e}") from e


def _text(raw: Raw | None) -> str | None:
    if raw is None:
        return None
    content = bytes(raw)
    if content == b"null":
        return None
    first = content[:1]
    if first == b'"':
        text = msgspec.json.decode(content)
        return text if isinstance(text, str) else None
    return (msgspec.json.format(content, indent=-1) if first in b"[{" else content).decode()
