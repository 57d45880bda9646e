"""Duplicates are found bucket by bucket, and the outcome is that of one look at everything."""

from __future__ import annotations

from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_pipeline import duplicates, specs
from holdfast_pipeline.cleansing import cleansed
from holdfast_pipeline.duplicates import Places, copied, deduplicated

from .conftest import World

SCHEMA = {
    "id": pl.Int64, "name": pl.String, "price": pl.Float64, "at": pl.Int64, "_file": pl.String, "_row": pl.Int64,
}  # fmt: skip
_row = st.tuples(
    st.one_of(st.none(), st.integers(0, 3)),
    st.sampled_from([None, "", "a", "b"]),
    st.sampled_from([None, 0.0, -0.0, 1.5, float("nan")]),
    st.one_of(st.none(), st.integers(0, 2)),
)
_KEYS = [("id",), ("id", "name"), ("price",), ("name", "price"), ("id", "name", "price", "at"), ()]


def _same(value: object) -> object:
    return "nan" if value != value else value


def _naive(rows: list[dict[str, Any]], how: specs.Deduplication) -> list[tuple[str, int]]:
    def rank(row: dict[str, Any]) -> tuple[object, ...]:
        return (*((row[c] is not None, row[c] or 0) for c in how.order_by), row["_file"], row["_row"])

    keys = how.keys or ("id", "name", "price", "at")
    kept: dict[tuple[object, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=rank):
        key = tuple(_same(row[k]) for k in keys)
        if how.keep == "last" or key not in kept:
            kept[key] = row
    return sorted((r["_file"], r["_row"]) for r in kept.values())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_row, max_size=14),
    st.sampled_from(_KEYS),
    st.sampled_from([(), ("at",), ("at", "name")]),
    st.sampled_from(["first", "last"]),
    st.sampled_from([1, 2, 5]),
    st.randoms(use_true_random=False),
)
def test_buckets_give_what_one_look_gives(
    found: list[tuple[object, ...]], keys: tuple[str, ...], order: tuple[str, ...],
    keep: Literal["first", "last"], bucket: int, random: Any,
) -> None:  # fmt: skip
    # Given: rows in any order
    rows = [dict(zip(SCHEMA, (*values, f"f{i % 3}.csv", i), strict=True)) for i, values in enumerate(found)]
    if order == ("at", "name"):
        for row in rows:
            row["name"] = row["name"] or "z"
    random.shuffle(rows)
    frame = pl.DataFrame(rows, schema=SCHEMA).lazy()
    how = specs.Deduplication(keys, keep, order)

    # When
    places, names = Places.of(frame), keys or ("id", "name", "price", "at")
    whole, given_, kept = deduplicated(frame, how, names, places, len(rows))
    split, _, kept_split = deduplicated(frame, how, names, places, len(rows) + 3, bucket)

    # Then
    one, other = whole.collect(), split.collect(engine="streaming")
    assert one.select("_file", "_row").rows() == other.select("_file", "_row").rows()
    assert sorted(one.select("_file", "_row").rows()) == _naive(rows, how)
    assert (given_, kept, kept_split) == (len(rows), one.height, one.height)


@settings(max_examples=100, deadline=None)
@given(st.lists(_row, max_size=14), st.sampled_from([k for k in _KEYS if k]), st.sampled_from([1, 2, 5]))
def test_copies_are_found_bucket_by_bucket(found: list[tuple[object, ...]], keys: tuple[str, ...], bucket: int) -> None:
    given_ = [(*row, f"f{i % 3}", i // 3) for i, row in enumerate(found)]
    frame = pl.DataFrame(given_, schema=SCHEMA, orient="row")
    every = [tuple(map(_same, k)) for k in frame.select(keys).rows()]
    expected = [None not in k and every.count(k) > 1 for k in every]
    copies = copied(frame.lazy(), keys, len(found), bucket)
    assert (copies is not None) == any(expected)
    if copies is not None:
        assert frame.lazy().select(copies.copy).collect(engine="streaming").to_series().to_list() == expected


def test_uniqueness_of_many_keys_holds_no_more_than_a_bucket(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: 2,000 ids, every second one in two files
    for number in range(2):
        rows = "\n".join(str(i) for i in range(0, 2000, 1 + number))
        world.put(f"orders/{number}.csv", f"id\n{rows}\n")
    world.provision("raw", specs.IngestionSpec(specs.Source("orders", "orders/*.csv", "csv")))
    world.provision("clean", specs.CleanserSpec(specs.Input("raw", specs.INGESTION)))
    held: list[int] = []
    collected = duplicates.collected

    def spy(frame: pl.LazyFrame, name: str) -> pl.DataFrame:
        found = collected(frame, name)
        held.append(found.height)
        return found

    monkeypatch.setattr(duplicates, "collected", spy)
    monkeypatch.setattr("holdfast_pipeline.duplicates.copied.__defaults__", (300,))
    unique = specs.ValidatorSpec(specs.Input("clean", specs.CLEANSER), (specs.Check("id", "unique"),), 0.0)

    # When
    world.provision("valid", unique)

    # Then: half of the first file's rows are good, and each look held a tenth of all rows or so
    assert {int(str(i)) for (i,) in world.rows("silver", "valid", "id")} == set(range(1, 2000, 2))
    assert len(world.rows("silver", "valid__quarantine")) == 2000
    assert len(held) > 15
    assert max(held) < 600


def test_drops_are_counted_under_their_rules() -> None:
    frame = pl.LazyFrame({"a": [1, 1, 2, 3, 3, None], "_file": ["f"] * 6, "_row": range(6)})
    spec = specs.CleanserSpec(
        specs.Input("raw", specs.INGESTION),
        rules=(
            specs.Rule("filter", "a <> 2 or a is null"),
            specs.Rule("drop_duplicates", columns=("a",)),
            specs.Rule("filter", "a < 3 or a is null"),
            specs.Rule("drop_nulls"),
        ),
        deduplication=specs.Deduplication(("a",)),
    )
    expected = {"1 filter": 1, "2 drop_duplicates": 2, "3 filter": 1, "4 drop_nulls": 1, "deduplication": 0}
    for rows in (None, 6):
        found, dropped = cleansed(frame, spec, rows)
        assert dropped == expected
        assert found.collect()["a"].to_list() == [1]


def test_a_table_of_many_buckets_is_deduplicated_like_a_small_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: every id in two files of 500 rows, newer values in the second
    for number in range(2):
        rows = "\n".join(f"{i},{number}" for i in range(500))
        world.put(f"orders/{number}.csv", f"id,value\n{rows}\n")
    world.provision("raw", specs.IngestionSpec(specs.Source("orders", "orders/*.csv", "csv")))
    monkeypatch.setattr("holdfast_pipeline.duplicates.deduplicated.__defaults__", (100,))
    keep = specs.Deduplication(("id",), "last")

    # When
    world.provision("clean", specs.CleanserSpec(specs.Input("raw", specs.INGESTION), deduplication=keep))

    # Then
    assert {(i, v) for i, v in world.rows("silver", "clean", "id", "value")} == {(str(i), "1") for i in range(500)}
    assert world.observe("clean", specs.CleanserSpec(specs.Input("raw", specs.INGESTION), deduplication=keep)).info[
        "dropped"
    ] == {"deduplication": 500}
