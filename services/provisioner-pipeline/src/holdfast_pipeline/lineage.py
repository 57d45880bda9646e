"""Where tables come from and where files go to: which files and versions made a table, and what a file went into.

Silver rows bear the file they came from, so their numbers are counted; Gold is made from versions of Silver, so its
files are those of the versions that it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
import polars as pl

from holdfast_model.errors import HoldfastError, NotFound

from .contracts import read_notes
from .enriching import LOOKUP
from .folders import FILES, QUARANTINE
from .shelves import InputVersion, Shelf, Shelves, Version, committed_at, inputs_of
from .specs import INGESTION, VALIDATOR
from .tables import Table, collected

_FILE, _SHA = "_file", "_sha"
SHOWN_FILES = 1000


class FileShare(msgspec.Struct, frozen=True):
    """A file and how many of its rows are in a table."""

    file: str
    sha: str
    rows: int


class StageVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stage's table at a version. ``inputs``: what it was made from; ``lookups``: files that were joined to it;
    ``gone``: why it cannot be read any more."""

    stage: str
    type: str
    layer: str
    version: int
    at: str = ""
    rows: int | None = None
    inputs: list[InputVersion] = []
    lookups: list[str] = []
    gone: str = ""


class Lineage(msgspec.Struct, frozen=True):
    """How one table came to be. ``made_from``: every table it was made from, directly or not, itself first;
    ``files``: whose rows it was made of (at most :data:`SHOWN_FILES` of ``files_total``); ``goes_into``: stages whose
    newest tables were made from it; ``versions``: its own, newest first."""

    graph: str
    stage: str
    made_from: list[StageVersion]
    files: list[FileShare]
    files_total: int
    goes_into: list[str]
    versions: list[Version]


