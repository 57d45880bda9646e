"""Delta tables under one commit discipline, so that every result takes effect exactly once.

A commit of ours names its content key. To write, one handle is opened, its newest commit compared, and the
result committed through *that handle* without retries: whoever wrote in between makes the commit fail. Files
of a table are scanned by path, because Delta scans and ``history()`` lose folders with spaces, ``%`` or
``#`` in their names.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
import polars as pl
from arro3.core import Table as ArrowTable
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from holdfast_model.errors import Forbidden, HoldfastError, Permanent, Temporary

from .casting import alike
from .datafiles import holds, measured, remove_files, scan_files, write_files
from .locations import assert_listable, size_of
from .objects import Location, ObjectPath, delta_place
from .reasons import PipelineReason
from .tasks import Context

KEY = "holdfast_key"
DIGEST = "holdfast_digest"
DATA_VERSION = "holdfast_version"
MAINTAINED = "holdfast_maintained"
AT = "holdfast_at"
ADDED = "holdfast_added"
"""Commit metadata: content key, digest of the stage, and, only on maintenance commits, the data version that they
repeat, the version that they were made on and when its rows were committed (milliseconds since the epoch; of other
commits the log itself says that). Last, how many rows were written."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STORAGE = re.compile(r"os error|object-store error|Generic S3 error")
_DAMAGED = re.compile(r"unexpected end of file|deflate|gzip|zstd", re.IGNORECASE)
_TOO_LARGE = re.compile(r"conversion from `i128` to `i64` failed in column '(.*?)' for .* values: \[([^],]*)")
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

    folder: Location
    handle: DeltaTable
    version: int
    metadata_id: str
    description: str
    commit: Mapping[str, str]
    data_version: DataVersion
    foreign: bool

    @classmethod
    def open(cls, folder: Location, version: int | None = None) -> Table | None:
        """The table in ``folder``, or None when there is none. Raises Temporary when it cannot be read."""
        assert_usable(folder)
        try:
            address, options = delta_place(folder)
            handle = DeltaTable(address, version=version, storage_options=options)
        except TableNotFoundError:
            if version is not None:
                raise Temporary(
                    f"version {version} of {folder.name} cannot be read any more; plan again",
                    reason=PipelineReason.INPUT_MOVED,
                ) from None
            assert_listable(folder)  # "not there" and "no permission" look alike to the library
            return None
        except DeltaError as e:
            assert_listable(folder)
            raise Temporary(f"table {folder.name} cannot be read: {e}") from e
        except OSError as e:
            if isinstance(folder, ObjectPath):
                assert_listable(folder)
                raise Temporary(f"table {folder.name} cannot be read: {plain(e)}") from e
            raise
        return cls._of(folder, handle)

    @classmethod
    def _of(cls, folder: Location, handle: DeltaTable) -> Table:
        version, metadata = handle.version(), handle.metadata()
        at, commit, foreign = _newest_ours(folder, version)
        data = DataVersion(str(metadata.id), int(commit.get(DATA_VERSION, at)))
        return cls(
            folder, handle, version, str(metadata.id), metadata.description or "", commit, data, foreign
        )  # fmt: skip

    def after_commit(self) -> Table:
        """The table as it is now, by the same handle: it reads only what came to the log, not all of it again. What
        this one says of its own version it goes on to say, but nothing can be committed on top of it any more."""
        _ = self._files, self._schema
        try:
            self.handle.update_incremental()
            return self._of(self.folder, self.handle)
        except (DeltaError, OSError):
            return opened(self.folder)

    @property
    def passed(self) -> bool:
        """Whether a newer version was committed by this handle."""
        return self.handle.version() != self.version

    @property
    def key(self) -> str:
        """The content key of the newest commit; "" when somebody else wrote that commit."""
        return "" if self.foreign else self.commit.get(KEY, "")

    @property
    def digest(self) -> str:
        return self.commit.get(DIGEST, "")

    def paths(self) -> list[Location]:
        """The data files of this version."""
        return [_data_file(self.folder, str(n)) for n in self._files["path"]]

    def schema(self) -> pl.Schema:
        """Column names and types as polars reads them."""
        return pl.Schema(self._schema)

    @cached_property
    def _schema(self) -> pl.Schema:
        arrow = ArrowTable.from_batches([], schema=self.handle.schema().to_arrow())
        frame: pl.DataFrame = pl.DataFrame(arrow)
        return frame.schema

    def scan(self, paths: Sequence[Location] | None = None) -> pl.LazyFrame:
        """All rows of this version, or those in some of its files, lazily; columns and types as :meth:`schema` says."""
        schema = self.schema()
        paths = self.paths() if paths is None else paths
        if not paths:
            return pl.LazyFrame(schema=schema)
        return scan_files(paths, schema=schema, missing_columns="insert")

    def rows(self) -> int:
        """The number of rows, from the log."""
        return sum(int(n or 0) for n in self._files["num_records"])

    @cached_property
    def _files(self) -> dict[str, list[Any]]:
        actions = self.handle.get_add_actions()
        return {c: actions.column(c).to_pylist() for c in ("path", "num_records")}


