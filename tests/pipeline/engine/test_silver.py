"""Cleanser and enricher: casts that never raise, rules in order, one of each duplicate, unique lookups."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.casting import cast, keeps_values, normal_type
from holdfast_pipeline.cleansing import cleansed

from .conftest import COUNTRIES, GOOD, Shop, World


def _clean(rows: dict[str, list[object]], **spec: object) -> pl.DataFrame:
    height = len(next(iter(rows.values())))
    lineage = {"_file": ["a"] * height, "_tag": [""] * height, "_sha": [""] * height, "_row": range(height)}
    frame = pl.LazyFrame({**rows, **lineage}).with_columns(_errors=pl.lit(None, dtype=pl.String))
    found, _ = cleansed(frame, specs.CleanserSpec(specs.Input("x", specs.INGESTION), **spec))  # type: ignore[arg-type]
    return found.collect()


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int64", "007", 7),
        ("int64", "+3", 3),
        ("int64", "1.7", None),
        ("int64", "1e3", None),
        ("int64", " 1", None),
        ("int64", "9223372036854775808", None),
        ("int64", "", None),
        ("float64", "1e3", 1000.0),
        ("float64", "nan", None),
        ("float64", "1e400", None),
        ("decimal(12,2)", "12.3", Decimal("12.30")),
        ("decimal(12,2)", "12.340", Decimal("12.34")),
        ("decimal(12,2)", "12.345", None),
        ("decimal(12,2)", "-.5", Decimal("-0.50")),
        ("decimal(12,2)", "1e3", None),
        ("decimal(12,2)", "1,5", None),
        ("decimal(12,2)", "12345678901.00", None),
        ("decimal(3,0)", "12.0", Decimal(12)),
        ("bool", "TRUE", True),
        ("bool", "no", False),
        ("bool", "maybe", None),
        ("date", "2024-02-29", date(2024, 2, 29)),
        ("date", "2023-02-29", None),
        ("date", "2024-2-9", None),
        ("timestamp", "2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("timestamp", "2024-01-02 03:04:05.5+02:00", datetime(2024, 1, 2, 1, 4, 5, 500000, tzinfo=UTC)),
        ("timestamp", "2024-01-02T03:04:05", None),
        ("timestamp", "2024-01-02", None),
        ("string", "", ""),
        ("any", "x", "x"),
    ],
)
def test_casts_from_text_are_strict_and_never_raise(kind: str, text: str, value: object) -> None:
    assert pl.select(cast(pl.lit(text), pl.String(), specs.Field("x", kind))).item() == value


def test_naive_timestamps_need_a_zone_and_formats_are_obeyed() -> None:
    def read(text: str, **field: str) -> object:
        return pl.select(cast(pl.lit(text), pl.String(), specs.Field("x", "timestamp", **field))).item()  # type: ignore[arg-type]

    assert read("2024-01-02 03:04", tz="UTC") == datetime(2024, 1, 2, 3, 4, tzinfo=UTC)
    assert read("02.01.2024 03:04", tz="UTC", format="%d.%m.%Y %H:%M") == datetime(2024, 1, 2, 3, 4, tzinfo=UTC)
    assert read("02.01.2024 03:04", format="%d.%m.%Y %H:%M") is None
    assert pl.select(cast(pl.lit("02.01.24"), pl.String(), specs.Field("x", "date", format="%d.%m.%y"))).item() == date(
        2024, 1, 2
    )


@pytest.mark.parametrize(
    ("value", "dtype", "kind", "expected"),
    [
        (1.7, pl.Float64(), "int64", None),
        (2.0, pl.Float64(), "int64", 2),
        (0.1, pl.Float64(), "decimal(12,2)", Decimal("0.10")),
        (0.123, pl.Float64(), "decimal(12,2)", None),
        (Decimal("1.234"), pl.Decimal(12, 3), "decimal(12,2)", None),
        (5, pl.Int64(), "string", "5"),
        (5, pl.Int64(), "bool", None),
        (datetime(2024, 1, 2), pl.Datetime("us"), "date", date(2024, 1, 2)),
        (datetime(2024, 1, 2, 1), pl.Datetime("us"), "date", None),
        (datetime(2024, 1, 2), pl.Datetime("us"), "timestamp", None),
        ([1], pl.List(pl.Int64), "int64", None),
    ],
)
def test_casts_from_typed_values_lose_nothing_silently(
    value: object, dtype: pl.DataType, kind: str, expected: object
) -> None:
    frame = pl.DataFrame({"x": [value]}, schema={"x": dtype})
    assert frame.select(cast(pl.col("x"), dtype, specs.Field("x", kind))).item() == expected


def test_types_that_delta_would_bend_are_widened() -> None:
    assert normal_type(pl.UInt64()) == pl.Decimal(20, 0)
    assert normal_type(pl.UInt8()) == pl.Int64()
    assert normal_type(pl.Categorical()) == pl.String()
    assert keeps_values(pl.Int32(), specs.Field("x", "decimal(12,2)"))
    assert not keeps_values(pl.Float64(), specs.Field("x", "decimal(12,2)"))


def test_failed_casts_are_null_and_named_even_when_filled_later() -> None:
    fields = (specs.Field("a", "int64"), specs.Field("b", "string"), specs.Field("c", "date", optional=True))
    found = _clean({"a": ["1", "x", None], "b": ["p", "q", "r"], "z": ["1", "2", "3"]}, fields=fields, fill={"a": 0})
    assert found.select("a", "b", "c", "_errors").rows() == [
        (1, "p", None, None),
        (0, "q", None, "a:cast"),
        (0, "r", None, None),
    ]


def test_trim_comes_before_casts_and_leaves_empty_text() -> None:
    fields = (specs.Field("a", "int64"), specs.Field("b", "string"))
    found = _clean({"a": [" 1 "], "b": ["  "]}, fields=fields, rules=(specs.Rule("trim"),))
    assert found.select("a", "b", "_errors").rows() == [(1, "", None)]


def test_rules_run_in_order_and_every_drop_is_counted(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/a.csv", "order_id,amount,country\n1,1.00,de\n1,1.00,DE\n2,,fr\n-3,1.00,xx\n,5.00,de\n")
    world.provision("orders-raw", shop.ingestion)
    rules = (
        specs.Rule("upper", columns=("country",)),
        specs.Rule("filter", "order_id > 0"),
        specs.Rule("drop_duplicates"),
        specs.Rule("drop_nulls", columns=("amount",)),
    )
    spec = specs.CleanserSpec(specs.Input("orders-raw", specs.INGESTION), shop.cleanser.fields, rules)

    # When
    result = world.provision("orders-clean", spec)

    # Then: a null in a filter drops the row
    assert result.observation.info == {
        "rows": 1,
        "dropped": {"2 filter": 2, "3 drop_duplicates": 1, "4 drop_nulls": 1},
    }
    assert world.rows("silver", "orders-clean", "order_id", "country") == [(1, "DE")]


def test_fill_null_fills_what_can_hold_the_value() -> None:
    found = _clean({"a": ["1", None], "n": [None, 2]}, rules=(specs.Rule("fill_null", value="x"),))
    assert found.select("a", "n").rows() == [("1", None), ("x", 2)]
    with pytest.raises(Permanent, match="is no int64"):
        _clean({"n": [None, 2]}, rules=(specs.Rule("fill_null", columns=("n",), value="x"),))


def test_values_of_several_rules_are_filled_in_their_order() -> None:
    fill = tuple(specs.Rule("fill_null", columns=(c,), value=v) for c, v in (("a", 1), ("b", 2), ("a", 3), ("b", 4)))
    for rules in (fill, (fill[0], specs.Rule("filter", expression="a = 1"), *fill[1:])):
        assert _clean({"a": [None, 1], "b": [None, 7]}, rules=rules).select("a", "b").rows() == [(1, 2), (1, 7)]
    with pytest.raises(Permanent, match="not there: c"):
        _clean({"a": [None]}, rules=(*fill[:1], specs.Rule("fill_null", columns=("c",), value=1)))


def test_planning_does_not_go_over_all_columns_for_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[pl.LazyFrame] = []
    plain = pl.LazyFrame.collect_schema

    def counted(frame: pl.LazyFrame) -> pl.Schema:
        asked.append(frame)
        return plain(frame)

    def planned(columns: int) -> tuple[int, int]:
        """How often the schema of a frame is asked for, and of how many layers the last frame is."""
        names = [f"c{i}" for i in range(columns)]
        rules = (
            *(specs.Rule(kind) for kind in ("trim", "lower", "drop_nulls", "drop_duplicates")),
            specs.Rule("fill_null", value=0), *(specs.Rule("fill_null", columns=(n,), value=0) for n in names[2:]),
        )  # fmt: skip
        spec = specs.CleanserSpec(
            specs.Input("x", specs.INGESTION), tuple(specs.Field(n, "int64") for n in names),
            rules, dict.fromkeys(names[2:], 0), ("*",), specs.Deduplication(),
        )  # fmt: skip
        lineage = {
            "_file": ["a"],
            "_tag": [""],
            "_sha": [""],
            "_row": [0],
            "_errors": pl.Series([None], dtype=pl.String),
        }
        asked.clear()
        frame, _ = cleansed(pl.LazyFrame({**{n: ["1"] for n in names}, **lineage}), spec)
        return len(asked), frame.explain(optimized=False).count("WITH_COLUMNS")

    monkeypatch.setattr(pl.LazyFrame, "collect_schema", counted)
    few, many = planned(60), planned(120)
    assert few == many


def test_null_handling_drop_drops_rows_with_any_null() -> None:
    assert _clean({"a": ["1", None], "b": ["x", "y"]}, drop_nulls=("*",))["a"].to_list() == ["1"]


@pytest.mark.parametrize(("keep", "expected"), [("first", [1, 4, 9]), ("last", [3, 4, 9])])
def test_deduplication_does_not_depend_on_the_order_of_arrival(
    world: World, shop: Shop, keep: str, expected: list[int]
) -> None:
    # Given: rows of one key in two files that arrive in either order
    how = specs.Deduplication(("country",), keep, ("order_id",))  # type: ignore[arg-type]
    spec = specs.CleanserSpec(specs.Input("orders-raw", specs.INGESTION), shop.cleanser.fields, deduplication=how)
    files = {"b": "3,1.00,DE\n4,1.00,", "a": "1,1.00,DE\n2,1.00,DE\n9,1.00,FR"}
    for name, text in files.items():
        world.put(f"orders/{name}.csv", f"order_id,amount,country\n{text}\n")
        world.provision("orders-raw", shop.ingestion)

    # When
    world.provision("orders-clean", spec)

    # Then
    assert world.rows("silver", "orders-clean", "order_id") == [(i,) for i in expected]


def test_null_keys_are_equal_in_deduplication() -> None:
    found = _clean({"k": [None, None, "a"], "v": ["1", "2", "3"]}, deduplication=specs.Deduplication(("k",)))
    assert sorted(found["v"]) == ["1", "3"]


def test_a_rule_about_a_missing_column_is_permanent() -> None:
    with pytest.raises(Permanent, match="not there"):
        _clean({"a": ["1"]}, rules=(specs.Rule("lower", columns=("zz",)),))


def test_a_filter_that_cannot_be_computed_is_permanent(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    spec = specs.CleanserSpec(specs.Input("orders-raw", specs.INGESTION), rules=(specs.Rule("filter", "nope > 1"),))
    with pytest.raises(Permanent):
        world.provision("orders-clean", spec)


# Enricher


def _enriched(world: World, shop: Shop, lookup: str, enricher: specs.EnricherSpec | None = None) -> None:
    world.put("orders/a.csv", GOOD)
    world.put("countries.csv", lookup)
    shop.run(world, shop.silver()[:2])
    world.provision("orders-geo", enricher or shop.enricher)


def test_a_lookup_joins_left_and_money_stays_exact(world: World, shop: Shop) -> None:
    _enriched(world, shop, "country,region\nDE,Central\n")
    rows = [(1, "Central", Decimal("8.000")), (2, None, Decimal("16.400")), (3, "Central", Decimal("0.080"))]
    assert world.rows("silver", "orders-geo", "order_id", "region", "net") == rows


def test_a_changed_lookup_makes_the_stage_stale(world: World, shop: Shop) -> None:
    _enriched(world, shop, COUNTRIES)
    world.put("countries.csv", COUNTRIES.replace("West", "Ouest"))
    assert world.observe("orders-geo", shop.enricher).reason == "stale"
    world.provision("orders-geo", shop.enricher)
    assert (2, "Ouest") in world.rows("silver", "orders-geo", "order_id", "region")
    assert world.observe("orders-geo", shop.enricher).status is Status.PRESENT


def test_a_touched_lookup_changes_nothing(world: World, shop: Shop) -> None:
    _enriched(world, shop, COUNTRIES)
    os.utime(world.data / "countries.csv", (1_900_000_000, 1_900_000_000))
    assert world.observe("orders-geo", shop.enricher).status is Status.PRESENT


def test_a_lookup_that_is_being_written_is_waited_for(world: World, shop: Shop) -> None:
    _enriched(world, shop, COUNTRIES)
    path = world.put("countries.csv", "country,region\nDE,")
    os.utime(path, (world.time, world.time))
    assert world.observe("orders-geo", shop.enricher).status is Status.PRESENT
    world.put("orders/b.csv", "order_id,amount,country\n4,1.00,FR\n")
    shop.run(world, shop.silver()[:2])
    os.utime(path, (world.time, world.time))
    with pytest.raises(Temporary, match="still being written"):
        world.provision("orders-geo", shop.enricher)


def test_keys_are_cast_to_those_of_the_input(world: World, shop: Shop) -> None:
    lookup = specs.Lookup(specs.Source("names", "countries.csv", "csv"), ("order_id",), ("label",))
    _enriched(world, shop, "order_id,label,rest\n001,x,1\n", specs.EnricherSpec(shop.enricher.input, lookup))
    assert world.rows("silver", "orders-geo", "order_id", "label") == [(1, "x"), (2, None), (3, None)]
    assert "rest" not in world.frame("silver", "orders-geo").columns


def _looked_up(world: World, shop: Shop, content: str, *fields: specs.Field) -> None:
    lookup = specs.Lookup(specs.Source("names", "countries.csv", "csv"), ("order_id",), fields=fields)
    _enriched(world, shop, content, specs.EnricherSpec(shop.enricher.input, lookup))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("order_id,pop\n1,10\n2,12a\n3,5\n", "countries.csv: row 2: column 'pop' has '12a', which is no int64"),
        ("order_id,pop\n1,10\n2,11\nTotal,21\n", "row 3: column 'order_id' has 'Total', which is no int64"),
        ("order_id,pop\n1,a\n2,b\n3,c\n4,d\n5,5\n6,6\n7,7\n8,8\n", "row 3: .*; and more"),
    ],
)
def test_a_value_of_a_lookup_that_does_not_fit_is_refused_with_its_place(
    world: World, shop: Shop, content: str, words: str
) -> None:
    with pytest.raises(Permanent, match=words):
        _looked_up(world, shop, content, specs.Field("order_id", "int64"), specs.Field("pop", "int64"))


def test_a_key_that_does_not_fit_that_of_the_input_is_refused_with_its_place(world: World, shop: Shop) -> None:
    with pytest.raises(Permanent, match=r"row 2: column .order_id. has .1\.5., which is no int64"):
        _looked_up(world, shop, "order_id,label\n1,x\n1.5,y\n")


def test_a_date_of_a_lookup_that_no_table_can_hold_is_refused_with_its_place(world: World, shop: Shop) -> None:
    lookup = specs.Lookup(specs.Source("names", "names.parquet", "parquet"), ("order_id",))
    days = pl.Series([0, 10_000_000], dtype=pl.Int32).cast(pl.Date)
    pl.DataFrame({"order_id": [1, 2], "since": days}).write_parquet(world.data / "names.parquet")
    with pytest.raises(Permanent, match=r"names\.parquet: row 2: since:range"):
        _enriched(world, shop, COUNTRIES, specs.EnricherSpec(shop.enricher.input, lookup))


def test_blanks_around_numbers_of_a_lookup_do_not_count_and_empty_ones_are_null(world: World, shop: Shop) -> None:
    content = 'order_id,pop\n 1 , 10\n2,""\n3,  \n'
    _looked_up(world, shop, content, specs.Field("order_id", "int64"), specs.Field("pop", "int64"))
    assert world.rows("silver", "orders-geo", "order_id", "pop") == [(1, 10), (2, None), (3, None)]


@pytest.mark.parametrize(
    ("lookup", "match"),
    [
        ("country,region\nDE,a\nDE,b\n", "not unique"),
        ("land,region\nDE,a\n", "no join key"),
        ("country,amount\nDE,1\n", "amount"),
    ],
)
def test_a_lookup_that_cannot_be_joined_is_permanent(world: World, shop: Shop, lookup: str, match: str) -> None:
    with pytest.raises(Permanent, match=match):
        _enriched(world, shop, lookup)


def test_a_missing_lookup_is_temporary_and_stale(world: World, shop: Shop) -> None:
    _enriched(world, shop, COUNTRIES)
    (world.data / "countries.csv").unlink()
    assert world.observe("orders-geo", shop.enricher).reason == "stale"
    with pytest.raises(Temporary, match="lookup"):
        world.provision("orders-geo", shop.enricher)


def test_null_keys_of_a_lookup_match_nothing(world: World, shop: Shop) -> None:
    _enriched(world, shop, "country,region\n,a\n,b\nDE,c\n")
    assert (2, None) in world.rows("silver", "orders-geo", "order_id", "region")
