"""Formats of dates and times read what Python's strptime reads, or are refused when a blueprint is applied."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from holdfast_pipeline import specs
from holdfast_pipeline.casting import cast
from holdfast_pipeline.formats import format_problem

from .blueprints import changed, problems

READ = [
    ("date", "%m/%d/%y", ["12/31/24", "1/2/99", "12/31/69", "12/31/68", "12/31/2024"]),
    ("date", "%d-%b-%y", ["05-JAN-24", "5-Jan-24", "05-XXX-24"]),
    ("date", "%b %d, %Y", ["Jan 05, 2024", "JAN 5, 2024", "Mai 5, 2024"]),
    ("date", "%Y%m%d", ["20240131", "20240132"]),
    ("date", "%Y-%m", ["2024-02", "2024-13"]),
    ("date", "%Y-%m-%d %H:%M:%S", ["2024-01-05 10:00:00", "2024-01-05"]),
    ("timestamp", "%Y-%m-%d %H:%M:%S.%f", [
        "2024-01-05 10:00:00.123456", "2024-01-05 10:00:00.5", "2024-01-05 10:00:00.000005", "2024-01-05 10:00:00,5",
    ]),
    ("timestamp", "%m/%d/%Y %I:%M:%S %p", ["01/05/2024 10:00:00 PM", "01/05/2024 12:00:00 AM", "1/5/2024 13:00:00 PM"]),
    ("timestamp", "%m/%d/%y %H:%M", ["1/5/69 3:07", "1/5/70 23:59", "1/5/24 24:00"]),
    ("timestamp", "%d/%b/%Y:%H:%M:%S %z", ["10/Oct/2000:13:55:36 -0700", "10/Oct/2000:13:55:36 +01:00"]),
    ("timestamp", "%d.%m.%Y", ["05.01.2024"]),
    ("timestamp", "%d.%m.%Y %H:%M Uhr", ["05.01.2024 10:00 Uhr"]),
]  # fmt: skip


def _read(kind: str, given: str, values: list[str], tz: str = "UTC") -> list[object]:
    field = specs.Field("v", kind, tz=tz if kind == "timestamp" else "", format=given)
    return pl.DataFrame({"v": values}).select(cast(pl.col("v"), pl.String(), field))["v"].to_list()


def _python(kind: str, given: str, value: str) -> date | datetime | None:
    try:
        found = datetime.strptime(value, given)
    except ValueError:
        return None
    return found.date() if kind == "date" else (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


@pytest.mark.parametrize(("kind", "given", "values"), READ)
def test_values_are_what_strptime_makes_of_them(kind: str, given: str, values: list[str]) -> None:
    assert format_problem(given, kind) == ""
    assert _read(kind, given, values) == [_python(kind, given, v) for v in values]


def test_seconds_since_the_epoch_are_instants_whatever_the_zone() -> None:
    wanted = [datetime(2024, 1, 5, 10, tzinfo=UTC)]
    assert [_read("timestamp", "%s", ["1704448800"], tz) for tz in ("", "America/New_York")] == [wanted] * 2


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("date", "YYYY-MM-DD", "no date can be read by 'YYYY-MM-DD'; write it like %d.%m.%Y"),
        ("date", "%Q", "'%Q' is no format of a date"),
        ("date", "%Y-%m-%", "is no format"),
        ("date", "%d.%m.", "%Y"),
        ("date", "%s", "make the field a timestamp"),
        ("timestamp", "%H:%M:%S", "no timestamp can be read"),
        ("timestamp", "%Y-%m-%d %H", "hour and minute"),
        ("timestamp", "%m/%d/%Y %I:%M:%S", "12-hour directive"),
        ("timestamp", "%Y-%m-%d %H:%M:%S %Z", "give the field a tz"),
        ("timestamp", "%H:%M:%S,%f %d.%m.%Y", "%f counts nanoseconds"),
    ],
)
def test_a_format_that_cannot_be_meant_is_refused_at_its_place(kind: str, given: str, words: str) -> None:
    at = "/schemas/0/fields/placed_at"
    found = problems(changed(at, {"type": kind, "format": given, "optional": True}))
    assert words in found[f"{at}/format"]
