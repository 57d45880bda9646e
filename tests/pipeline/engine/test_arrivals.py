"""What came first, or how many columns there are, changes no value."""

from __future__ import annotations

import io
from datetime import date
from math import inf

import polars as pl
import pytest

from holdfast_model.errors import Permanent
from holdfast_model.messages import Decision, Status
from holdfast_pipeline import specs
from holdfast_pipeline.cleansing import cleansed
from holdfast_pipeline.previews import preview
from holdfast_pipeline.shelves import Shelves

from .conftest import World

FIELD = specs.Field
RAW = specs.Input("raw", specs.INGESTION)


def _parquet(**columns: object) -> bytes:
    made = io.BytesIO()
    pl.DataFrame(columns).write_parquet(made)
    return made.getvalue()


@pytest.mark.parametrize("first", ["nothing", "a held file", "a file with other types"])
def test_types_are_those_of_the_rows_whatever_the_table_was_begun_with(world: World, first: str) -> None:
    # Given: a table that was begun without one of these rows
    fields = (FIELD("v", "float64"), FIELD("d", "date", format="%Y%m%d"))
    contract = specs.Contract("c", fields=fields)
    spec = specs.IngestionSpec(specs.Source("s", "in/*", "parquet"), contract)
    (world.data / "in").mkdir()
    if first == "a held file":
        world.put("in/a", _parquet(w=[1]))
    if first == "a file with other types":
        world.put("in/a", _parquet(v=["x"], d=["y"]))
        text = specs.Contract("c", fields=(FIELD("v", "string"), FIELD("d", "string")))
        world.provision("raw", specs.IngestionSpec(spec.source, text))
    world.provision("raw", spec)

    # When
    world.put("in/a", _parquet(v=[inf, 0.5], d=[date(2024, 1, 2), None]))
    world.provision("raw", spec)
    world.provision("clean", specs.CleanserSpec(RAW, fields))

    # Then: nothing went through text on its way
    assert dict(world.table("bronze", "raw").schema())["v"] == pl.Float64
    rows = world.rows("silver", "clean", "v", "d", "_errors")
    assert rows == [(0.5, None, None), (inf, date(2024, 1, 2), None)]


def test_columns_named_like_those_of_the_quarantine_go_as_far_as_it(world: World) -> None:
    world.put("in/a.csv", "a,_status,_fails0,decision,open\n1,x,y,z,w\n,x,y,z,w\n")
    world.provision("raw", specs.IngestionSpec(specs.Source("s", "in/*", "csv")))
    checks = (specs.Check("a", "not_null"),)
    with pytest.raises(Permanent, match="_status are those of the quarantine"):
        world.provision("good", specs.ValidatorSpec(RAW, checks))
    tables = (RAW,)
    world.provision("some", specs.TransformerSpec(tables, "select a, _fails0, decision, open from raw"))
    assert world.rows("gold", "some") == [("1", "y", "z", "w"), (None, "y", "z", "w")]


def test_columns_named_like_those_that_checks_add_keep_their_values(world: World) -> None:
    world.put("in/a.csv", "a,_fails0,decision,open,drop,rows\n1,x,y,z,w,v\n,x,y,z,w,v\n")
    world.provision("raw", specs.IngestionSpec(specs.Source("s", "in/*", "csv")))
    spec = specs.ValidatorSpec(RAW, (specs.Check("a", "not_null"),))
    assert world.provision("good", spec).observation.hold
    world.provision("good", spec, Decision("accept-rows", by="ann", at=world.time))
    names = ("a", "_fails0", "decision", "open", "drop", "rows")
    assert world.rows("silver", "good", *names) == [("1", *"xyzwv"), (None, *"xyzwv")]


