"""What sinks publish: files or a Delta table with our mark. A target without our mark is never touched.

Files are written beside the target and renamed, so that readers see the old or the new content and nothing between.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl

from holdfast_model.errors import HoldfastError, Permanent, Temporary

from .casting import fit_to, normalised
from .datafiles import scan_files
from .foreign import linked, outside
from .locations import names_in
from .objects import Location
from .reasons import PipelineReason
from .specs import SinkSpec
from .tables import DIGEST, KEY, Table, collected, mapped, write
from .tasks import Context

MARK = "_holdfast"
FILE_FORMATS = ("csv", "parquet")


@dataclass(frozen=True)
class Target(ABC):
    """A sink's place: the folder ``<destination>/<id>``, inside the tenant's roots or stores."""

    folder: Location
    node: str
    mark: str

    @abstractmethod
    def _file_tag(self, kind: str) -> str: ...

    @abstractmethod
    def _write_file(self, context: Context, frame: pl.LazyFrame, spec: SinkSpec) -> str:
        """Replace the file's content and return its sha."""

    @abstractmethod
    def _remove_files(self, *, but: str = "") -> None:
        """Remove files of ours and the mark, or all files but one of a format."""

    @abstractmethod
    def _remove_table(self) -> None: ...

    def kind(self) -> str:
        """What is there: ``absent``, ``files`` or ``delta`` of this sink. Permanent when it is somebody else's."""
        try:
            names = [n for n in names_in(self.folder) if not n.endswith(".tmp")]
            table = self._table() if "_delta_log" in names else None
            if table is not None and table.description != self.mark:
                raise self._foreign("is a Delta table that is not marked as this sink's")
            if table is not None:
                return "delta"
            mark = (self.folder / MARK).read_bytes().decode(errors="replace") if MARK in names else ""
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be read: {e}") from e
        if mark:
            if mark != self.mark:
                raise self._foreign("is marked as another sink's")
            return "files"
        # An empty mark was never finished, nor was a table that has no log.
        others = [n for n in names if n not in (MARK, "_delta_log", "")]
        if not all(n.startswith("part-") and n.endswith(".parquet") for n in others):
            raise self._foreign("holds files and is not marked as this sink's")
        return "absent"

    def file(self, kind: str) -> Location:
        return self.folder / f"{self.node}.{kind}"

    def _table(self) -> Table | None:
        """The Delta table that is there."""
        return Table.open(self.folder)

    def _foreign(self, why: str) -> Permanent:
        return Permanent(
            f"target {str(self.folder)!r} {why}; choose another destination or remove it",
            reason=PipelineReason.TARGET_NOT_OURS,
        )

    def tag(self, kind: str) -> str:
        """Changes whenever somebody changes the published content; "" when it is not there."""
        if kind == "delta":
            table = self._table()
            return "" if table is None else f"{table.metadata_id}-{table.version}"
        try:
            return self._file_tag(kind)
        except FileNotFoundError:
            return ""
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be read: {e}") from e

    def published(self, kind: str) -> pl.LazyFrame | None:
        """The rows that are published now, where they can be compared (not for csv)."""
        if kind == "delta":
            table = self._table()
            return table.scan() if table is not None else None
        if kind == "parquet" and self.file(kind).exists():
            return scan_files([self.file(kind)])
        return None

    def content(self, frame: pl.LazyFrame, spec: SinkSpec) -> pl.LazyFrame:
        """What the target will hold when ``frame`` is published on top of what is there now. Permanent when it cannot
        hold that."""
        self.assert_holds(frame, spec.format)
        there = self._table() if spec.mode == "upsert" and self.kind() == "delta" else None
        return self._content(there, frame, spec)

    def assert_holds(self, frame: pl.LazyFrame, kind: str) -> None:
        """Raise Permanent, with the columns, for what a file of this kind cannot hold."""
        nested = {n: t for n, t in frame.collect_schema().items() if t.is_nested() or t == pl.Binary}
        if kind == "csv" and nested:
            shown = ", ".join(f"{name!r} ({dtype})"[:200] for name, dtype in nested.items())
            raise Permanent(
                f"{self.node}: csv holds no lists, structs or bytes: {shown}; make the sink parquet or delta, or have "
                "a transformer leave them out or take single values of them"
            )

    def _content(self, there: Table | None, frame: pl.LazyFrame, spec: SinkSpec) -> pl.LazyFrame:
        frame = normalised(frame)
        return upserted(there, frame, spec.keys, self.node) if spec.mode == "upsert" else frame

    def publish(self, context: Context, frame: pl.LazyFrame, spec: SinkSpec, key: str) -> str:
        """Replace the content and return its sha (of a Delta table: the content key). Safe to run again."""
        self.assert_holds(frame, spec.format)
        try:
            there = self.kind()
            if spec.format == "delta":
                if there == "files":
                    self._remove_files()
                table = self._table()
                if table is None or table.key != key:
                    meta = {KEY: key, DIGEST: context.task.digest}
                    write(context, self.folder, table, self._content(table, frame, spec), meta, description=self.mark)
                return key
            if there == "delta":
                self._remove_table()
            sha = self._write_file(context, frame, spec)
            self._remove_files(but=spec.format)
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be written: {e}") from e
        return sha

    def drop(self) -> None:
        """Remove what we published: the marked table, or files of ours and nothing else."""
        try:
            kind = self.kind()
            if kind == "delta":
                self._remove_table()
            elif kind == "files":
                self._remove_files()
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be removed: {e}") from e


