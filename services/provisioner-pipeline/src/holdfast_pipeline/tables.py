"""Delta tables under one commit discipline, so that every result takes effect exactly once.

A commit of ours names its content key. To write, one handle is opened, its newest commit compared, and the
result committed through *that handle* without retries: whoever wrote in between makes the commit fail. Files
of a table are scanned by path, because Delta scans and ``history()`` lose folders with spaces, ``%`` or
``#`` in their names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
import polars as pl
from arro3.core import RecordBatchReader
from arro3.core import Table as ArrowTable
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from holdfast_model.errors import HoldfastError, Permanent, Temporary

from .tasks import Context

KEY = "holdfast_key"
DIGEST = "holdfast_digest"
DATA_VERSION = "holdfast_version"
MAINTAINED = "holdfast_maintained"
"""Commit metadata: content key, digest of the stage, and, only on maintenance commits, the data version that they
repeat and the version that they were made on."""

_BATCH = 131_072
_DAMAGED = re.compile(r"unexpected end of file|deflate|gzip|zstd", re.IGNORECASE)
_UNUSABLE = re.compile(r"%[0-9A-Fa-f]{2}|[\[\]^|\\\x00-\x1f]")
"""What Delta's library misreads in a folder's path: it decodes ``%2F`` to ``/``, that is, opens another folder."""


class DataVersion(NamedTuple):
    """Which content of a table: its metadata id and the newest commit that bears a content key."""

    table: str
    version: int


def content_key(**parts: object) -> str:
    """sha256 over named parts; equal parts give an equal key in every process."""
    return sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


@dataclass(frozen=True)
class Table:
    """An open handle on one version of a table. ``commit``: our metadata of its newest data commit ({} =
    none)."""

    folder: Path
    handle: DeltaTable
    version: int
    metadata_id: str
    description: str
    commit: Mapping[str, str]
    data_version: DataVersion
    foreign: bool

    @classmethod
    def open(cls, folder: Path, version: int | None = None) -> Table | None:
        """The table in ``folder``, or None when there is none. Raises Temporary when it cannot be read."""
        assert_usable(folder)
        try:
            handle = DeltaTable(str(folder), version=version)
            found = handle.version()
            metadata = handle.metadata()
        except TableNotFoundError:
            if version is not None:
                raise Temporary(
                    f"version {version} of {folder.name} cannot be read any more; plan again", reason="input_moved"
                ) from None
            if os.path.lexists(folder):
                os.listdir(folder)  # "not there" and "no permission" look alike to the library
            return None
        except DeltaError as e:
            raise Temporary(f"table {folder.name} cannot be read: {e}") from e
        at, commit, foreign = _newest_ours(folder, found)
        data = int(commit.get(DATA_VERSION, at))
        return cls(
            folder, handle, found, str(metadata.id), metadata.description or "", commit,
            DataVersion(str(metadata.id), data), foreign,
        )  # fmt: skip

    @property
    def key(self) -> str:
        """The content key of the newest commit; "" when somebody else wrote that commit."""
        return "" if self.foreign else self.commit.get(KEY, "")

    @property
    def digest(self) -> str:
        return self.commit.get(DIGEST, "")

    def paths(self) -> list[Path]:
        """The data files of this version."""
        names = self.handle.get_add_actions().column("path").to_pylist()
        return [self.folder / _local(str(n)) for n in names]

    def schema(self) -> pl.Schema:
        """Column names and types as polars reads them."""
        arrow = ArrowTable.from_batches([], schema=self.handle.schema().to_arrow())
        frame: pl.DataFrame = pl.DataFrame(arrow)
        return frame.schema

    def scan(self) -> pl.LazyFrame:
        """All rows of this version, lazily; columns and types as :meth:`schema` says."""
        schema = self.schema()
        paths = self.paths()
        if not paths:
            return pl.LazyFrame(schema=schema)
        return pl.scan_parquet(paths, schema=schema, glob=False, missing_columns="insert", hive_partitioning=False)

    def rows(self) -> int:
        """The number of rows, from the log."""
        return sum(int(n or 0) for n in self.handle.get_add_actions().column("num_records").to_pylist())


def _local(path: str) -> str:
    return unquote(urlsplit(path).path) if path.startswith("file:") else unquote(path)


def _newest_ours(folder: Path, version: int) -> tuple[int, dict[str, str], bool]:
    """(version, metadata, whether others wrote after it) of the newest commit at or below ``version`` with a content
    key, or (version, {}, False).

    Delta lets a compaction pass that others appended before. What it repeats is out of date then, so it is passed over.
    """
    at, foreign = version, False
    while at >= 0:
        try:
            with open(folder / "_delta_log" / f"{at:020d}.json", encoding="utf-8") as log:
                lines = log.read().splitlines()
        except FileNotFoundError:
            break  # older commits were folded into a checkpoint
        infos = [json.loads(line).get("commitInfo") for line in lines if '"commitInfo"' in line]
        ours = next((info for info in infos if info is not None and KEY in info), None)
        if ours is None:
            foreign = True
        elif int(ours.get(MAINTAINED, at - 1)) == at - 1:
            return at, {k: str(v) for k, v in ours.items() if k.startswith("holdfast_")}, foreign
        at -= 1
    return version, {}, False


class _Stopped(Exception):  # carries a foreign or own exception across the Arrow boundary
    pass


def write(
    context: Context,
    folder: Path,
    base: Table | None,
    frame: pl.LazyFrame,
    metadata: Mapping[str, str],
    *,
    mode: Literal["append", "overwrite"] = "overwrite",
    replace: str | None = None,
    description: str = "",
    before: Callable[[], None] = lambda: None,
) -> Table:
    """Commit ``frame`` on top of ``base`` (None: as the first version) with ``metadata``, and return the new
    table.

    ``replace``: a predicate; only rows it selects are overwritten. ``before`` runs when all rows are written
    and nothing is committed yet; raising there (or when the deadline is over) leaves no trace. When somebody
    else committed first: a table with the same content key is a success, anything else raises Temporary.
    """
    assert_usable(folder)
    if base is not None and (mode == "append" or replace is not None):
        assert_types(base.schema(), frame.collect_schema(), folder.name)
    stop: list[BaseException] = []
    reader = _reader(context, frame, before, stop, folder.name)
    properties = CommitProperties(custom_metadata=dict(metadata), max_commit_retries=0)
    try:
        if base is None:
            folder.mkdir(parents=True, exist_ok=True)
            write_deltalake(
                str(folder), reader, mode="error", commit_properties=properties,
                description=description or context.mark, name=context.task.node,
            )  # fmt: skip
        elif mode == "append":
            write_deltalake(base.handle, reader, mode="append", commit_properties=properties)
        elif replace is not None:
            write_deltalake(base.handle, reader, mode="overwrite", predicate=replace, commit_properties=properties)
        else:
            write_deltalake(
                base.handle, reader, mode="overwrite", schema_mode="overwrite", commit_properties=properties
            )
    except CommitFailedError:
        return _lost_race(folder, metadata)
    except Exception as e:
        if stop:
            raise mapped(stop[0], folder.name) from stop[0]
        if base is None and isinstance(e, DeltaError) and Table.open(folder) is not None:
            return _lost_race(folder, metadata)
        raise Temporary(f"table {folder.name} cannot be written: {e}") from e
    return opened(folder)


def assert_usable(folder: Path) -> None:
    """Raise Permanent for a path that Delta's library would take for another one."""
    found = _UNUSABLE.search(str(folder))
    if found is not None:
        raise Permanent(f"a Delta table cannot be in {str(folder)!r}: {found[0]!r} in a folder's name is misread")