@pytest.mark.timeout(120)
def test_rows_with_nulls_are_dropped_from_four_thousand_columns(world: World) -> None:
    """One filter over all of them takes minutes."""
    names = [f"c{i}" for i in range(4000)]
    frame = pl.DataFrame({n: [str(i), None if i == 3999 else "x", "y"] for i, n in enumerate(names)})
    lineage = frame.with_columns(_file=pl.lit("f"), _row=pl.int_range(3))
    path = world.base / "wide.parquet"
    lineage.write_parquet(path)
    spec = specs.CleanserSpec(RAW, rules=(specs.Rule("drop_nulls"),))
    kept, dropped = cleansed(pl.scan_parquet(path), spec, 3)
    assert kept.select("c0", "c3999").collect().rows() == [("0", "3999"), ("y", "y")]
    assert kept.collect_schema().names()[:4000] == names
    assert dropped == {"1 drop_nulls": 1}


def test_a_line_of_separators_below_a_header_of_none_is_no_row(world: World) -> None:
    world.put("in/a.csv", ",\n,\n")
    spec = specs.IngestionSpec(specs.Source("s", "in/*", "csv"))
    assert world.provision("raw", spec).observation.status is Status.PRESENT
    assert world.rows("bronze", "raw") == []


def test_a_preview_tells_infinity_from_nothing(world: World) -> None:
    world.put("in/a", _parquet(v=[inf, -inf, float("nan"), None, 0.5]))
    world.provision("raw", specs.IngestionSpec(specs.Source("s", "in/*", "parquet")))
    shelves = Shelves(world.settings, world.tenant, world.graph)
    found = preview(shelves, "raw", as_of="", limit=9, quarantine=False, now=world.time)
    assert [row[0] for row in found.rows] == ["inf", "-inf", "nan", None, 0.5]


@pytest.mark.parametrize(
    ("content", "declared", "words"),
    [
        (b"country,name\nDE,Central\n", True, "countries.csv: missing region"),
        (b"", True, "countries.csv: missing country, region"),
        (b"country,region\nDE,x\nFR,y\nIT,3\n", True, "countries.csv: of another type region"),
        (b"country,region\nDE,1\nFR,K\xf6ln\n", True, "countries.csv: line 3 is not UTF-8 (byte 0xf6)"),
        (b"country,region\nDE,1\nFR,K\xf6ln\n", False, "countries.csv: line 3 is not UTF-8 (byte 0xf6)"),
        (b"country,region\nDE,1,2\n", False, "countries.csv: line 2 has 3 values"),
        (b"country,name\nDE,Central\n", False, "has no column region"),
    ],
)
def test_a_lookup_that_cannot_be_what_is_meant_is_told_with_its_place_and_gives_no_nulls(
    world: World, content: bytes, declared: bool, words: str
) -> None:
    # Given: a stage that was joined once
    world.put("in/a.csv", "country\nDE\n")
    world.put("countries.csv", b"country,region,more\nDE,1,x\n")
    world.provision("raw", specs.IngestionSpec(specs.Source("s", "in/*", "csv")))
    fields = (FIELD("country", "string"), FIELD("region", "int64")) if declared else ()
    lookup = specs.Lookup(specs.Source("countries", "countries.csv", "csv"), ("country",), ("region",), fields)
    spec = specs.EnricherSpec(RAW, lookup)
    world.provision("geo", spec)
    before = world.rows("silver", "geo", "country", "region")

    # When
    world.put("countries.csv", content)
    with pytest.raises(Permanent) as told:
        world.provision("geo", spec)

    # Then
    assert words in told.value.message
    assert world.rows("silver", "geo", "country", "region") == before == [("DE", 1 if declared else "1")]


def test_columns_are_derived_from_derived_ones_whatever_they_are_called(world: World) -> None:
    world.put("in/a.csv", "v\n1\n2\n")
    world.provision("raw", specs.IngestionSpec(specs.Source("s", "in/*", "csv")))
    derive = {"z": "cast(v as bigint) + 1", "m": "z * 10", "a": "m + z", "b": "1"}
    world.provision("more", specs.EnricherSpec(RAW, derive=derive))
    assert world.rows("silver", "more", "v", "z", "m", "a", "b") == [("1", 2, 20, 22, 1), ("2", 3, 30, 33, 1)]
    with pytest.raises(Permanent, match="a, b are derived from each other"):
        world.provision("never", specs.EnricherSpec(RAW, derive={"a": "b", "b": "a"}))