def _data_file(folder: Location, name: str) -> Location:
    if isinstance(folder, Path):
        return folder / (unquote(urlsplit(name).path) if name.startswith("file:") else unquote(name))
    # A log may name files anywhere. There is no way to look where such a key leads, so it must be the table's own.
    path = unquote(name).removeprefix(f"{folder}/")
    if "://" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise Forbidden(f"table {str(folder)!r} names a file outside of its folder")
    return folder / path


def _newest_ours(folder: Location, version: int) -> tuple[int, dict[str, str], bool]:
    """(version, metadata, whether others wrote after it) of the newest commit at or below ``version`` with a content
    key, or (version, {}, False).

    Delta lets a compaction pass that others appended before. What it repeats is out of date then, so it is passed over.
    """
    at, foreign = version, False
    while at >= 0:
        try:
            lines = (folder / "_delta_log" / f"{at:020d}.json").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            break  # older commits were folded into a checkpoint
        infos = [json.loads(line).get("commitInfo") for line in lines if '"commitInfo"' in line]
        ours = next((info for info in infos if info is not None and KEY in info), None)
        if ours is None:
            foreign = True
        elif int(ours.get(MAINTAINED, at - 1)) == at - 1:
            return at, our_metadata(ours), foreign
        at -= 1
    return version, {}, False


def our_metadata(info: Mapping[str, Any]) -> dict[str, str]:
    """What a commit's ``commitInfo`` says of a data commit of ours, with its time."""
    said = {AT: info.get("timestamp", ""), **info}
    return {k: str(v) for k, v in said.items() if k.startswith("holdfast_")}


def write(
    context: Context,
    folder: Location,
    base: Table | None,
    frame: pl.LazyFrame,
    metadata: Mapping[str, str],
    *,
    mode: Literal["append", "overwrite"] = "overwrite",
    replace: pl.Expr | None = None,
    description: str = "",
    before: Callable[[], None] = lambda: None,
) -> Table:
    """Commit ``frame`` on top of ``base`` (None: as the first version) with ``metadata``, and return the new
    table.

    ``replace``: only rows for which it is true are overwritten. ``before`` runs when all rows are written
    and nothing is committed yet; raising there (or when the deadline is over) leaves no trace. When somebody
    else committed first: a table with the same content key is a success, anything else raises Temporary.
    """
    assert_usable(folder)
    name = folder.name
    try:
        schema = frame.collect_schema()
        pair = alike(schema)
        if pair is not None:
            raise Permanent(
                f"{name}: columns {pair[0]!a} and {pair[1]!a} differ in spelling only; a table has one of them"
            )
        if base is not None and (mode == "append" or replace is not None):
            assert_types(base.schema(), schema, name)
        outdated: list[RemoveAction] = []
        if base is not None and replace is not None:
            frame, outdated = _merged(context, base, frame, replace)
        made = _placed(context, folder, frame, before)
    except (Exception, pl.exceptions.PanicException) as e:
        raise mapped(e, name) from e
    said = {**metadata, ADDED: str(sum(rows for _, rows in made))}
    properties = CommitProperties(custom_metadata=said, max_commit_retries=0)
    added = [add for add, _ in made]
    columns = Schema.from_arrow(ArrowTable.from_arrow(pl.DataFrame(schema=schema)).schema)
    if base is not None and base.passed:
        return _lost_race(folder, metadata)
    try:
        if base is None:
            address, options = delta_place(folder)
            create_table_with_add_actions(
                address, columns, added, mode="error", commit_properties=properties, storage_options=options,
                description=description or context.mark, name=context.task.node,
            )  # fmt: skip
        else:
            how = "append" if replace is not None else mode
            base.handle.create_write_transaction([*added, *outdated], how, columns, commit_properties=properties)
    except CommitFailedError:
        return _lost_race(folder, metadata)
    except Exception as e:
        if base is None and isinstance(e, DeltaError) and Table.open(folder) is not None:
            return _lost_race(folder, metadata)
        raise Temporary(f"table {name} cannot be written: {plain(e)}") from e
    return opened(folder) if base is None else base.after_commit()


