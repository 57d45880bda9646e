"""Delta tables of others as sources: their rows as others see them, or a refusal that says what cannot be read."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from holdfast_model.errors import Temporary
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.tables import Table

from .conftest import World

SPEC = specs.IngestionSpec(specs.Source("in", "in", "delta"))


def _write(world: World, data: dict[str, object], **more: object) -> Path:
    folder = world.data / "in"
    write_deltalake(str(folder), pl.DataFrame(data), **more)  # type: ignore[arg-type]
    return folder


def _rewritten(folder: Path, name: str, **fields: object) -> None:
    """Give the actions of one kind in a table's first commit other fields."""
    log = folder / "_delta_log/00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if name in action:
            action[name] |= fields
    log.write_text("\n".join(map(json.dumps, actions)))


def _refused(world: World) -> str:
    found = world.provision("raw", SPEC).observation
    assert (found.status, found.reason, found.hold) == (Status.DRIFTED, "unreadable", True)
    assert world.table("bronze", "raw").rows() == 0
    return found.detail


def test_columns_that_a_table_is_partitioned_by_are_read(world: World) -> None:
    # Given: values that names of folders would bend, and nothing at all
    data = {
        "v": [1, 2, 3, 4],
        "word": ["a b/c", "ü%20", None, "01"],
        "day": [date(2024, 2, 29), date(2024, 3, 1), None, date(1, 1, 1)],
        "number": [-5, 0, None, 2**53 + 1],
        "yes": [True, False, None, True],
    }
    _write(world, data, partition_by=["word", "day", "number", "yes"])

    # When
    world.provision("raw", SPEC)

    # Then
    assert world.rows("bronze", "raw", *data) == sorted(zip(*data.values(), strict=True), key=str)
    assert world.frame("bronze", "raw")["_row"].n_unique() == 4


def test_a_partition_by_time_is_read_in_utc(world: World) -> None:
    moments = [datetime(2024, 3, 31, 2, 30, 0, 1)]
    frame = pl.DataFrame({"v": [1], "at": pl.Series(moments).dt.replace_time_zone("UTC")})
    write_deltalake(str(world.data / "in"), frame, partition_by=["at"])
    world.provision("raw", SPEC)
    assert world.frame("bronze", "raw")["at"].to_list() == frame["at"].to_list()


def test_a_table_without_rows_or_files_is_empty(world: World) -> None:
    folder = _write(world, {"v": [1], "k": ["x"]}, partition_by=["k"])
    DeltaTable(str(folder)).delete()
    world.provision("raw", SPEC)
    assert world.table("bronze", "raw").rows() == 0


def test_rows_that_were_deleted_beside_their_files_do_not_come_back(world: World) -> None:
    """Deletion vectors: whoever reads the files alone sees every deleted row again."""
    folder = _write(world, {"v": [1, 2, 3]})
    vectors = ["deletionVectors"]
    _rewritten(
        folder, "protocol", minReaderVersion=3, minWriterVersion=7, readerFeatures=vectors, writerFeatures=vectors
    )
    gone = {"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 4, "sizeInBytes": 40}
    _rewritten(folder, "add", deletionVector={**gone, "cardinality": 1})
    assert "in: the table uses deletionVectors, which cannot be read" in _refused(world)


def test_columns_under_other_names_are_not_taken_for_what_they_are_called_in_files(world: World) -> None:
    _write(world, {"v": [1]}, configuration={"delta.columnMapping.mode": "name"})
    assert "in: the table uses columnMapping" in _refused(world)


def test_a_feature_that_nobody_knows_yet_is_refused(world: World) -> None:
    folder = _write(world, {"v": [1]})
    _rewritten(folder, "protocol", minReaderVersion=3, minWriterVersion=7, readerFeatures=["x"], writerFeatures=["x"])
    seen = world.observe("raw", SPEC)
    assert seen.status is Status.UNKNOWN
    assert "Feature 'x' is not supported" in seen.detail


def test_files_of_a_table_that_were_cleaned_away_are_waited_for_and_nothing_lands(world: World) -> None:
    folder = _write(world, {"v": [1]})
    for path in folder.glob("*.parquet"):
        path.unlink()
    with pytest.raises(Temporary, match="No such file"):
        world.provision("raw", SPEC)
    assert Table.open(world.folder("bronze", "raw")) is None
