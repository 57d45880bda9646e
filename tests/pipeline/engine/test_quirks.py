"""What spreadsheets and other tools do to files: rows as they are meant, row errors, or a file that is held."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

from holdfast_model.messages import Decision, Status
from holdfast_pipeline import specs
from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.compiler import compile_blueprint

from .conftest import Shop, World

XY = (["id", "name"], [("1", "x"), ("2", "y")])
BARE: dict[str, object] = {"has_header": False, "columns": ["id", "name"]}


def _spec(kind: str = "csv", **options: object) -> specs.IngestionSpec:
    return specs.IngestionSpec(specs.Source("in", "in/*", kind, options))  # type: ignore[arg-type]


def _data(frame: pl.DataFrame) -> tuple[list[str], list[tuple[object, ...]]]:
    names = [n for n in frame.columns if n not in specs.RESERVED_COLUMNS]
    return names, frame.sort("_row").select(names).rows()


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("sep=;\r\nid;name\r\n1;x\r\n2;y\r\n", {"separator": ";"}, XY),
        (b'\xef\xbb\xbf"sep=;"\nid;name\n1;x\n2;y\n', {"separator": ";"}, XY),
        ("SEP=\t\nid\tname\n1\tx\n2\ty\n", {"separator": "\t"}, XY),
        ("sep=;\nid;name\n1;x\n2;y\n".encode("utf-16"), {"separator": ";", "encoding": "utf-16"}, XY),
        ("sep=,\n1,x\n2,y\n", BARE, XY),
        ("id,name\n1,x\r\n2,y", {}, XY),
        ("a,,c\n1,2,3\n", {}, (["a", "", "c"], [("1", "2", "3")])),
        ("a,,c,\n1,2,3,\n", {}, (["a", "", "c"], [("1", "2", "3")])),
        ("id,t\n1,a\u2028b\x0c\n", {}, (["id", "t"], [("1", "a\u2028b\x0c")])),
        ("id,t\n1,'a,b'\n", {"quote_char": "'"}, (["id", "t"], [("1", "a,b")])),
        # without a header
        ("1,x\n2,y\n", BARE, XY),
        (b'\xef\xbb\xbf"1",x\n2,y\n', BARE, XY),
        ("1,x,\n2,y,\n", BARE, XY),
        ("made by me\n1,x\n2,y\n", {**BARE, "skip_rows": 1}, XY),
        ("# made by me\n1,x\n2,y\n", {**BARE, "comment_prefix": "#"}, XY),
        ("1,1\n2,2\n", BARE, (["id", "name"], [("1", "1"), ("2", "2")])),
        ("1\n2\n", BARE, (["id"], [("1",), ("2",)])),
        ("1,x,z\n2,y,\n", BARE, (["id", "name", "column_2"], [("1", "x", "z"), ("2", "y", None)])),
        ("1,x\n2,y\n", {"has_header": False}, (["column_0", "column_1"], XY[1])),
    ],
)
def test_what_is_meant_is_taken(
    world: World, content: str | bytes, options: dict[str, object], expected: tuple[list[str], list[object]]
) -> None:
    world.put("in/a.dat", content)
    found = world.provision("raw", _spec(**options)).observation
    assert found.status is Status.PRESENT, found.detail
    assert _data(world.frame("bronze", "raw")) == expected


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("sep=;\nid;name\n1;x\n", {}, "line 1 says that values are separated by ';'"),
        ("sep=;\nid;v\n1;x;y\n", {"separator": ";"}, "line 3 has 3 values, the header has 2 names"),
        ("id,v\n1,x\n", {"skip_rows": 2}, "has no line after the first 2 (skip_rows)"),
        ("id,v\n1,x\n", {"skip_rows": 9}, "has no line after the first 9 (skip_rows)"),
        ("a,,,c\n1,2,3,4\n", {}, "line 1 has 2 columns without a name"),
        ("a,,c,\n1,2,3,4\n", {}, "line 1 has 2 columns without a name"),
        ("id,v\n1,x\n".encode("utf-16-le"), {"encoding": "utf-16"}, "say utf-16-le or utf-16-be"),
        ("id,v\n1,x\n".encode("utf-32-le"), {"encoding": "utf-32"}, "say utf-32-le or utf-32-be"),
        ('id,v\n1,"say \\"hi\\""\n', {}, "line 2 has a quote within a value"),
        ('id,v\n1, "a"\n', {}, "line 2 has a quote within a value"),
        ("1,x\n2,y,z\n", BARE, "line 2 has 3 values, the first line has 2"),
    ],
)
def test_what_cannot_be_taken_is_held_with_its_place(
    world: World, content: str | bytes, options: dict[str, object], words: str
) -> None:
    world.put("in/a.dat", content)
    found = world.provision("raw", _spec(**options)).observation
    assert (found.status, found.reason, found.hold) == (Status.DRIFTED, "unreadable", True)
    assert "in/a.dat: " in found.detail
    assert words in found.detail
    assert world.table("bronze", "raw").rows() == 0


def test_columns_without_a_header_are_the_fields_of_the_schema_in_their_order(world: World) -> None:
    # Given: a blueprint, and one file with a column too many, one with a column too few
    fields = {"id": "int64", "name": "string"}
    source = {"id": "in", "uri": "in/*", "format": "csv", "schema": "contract", "options": {"has_header": False}}
    blueprint = {
        "sources": [source],
        "schemas": [{"id": "contract", "fields": fields}],
        "ingestions": [{"id": "raw", "source": "in"}],
    }
    nodes = {n.id: n.spec for n in compile_blueprint(parse(json.loads(json.dumps(blueprint))))}
    world.put("in/a.csv", "7,x\n8,y\n")
    world.put("in/b.csv", "7,x,z\n")
    world.put("in/c.csv", "7\n")

    # When
    touched = world.provision("raw", nodes["raw"]).touch[0].observation

    # Then
    assert world.rows("bronze", "raw", "id", "name") == [("7", "x"), ("8", "y")]
    assert touched is not None
    assert touched.info is not None
    shown = [(f["file"], f["missing"], f["extra"]) for f in touched.info["files"]]  # type: ignore[attr-defined]
    assert shown == [("in/b.csv", [], ["column_2"]), ("in/c.csv", ["name"], [])]


def test_a_lookup_without_a_header_is_joined_by_its_schemas_names(world: World) -> None:
    options: dict[str, str | int | bool | list[str]] = {"has_header": False, "columns": ["country", "region"]}
    lookup = specs.Lookup(specs.Source("countries", "countries.csv", "csv", options), ("country",))
    world.put("orders/a.csv", "order_id,amount,country\n1,1.00,DE\n")
    world.put("countries.csv", "DE,Central\nFR,West\n")
    shop = Shop()
    shop.run(world, shop.silver()[:2])
    world.provision("orders-geo", specs.EnricherSpec(specs.Input("orders-clean", specs.CLEANSER), lookup))
    assert world.rows("silver", "orders-geo", "country", "region") == [("DE", "Central")]


def _typed(world: World, field: specs.Field, values: list[str]) -> dict[str, tuple[object, object]]:
    """text -> (value, errors), as a cleanser casts them; a file most of whose values do not fit is accepted."""
    shop = Shop(contract=specs.Contract("orders-schema", fields=(specs.Field("n", "int64"), field)))
    lines = [f'{i},"{v}"\n' for i, v in enumerate(values)]
    world.put("orders/a.csv", f"n,{field.name}\n" + "".join(lines))
    world.provision("orders-raw", shop.ingestion)
    if world.observe("orders-schema", shop.schema).hold:
        world.provision("orders-schema", shop.schema, Decision("accept", "ann", at=world.time))
        world.provision("orders-raw", shop.ingestion)
    world.provision("orders-clean", shop.cleanser)
    found = world.frame("silver", "orders-clean").sort("n")
    return {values[n]: (v, e) for n, v, e in found.select("n", field.name, "_errors").rows()}


_WRONG = (None, "v:cast")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("int64", {"+5": 5, " 7 ": 7, "01234": 1234, "-0": 0, "9223372036854775807": 2**63 - 1}),
        ("float64", {"1e3": 1000.0, "+5": 5.0, " 7 ": 7.0, ".5": 0.5, "1.": 1.0, "-0": 0.0, "01234": 1234.0}),
        (
            "decimal(12,2)",
            {
                "+5": Decimal("5.00"), " 7 ": Decimal("7.00"), "1.0": Decimal("1.00"), "-.5": Decimal("-0.50"),
                "1.500": Decimal("1.50"), "01234": Decimal("1234.00"),
            },
        ),
        ("bool", {"true": True, "YES": True, "1": True, "t": True, "no": False, "F": False, "0": False, " yes ": True,
                  "Y": True, "n": False}),
    ],
)  # fmt: skip
def test_numbers_and_truths_in_other_clothes_are_values_or_errors_of_their_rows(
    world: World, kind: str, expected: dict[str, object]
) -> None:
    never = [
        "1_000",
        "1,000",
        "1.000,50",
        "(5)",
        "5%",
        "€5",
        "0x10",
        "--1",
        "1-",
        "\u0663",
        "\uff11",
        "null",
        "n/a",
        "2e",
    ]
    never += {"int64": ["1e3", "1.0", "9223372036854775808"], "float64": ["NaN", "inf", "-Infinity", "1e400"]}.get(
        kind, []
    )
    never += {"decimal(12,2)": ["1e3", "NaN", "inf", "0.001", "10000000000"], "bool": ["2", "on", "wahr"]}.get(kind, [])
    found = _typed(world, specs.Field("v", kind), [*expected, *never])
    assert {k: v for k, (v, _) in found.items() if k in expected} == expected
    assert {k: v for k, v in found.items() if k in never} == dict.fromkeys(never, _WRONG)


def test_dates_of_the_calendar_are_values_and_others_are_errors_of_their_rows(world: World) -> None:
    wrong = ["0000-01-01", "10000-01-01", "-0001-01-01", "2023-02-29", "2024-13-01", "2024-1-5", "20240105", "1.2.2024"]
    found = _typed(world, specs.Field("v", "date"), ["9999-12-31", "0001-01-01", "2024-02-29", *wrong])
    assert [found[t] for t in ("9999-12-31", "0001-01-01")] == [(date(9999, 12, 31), None), (date(1, 1, 1), None)]
    assert {k: v for k, v in found.items() if k in wrong} == dict.fromkeys(wrong, _WRONG)


def test_a_year_of_two_digits_is_no_year_of_the_roman_empire(world: World) -> None:
    found = _typed(world, specs.Field("v", "date", format="%d.%m.%Y"), ["31.12.2024", "1.2.2024", "31.12.24"])
    assert found["31.12.24"] == _WRONG
    assert found["1.2.2024"] == (date(2024, 2, 1), None)


def test_the_last_moment_of_the_calendar_is_kept(world: World) -> None:
    ends = ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]
    found = _typed(world, specs.Field("v", "timestamp", tz="UTC"), [*ends, "9999-12-31T23:59:59-01:00"])
    assert found[ends[0]] == (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), None)
    assert found[ends[1]] == (datetime(1, 1, 1, tzinfo=UTC), None)
    assert found["9999-12-31T23:59:59-01:00"] == _WRONG


def _parquet(**columns: object) -> bytes:
    made = io.BytesIO()
    pl.DataFrame(columns).write_parquet(made)
    return made.getvalue()


def test_times_in_nanoseconds_keep_their_values(world: World) -> None:
    """As pandas and Spark (int96) write them. Compared with the calendar's ends they would all be null."""
    moment = 1_700_000_000_123_456_789
    naive = pl.Series([moment, None], dtype=pl.Datetime("ns"))
    zoned = pl.Series([moment, None], dtype=pl.Datetime("ns", "America/New_York"))
    world.put("in/a", _parquet(naive=naive, zoned=zoned))
    world.provision("raw", _spec("parquet"))
    wanted = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert _data(world.frame("bronze", "raw"))[1] == [(wanted, wanted), (None, None)]
    assert world.frame("bronze", "raw")["_errors"].to_list() == [None, None]


