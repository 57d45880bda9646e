"""Bronze takes files as they are, once each, and keeps what it took."""

from __future__ import annotations

import os
from dataclasses import replace

import polars as pl
import pytest
from deltalake import write_deltalake

from holdfast_model.errors import Temporary
from holdfast_model.messages import Status
from holdfast_pipeline import specs

from .conftest import GOOD, Shop, World

HEADER = "order_id,amount,country\n"


def _one(number: int | str, amount: str = "1.00") -> str:
    return f"{HEADER}{number},{amount},DE\n"


def test_a_new_file_is_added_and_the_others_are_not_read_again(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/a.csv", _one(1))
    world.provision("orders-raw", shop.ingestion)
    batch = world.rows("bronze", "orders-raw", "_batch")

    # When
    world.put("orders/b ü'%20#.csv", _one(2))
    seen = world.observe("orders-raw", shop.ingestion)
    result = world.provision("orders-raw", shop.ingestion)

    # Then
    assert (seen.status, seen.reason) == (Status.DRIFTED, "stale")
    assert result.observation.status is Status.PRESENT
    assert world.rows("bronze", "orders-raw", "_file", "order_id", "_row") == [
        ("orders/a.csv", "1", 0),
        ("orders/b ü'%20#.csv", "2", 0),
    ]
    assert batch[0] in world.rows("bronze", "orders-raw", "_batch")


def test_csv_stays_text_with_leading_zeros_and_empty_quotes(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", f'{HEADER}01234,"1.50",""\n\n2,,\n,,\n')
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "order_id", "amount", "country") == [
        ("01234", "1.50", ""),
        ("2", None, None),
    ]


def test_columns_align_by_name_whatever_their_order(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", _one(1))
    world.put("orders/b.csv", "country,order_id,amount\nFR,2,3.00\n")
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "order_id", "amount", "country") == [
        ("1", "1.00", "DE"),
        ("2", "3.00", "FR"),
    ]


def test_a_changed_file_replaces_its_rows(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", _one(1))
    world.put("orders/b.csv", _one(2))
    world.provision("orders-raw", shop.ingestion)
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "order_id", "_file") == [
        ("1", "orders/a.csv"),
        ("2", "orders/a.csv"),
        ("2", "orders/b.csv"),
        ("3", "orders/a.csv"),
    ]


def test_a_renamed_file_keeps_its_rows_under_the_new_name(world: World, shop: Shop) -> None:
    path = world.put("orders/it's a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    path.rename(path.with_name("b.csv"))
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "order_id", "_file") == [(str(i), "orders/b.csv") for i in (1, 2, 3)]
    path.with_name("b.csv").rename(path)
    assert world.observe("orders-raw", shop.ingestion).status is Status.DRIFTED
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "_file") == [("orders/it's a.csv",)] * 3


