"""Local times become UTC by the rules of their zone, and those that never were are row errors."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_pipeline import specs
from holdfast_pipeline.casting import cast, zone_of

from .conftest import World

BERLIN = specs.Field("at", "timestamp", tz="Europe/Berlin")


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-15 12:00", "2024-01-15 11:00"),
        ("2024-07-15T12:00:00.25", "2024-07-15 10:00:00.250"),
        ("2024-07-15T12:00:00Z", "2024-07-15 12:00"),
        ("2024-07-15T12:00:00+05:30", "2024-07-15 06:30"),
        ("2024-03-31 01:59:59", "2024-03-31 00:59:59"),
        ("2024-03-31 02:00:00", None),  # the clocks went from 2 to 3
        ("2024-03-31 02:59:59", None),
        ("2024-03-31T02:30:00Z", "2024-03-31 02:30"),  # with an offset it is a time like any other
        ("2024-03-31 03:00:00", "2024-03-31 01:00"),
        ("2024-10-27 01:59", "2024-10-26 23:59"),
        ("2024-10-27 02:30", "2024-10-27 00:30"),  # came twice; the first is meant
        ("2024-10-27 02:30+01:00", "2024-10-27 01:30"),
        ("2024-10-27 03:00", "2024-10-27 02:00"),
        ("1900-01-01 00:00", "1899-12-31 23:00"),
        ("2024-02-30 00:00", None),
        ("soon", None),
    ],
)
def test_text_is_read_in_its_zone(text: str, expected: str | None) -> None:
    found = pl.select(cast(pl.lit(text), pl.String(), BERLIN)).item()
    assert found == (None if expected is None else _utc(expected))


def test_formats_typed_values_and_dates_follow_the_same_rules() -> None:
    field = specs.Field("at", "timestamp", tz="Europe/Berlin", format="%d.%m.%Y %H:%M")
    text = pl.Series(["31.03.2024 02:30", "27.10.2024 02:30", "01.07.2024 00:00"])
    expected = [None, _utc("2024-10-27 00:30"), _utc("2024-06-30 22:00")]
    assert pl.select(cast(pl.lit(text), pl.String(), field)).to_series().to_list() == expected
    for unit in ("ms", "us", "ns"):
        typed = text.str.to_datetime("%d.%m.%Y %H:%M", time_unit=unit)  # type: ignore[arg-type]
        assert pl.select(cast(pl.lit(typed), typed.dtype, BERLIN)).to_series().to_list() == expected
    day = pl.Series([datetime(2024, 7, 1).date()])
    assert pl.select(cast(pl.lit(day), day.dtype, BERLIN)).item() == _utc("2024-06-30 22:00")


def test_a_zone_far_from_europe_and_a_midnight_that_never_was() -> None:
    chatham = specs.Field("at", "timestamp", tz="Pacific/Chatham")
    assert pl.select(cast(pl.lit("2024-01-01 13:45"), pl.String(), chatham)).item() == _utc("2024-01-01 00:00")
    havana = specs.Field("at", "timestamp", tz="America/Havana")
    day = pl.Series([datetime(2024, 3, 10).date()])
    assert pl.select(cast(pl.lit(day), day.dtype, havana)).item() is None


@given(st.datetimes(datetime(1975, 1, 1), datetime(2037, 1, 1)))
def test_every_utc_time_survives_its_offset_and_only_ambiguous_ones_move(at: datetime) -> None:
    zone = "Europe/Berlin"
    local = pl.select(pl.lit(at).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").dt.convert_time_zone(zone))
    with_offset = local.to_series().dt.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").item()
    naive = local.to_series().dt.replace_time_zone(None).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f").item()
    expected = at.replace(tzinfo=UTC)
    assert pl.select(cast(pl.lit(with_offset), pl.String(), BERLIN)).item() == expected
    found = pl.select(cast(pl.lit(naive), pl.String(), BERLIN)).item()
    assert found == expected or (expected - found).total_seconds() == 3600


def test_zones_have_one_spelling() -> None:
    assert (zone_of("Etc/UTC"), zone_of("Europe/Berlin")) == ("UTC", "Europe/Berlin")
    assert [zone_of(z) for z in ("", "Mars/X", "+02:00", "../UTC", "europe/berlin")] == [None] * 5


def test_a_time_that_never_was_is_an_error_of_its_row_alone(world: World) -> None:
    # Given
    fields = (specs.Field("id", "int64"), BERLIN)
    contract = specs.Contract("events-schema", fields=fields)
    source = specs.Source("events", "events.csv", "csv")
    rows = ["1,2024-03-31 02:30", "2,2024-10-27 02:30", "3,2024-07-01T12:00:00Z", "4,2024-07-01 12:00"]
    world.put("events.csv", "\n".join(["id,at", *rows]) + "\n")

    # When
    world.provision("raw", specs.IngestionSpec(source, contract))
    world.provision("clean", specs.CleanserSpec(specs.Input("raw", specs.INGESTION), fields))

    # Then
    assert world.rows("silver", "clean", "id", "at", "_errors") == [
        (1, None, "at:cast"),
        (2, _utc("2024-10-27 00:30"), None),
        (3, _utc("2024-07-01 12:00"), None),
        (4, _utc("2024-07-01 10:00"), None),
    ]


def test_naive_times_of_parquet_are_local_too(world: World) -> None:
    contract = specs.Contract("events-schema", fields=(BERLIN,))
    naive = pl.DataFrame({"at": [datetime(2024, 3, 31, 2, 30), datetime(2024, 7, 1, 12)]})
    naive.write_parquet(world.put("events.parquet", ""))
    source = specs.Source("events", "events.parquet", "parquet")
    world.provision("raw", specs.IngestionSpec(source, contract))
    assert world.rows("bronze", "raw", "at", "_errors") == [(_utc("2024-07-01 10:00"), None), (None, "at:cast")]