def _placed(
    context: Context, folder: Location, frame: pl.LazyFrame, before: Callable[[], None]
) -> list[tuple[AddAction, int]]:
    """Write the rows to files that no version names yet; none are left when this raises. Those of an object store are
    written here first, and put there whole."""

    def progress(rows: int) -> None:
        context.progress(rows, None, "rows", folder.name)

    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
        files = write_files(folder, frame, progress)
        with _removed_on_error([*files]):
            before()
            context.in_time()
            return [measured(f, rows) for f, rows in files.items()]
    with tempfile.TemporaryDirectory(prefix="table-") as scratch:
        files = write_files(Path(scratch), frame, progress)
        with _removed_on_error([folder / f.name for f in files]):
            for f in files:
                (folder / f.name).put(f)
            before()
            context.in_time()
            return [measured(f, rows) for f, rows in files.items()]


@contextmanager
def _removed_on_error(paths: Sequence[Location]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            remove_files(paths)
        raise


def repeated(context: Context, base: Table, metadata: Mapping[str, str]) -> Table:
    """Commit ``metadata`` on top of ``base``, whose rows stay as they are. Races as in :func:`write`."""
    context.in_time()
    properties = CommitProperties(custom_metadata={**metadata, ADDED: "0"}, max_commit_retries=0)
    if base.passed:
        return _lost_race(base.folder, metadata)
    try:
        base.handle.create_write_transaction([], "append", base.handle.schema(), commit_properties=properties)
    except CommitFailedError:
        return _lost_race(base.folder, metadata)
    except Exception as e:
        raise Temporary(f"table {base.folder.name} cannot be written: {plain(e)}") from e
    return base.after_commit()


def _merged(
    context: Context, base: Table, frame: pl.LazyFrame, replace: pl.Expr
) -> tuple[pl.LazyFrame, list[RemoveAction]]:
    """What is to be written, and which data files are outdated, when rows of ``base`` are replaced: the files that
    hold any of them are written again without them."""
    touched = [p for p in base.paths() if holds(p, replace)]
    now = int(context.now() * 1000)
    outdated = [RemoveAction(p.name, True, now, size_of(p), {}) for p in touched]
    if not touched:
        return frame, []
    kept = base.scan(touched).filter(~replace)
    return pl.concat([kept, frame.select(base.schema().names())]), outdated


def assert_usable(folder: Location) -> None:
    """Raise Permanent for a path that Delta's library would take for another one."""
    found = _UNUSABLE.search(str(folder))
    if found is not None:
        raise Permanent(f"a Delta table cannot be in {str(folder)!r}: {found[0]!r} in a folder's name is misread")


def opened(folder: Location) -> Table:
    """The table in ``folder``, which must be there; Temporary if it is not."""
    table = Table.open(folder)
    if table is None:
        raise Temporary(f"table {folder.name} went away")
    return table


def _lost_race(folder: Location, metadata: Mapping[str, str]) -> Table:
    table = Table.open(folder)
    if table is not None and table.key == metadata[KEY]:
        return table
    text = f"lost a race: table {folder.name} was written by somebody else meanwhile"
    raise Temporary(text, retry_after=1.0, reason=PipelineReason.LOST_RACE)


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
    if isinstance(error, OSError) or _STORAGE.search(text):
        return Temporary(f"{name}: storage cannot be read or written: {plain(error)}")
    if found := _TOO_LARGE.search(text):
        why = f"column {found[1]!r} has whole numbers beyond int64, such as {found[2]}"
        return Permanent(f"{name}: {why}; have decimals instead, like sum(cast(n as decimal(38,0)))")
    if isinstance(error, pl.exceptions.PolarsError):
        return Permanent(f"{name}: cannot be computed: {text}")
    return Temporary(f"{name}: {type(error).__name__}: {text}")


def plain(error: BaseException) -> str:
    """What a library says, in one line without colours; the end of what is long says nothing new."""
    text = str(error).split("\n\nResolved plan", 1)[0]
    return " ".join(_COLOUR.sub("", text).split())[:500]


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
