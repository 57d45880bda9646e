"""Sums and products of whole numbers in SQL: exact, or an error; never wrapped at 2**63."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import polars as pl
import pytest

from holdfast_model.errors import Permanent
from holdfast_pipeline import specs
from holdfast_pipeline.wide import computed

from .conftest import World

BIG = 2**62


@pytest.mark.parametrize(
    ("spec", "column", "number"),
    [
        ({"sql": "select sum(n) as total from raw"}, "total", 3 * BIG + 1),
        ({"sql": "with m as (select n as x from raw) select g, sum(x) over (partition by g) as t from raw "
                 "cross join m"}, "t", ""),
        ({"sql": "select n * 4 as four from raw"}, "four", 4 * BIG),
        ({"sql": "select n + n as twice from raw where n > 1"}, "twice", 2 * BIG),
        ({"group_by": ("g",), "aggregations": {"total": "sum(n)"}}, "total", 2 * BIG),
        ({"aggregations": {"total": "sum(n)"}}, "total", 3 * BIG + 1),
    ],
)  # fmt: skip
def test_whole_numbers_that_int64_cannot_hold_are_an_error_that_names_the_column(
    world: World, spec: dict[str, object], column: str, number: object
) -> None:
    _numbers(world, [BIG, BIG, BIG, 1], ["a", "a", "b", "b"])
    with pytest.raises(
        Permanent, match=rf"column '{column}' has whole numbers beyond int64, such as {number}.*decimal"
    ):
        world.provision("sums", specs.TransformerSpec((specs.Input("raw", specs.INGESTION),), **spec))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select sum(n) as x, count(*) as c, avg(n) as a, max(g) as g from raw", [(BIG - 1, 4, (BIG - 1) / 4, "b")]),
        ("select sum(n * 8) / 8 as x from raw", [(float(BIG - 1),)]),
        ("select g, n as x from raw where n * 4 > 0 and n + n > 9", [("a", BIG), ("b", BIG)]),
        ("select sum(cast(n as decimal(38,0))) + 1 as x from raw", [(Decimal(BIG),)]),
        ("select left(g, n) as x from raw where n = 1 and n * 1 = 1", [("b",)]),
        ("select array_agg(n + 0) as x from raw where n = 1", [([1],)]),
    ],
)
def test_what_is_too_large_on_the_way_only_is_computed_exactly(
    world: World, sql: str, expected: list[tuple[object, ...]]
) -> None:
    _numbers(world, [BIG, -BIG - 2, 1, BIG], ["a", "a", "b", "b"])
    world.provision("sums", specs.TransformerSpec((specs.Input("raw", specs.INGESTION),), sql))
    found = world.frame("gold", "sums")
    assert sorted(found.rows(), key=str) == expected
    assert found.schema["x"] in (pl.Int64, pl.Float64, pl.Decimal(38, 0), pl.String, pl.List(pl.Int64))


def test_queries_of_numbers_that_cannot_wrap_are_left_as_they_are() -> None:
    small = {"t": pl.LazyFrame({"n": [1, 2**20], "g": ["a", "b"]}), "u": pl.LazyFrame({"m": [2**62]})}
    for text, wide in (
        ("select *, count(*) from t", False), ("select sum(n), g || '*****' from t", False),
        ("select n * 1000 from t", False), ("select n * n * n * n from t", True), ("select sum(m) from u", True),
        ("select m from u", False), ("select n - 1000000000000000000000 from t", True),
    ):  # fmt: skip
        asked: list[pl.DataType] = []

        def compute(tables: Mapping[str, pl.LazyFrame], asked: list[pl.DataType] = asked) -> pl.LazyFrame:
            asked.append(tables["t"].collect_schema()["n"])
            return tables["t"]

        computed(text, small, compute)
        assert (pl.Int128() in asked) is wide, text


def _numbers(world: World, values: list[int], groups: list[str]) -> None:
    path = world.put("in/a.parquet", b"")
    pl.DataFrame({"n": values, "g": groups}).write_parquet(path)
    world.provision("raw", specs.IngestionSpec(specs.Source("in", "in/*", "parquet")))