@dataclass(frozen=True)
class FolderTarget(Target):
    """In a folder of a disk. Files are in a folder with a mark."""

    folder: Path

    def kind(self) -> str:
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise self._foreign("is no folder")
        try:
            link = next((n for n in self._names() if (self.folder / n).is_symlink()), None)
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be read: {e}") from e
        if link is not None:
            raise self._foreign(f"holds a link, {link!r}")
        return super().kind()

    def _names(self) -> list[str]:
        """What is ours in the folder. None of it is a link: what is read or written through one is anybody's."""
        temporary = [n for n in names_in(self.folder) if n.startswith(f".{self.node}.")]
        return ["_delta_log", MARK, *(self.file(kind).name for kind in FILE_FORMATS), *temporary]

    def _table(self) -> Table | None:
        """The Delta table that is there. Permanent when its log or its files are somewhere else."""
        link: Location | None = linked(self.folder, None)
        table = super()._table() if link is None else None
        if table is not None:
            link = linked(self.folder, table) or next(iter(outside(self.folder, table)), None)
        if link is not None:
            raise self._foreign(f"has a log or files elsewhere ({link.name!r})")
        return table

    def _file_tag(self, kind: str) -> str:
        stat = os.stat(self.folder / f"{self.node}.{kind}")
        return f"{stat.st_size}-{stat.st_mtime_ns}"

    def _claim(self) -> None:
        """Put the mark there whole: half of one would be somebody else's for ever."""
        handle, written = tempfile.mkstemp(prefix=f".{self.node}.mark.", suffix=".tmp", dir=self.folder)
        with open(handle, "w", encoding="utf-8") as f:
            f.write(self.mark)
        os.chmod(written, 0o644)
        self._publish_file(Path(written), MARK)

    def _publish_file(self, written: Path, name: str) -> None:
        """Rename a file into its place, unless the folder was replaced by a link meanwhile."""
        if os.path.realpath(self.folder) != str(self.folder):
            raise self._foreign("became a link")
        os.replace(written, self.folder / name)

    def _write_file(self, context: Context, frame: pl.LazyFrame, spec: SinkSpec) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.kind() != "files":
            self._claim()
        self._remove_unfinished()
        handle, name = tempfile.mkstemp(prefix=f".{self.node}.", suffix=".tmp", dir=self.folder)
        os.close(handle)
        written = Path(name)
        try:
            sha = sunk(frame, written, spec, self.node)
            written.chmod(0o644)
            context.in_time()
            self._publish_file(written, self.file(spec.format).name)
            _sync(self.folder)
        finally:
            written.unlink(missing_ok=True)
        return sha

    def _remove_unfinished(self) -> None:
        for left in self.folder.glob(f".{self.node}.*.tmp"):
            left.unlink(missing_ok=True)

    def _remove_files(self, *, but: str = "") -> None:
        for kind in FILE_FORMATS:
            if kind != but:
                self.file(kind).unlink(missing_ok=True)
        if not but:
            self._remove_unfinished()
            (self.folder / MARK).unlink(missing_ok=True)
            with suppress(OSError):  # not empty: somebody keeps files there
                self.folder.rmdir()

    def _remove_table(self) -> None:
        shutil.rmtree(self.folder)


def upserted(there: Table | None, frame: pl.LazyFrame, keys: Sequence[str], name: str) -> pl.LazyFrame:
    """The rows of ``frame``, and those of ``there`` whose keys ``frame`` does not have; null keys are equal.

    A column that only one of them has is null in the rows of the other. Raises Permanent when keys are missing or
    not unique in ``frame``, or a column changed its type.
    """
    given = frame.collect_schema()
    missing = [k for k in keys if k not in given]
    if missing:
        raise Permanent(f"{name}: there is no key column {', '.join(missing)}")
    twice = collected(frame.group_by(keys).len().filter(pl.col("len") > 1).select(keys).sort(keys).head(3), name)
    if twice.height:
        examples = ", ".join(repr(tuple(map(str, row))) for row in twice.iter_rows())
        raise Permanent(f"{name}: keys {', '.join(keys)} are not unique in the input, for example {examples}")
    if there is None:
        return frame
    old = there.schema()
    bent = [f"{c}: {old[c]} there, {t} given" for c, t in given.items() if c in old and old[c] != t]
    lost = [k for k in keys if k not in old]
    if bent or lost:
        why = f"columns changed their type ({'; '.join(bent)})" if bent else f"it has no key {', '.join(lost)}"
        raise Permanent(f"{name}: the target cannot be merged with: {why}; remove it or use overwrite")
    schema = pl.Schema({**old, **given})
    kept = there.scan().join(frame.select(keys), on=list(keys), how="anti", nulls_equal=True)
    return pl.concat([fit_to(kept, schema), fit_to(frame, schema)])


def sunk(frame: pl.LazyFrame, path: Path, spec: SinkSpec, name: str) -> str:
    """Write the rows to a file, down to the disk, and return the sha of its content."""
    try:
        _sink(frame, path, spec)
        digest = sha256()
        with open(path, "rb") as f:
            while chunk := f.read(1 << 20):
                digest.update(chunk)
            os.fsync(f.fileno())
        return digest.hexdigest()
    except HoldfastError:
        raise
    except Exception as e:
        raise mapped(e, name) from e


def _sink(frame: pl.LazyFrame, path: Path, spec: SinkSpec) -> None:
    if spec.format == "parquet":
        frame.sink_parquet(path)
        return
    options = spec.options
    frame.sink_csv(
        path,
        separator=str(options.get("separator", ",")),
        include_header=bool(options.get("include_header", True)),
        null_value=str(options.get("null_value", "")),
    )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