class Station(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table that holds something of a file. ``rows``: of the file in it (Gold: None, rows were added up there)."""

    stage: str
    type: str
    layer: str
    version: int
    rows: int | None = None
    quarantined: int = 0


class FileLineage(msgspec.Struct, frozen=True):
    """What became of a file. ``state``: landed, held, empty, unreadable, as its ingestion noted it."""

    graph: str
    file: str
    state: str
    detail: str
    stations: list[Station]


class GraphLineage(msgspec.Struct, frozen=True):
    """The newest table of every stage, in the order in which data flows."""

    graph: str
    stages: list[StageVersion]


def graph_lineage(shelves: Shelves) -> GraphLineage:
    """What there is and what it was made from."""
    return GraphLineage(shelves.graph, [_told(s, s.newest()) for s in shelves.stages() if _has_table(s)])


def stage_lineage(shelves: Shelves, stage: str, as_of: str, now: float) -> Lineage:
    """How the table of ``stage`` at a version came to be."""
    shelf = shelves.stage(stage)
    table = shelf.as_of(as_of, now)
    chain, files = _ancestry(shelves, shelf, table)
    listed = sorted(files.values(), key=lambda f: f.file)
    return Lineage(
        shelves.graph, stage, chain, listed[:SHOWN_FILES], len(listed), _users(shelves, stage), shelf.versions()
    )


def _has_table(shelf: Shelf) -> bool:
    try:
        shelf.newest()
    except HoldfastError:
        return False
    return True


def _told(shelf: Shelf, table: Table) -> StageVersion:
    lookups = [str(name) for name, *_ in json.loads(table.commit.get(LOOKUP, "[]"))]
    return StageVersion(
        shelf.stage, shelf.type, shelf.layer, table.data_version.version, committed_at(table), shelf.rows_of(table),
        inputs_of(table), lookups,
    )  # fmt: skip


def _ancestry(shelves: Shelves, shelf: Shelf, table: Table) -> tuple[list[StageVersion], dict[str, FileShare]]:
    chain = [_told(shelf, table)]
    files: dict[str, FileShare] = {}
    known = {s.stage: s for s in shelves.stages()}
    seen = {(shelf.stage, table.data_version.version)}
    counted = _count_files(table, files)
    waiting = [(made, counted) for made in inputs_of(table)]
    while waiting:
        made, counted = waiting.pop(0)
        if (made.stage, made.version) in seen:
            continue
        seen.add((made.stage, made.version))
        source = known.get(made.stage)
        try:
            if source is None:
                raise NotFound("the stage was removed since")
            at = source.at(made.version, made.table)
        except HoldfastError as e:
            layer = source.layer if source is not None else ""
            chain.append(StageVersion(made.stage, made.type, layer, made.version, gone=e.message))
            continue
        chain.append(_told(source, at))
        here = counted or _count_files(at, files)
        waiting += [(further, here) for further in inputs_of(at)]
    return chain, files


def _count_files(table: Table, files: dict[str, FileShare]) -> bool:
    """Enter the files whose rows are in ``table``; False when its rows do not say."""
    if _FILE not in table.schema():
        return False
    rows = collected(table.scan().group_by(_FILE, _SHA).len("rows"), table.folder.name)
    for name, sha, number in rows.select(_FILE, _SHA, "rows").iter_rows():
        before = files.get(name)
        files[name] = FileShare(name, sha, int(number) + (before.rows if before is not None else 0))
    return True


def _users(shelves: Shelves, stage: str) -> list[str]:
    tables = [(s, s.newest()) for s in shelves.stages() if _has_table(s)]
    return [s.stage for s, table in tables if any(i.stage == stage for i in inputs_of(table))]


def file_lineage(shelves: Shelves, file: str) -> FileLineage:
    """What became of a file, named as in the tables (its path below the root) or by the end of that name."""
    stages = shelves.stages()
    name = _whole_name(file, stages)
    state, detail = _noted(name, stages)
    stations: list[Station] = []
    holding: dict[str, set[int]] = {}
    for shelf in stages:
        if not _has_table(shelf):
            continue
        table = shelf.newest()
        version = table.data_version.version
        if _FILE in table.schema():
            rows, quarantined = _rows_of(table, name), 0
            if shelf.type == VALIDATOR:
                bad = Table.open(shelf.folder.side(QUARANTINE))
                quarantined = _rows_of(bad, name) if bad is not None else 0
            if rows or quarantined:
                stations.append(Station(shelf.stage, shelf.type, shelf.layer, version, rows, quarantined))
            if rows:
                holding.setdefault(shelf.stage, set()).add(version)
        elif any(_held_by(shelves, holding, made, name) for made in inputs_of(table)):
            stations.append(Station(shelf.stage, shelf.type, shelf.layer, version))
            holding.setdefault(shelf.stage, set()).add(version)
    if not stations and state == "landed":
        state = "unknown"
    return FileLineage(shelves.graph, name, state, detail, stations)


def _held_by(shelves: Shelves, holding: dict[str, set[int]], made: InputVersion, name: str) -> bool:
    """Whether the version that something was made from holds rows of the file; older versions are looked into."""
    if made.version in holding.get(made.stage, ()):
        return True
    try:
        table = shelves.stage(made.stage).at(made.version, made.table)
    except HoldfastError:
        return False
    if _FILE in table.schema():
        return _rows_of(table, name) > 0
    return any(_held_by(shelves, holding, further, name) for further in inputs_of(table))


def _rows_of(table: Table, name: str) -> int:
    return int(collected(table.scan().filter(pl.col(_FILE) == name).select(pl.len()), table.folder.name).item())


def _names(stages: Iterable[Shelf]) -> set[str]:
    found: set[str] = set()
    for shelf in stages:
        if shelf.type != INGESTION or not _has_table(shelf):
            continue
        found |= set(collected(shelf.newest().scan().select(_FILE).unique(), shelf.stage)[_FILE].to_list())
        found |= set(read_notes(Table.open(shelf.folder.side(FILES))))
    return found


def _whole_name(file: str, stages: Iterable[Shelf]) -> str:
    names = _names(stages)
    if file in names:
        return file
    fitting = sorted(n for n in names if n.endswith(f"/{file}"))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise NotFound(f"{file!r} is the end of several names", hint=f"one of: {', '.join(fitting[:10])}")
    raise NotFound(f"no ingestion of this graph knows a file {file!r}", hint=f"{len(names)} files are known")


def _noted(name: str, stages: Iterable[Shelf]) -> tuple[str, str]:
    for shelf in stages:
        if shelf.type == INGESTION and _has_table(shelf):
            note = read_notes(Table.open(shelf.folder.side(FILES))).get(name)
            if note is not None and note.state != "touched":
                return note.state, note.found.text
    return "landed", ""
