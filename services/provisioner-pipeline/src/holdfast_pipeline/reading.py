"""Reading one file of a source as a lazy frame: csv, ndjson and json as text, parquet and Delta with their types.

Each file is read alone, without type inference, so that one odd file cannot bend the others: ``01234`` stays text,
numbers of JSON keep every digit, keys that appear late are seen.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, cast

import msgspec
import polars as pl
from msgspec import Raw
from polars.io.plugins import register_io_source

from holdfast_model.errors import Permanent, Temporary

from .files import SourceFile
from .specs import Source
from .tables import Table, mapped

ROW = "_row"
TEXT_FORMATS = frozenset({"csv", "ndjson", "json"})
_BATCH = 50_000
LONGEST = 16 << 20
"""Bytes of a line that is certainly taken."""
_PIECE = 1 << 16
_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"  # of the byte order, as some tools put before UTF-8
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])


class Unreadable(Permanent):
    """The file's content is not what its format says."""


def read(file: SourceFile, source: Source, *, lenient: bool = False) -> pl.LazyFrame:
    """The rows of a file with ``_row`` (0-based) first. A file without any column is a frame of ``_row`` alone.

    ``lenient`` takes what can be read: surplus cells and broken characters of a CSV and broken lines of NDJSON are
    dropped. Raises Unreadable (also while the frame is collected, as a polars error), Temporary for storage.
    """
    try:
        if source.format in ("csv", "ndjson"):
            _assert_lines(file)
        if source.format == "csv":
            return _csv(file, source, lenient)
        if source.format in ("ndjson", "json"):
            return _objects(file, source.format, lenient)
        if source.format == "delta":
            table = Table.open(file.path, version=int(file.tag.rpartition("-")[2]))
            if table is None:
                raise Temporary(f"{file.name!r} went away while it was read")
            frame = table.scan()
        else:
            frame = pl.scan_parquet([file.path], glob=False, hive_partitioning=False)
        names = [n for n in frame.collect_schema().names() if n != ROW]
        return frame.select(names).with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))
    except (Permanent, Temporary):
        raise
    except Exception as e:
        raise unreadable(e, file.name) from e


def unreadable(error: BaseException, name: str) -> BaseException:
    """Unreadable for what a reader raised about the content, Temporary about the storage."""
    found = mapped(error, name)
    return Unreadable(str(found)) if isinstance(found, Permanent) else found


def _assert_lines(file: SourceFile) -> None:
    """Raise Unreadable for a line that no reader could hold. Looks only for one end of line in each stretch of
    :data:`LONGEST` bytes, so lines up to twice as long may pass."""
    if file.size <= LONGEST:
        return
    try:
        with open(file.path, "rb", buffering=0) as f:
            if f.read(2) == _GZIP:
                return
            for start in range(0, file.size - LONGEST, LONGEST):
                f.seek(start)
                seen = 0
                while seen < LONGEST and (piece := f.read(_PIECE)):
                    if b"\n" in piece:
                        break
                    seen += len(piece)
                else:
                    if seen >= LONGEST:
                        line = 1 + _line_ends(f, start)
                        raise Unreadable(f"{file.name}: line {line} is longer than {LONGEST >> 20} MB")
    except OSError as e:
        raise Temporary(f"{file.name!r} cannot be read: {os.strerror(e.errno or 0)}") from e


def _line_ends(f: IO[bytes], until: int) -> int:
    f.seek(0)
    found = 0
    while until > 0 and (piece := f.read(min(1 << 20, until))):
        found += piece.count(b"\n")
        until -= len(piece)
    return found


def _csv(file: SourceFile, source: Source, lenient: bool) -> pl.LazyFrame:
    options = source.options
    given: dict[str, Any] = {k: options[k] for k in ("null_values", "skip_rows", "comment_prefix") if k in options}
    if "quote_char" in options:
        given["quote_char"] = options["quote_char"] or None
    index = "\x00row"  # a name no header can have
    try:
        frame = pl.scan_csv(
            file.path,
            separator=str(options.get("separator", ",")),
            encoding="utf8-lossy" if lenient or options.get("encoding") == "utf8-lossy" else "utf8",
            infer_schema=False,
            glob=False,
            row_index_name=index,
            truncate_ragged_lines=lenient,
            **given,
        )
        names = [n for n in frame.collect_schema().names() if n != index]
    except pl.exceptions.NoDataError:
        return pl.LazyFrame(schema={ROW: pl.Int64})
    # A blank line, or one of separators alone, is no row.
    frame = frame.filter(~pl.all_horizontal(pl.col(n).is_null() for n in names))
    kept = [n for n in names if n != ROW]
    return frame.select(pl.col(index).cast(pl.Int64).alias(ROW), *kept)


def _objects(file: SourceFile, kind: str, lenient: bool) -> pl.LazyFrame:
    names: dict[str, None] = {}
    for _, keys in _decoded(file, kind, lenient):
        names.update(dict.fromkeys(keys))
    names.pop(ROW, None)
    schema = pl.Schema({ROW: pl.Int64, **dict.fromkeys(names, pl.String)})

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
    try:
        with _unpacked(file) as f:
            lines: Iterable[bytes | Raw] = f if kind == "ndjson" else _elements(f.read(), file.name)
            row = 0
            for line in lines:
                if isinstance(line, bytes) and not line.strip():
                    continue
                if row == 0 and isinstance(line, bytes):
                    line = line.removeprefix(_MARK)
                try:
                    found = _OBJECT.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as e:
                    if not lenient:
                        raise Unreadable(f"{file.name}: row {row} is no JSON object: {e}") from e
                else:
                    yield row, found
                row += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise Unreadable(f"{file.name}: cannot be unpacked: {e}") from e
    except OSError as e:
        raise Temporary(f"{file.name!r} cannot be read: {os.strerror(e.errno or 0)}") from e


def _unpacked(file: SourceFile) -> IO[bytes]:
    """The file's content, also of one that is packed by gzip, whatever its name."""
    with open(file.path, "rb") as f:
        packed = f.read(2) == _GZIP
    return cast("IO[bytes]", gzip.open(file.path, "rb")) if packed else open(file.path, "rb")


def _elements(content: bytes, name: str) -> list[Raw]:
    content = content.removeprefix(_MARK)
    if not content.strip():
        return []
    try:
        return _LIST.decode(content)
    except msgspec.DecodeError as e:
        raise Unreadable(f"{name}: is no JSON array of objects: {e}") from e


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
