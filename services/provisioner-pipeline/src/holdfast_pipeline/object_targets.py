"""Where a sink publishes: which of the two kinds of targets its destination is, and the one in object stores.

An object is put whole, and only where there is none or the one that was looked at; so neither a reader nor another
writer ever meets half of anything.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from .objects import ObjectPath
from .roots import Roots
from .specs import SinkSpec
from .stores import ObjectPlace
from .targets import FILE_FORMATS, MARK, FolderTarget, Target, sunk
from .tasks import Context


@dataclass(frozen=True)
class ObjectTarget(Target):
    """Keys of an object store that begin with ``<destination>/<id>/``."""

    folder: ObjectPath

    def _object(self, kind: str) -> ObjectPath:
        return self.folder / f"{self.node}.{kind}"

    def _file_tag(self, kind: str) -> str:
        return str(self._object(kind).head()["ETag"])

    def _write_file(self, context: Context, frame: pl.LazyFrame, spec: SinkSpec) -> str:
        with tempfile.TemporaryDirectory(prefix="sink-") as scratch:
            written = Path(scratch) / "content"
            sha = sunk(frame, written, spec, self.node)
            context.in_time()
            if self.kind() != "files":
                (self.folder / MARK).write_bytes(self.mark.encode(), new=True)
            self._object(spec.format).put(written, replaces=self.tag(spec.format))
        return sha

    def _remove_files(self, *, but: str = "") -> None:
        for kind in FILE_FORMATS:
            if kind != but:
                self._object(kind).unlink()
        if not but:
            (self.folder / MARK).unlink()

    def _remove_table(self) -> None:
        self.folder.remove_all()


def target_of(context: Context, destination: str) -> Target:
    """The target of the task's sink. Raises Invalid or Forbidden for places outside the tenant's roots and stores."""
    roots = Roots.of(context.settings, context.task.tenant)
    place = roots.place(destination)
    node = context.task.node
    if isinstance(place, ObjectPlace):
        return ObjectTarget(ObjectPath(place.store, (*place.parts, node)), node, context.mark)
    real = roots.check(place.root, place.path, destination)
    return FolderTarget(roots.check(place.root, real / node, destination), node, context.mark)
