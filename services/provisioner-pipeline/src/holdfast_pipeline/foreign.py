"""Delta tables in places where others write: what of them can be read, and whether they lead to other places.

The warehouse's own tables need none of this: they have no partitions, no deleted rows beside their files, no links.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from .datafiles import scan_files
from .objects import Location
from .tables import Table

_FEATURES = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "typeWidening", "typeWidening-preview"})
"""Features of a table that change nothing about which rows its files hold, or under which names."""
_MAPPING = "delta.columnMapping.mode"


def unreadable_feature(table: Table) -> str:
    """What a table asks of its readers that this one does not do; "" when it can be read as it is.

    Its files alone would give rows that were deleted (deletion vectors) or columns under other names.
    """
    protocol = table.handle.protocol()
    asked = sorted(set(protocol.reader_features or ()) - _FEATURES)
    mapping = table.handle.metadata().configuration.get(_MAPPING) or "none"
    if mapping != "none" and "columnMapping" not in asked:
        asked.append("columnMapping")
    elif mapping == "none" and "columnMapping" in asked:
        asked.remove("columnMapping")
    return ", ".join(asked)


def scan(table: Table) -> pl.LazyFrame:
    """The rows of a table, with the columns that it is partitioned by: these are in its log, not in its files."""
    columns = list(table.handle.metadata().partition_columns)
    if not columns:
        return table.scan()
    schema = table.schema()
    actions = pl.DataFrame(table.handle.get_add_actions(flatten=True))
    inside = pl.Schema({n: t for n, t in schema.items() if n not in columns})
    frames = [pl.LazyFrame(schema=schema)]
    for path, row in zip(table.paths(), actions.iter_rows(named=True), strict=True):
        part = scan_files([path], schema=inside, missing_columns="insert")
        values = [pl.lit(row[f"partition.{c}"]).cast(schema[c]).alias(c) for c in columns]
        frames.append(part.with_columns(values).select(schema.names()))
    return pl.concat(frames)


def linked(folder: Location, table: Table | None) -> Location | None:
    """A place of a table's log, or of the files that ``table`` names, that is a link or behind one; None when all are
    where they seem to be. What is opened through a link may be anybody's."""
    if not isinstance(folder, Path):
        return None  # object stores have no links
    log = folder / "_delta_log"
    if _moved(log):
        return log
    for inner, folders, files in os.walk(log):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(inner, name)):
                return Path(inner, name)
    if table is None:
        return None
    paths = [Path(os.path.normpath(p)) for p in table.paths() if isinstance(p, Path)]
    behind = {parent for parent in {p.parent for p in paths} if _moved(parent)}
    return next((p for p in paths if p.parent in behind or p.is_symlink()), None)


def outside(folder: Location, table: Table) -> list[Path]:
    """The data files that a table's log names, but that are not below its folder. In an object store there are none:
    :meth:`.tables.Table.paths` refuses them."""
    local = [p for p in table.paths() if isinstance(p, Path)]
    if not isinstance(folder, Path):
        return []
    return [p for p in local if not Path(os.path.normpath(p)).is_relative_to(folder)]


def _moved(path: Path) -> bool:
    return os.path.realpath(path) != os.path.normpath(path)
