"""Quirks of files that the public offers: each gives the rows that are meant, or is refused with its name and place."""

from __future__ import annotations

import gzip
import io
import os
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from holdfast_model.errors import Permanent
from holdfast_model.messages import Decision, Status
from holdfast_pipeline import specs
from holdfast_pipeline.drift import Examination
from holdfast_pipeline.files import SourceFile
from holdfast_pipeline.texts import LONGEST, Unreadable, assert_text, encoding_of

from .conftest import GOOD, Shop, World

FIELD = specs.Field


def _spec(kind: str, **options: object) -> specs.IngestionSpec:
    return specs.IngestionSpec(specs.Source("in", "in/*", kind, options))  # type: ignore[arg-type]


def _gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _parquet(**columns: object) -> bytes:
    made = io.BytesIO()
    pl.DataFrame(columns).write_parquet(made)
    return made.getvalue()


def _land(world: World, content: str | bytes, kind: str = "csv", **options: object) -> tuple[list[str], list[object]]:
    """The data columns and rows of one file in a new world."""
    world.put("in/a.dat", content)
    found = world.provision("raw", _spec(kind, **options)).observation
    assert found.status is Status.PRESENT, found.detail
    frame = world.frame("bronze", "raw").sort("_row")
    names = [c for c in frame.columns if not c.startswith("_")]
    return names, frame.select(names).rows()


XY = (["id", "name"], [("1", "x"), ("2", "y")])


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("id,name,\n1,x,\n2,y,\n", {}, XY),
        ("id,name,,,\n1,x,,,\n2,y,,,\n", {}, XY),
        ("id;name;\r\n1;x;\r\n2;y;\r\n", {"separator": ";"}, XY),
        ("\n\nid,name\n\n1,x\n\n\n2,y\n\n", {}, XY),
        ("# made by a tool\nid,name\n# it's \"so\n1,x\n2,y\n", {"comment_prefix": "#"}, XY),
        ('Report "of\n2024\nid,name\n1,x\n2,y\n', {"skip_rows": 2}, XY),
        ("id,name\n1,x\n,\n2,y\n,,\n"[:-3], {}, XY),
        ("id,name\n1\n2,y\n", {}, (["id", "name"], [("1", None), ("2", "y")])),
        ('id,name\n1,""\n2,\n', {}, (["id", "name"], [("1", ""), ("2", None)])),
        ("id,name\n1,N/A\n2,-\n", {"null_values": ["N/A", "-"]}, (["id", "name"], [("1", None), ("2", None)])),
        ("name\nNA\n\nx\n", {"null_values": ["NA"]}, (["name"], [(None,), ("x",)])),
        ('id,name\n-,"N/A"\n,\n1,x\n', {"null_values": ["N/A", "-"]}, (["id", "name"], [(None, None), ("1", "x")])),
        ('id,name\n1,5" pipe\n2,6" pipe\n', {"quote_char": ""}, (["id", "name"], [("1", '5" pipe'), ("2", '6" pipe')])),
        ("id,name\n1,x\x00y\n", {}, (["id", "name"], [("1", "x\x00y")])),
        ("id,name\n1,x\ry\n", {}, (["id", "name"], [("1", "x\ry")])),
        (",name\n1,x\n2,y\n", {}, (["", "name"], [("1", "x"), ("2", "y")])),
        ('a b,"c,;{}()=",d.e\n1,2,3\n', {}, (["a b", "c,;{}()=", "d.e"], [("1", "2", "3")])),
        ('a,"b ""x"" c","""q"""\n1,"2 ""y""",3\n', {}, (["a", 'b "x" c', '"q"'], [("1", '2 "y"', "3")])),
        ("'it''s'\n1\n", {"quote_char": "'"}, (["it's"], [("1",)])),
        ('b""c\n1\n', {"quote_char": ""}, (['b""c'], [("1",)])),
        ('"id\nx",v\n1,"1,234.56"\n', {}, (["id\nx", "v"], [("1", "1,234.56")])),
        (_gz(b"id,name\n1,x\n") + _gz(b"2,y\n"), {}, XY),
        ("id,name\n1,Köln\n".encode("latin-1"), {"encoding": "latin-1"}, (["id", "name"], [("1", "Köln")])),
        ("id,name\n1,€\n".encode("cp1252"), {"encoding": "windows-1252"}, (["id", "name"], [("1", "€")])),
        ("id,name\n1,Жук\n".encode("koi8-r"), {"encoding": "koi8-r"}, (["id", "name"], [("1", "Жук")])),
        ("id,name\n1,日本\n".encode("shift_jis"), {"encoding": "shift_jis"}, (["id", "name"], [("1", "日本")])),
        ("id,name\n1,x\n2,y\n".encode("utf-16"), {"encoding": "utf-16"}, XY),
        (_gz("id,name\n1,x\n2,y\n".encode("utf-16-le")), {"encoding": "UTF-16LE"}, XY),
        ("\ufeffid,name\n1,x\n2,y\n".encode("utf-32"), {"encoding": "utf-32"}, XY),
    ],
)
def test_what_is_meant_is_taken(
    world: World, content: str | bytes, options: dict[str, object], expected: tuple[list[str], list[object]]
) -> None:
    assert _land(world, content, **options) == expected