def opened(folder: Path) -> Table:
    """The table in ``folder``, which must be there; Temporary if it is not."""
    table = Table.open(folder)
    if table is None:
        raise Temporary(f"table {folder.name} went away")
    return table


def _lost_race(folder: Path, metadata: Mapping[str, str]) -> Table:
    table = Table.open(folder)
    if table is not None and table.key == metadata[KEY]:
        return table
    text = f"lost a race: table {folder.name} was written by somebody else meanwhile"
    raise Temporary(text, retry_after=1.0, reason="lost_race")


def _reader(
    context: Context, frame: pl.LazyFrame, before: Callable[[], None], stop: list[BaseException], name: str
) -> RecordBatchReader:
    try:
        schema = ArrowTable.from_arrow(pl.DataFrame(schema=frame.collect_schema())).schema
    except Exception as e:
        raise mapped(e, name) from e

    def batches() -> Iterator[Any]:
        done = 0
        try:
            for batch in frame.collect_batches(chunk_size=_BATCH, maintain_order=True):
                done += batch.height
                context.progress(done, None, "rows", name)
                if batch.height:
                    yield from ArrowTable.from_arrow(batch).to_batches()
            before()
            context.in_time()
        except BaseException as e:
            stop.append(e)
            raise _Stopped from e

    return RecordBatchReader.from_batches(schema, batches())


def mapped(error: BaseException, name: str) -> BaseException:
    """Our error for what reading or computing raised: storage trouble is Temporary, a query that cannot be
    computed is Permanent; our own errors and interrupts pass."""
    if isinstance(error, pl.exceptions.PanicException):
        return Permanent(f"{name}: cannot be computed: {error}")  # a defect of polars; it is no Exception
    if isinstance(error, HoldfastError) or not isinstance(error, Exception):
        return error
    text = str(error).split("\n\nResolved plan", 1)[0].strip()
    if isinstance(error, OSError) and error.errno is None and _DAMAGED.search(text):
        return Permanent(f"{name}: cannot be unpacked: {text}")  # the content, not the storage
    if isinstance(error, OSError) or "os error" in text:
        return Temporary(f"{name}: storage cannot be read or written: {text}")
    if isinstance(error, pl.exceptions.PolarsError):
        return Permanent(f"{name}: cannot be computed: {text}")
    return Temporary(f"{name}: {type(error).__name__}: {text}")


def collected(frame: pl.LazyFrame, name: str) -> pl.DataFrame:
    """The rows of ``frame`` in memory; for small results only. Errors as :func:`mapped`."""
    try:
        return frame.collect(engine="streaming")
    except (Exception, pl.exceptions.PanicException) as e:
        raise mapped(e, name) from e


def assert_types(there: pl.Schema, given: pl.Schema, name: str) -> None:
    """Raise Permanent unless both have the same columns with the same types: an append would bend values to
    fit."""
    if dict(there) != dict(given):
        wrong = sorted(
            c for c in {*there, *given} if there.get(c) != given.get(c)
        )  # fmt: skip
        pairs = ", ".join(f"{c}: {there.get(c)} there, {given.get(c)} given" for c in wrong)
        raise Permanent(f"{name}: columns do not fit the table ({pairs})")


def in_list(column: str, values: Sequence[str]) -> str:
    """A Delta predicate: ``column`` is one of ``values``."""
    quoted = ", ".join("'" + v.replace("'", "''") + "'" for v in values)
    return f"{column} in ({quoted})"
