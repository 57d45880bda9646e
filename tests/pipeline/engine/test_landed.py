"""What is remembered of a Bronze table's data files is what its rows say; and files are trusted only until they are
counted."""

from __future__ import annotations

import pytest

from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.landed import KEPT, landed_files
from holdfast_pipeline.maintenance import compacted
from holdfast_pipeline.tables import collected

from .conftest import World

RAW = specs.IngestionSpec(specs.Source("orders", "orders/*.csv", "csv"), batch_size=2)
TYPED = specs.IngestionSpec(
    specs.Source("orders", "orders/*.csv", "csv"),
    specs.Contract("s", fields=(specs.Field("id", "int64"), specs.Field("at", "date"))),
)


def _ledgers(world: World) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    table = world.table("bronze", "raw")
    said = collected(table.scan().select("_file", "_tag", "_sha").unique(), "raw").rows()
    return {(x.name, x.tag, x.sha) for x in landed_files(table).values()}, set(said)


def test_the_remembered_files_are_those_of_the_rows(world: World) -> None:
    for number in range(5):
        world.put(f"orders/{number}.csv", f"id\n{number}\n")
    world.provision("raw", RAW)
    kept = world.folder("bronze", "raw") / KEPT
    assert kept.exists()

    # When: a file changes, one comes, one is renamed, files are joined
    world.put("orders/1.csv", "id\n11\n")
    world.put("orders/5.csv", "id\n5\n")
    (world.data / "orders/0.csv").rename(world.data / "orders/zero.csv")
    world.provision("raw", RAW)
    one, other = _ledgers(world)
    assert one == other
    assert len(one) == 6
    compacted(world.table("bronze", "raw"))
    one, other = _ledgers(world)
    assert one == other
    assert len(one) == 6


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"a": 1}', b"[]", b"\xff"])
def test_what_is_lost_or_damaged_is_read_off_the_rows(world: World, content: bytes | None) -> None:
    world.put("orders/a.csv", "id\n1\n")
    world.provision("raw", RAW)
    kept = world.folder("bronze", "raw") / KEPT
    if content is None:
        kept.unlink()
    else:
        kept.write_bytes(content)
    version = world.table("bronze", "raw").version
    world.provision("raw", RAW)
    one, other = _ledgers(world)
    assert one == other
    assert len(one) == 1
    world.put("orders/b.csv", "id\n2\n")
    world.provision("raw", RAW)
    assert world.rows("bronze", "raw", "id") == [("1",), ("2",)]
    assert world.table("bronze", "raw").version == version + 1


def test_a_file_whose_values_do_not_fit_is_held_and_the_others_land_once(world: World) -> None:
    # Given: columns as declared in all three; the values of the second are no dates
    world.put("orders/a.csv", "id,at\n1,2024-01-01\n")
    world.put("orders/b.csv", "id,at\n2,monday\n3,friday\n")
    world.put("orders/c.csv", "id,at\n4,2024-01-04\n")

    # When
    world.provision("raw", TYPED)

    # Then: one commit, and no data file but that of the commit
    table = world.table("bronze", "raw")
    assert (table.version, world.rows("bronze", "raw", "id")) == (0, [("1",), ("4",)])
    assert {p.name for p in table.folder.glob("*.parquet")} == {p.name for p in table.paths()}
    seen = world.observe("raw", TYPED)
    assert (seen.status, seen.info and seen.info["held"]) == (Status.PRESENT, 1)


def test_a_file_that_breaks_off_is_held_and_the_others_land(world: World) -> None:
    world.put("orders/a.csv", "id,at\n1,2024-01-01\n")
    world.put("orders/b.csv", 'id,at\n2,2024-01-01\n3,"2024')
    world.provision("raw", TYPED)
    assert world.rows("bronze", "raw", "id") == [("1",)]
    assert (world.observe("raw", TYPED).info or {})["held"] == 1