def test_types_that_only_parquet_has_are_kept_without_bending_a_value(world: World) -> None:
    columns = {
        "u64": pl.Series([2**64 - 1], dtype=pl.UInt64),
        "i128": pl.Series([2**100], dtype=pl.Int128),
        "f32": pl.Series([0.5], dtype=pl.Float32),
        "word": pl.Series(["x"]).cast(pl.Categorical),
        "list": [[1, None]],
        "struct": [{"a": 1, "b": ["z"]}],
        "bytes": [b"\x00\xff"],
        "money": pl.Series(["9" * 38]).cast(pl.Decimal(38, 0)),
        "nothing": [None],
        "last": [date(9999, 12, 31)],
    }
    world.put("in/a", _parquet(**columns))
    world.provision("raw", _spec("parquet"))
    assert _data(world.frame("bronze", "raw"))[1] == [
        (
            Decimal(2**64 - 1), Decimal(2**100), 0.5, "x", [1, None], {"a": 1, "b": ["z"]}, b"\x00\xff",
            Decimal("9" * 38), None, date(9999, 12, 31),
        )
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_five_thousand_columns_land(world: World, kind: str) -> None:
    names = [f"c{i}" for i in range(5000)]
    content = {
        "csv": ",".join(names) + "\n" + ",".join(map(str, range(5000))) + "\n",
        "ndjson": json.dumps(dict(zip(names, range(5000), strict=True))) + "\n",
        "parquet": _parquet(**{n: [str(i)] for i, n in enumerate(names)}),
    }[kind]
    world.put("in/a", content)
    world.provision("raw", _spec(kind))
    assert _data(world.frame("bronze", "raw")) == (names, [tuple(map(str, range(5000)))])
