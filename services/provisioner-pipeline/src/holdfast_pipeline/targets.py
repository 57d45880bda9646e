"""Where sinks publish: files in a marked folder, or a marked Delta table. A target without our mark is never touched.

Files are written beside the target and renamed, so that readers see the old or the new content and nothing between.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl

from holdfast_model.errors import HoldfastError, Permanent, Temporary

from .casting import fit_to, normalised
from .roots import Roots
from .specs import SinkSpec
from .tables import DIGEST, KEY, Table, collected, mapped, write
from .tasks import Context

MARK = "_holdfast"
_FILE_FORMATS = ("csv", "parquet")


@dataclass(frozen=True)
class Target:
    """A sink's place: the folder ``<destination>/<id>``, real and inside the tenant's roots."""

    folder: Path
    node: str
    mark: str

    def file(self, kind: str) -> Path:
        return self.folder / f"{self.node}.{kind}"

    def kind(self) -> str:
        """What is there: ``absent``, ``files`` or ``delta`` of this sink. Permanent when it is somebody else's."""
        try:
            if not os.path.lexists(self.folder):
                return "absent"
            if not self.folder.is_dir():
                raise self._foreign("is no folder")
            if (self.folder / "_delta_log").is_dir():
                table = Table.open(self.folder)
                if table is not None and table.description != self.mark:
                    raise self._foreign("is a Delta table that is not marked as this sink's")
                if table is not None:
                    return "delta"
            names = [n for n in os.listdir(self.folder) if n != "_delta_log" and not n.endswith(".tmp")]
            if MARK in names:
                if (self.folder / MARK).read_text(encoding="utf-8") != self.mark:
                    raise self._foreign("is marked as another sink's")
                return "files"
            if names and not all(n.endswith(".parquet") and n.startswith("part-") for n in names):
                raise self._foreign("holds files and is not marked as this sink's")
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be read: {e}") from e
        return "absent"

    def _foreign(self, why: str) -> Permanent:
        return Permanent(
            f"target {str(self.folder)!r} {why}; choose another destination or remove it", reason="target_not_ours"
        )

    def tag(self, kind: str) -> str:
        """Changes whenever somebody changes the published content; "" when it is not there."""
        if kind == "delta":
            table = Table.open(self.folder)
            return "" if table is None else f"{table.metadata_id}-{table.version}"
        try:
            stat = os.stat(self.file(kind))
        except FileNotFoundError:
            return ""
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be read: {e}") from e
        return f"{stat.st_size}-{stat.st_mtime_ns}"

    def published(self, kind: str) -> pl.LazyFrame | None:
        """The rows that are published now, where they can be compared (not for csv)."""
        if kind == "delta":
            table = Table.open(self.folder)
            return table.scan() if table is not None else None
        if kind == "parquet" and self.file(kind).exists():
            return pl.scan_parquet([self.file(kind)], glob=False)
        return None

    def content(self, frame: pl.LazyFrame, spec: SinkSpec) -> pl.LazyFrame:
        """What the target will hold when ``frame`` is published on top of what is there now."""
        there = Table.open(self.folder) if spec.mode == "upsert" and self.kind() == "delta" else None
        return self._content(there, frame, spec)

    def _content(self, there: Table | None, frame: pl.LazyFrame, spec: SinkSpec) -> pl.LazyFrame:
        frame = normalised(frame)
        return upserted(there, frame, spec.keys, self.node) if spec.mode == "upsert" else frame

    def publish(self, context: Context, frame: pl.LazyFrame, spec: SinkSpec, key: str) -> str:
        """Replace the content and return its sha (of a Delta table: the content key). Safe to run again."""
        there = self.kind()
        try:
            if spec.format == "delta":
                if there == "files":
                    self._remove_files()
                table = Table.open(self.folder)
                if table is None or table.key != key:
                    meta = {KEY: key, DIGEST: context.task.digest}
                    write(context, self.folder, table, self._content(table, frame, spec), meta, description=self.mark)
                return key
            if there == "delta":
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / MARK).write_text(self.mark, encoding="utf-8")
            sha = self._write_file(context, frame, spec)
            for other in _FILE_FORMATS:
                if other != spec.format:
                    self.file(other).unlink(missing_ok=True)
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be written: {e}") from e
        return sha

    def _write_file(self, context: Context, frame: pl.LazyFrame, spec: SinkSpec) -> str:
        for left in self.folder.glob(f".{self.node}.*.tmp"):
            with suppress(FileNotFoundError):
                left.unlink()
        handle, name = tempfile.mkstemp(prefix=f".{self.node}.", suffix=".tmp", dir=self.folder)
        os.close(handle)
        written = Path(name)
        try:
            _sink(frame, written, spec)
            digest = sha256()
            with open(written, "rb") as f:
                while chunk := f.read(1 << 20):
                    digest.update(chunk)
                os.fsync(f.fileno())
            written.chmod(0o644)
            context.in_time()
            os.replace(written, self.file(spec.format))
            _sync(self.folder)
        except HoldfastError:
            raise
        except Exception as e:
            raise mapped(e, self.node) from e
        finally:
            written.unlink(missing_ok=True)
        return digest.hexdigest()

    def drop(self) -> None:
        """Remove what we published: the marked table, or the marked folder's files of ours and nothing else."""
        try:
            kind = self.kind()
            if kind == "delta":
                shutil.rmtree(self.folder)
            elif kind == "files":
                self._remove_files()
                with suppress(OSError):  # not empty: somebody keeps files there
                    self.folder.rmdir()
        except OSError as e:
            raise Temporary(f"target {self.folder.name} cannot be removed: {e}") from e

    def _remove_files(self) -> None:
        for kind in _FILE_FORMATS:
            self.file(kind).unlink(missing_ok=True)
        for left in self.folder.glob(f".{self.node}.*.tmp"):
            left.unlink(missing_ok=True)
        (self.folder / MARK).unlink(missing_ok=True)


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


def target_of(context: Context, destination: str) -> Target:
    """The target of the task's sink. Raises Invalid or Forbidden for places outside the tenant's roots."""
    roots = Roots.of(context.settings, context.task.tenant)
    place = roots.place(destination)
    real = roots.check(place.root, place.path, destination)
    folder = roots.check(place.root, real / context.task.node, destination)
    return Target(folder, context.task.node, context.mark)


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