@pytest.mark.parametrize(
    ("kind", "content", "options", "words"),
    [
        ("csv", "id,name\n1,x,\n2,y,\n", {}, "line 2 has 3 values, the header has 2 names; the last is empty"),
        ("csv", "id,v\n1,1,234.56\n", {}, "line 2 has 3 values"),
        ("csv", "made by me\nid,name\n1,x\n", {}, "line 2 has 2 values, the header has 1 names"),
        ("csv", "id,id,name\n1,2,x\n", {}, "line 1 names columns twice: id"),
        ("csv", "id,name,,\n1,x,a,b\n", {}, "line 1 has 2 columns without a name"),
        ("csv", "id,ID\n1,2\n", {}, "'id' and 'ID' differ in spelling only"),
        ("csv", "K\u00f6ln,Ko\u0308ln\n1,2\n", {}, "differ in spelling only"),
        ("csv", "id,name\r1,x\r2,y\r", {}, "do lines end by CR alone?"),
        ("csv", 'id,v,w\n1,"5" pipe",x\n2,"6" pipe",y\n', {}, "line 2 has a quote within a value"),
        ("csv", 'id,v\n1,x\n2,5" pipe\n3,6" pipe\n', {}, "line 3 has a quote within a value"),
        ("csv", 'id,v\n1,"a""', {}, "the quote that opens in line 2 is never closed"),
        ("csv", _gz(b'id,v\n1,"a\n' * 3), {}, "has a quote within a value"),
        ("csv", b"id,v\n1,x\n2,K\xf6ln\n", {}, "line 3 is not UTF-8 (byte 0xf6)"),
        ("csv", b"id,v\n1,x\n2,\x81\n", {"encoding": "cp1252"}, "line 3 is no cp1252"),
        ("csv", "id,v\n1,x\n".encode("utf-16")[:-1], {"encoding": "utf-16"}, "is no utf-16: truncated data"),
        ("csv", 'id,v\n1,5" x\n'.encode("utf-16"), {"encoding": "utf-16"}, "line 2 has a quote within a value"),
        ("csv", "id,v\n1,x\n".encode("utf-16"), {}, "line 1 begins with the mark of utf-16"),
        ("csv", "id,v\n1,x\n".encode("utf-16-le"), {}, "it holds a NUL; is its encoding UTF-16?"),
        ("csv", b"id,v\n1,x\r\n2,y\r3,z\n", {}, "line 3 holds a carriage return; do some lines end by CR alone?"),
        ("csv", b"PK\x03\x04 and so on", {}, "is packed by zip, as files of Excel (xlsx) are"),
        ("csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600, {}, "is a file of Excel or Word, not csv"),
        ("ndjson", _parquet(a=[1]), {}, "is a parquet file, not ndjson"),
        ("json", b"%PDF-1.7\n", {}, "is a PDF file, not json"),
        ("csv", _gz(_gz(b"id\n1\n")), {}, "is packed by gzip twice"),
        ("csv", _gz(_parquet(a=[1])), {}, "is a parquet file, not csv"),
        ("csv", b"\x28\xb5\x2f\xfd and so on", {}, "is packed by zstd"),
        ("csv", b"\x1f\x8b", {}, "cannot be unpacked"),
        ("csv", _gz(b"id\n1\n")[:-9], {}, "cannot be unpacked"),
        ("csv", _gz(b"id\n1\n") + b"tail", {}, "cannot be unpacked"),
        ("csv", "a,*\n7,2\n", {}, "column 2 is called '*': such a name stands for several columns"),
        ("csv", "^a.*$,ab\n7,2\n", {}, "column 1 is called '^a.*$'"),
        ("csv", "_file,a\n7,2\n", {}, "reserved name"),
        ("csv", "_row,a\n7,2\n", {}, "reserved name"),
        ("ndjson", '{"id":1}\n{"id":2', {}, "line 2 is no JSON object"),
        ("ndjson", '[{"id":1}]', {}, "line 1 is no JSON object"),
        ("ndjson", b'{"id":1}\n{"id":"\xff"}\n', {}, "line 2 is no JSON object"),
        ("ndjson", '{"id":NaN}\n', {}, "line 1 is no JSON object"),
        ("ndjson", '{"id":"\\ud800"}\n', {}, "line 1 is no JSON object"),
        ("ndjson", '{"i\\u0000d":1}\n', {}, "line 1 is no JSON object: a key holds a NUL"),
        ("ndjson", '{"a":' + "[" * 5000 + "]" * 5000 + "}\n", {}, "line 1 is no JSON object"),
        ("ndjson", '{"id":1}\n'.encode("utf-16"), {}, "line 1 begins with the mark of utf-16"),
        ("ndjson", '{"id":1}\r{"id":2}\r', {}, "line 1 is no JSON object"),
        ("ndjson", '{"_row":7}\n', {}, "reserved name"),
        ("ndjson", '{"*":7}\n', {}, "column 1 is called '*': such a name stands for several columns"),
        ("ndjson", '{"a":1}\n\n{"a":1,"b":":","a":2}\n', {}, "line 3 is no JSON object: it names 'a' twice"),
        ("ndjson", '{"":1,"\\u0061":2,"a":{"a":3}}\n', {}, "line 1 is no JSON object: it names 'a' twice"),
        ("json", '[{"a":1},{"":1,"":2}]', {}, "element 2 is no JSON object: it names '' twice"),
        ("parquet", _parquet(**{"^.*$": [1]}), {}, "column 1 is called '^.*$': such a name stands for several columns"),
        ("json", '{"id":1}', {}, "is no JSON array of objects"),
        ("json", '[{"id":1},2]', {}, "element 2 is no JSON object"),
        ("json", '[{"id":1}', {}, "is no JSON array of objects"),
        ("json", b'[{"id":"\xff"}]', {}, "element 1 is no JSON object"),
        ("json", "[" + '{"a":' * 3000 + "1" + "}" * 3000 + "]", {}, "is no JSON array of objects"),
        ("parquet", b"PAR1 and nothing else", {}, "parquet"),
        ("parquet", b"", {}, "parquet"),
        ("parquet", _parquet(a=list(range(1000)))[:-30], {}, "parquet"),
        ("parquet", _parquet(d=pl.Series([1], dtype=pl.Duration("us"))), {}, "which tables do not keep"),
        ("parquet", _parquet(**{"i\x00d": [1]}), {}, "it holds a NUL"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_with_its_place_and_good_files_land(
    world: World, kind: str, content: str | bytes, options: dict[str, object], words: str
) -> None:
    good = {"csv": "good\n1\n", "ndjson": '{"good":"1"}\n', "json": '[{"good":"1"}]', "parquet": _parquet(good=["1"])}
    encoding = str(options.get("encoding", "utf8"))
    fine = good[kind]
    world.put("in/a.dat", content)
    world.put("in/b.dat", fine.encode(encoding) if isinstance(fine, str) else fine)
    found = world.provision("raw", _spec(kind, **options)).observation
    assert (found.status, found.reason, found.hold) == (Status.DRIFTED, "unreadable", True)
    assert "in/a.dat: " in found.detail
    assert words in found.detail
    assert world.rows("bronze", "raw", "_file", "good") == [("in/b.dat", "1")]
    assert world.observe("raw", _spec(kind, **options)).detail == found.detail


@pytest.mark.parametrize("contract", [False, True])
def test_parquet_that_is_damaged_between_its_ends_is_refused_and_good_files_land(world: World, contract: bool) -> None:
    whole = _parquet(v=[str(i * 7919) for i in range(5000)])
    at = len(whole) // 2
    world.put("in/a.dat", whole[:at] + bytes(64) + whole[at + 64 :])
    world.put("in/b.dat", whole)
    declared = specs.Contract("s", fields=(FIELD("v", "string"),)) if contract else None
    spec = specs.IngestionSpec(specs.Source("in", "in/*", "parquet"), declared)
    result = world.provision("raw", spec)
    found = result.touch[0].observation if contract else result.observation
    assert found is not None
    assert found.hold
    assert "in/a.dat: cannot be computed: parquet" in found.detail
    frame = world.frame("bronze", "raw")
    assert frame["_file"].unique().to_list() == ["in/b.dat"]
    assert frame.height == 5000
    if declared is not None:
        # Accepting it does not mend it: it stays out, and nothing else waits for it.
        schema = specs.SchemaSpec(declared, ("raw",))
        world.provision("s", schema, Decision("accept", by="ann", at=world.time))
        world.put("in/c.dat", _parquet(v=["x"]))
        assert "in/a.dat" in world.provision("raw", spec).observation.detail
        assert world.frame("bronze", "raw").height == 5001


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (_parquet(id=[1]), _parquet(ID=[1]), "'id' and 'ID' differ in spelling only"),
        (_parquet(id=[1]), _parquet(id=[[1]]), "List(Int64) here and Int64 in the table"),
        (_parquet(id=[{"a": 1}]), _parquet(id=[{"b": 1}]), "in the table"),
        (_parquet(id=[b"\xff"]), _parquet(id=["x"]), "String here and Binary in the table"),
        (
            _parquet(id=pl.Series(["1" * 36]).cast(pl.Decimal(38, 0))),
            _parquet(id=pl.Series(["0.1"]).cast(pl.Decimal(38, 30))),
            "in the table",
        ),
    ],
)
def test_without_a_schema_a_file_that_cannot_stand_beside_the_others_is_refused(
    world: World, one: bytes, other: bytes, words: str
) -> None:
    world.put("in/a", one)
    world.provision("raw", _spec("parquet"))
    before = world.rows("bronze", "raw")
    world.put("in/b", other)
    found = world.provision("raw", _spec("parquet")).observation
    assert (found.reason, found.hold) == ("unreadable", True)
    assert words in found.detail
    assert world.rows("bronze", "raw") == before


def test_whole_and_broken_numbers_of_several_files_lose_no_digit(world: World) -> None:
    world.put("in/a", _parquet(v=[2**53 + 1]))
    world.put("in/b", _parquet(v=[0.5]))
    world.provision("raw", _spec("parquet"))
    assert world.rows("bronze", "raw", "v") == [("0.5",), ("9007199254740993",)]


def test_dates_outside_of_the_calendar_are_errors_of_their_rows(world: World) -> None:
    days = pl.Series([2**30, 20000], dtype=pl.Date)
    times = pl.Series([2**62, 0], dtype=pl.Datetime("ms"))
    world.put("in/a", _parquet(d=days, t=times))
    world.provision("raw", _spec("parquet"))
    rows = world.rows("bronze", "raw", "_row", "d", "_errors")
    assert rows == [(0, None, "d:range, t:range"), (1, date(2024, 10, 4), None)]


def test_dates_are_read_by_their_format_and_others_are_row_errors(world: World) -> None:
    fields = (FIELD("id", "int64"), FIELD("d", "date", format="%d.%m.%Y"))
    shop = Shop(contract=specs.Contract("orders-schema", fields=fields))
    world.put("orders/a.csv", "id,d\n1,31.12.2024\n2,01.02.2024\n3,2024-12-31\n4,31.11.2024\n")
    shop.run(world, shop.silver()[:2])
    assert world.rows("silver", "orders-clean", "id", "d", "_errors") == [
        (1, date(2024, 12, 31), None), (2, date(2024, 2, 1), None), (3, None, "d:cast"), (4, None, "d:cast"),
    ]  # fmt: skip


def test_thousands_separators_hold_a_money_column_and_are_never_guessed(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", 'order_id,amount,country\n1,"1,234.56",DE\n2,"9,000.00",DE\n')
    world.provision("orders-raw", shop.ingestion)
    seen = world.observe("orders-schema", shop.schema)
    assert seen.hold
    assert "orders/a.csv: of another type amount" in seen.detail


def test_columns_that_only_look_like_declared_ones_are_shown_apart_and_a_rename_is_proposed(world: World) -> None:
    fields = (FIELD("id", "int64"), FIELD("K\u00f6ln", "string"))
    shop = Shop(contract=specs.Contract("orders-schema", fields=fields))
    world.put("orders/a.csv", "id,Ko\u0308ln\n1,x\n")
    world.put("orders/b.csv", "id ,K\u00f6ln\n2,y\n")
    world.provision("orders-raw", shop.ingestion)
    seen = world.observe("orders-schema", shop.schema)
    assert r"missing 'K\xf6ln'; not declared 'Ko\u0308ln'" in seen.detail
    renames = [f["renames"] for f in seen.info["files"]]  # type: ignore[attr-defined]
    assert renames == [{"Ko\u0308ln": "K\u00f6ln"}, {"id ": "id"}]


def test_a_name_with_something_unseen_in_it_is_shown_escaped() -> None:
    """A space of no width is no white space, so that nothing would tell such a name from the declared one."""
    assert Examination(missing=("id",), extra=("\u200bid",)).text == r"missing id; not declared '\u200bid'"
    assert Examination(missing=("Köln",), extra=("日本",)).text == "missing Köln; not declared 日本"


def test_nested_json_is_kept_as_its_text(world: World) -> None:
    content = '[{"id":1,"a":{"b":[1, 2.50]}},{"id":2,"a":null},{"id":1e400,"a":[{}]}]'
    assert _land(world, content, "json") == (
        ["id", "a"], [("1", '{"b":[1,2.50]}'), ("2", None), ("1e400", "[{}]")],
    )  # fmt: skip


def test_a_table_of_two_thousand_columns_lands(world: World) -> None:
    names = [f"c{i}" for i in range(2000)]
    lines = [",".join(names), *(",".join(str(r * i) for i in range(2000)) for r in range(20)), "," * 1999]
    found, rows = _land(world, "\n".join(lines))
    assert (found, len(rows)) == (names, 20)
    assert rows[3] == tuple(str(3 * i) for i in range(2000))


def test_accepting_a_file_of_another_encoding_replaces_what_cannot_be_read(world: World) -> None:
    shop = Shop(source=specs.Source("orders", "orders/*.csv", "csv", {"encoding": "cp1252"}))
    world.put("orders/a.csv", b"order_id,amount,country\n1,1.00,\x81E\n")
    world.provision("orders-raw", shop.ingestion)
    world.provision("orders-schema", shop.schema, Decision("accept", by="ann", at=world.time))
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "country") == [("\ufffdE",)]


def test_no_decoded_copy_is_left_behind(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    world.put("in/a.csv", "id,name\n1,Ö\n".encode("latin-1"))
    world.provision("raw", _spec("csv", encoding="latin-1"))
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(("name", "known"), [
    ("latin-1", "iso8859-1"), ("ISO-8859-15", "iso8859-15"), ("utf-8", "utf8"), ("utf8-lossy", "utf8-lossy"),
    ("rot13", None), ("zlib", None), ("unicode_escape", None), ("idna", None), ("utf-7", None), ("x\x00", None),
])  # fmt: skip
def test_encodings_are_those_of_text(name: str, known: str | None) -> None:
    assert encoding_of(name) == known


# The file system


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_taken_anew(world: World) -> None:
    path = world.put("in/a.csv", "id\n1\n")
    world.provision("raw", _spec("csv"))
    stat = path.stat()
    other = world.put("b.csv", "id\n2\n")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(path)
    assert world.observe("raw", _spec("csv")).status is Status.DRIFTED
    world.provision("raw", _spec("csv"))
    assert world.rows("bronze", "raw", "id") == [("2",)]


def test_a_touched_file_is_not_taken_again(world: World) -> None:
    path = world.put("in/a.csv", "id\n1\n")
    world.provision("raw", _spec("csv"))
    path.chmod(0o600)
    world.provision("raw", _spec("csv"))
    assert world.table("bronze", "raw").version == 0
    assert world.observe("raw", _spec("csv")).status is Status.PRESENT


def test_only_files_are_taken_whatever_is_called_like_one(world: World) -> None:
    # Given: a folder, a link to a folder, a pipe, a link to a pipe, a dangling link, hidden files
    world.put("in/good.csv", "id\n1\n")
    world.put("in/folder.csv/x.csv", "id\n2\n")
    (world.data / "in/link.csv").symlink_to(world.data / "in/folder.csv")
    os.mkfifo(world.data / "in/pipe.csv")
    (world.data / "in/topipe.csv").symlink_to(world.data / "in/pipe.csv")
    (world.data / "in/nowhere.csv").symlink_to(world.data / "gone.csv")
    for name in (".a.csv", "_a.csv", "a.csv.tmp", "a.csv.part"):
        world.put(f"in/{name}", "id\n3\n")

    # When
    spec = specs.IngestionSpec(specs.Source("in", "in/*", "csv"))
    world.provision("raw", spec)

    # Then
    assert world.rows("bronze", "raw", "_file", "id") == [("in/good.csv", "1")]
    assert world.observe("raw", spec).status is Status.PRESENT


def test_a_pipe_as_a_source_is_not_waited_for(world: World) -> None:
    os.mkfifo(world.data / "pipe.csv")
    source = specs.Source("in", "pipe.csv", "csv")
    assert world.observe("in", specs.DataSourceSpec(source)).status is Status.UNKNOWN
    assert world.observe("raw", specs.IngestionSpec(source)).status is Status.UNKNOWN


def test_names_that_differ_in_case_or_hold_line_ends_are_files_of_their_own(world: World) -> None:
    names = ["a.csv", "A.csv", "a\nb.csv", "a\tb.csv", "\u00e4.csv", "a\u0308.csv"]
    for i, name in enumerate(names):
        world.put(f"in/{name}", f"id\n{i}\n")
    world.provision("raw", _spec("csv"))
    world.put("in/a\nb.csv", "id\n99\n")
    world.provision("raw", _spec("csv"))
    assert {i for (i,) in world.rows("bronze", "raw", "id")} == {"0", "1", "99", "3", "4", "5"}
    assert len({f for (f,) in world.rows("bronze", "raw", "_file")}) == len(names)


def test_a_name_that_is_no_text_is_refused_beside_the_good_ones(world: World) -> None:
    world.put("in/good.csv", "id\n1\n")
    with open(os.fsencode(world.data / "in") + b"/\xff.csv", "wb") as f:
        f.write(b"id\n2\n")
    found = world.provision("raw", _spec("csv")).observation
    assert r"in/\xff.csv: its name is not UTF-8" in found.detail
    assert world.rows("bronze", "raw", "id") == [("1",)]


def test_columns_of_one_name_are_refused_in_every_table(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.put("countries.csv", "country,region\nDE,Central\nFR,West\n")
    shop.run(world, shop.silver())
    sql = 'select region, count(*) as n, count(*) as "N" from orders_valid group by region'
    with pytest.raises(Permanent, match="differ in spelling only"):
        world.provision("by-region", specs.TransformerSpec(shop.transformer.inputs, sql))


def test_packed_lines_without_an_end_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    # Given: a quarter of a megabyte that unpacks to 256 MB
    path = tmp_path / "a.gz"
    with gzip.open(path, "wb", 1) as f:
        f.write(b"id\n")
        for _ in range(256):
            f.write(b"x" * (1 << 20))
    file = SourceFile("a.gz", path, path.stat().st_size, "t")

    # When / Then
    for kind in ("csv", "ndjson"):
        with pytest.raises(Unreadable, match=f"line 2 is longer than {LONGEST >> 20} MB"):
            assert_text(file, specs.Source("in", "in/*", kind))  # type: ignore[arg-type]
