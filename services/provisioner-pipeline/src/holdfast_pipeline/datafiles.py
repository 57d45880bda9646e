"""The parquet files of tables: written as rows stream past, measured, and found by what they hold.

Writing them through polars and committing only their names is what keeps a stage as fast as a query that writes a
plain file: columns are encoded by all processors, and no row passes Python or is copied to another library.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import polars as pl
from deltalake.transaction import AddAction

from .objects import Location, scan_options

ROWS = 4_000_000
"""Most rows of a data file. Replacing one row means to write its whole file again."""


def write_files(folder: Path, frame: pl.LazyFrame, progress: Callable[[int], None]) -> dict[Path, int | None]:
    """Write the rows of ``frame`` to new files in ``folder``, in their order; none for no rows. Also, how many rows
    each has, where that is known.

    ``progress`` is called with the number of rows that came so far. No file is left when this raises.
    """
    name, done, lock = uuid.uuid4(), 0, Lock()

    def passing(batch: pl.DataFrame) -> pl.DataFrame:
        nonlocal done
        with lock:  # several threads may come with batches
            done += batch.height
            progress(done)
        return batch

    counted = frame.map_batches(
        passing, predicate_pushdown=False, projection_pushdown=False, slice_pushdown=False, streamable=True,
        validate_output_schema=False,
    )  # fmt: skip
    target = pl.PartitionBy(
        folder,
        file_path_provider=lambda part: f"part-{part.index_in_partition:05}-{name}.zstd.parquet",
        max_rows_per_file=ROWS,
    )
    try:
        counted.sink_parquet(target, compression="zstd", compression_level=1)
    except BaseException:
        remove_files(folder.glob(f"part-*-{name}.zstd.parquet"))
        raise
    found = sorted(folder.glob(f"part-*-{name}.zstd.parquet"))
    if not done:
        remove_files(found)
        return {}
    return dict.fromkeys(found, done if len(found) == 1 else None)


def remove_files(paths: Iterable[Location]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()


def measured(path: Path, rows: int | None = None) -> tuple[AddAction, int]:
    """What a table's log says of a new data file (its statistics are in the file itself), and its number of rows, which
    may be known."""
    stat = path.stat()
    if rows is None:
        rows = int(pl.scan_parquet([path], glob=False).select(pl.len()).collect().item())
    stats = json.dumps({"numRecords": rows})
    return AddAction(path.name, stat.st_size, {}, stat.st_mtime_ns // 1_000_000, True, stats), rows


def scan_files(paths: Sequence[Location], **options: Any) -> pl.LazyFrame:
    """The rows of parquet files of one folder, lazily. Names are taken as they are, whatever is in them."""
    files = [str(p) for p in paths]
    return pl.scan_parquet(files, glob=False, hive_partitioning=False, **options, **scan_options(paths[0]))


def holds(path: Location, rows: pl.Expr) -> bool:
    """Whether any row of a data file is one of ``rows``."""
    found = scan_files([path]).filter(rows).select(pl.len())
    return bool(found.collect(engine="streaming").item())