def test_equal_files_are_two_files(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", _one(1))
    world.put("orders/b.csv", _one(1))
    world.provision("orders-raw", shop.ingestion)
    assert len(world.rows("bronze", "orders-raw")) == 2


def test_a_vanished_file_keeps_its_rows(world: World, shop: Shop) -> None:
    path = world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    path.unlink()
    seen = world.observe("orders-raw", shop.ingestion)
    world.put("orders/b.csv", _one(9))
    world.provision("orders-raw", shop.ingestion)
    assert seen.status is Status.PRESENT
    assert world.rows("bronze", "orders-raw", "order_id") == [("1",), ("2",), ("3",), ("9",)]


def test_a_touched_file_is_not_taken_again(world: World, shop: Shop) -> None:
    path = world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    version = world.table("bronze", "orders-raw").version
    os.utime(path, (1_900_000_000, 1_900_000_000))
    assert world.observe("orders-raw", shop.ingestion).reason == "stale"
    world.provision("orders-raw", shop.ingestion)
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT
    assert world.table("bronze", "orders-raw").version == version


@pytest.mark.parametrize("content", ["", HEADER, "some,other,header\n"])
def test_files_without_rows_are_recorded_and_no_error(world: World, shop: Shop, content: str) -> None:
    world.put("orders/a.csv", content)
    world.put("orders/b.csv", _one(1))
    result = world.provision("orders-raw", shop.ingestion)
    assert result.observation.status is Status.PRESENT
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT
    assert world.rows("bronze", "orders-raw", "order_id") == [("1",)]


def test_a_file_that_became_empty_loses_its_rows(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    world.put("orders/a.csv", HEADER)
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw") == []
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT


def test_an_empty_source_gives_an_empty_table_with_the_declared_columns(world: World, shop: Shop) -> None:
    (world.data / "orders").mkdir()
    world.provision("orders-raw", shop.ingestion)
    world.provision("orders-clean", shop.cleanser)
    assert world.frame("silver", "orders-clean").schema["amount"] == pl.Decimal(12, 2)


def test_a_file_is_taken_once_it_has_settled(world: World, shop: Shop) -> None:
    # Given: a file that changed a second ago
    path = world.put("orders/a.csv", GOOD)
    world.put("orders/b.csv", _one(9))
    os.utime(path, (world.time - 1, world.time - 1))
    world.provision("orders-raw", shop.ingestion)
    early = world.rows("bronze", "orders-raw", "order_id")
    calm = world.observe("orders-raw", shop.ingestion)

    # When
    world.time += 2

    # Then
    assert early == [("9",)]
    assert calm.status is Status.PRESENT
    assert world.observe("orders-raw", shop.ingestion).reason == "stale"
    world.provision("orders-raw", shop.ingestion)
    assert len(world.rows("bronze", "orders-raw")) == 4


def test_hidden_and_unfinished_files_are_ignored(world: World) -> None:
    shop = Shop(source=specs.Source("orders", "orders/*", "csv"))
    for name in (".a.csv", "_a.csv", "a.csv.tmp", "a.csv.part"):
        world.put(f"orders/{name}", GOOD)
    world.put("orders/a.csv", _one(1))
    world.provision("orders-raw", shop.ingestion)
    assert len(world.rows("bronze", "orders-raw")) == 1


def test_no_more_than_batch_size_files_go_into_one_commit(world: World) -> None:
    shop = Shop(batch_size=2)
    for i in range(5):
        world.put(f"orders/{i}.csv", _one(i))
    world.provision("orders-raw", shop.ingestion)
    files = world.frame("bronze", "orders-raw").group_by("_batch").agg(pl.col("_file").n_unique())
    assert sorted(files["_file"]) == [1, 2, 2]
    assert world.table("bronze", "orders-raw").version == 2


def test_another_contract_has_all_files_read_again(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/a.csv", GOOD)
    path = world.put("orders/gone.csv", _one(9))
    world.provision("orders-raw", shop.ingestion)
    path.unlink()
    fields = (*shop.contract.fields, specs.Field("note", optional=True)) if shop.contract else ()
    other = Shop(contract=specs.Contract("orders-schema", 2, fields=fields))

    # When
    seen = world.observe("orders-raw", other.ingestion)
    world.provision("orders-raw", other.ingestion)

    # Then: the vanished file's rows are kept
    assert (seen.status, seen.reason) == (Status.DRIFTED, "spec_changed")
    assert world.rows("bronze", "orders-raw", "order_id", "note") == [(i, None) for i in ("1", "2", "3", "9")]
    assert world.observe("orders-raw", other.ingestion).status is Status.PRESENT


def test_a_source_that_is_not_there_is_temporary_and_takes_nothing_away(world: World, shop: Shop) -> None:
    with pytest.raises(Temporary, match="not there"):
        world.provision("orders-raw", shop.ingestion)
    path = world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    path.unlink()
    path.parent.rmdir()
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT
    assert len(world.rows("bronze", "orders-raw")) == 3


def test_a_data_source_is_absent_present_or_unknown(world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specs.DataSourceSpec(shop.source, ("orders-raw",))
    assert world.observe("orders", spec).status is Status.ABSENT
    with pytest.raises(Temporary):
        world.provision("orders", spec)
    (world.data / "orders").mkdir()
    assert world.observe("orders", spec).status is Status.PRESENT
    assert [t.node for t in world.provision("orders", spec).touch] == ["orders-raw"]

    def denied(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("holdfast_pipeline.files.os.scandir", denied)
    assert world.observe("orders", spec).status is Status.UNKNOWN


def test_json_formats_keep_every_digit_and_keys_that_come_late(world: World) -> None:
    fields = (*Shop().contract.fields, specs.Field("late", optional=True))  # type: ignore[union-attr]
    lines = '{"order_id":1,"amount":12345678.10,"country":"DE"}\n\n'
    lines += '{"country":null,"amount":2,"order_id":"007","late":{"a":[1.50]}}\n'
    rows = [("007", "2", None, '{"a":[1.50]}'), ("1", "12345678.10", "DE", None)]
    world.put("nd/a.ndjson", lines)
    world.put("js/a.json", "[" + ",\n".join(x for x in lines.splitlines() if x) + "]")
    for folder, kind in (("nd", "ndjson"), ("js", "json")):
        shop = Shop(specs.Source(folder, f"{folder}/*", kind), specs.Contract("s", fields=fields))  # type: ignore[arg-type]
        world.provision(f"{folder}-raw", shop.ingestion)
        assert world.rows("bronze", f"{folder}-raw", "order_id", "amount", "country", "late") == rows


def test_typed_formats_keep_their_types_and_lose_no_value_silently(world: World) -> None:
    frame = pl.DataFrame({"order_id": [1, 2], "amount": ["1.50", "2.345"], "country": ["DE", "FR"]})
    typed = frame.with_columns(pl.col("order_id").cast(pl.Int16), pl.col("amount").cast(pl.Decimal(10, 2)))
    (world.data / "pq").mkdir()
    typed.write_parquet(world.data / "pq" / "a %1.parquet")
    write_deltalake(str(world.data / "dl"), typed)
    for folder, kind, uri in (("pq", "parquet", "pq/*.parquet"), ("dl", "delta", "dl")):
        shop = Shop(specs.Source(folder, uri, kind))  # type: ignore[arg-type]
        world.provision(f"{folder}-raw", shop.ingestion)
        schema = world.frame("bronze", f"{folder}-raw").schema
        assert (schema["order_id"], schema["amount"]) == (pl.Int64(), pl.Decimal(12, 2))
        assert len(world.rows("bronze", f"{folder}-raw")) == 2


def test_a_new_version_of_a_delta_source_replaces_the_old(world: World) -> None:
    shop = Shop(specs.Source("dl", "dl", "delta"), None)
    write_deltalake(str(world.data / "dl"), pl.DataFrame({"a": [1, 2]}))
    world.provision("orders-raw", shop.ingestion)
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT
    write_deltalake(str(world.data / "dl"), pl.DataFrame({"a": [3]}), mode="append")
    assert world.observe("orders-raw", shop.ingestion).reason == "stale"
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "a") == [(1,), (2,), (3,)]


def test_without_a_contract_columns_are_those_of_all_files(world: World) -> None:
    shop = Shop(contract=None)
    world.put("orders/a.csv", "a,b\n1,2\n")
    world.provision("orders-raw", shop.ingestion)
    world.put("orders/b.csv", "b,c\n3,4\n")
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "a", "b", "c") == [("1", "2", None), (None, "3", "4")]
    world.provision("orders-clean", shop.cleanser)
    assert len(world.rows("silver", "orders-clean")) == 2


def test_an_unreadable_file_without_a_contract_is_shown_and_the_others_land(world: World) -> None:
    shop = Shop(contract=None)
    world.put("orders/a.csv", "a,b\n1,2,3\n")
    world.put("orders/b.csv", "a,b\n3,4\n")
    result = world.provision("orders-raw", shop.ingestion)
    seen = world.observe("orders-raw", shop.ingestion)
    assert (result.observation.status, result.observation.reason, seen.hold) == (Status.DRIFTED, "unreadable", True)
    assert world.rows("bronze", "orders-raw", "a") == [("3",)]
    world.put("orders/a.csv", "a,b\n1,2\n")
    assert world.provision("orders-raw", shop.ingestion).observation.status is Status.PRESENT


def test_observing_reads_no_rows_while_nothing_changed(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)

    def refuse(state: object) -> None:
        raise AssertionError("the ledger was read")

    monkeypatch.setattr("holdfast_pipeline.ingestion._ledger", refuse)
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT


def test_a_pattern_over_everything_leaves_the_warehouse_out(world: World) -> None:
    world.settings = replace(world.settings, warehouse=world.data / "warehouse")
    shop = Shop(source=specs.Source("orders", "**/*.csv", "csv"))
    world.put("deep/er/a.csv", _one(1))
    world.put("b.csv", _one(2))
    world.put("warehouse/acme/main/x.csv", _one(3))
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "order_id", "_file") == [("1", "deep/er/a.csv"), ("2", "b.csv")]


def test_a_time_in_the_future_does_not_keep_a_file_out(world: World, shop: Shop) -> None:
    path = world.put("orders/a.csv", GOOD)
    os.utime(path, (world.time + 86_400, world.time + 86_400))
    world.provision("orders-raw", shop.ingestion)
    assert len(world.rows("bronze", "orders-raw")) == 3
