"""Numbers as other countries and programs write them, from files to tables."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest

from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.casting import cast

from .conftest import World

MONEY = "decimal(12,2)"


def read(text: str, type: str, decimal: str = "", thousands: str = "") -> object:
    field = specs.Field("x", type, decimal=decimal, thousands=thousands)
    return pl.select(cast(pl.lit(text), pl.String(), field)).item()


@pytest.mark.parametrize(
    ("text", "type", "decimal", "thousands", "expected"),
    [
        ("12,5", "float64", ",", "", 12.5),
        ("-0,25", "float64", ",", ".", -0.25),
        (",5", "float64", ",", "", 0.5),
        ("1,5e3", "float64", ",", "", 1500.0),
        ("1.234.567,89", MONEY, ",", ".", Decimal("1234567.89")),
        ("1234567,89", MONEY, ",", ".", Decimal("1234567.89")),
        ("1,234.50", MONEY, "", ",", Decimal("1234.50")),
        ("12,34,567.5", MONEY, "", ",", Decimal("1234567.50")),
        ("1 234,50", MONEY, ",", " ", Decimal("1234.50")),
        ("1\u202f234\u00a0567,50", MONEY, ",", " ", Decimal("1234567.50")),
        ("1'234.50", MONEY, ".", "'", Decimal("1234.50")),
        ("1.000", "int64", ",", ".", 1000),
        ("+7", "int64", ",", ".", 7),
    ],
)
def test_a_number_is_read_by_the_marks_of_its_field(
    text: str, type: str, decimal: str, thousands: str, expected: object
) -> None:
    assert read(text, type, decimal, thousands) == expected


@pytest.mark.parametrize(
    ("text", "type", "decimal", "thousands"),
    [
        ("12.5", "float64", ",", ""),
        ("1.234", "float64", ",", ""),
        ("1.23", "float64", ",", "."),
        ("1.2345,0", "float64", ",", "."),
        (".123,0", "float64", ",", "."),
        ("1..234,0", "float64", ",", "."),
        ("1,234,5", MONEY, ",", ""),
        ("1,234", MONEY, ",", ""),
        ("1.000,5", "int64", ",", "."),
        ("12 34,5", "float64", ",", " "),
        (",", "float64", ",", ""),
        ("", "float64", ",", "."),
        ("1,5 EUR", "float64", ",", "."),
    ],
)
def test_what_is_written_otherwise_is_no_number(text: str, type: str, decimal: str, thousands: str) -> None:
    assert read(text, type, decimal, thousands) is None


def test_rows_of_a_spreadsheet_of_another_country_land_with_their_values(world: World) -> None:
    fields = (
        specs.Field("station"),
        specs.Field("temp", "float64", decimal=","),
        specs.Field("cost", MONEY, decimal=",", thousands="."),
    )
    content = "station;temp;cost\nA;-3,5;1.250,00\nB;;12,5\nC;4.5;1.25\n"
    world.put("in/a.csv", content.encode("cp1252"))
    source = specs.Source("in", "in/*", "csv", {"separator": ";", "null_values": ["-9999"]})
    contract = specs.Contract("s", fields=fields)
    found = world.provision("raw", specs.IngestionSpec(source, contract)).observation
    assert found.status is Status.PRESENT, found.detail
    clean = specs.CleanserSpec(specs.Input("raw", specs.INGESTION), fields)
    found = world.provision("clean", clean).observation
    assert found.status is Status.PRESENT, found.detail
    rows = world.frame("silver", "clean").sort("_row").select("station", "temp", "cost", "_errors").rows()
    assert rows == [
        ("A", -3.5, Decimal("1250.00"), None),
        ("B", None, Decimal("12.50"), None),
        ("C", None, None, "temp:cast, cost:cast"),
    ]
