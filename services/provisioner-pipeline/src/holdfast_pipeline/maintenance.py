"""What tables shed over time: small files of Bronze, versions that nobody needs, files of killed steps.

Maintenance commits bear the metadata of the commit before them, so no stage becomes stale by them. Whatever dies in
the middle leaves a table that is right; what was left undone is done after later commits.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice

import msgspec
from deltalake import CommitProperties
from deltalake.exceptions import CommitFailedError, DeltaError

from holdfast_model.errors import HoldfastError, Temporary

from .folders import DECISIONS, FILES, QUARANTINE, StageFolder, stage_folder
from .locations import files_in, names_in, write_whole, written_at
from .objects import Location
from .specs import INGESTION, LAYERS
from .tables import DATA_VERSION, KEY, MAINTAINED, DataVersion, Table
from .tasks import Context

log = logging.getLogger(__name__)

COMPACT_EVERY = 50
"""Commits of a Bronze table after which its small files are joined."""
NOTES_EVERY = 10
"""Commits of an ingestion's notes after which outdated ones are removed: they are small, and come with every file."""
KEPT = 3
"""Newest data versions whose files are kept, besides those that open approvals are about."""
ORPHAN_AGE = 86_400.0
"""Seconds after which a file that no commit mentions cannot belong to a step that still runs."""

MARKER = "_holdfast_maintained"
PINS = "_holdfast_pins"
AS_OF = "_holdfast_as_of"
"""Files in a stage's folder: which versions of its inputs an open approval is about, and which its spec names."""
_TARGET_SIZE = 256 * 1024 * 1024


def maintain(context: Context, *, compact_every: int = COMPACT_EVERY) -> None:
    """Care for the tables of the task's stage where commits were made since the last time. Raises nothing: data
    that could not be cared for is as right as before."""
    task = context.task
    try:
        folder = stage_folder(context.settings, task.tenant, task.graph, task.node, task.type)
        for path in (folder.main, *(folder.side(s) for s in (FILES, QUARANTINE, DECISIONS))):
            if path == folder.side(FILES):
                _maintain(context, path, NOTES_EVERY)
            elif task.type == INGESTION and path == folder.main:
                _maintain(context, path, compact_every, compact=True)
            else:
                _maintain(context, path, 1)
    except (HoldfastError, DeltaError, OSError) as e:
        log.warning("maintenance of %s was given up: %s", context.mark, e)


def _maintain(context: Context, folder: Location, every: int, *, compact: bool = False) -> None:
    newest = _newest(folder)
    since = newest - _marked(folder)
    if newest < 0 or since < every:
        return
    # Marked before the work: a table too large to be cared for within one step must not fail its steps for ever.
    marker = folder / MARKER
    marker.write_bytes(b"%d" % newest)
    table = Table.open(folder)
    if table is None or table.foreign or not table.commit:
        return
    if compact and len(table.paths()) > 1:
        table = compacted(table)
        marker.write_bytes(b"%d" % table.version)
    context.in_time()
    for path in _doomed(context, table, written_at(marker)):
        with suppress(FileNotFoundError):
            path.unlink()


def compacted(table: Table) -> Table:
    """The table with its small files joined: the same rows and the same data version. Temporary if somebody replaced
    files meanwhile; what was only appended meanwhile stays beside, and says what is there."""
    again = {**table.commit, DATA_VERSION: str(table.data_version.version), MAINTAINED: str(table.version)}
    properties = CommitProperties(custom_metadata=again, max_commit_retries=0)
    try:
        table.handle.optimize.compact(target_size=_TARGET_SIZE, max_concurrent_tasks=1, commit_properties=properties)
    except CommitFailedError as e:
        raise Temporary(f"{table.folder.name} changed while it was compacted") from e
    return Table.open(table.folder) or table


def _newest(folder: Location) -> int:
    names = names_in(folder / "_delta_log")
    return max((int(n[:20]) for n in names if n.endswith(".json") and n[:20].isdigit()), default=-1)


def _marked(folder: Location) -> int:
    try:
        return int((folder / MARKER).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0


def data_versions(folder: Location, newest: int) -> Iterator[int]:
    """Versions with content of their own, newest first, as far back as the log tells."""
    for at in range(newest, -1, -1):
        try:
            lines = (folder / "_delta_log" / f"{at:020d}.json").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        infos = (json.loads(line).get("commitInfo") for line in lines if '"commitInfo"' in line)
        if any(info and KEY in info and DATA_VERSION not in info for info in infos):
            yield at


def _kept(context: Context, table: Table) -> list[int]:
    kept = {table.version, *islice(data_versions(table.folder, table.version), KEPT)}
    return sorted(v for v in kept | pinned(context, table.metadata_id) if v <= table.version)


def _doomed(context: Context, table: Table, now: float) -> Iterator[Location]:
    """Files of versions that are not kept, and old files that no commit mentions. ``now`` is the storage's own time."""
    kept = _kept(context, table)
    needed: set[Location] = set()
    for version in kept:
        at = table if version == table.version else Table.open(table.folder, version)
        needed |= set(at.paths()) if at is not None else set()
    # Only asked which files are superseded: Delta's own removal would add two commits each time, that bear no key.
    superseded = table.handle.vacuum(
        retention_hours=0, dry_run=True, enforce_retention_duration=False, keep_versions=kept
    )
    known = {table.folder / name for name in superseded} - needed
    yield from known
    for path, written in files_in(table.folder):
        if not path.name.endswith(".parquet") or path.name.startswith(("_", ".")) or path in needed | known:
            continue
        if now - written > ORPHAN_AGE:
            yield path


# Pins


def keep_pins(context: Context, folder: StageFolder, pins: Mapping[str, DataVersion], name: str = PINS) -> None:
    """Remember which versions an open approval of this stage is about (with :data:`AS_OF`: which its spec names); {}
    when none are any more."""
    path = folder.main / name
    if not pins:
        path.unlink(missing_ok=True)
        return
    folder.claim()
    write_whole(path, msgspec.json.encode({n: list(v) for n, v in pins.items()}))


def pinned(context: Context, metadata_id: str) -> set[int]:
    """The versions of a table that open approvals of its graph are about, or that specs name."""
    task, found = context.task, set()
    graph = context.settings.warehouse / task.tenant / task.graph
    for layer in sorted(set(LAYERS.values())):
        for path in (graph / layer / stage / name for stage in names_in(graph / layer) for name in (PINS, AS_OF)):
            with suppress(FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
                pins = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[str, int]])
                found |= {version for table, version in pins.values() if table == metadata_id}
    return found
