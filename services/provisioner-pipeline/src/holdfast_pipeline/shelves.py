"""The tables of one graph as they lie in the warehouse, by stage and version: for people who look, not for steps.

Everything is read off the tables themselves, so it is true whatever became of the blueprint since.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec

from holdfast_model.durations import parse_duration
from holdfast_model.errors import HoldfastError, Invalid, NotFound, Problem, Temporary
from holdfast_model.names import check_label

from .folders import CLAIM, StageFolder
from .locations import names_in
from .maintenance import data_versions
from .objects import Location
from .recomputing import INFO, INPUTS
from .specs import LAYERS, SINK, SPEC_OF_TYPE
from .tables import AT, DataVersion, Table
from .tasks import EngineSettings

_ORDER = {name: i for i, name in enumerate(SPEC_OF_TYPE)}
SHOWN_VERSIONS = 50


class Version(msgspec.Struct, frozen=True):
    """One data version. ``at``: RFC 3339; ``rows`` are unknown where its files are gone; ``kept``: it can be read."""

    version: int
    at: str
    rows: int | None
    kept: bool


class InputVersion(msgspec.Struct, frozen=True):
    """A table at a version, as the metadata of what was made from it names it."""

    stage: str
    type: str
    table: str
    version: int

    @property
    def data(self) -> DataVersion:
        return DataVersion(self.table, self.version)


@dataclass(frozen=True)
class Shelf:
    """One stage's tables."""

    stage: str
    folder: StageFolder

    @property
    def type(self) -> str:
        return self.folder.type

    @property
    def layer(self) -> str:
        return LAYERS[self.type]

    def newest(self) -> Table:
        """The newest data version. NotFound when the stage has none yet."""
        table = Table.open(self.folder.main)
        if table is None or not table.commit:
            raise NotFound(f"stage {self.stage!r} has no table yet", hint="holdfast get nodes shows what it waits for")
        return table

    def at(self, version: int | None, table_id: str = "") -> Table:
        """A version (None: the newest). NotFound when it is not kept, or belongs to a table made anew since."""
        newest = self.newest()
        if table_id and table_id != newest.metadata_id:
            raise NotFound(f"version {version} of {self.stage!r} is of a table that was made anew since")
        if version is None or version == newest.data_version.version:
            return newest
        if 0 <= version <= newest.version:
            try:
                found = Table.open(self.folder.main, version)
            except Temporary:
                found = None
            if found is not None and all(p.exists() for p in found.paths()):
                return found
        kept = ", ".join(str(v.version) for v in self.versions() if v.kept)
        raise NotFound(f"version {version} of {self.stage!r} is not kept", hint=f"versions that are: {kept}")

    def versions(self) -> list[Version]:
        """Data versions, newest first, as far back as the log tells, at most :data:`SHOWN_VERSIONS`."""
        newest = self.newest()
        found = []
        for number in islice(data_versions(self.folder.main, newest.version), SHOWN_VERSIONS):
            try:
                table = newest if number == newest.data_version.version else Table.open(self.folder.main, number)
            except HoldfastError:
                table = None
            if table is None:
                found.append(Version(number, "", None, False))
                continue
            kept = all(p.exists() for p in table.paths())
            found.append(Version(number, committed_at(table), self.rows_of(table), kept))
        return found

    def rows_of(self, table: Table) -> int:
        """The rows of a version. A sink's table is its ledger, which tells how many it wrote to its target."""
        if self.type == SINK:
            return int(json.loads(table.commit.get(INFO, "{}")).get("rows", 0))
        return table.rows()

    def as_of(self, moment: str, now: float) -> Table:
        """The table at a version number, at an RFC 3339 time, or so long ago (``2h``)."""
        if not moment:
            return self.newest()
        if moment.isdigit():
            return self.at(int(moment))
        wanted = _moment(moment, now)
        known = [v for v in self.versions() if v.at]
        before = [v for v in known if datetime.fromisoformat(v.at).timestamp() <= wanted]
        if not before:
            first = f"; the first that is known is of {known[-1].at}" if known else ""
            raise NotFound(f"stage {self.stage!r} had no table at {moment}{first}")
        return self.at(before[0].version)


def _moment(text: str, now: float) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    try:
        return now - parse_duration(text)
    except Invalid:
        wrong = f"{text!r} is no version, no time like 2026-05-01T12:00:00Z and no duration like 2h"
        raise Invalid(wrong, [Problem("/as_of", wrong)]) from None


def committed_at(table: Table) -> str:
    """When the rows of a table were committed, RFC 3339; "" where the log does not tell."""
    milliseconds = table.commit.get(AT, "")
    if not milliseconds.isdigit():
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(milliseconds) / 1000))


def inputs_of(table: Table) -> list[InputVersion]:
    """Which tables at which versions it was made from."""
    return [InputVersion(*made_from) for made_from in json.loads(table.commit.get(INPUTS, "[]"))]


class Shelves:
    """All stages of one graph of one tenant that have tables. Raises Invalid for names that cannot be."""

    def __init__(self, settings: EngineSettings, tenant: str, graph: str) -> None:
        self.settings = settings
        self.tenant = check_label(tenant, "tenant", "/tenant")
        self.graph = check_label(graph, "graph", "/graph")
        self._home = settings.warehouse / tenant / graph

    def stages(self) -> list[Shelf]:
        """Every stage, in the order in which data flows."""
        found = [shelf for layer in sorted(set(LAYERS.values())) for shelf in self._in_layer(layer)]
        return sorted(found, key=lambda s: (_ORDER[s.type], s.stage))

    def stage(self, name: str) -> Shelf:
        """One stage by its id. NotFound names those that are there."""
        stages = self.stages()
        for shelf in stages:
            if shelf.stage == name:
                return shelf
        known = ", ".join(s.stage for s in stages) or "none"
        raise NotFound(f"graph {self.graph!r} has no table of a stage {name!r}", hint=f"stages with tables: {known}")

    def layer(self, name: str) -> Location:
        """The folder of a layer."""
        return self._home / name

    def _in_layer(self, layer: str) -> Iterator[Shelf]:
        with readable():
            names = names_in(self.layer(layer))
        return (shelf for name in names if (shelf := self.claimed(layer, name)) is not None)

    def claimed(self, layer: str, name: str) -> Shelf | None:
        """The stage whose folder this is; None when it is no stage's."""
        home = self.layer(layer)
        folder = home / name
        if name.startswith(".") or "__" in name or (isinstance(folder, Path) and folder.is_symlink()):
            return None
        with readable():
            try:
                kind = (folder / CLAIM).read_text(encoding="utf-8").strip()
            except (FileNotFoundError, NotADirectoryError):
                return None  # no stage's, or removed while we look
        if LAYERS.get(kind) != layer:
            return None
        return Shelf(name.removesuffix(f".{kind}"), StageFolder(home, name, kind))


@contextmanager
def readable() -> Iterator[None]:
    """Temporary when the warehouse cannot be read."""
    try:
        yield
    except OSError as e:
        raise Temporary(f"the warehouse cannot be read: {e.strerror or e}") from e
