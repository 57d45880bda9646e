"""Files as they really come: each is taken as it is meant, or refused with its name and the reason."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

import msgspec
import polars as pl
import pytest

from holdfast_model.errors import Temporary
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.files import assert_unchanged
from holdfast_pipeline.tables import Table

from .conftest import GOOD, Shop, World

HEADER = "order_id,amount,country\n"


def _open(source: specs.Source) -> specs.IngestionSpec:
    """An ingestion without a schema."""
    return specs.IngestionSpec(source)


def _csv(**options: str | int | bool | list[str]) -> specs.IngestionSpec:
    return _open(specs.Source("in", "in/*", "csv", options))


NDJSON = _open(specs.Source("in", "in/*", "ndjson"))


def _refused(world: World, spec: specs.IngestionSpec) -> str:
    """What is said of files that were refused; the step itself succeeds."""
    found = world.provision("raw", spec).observation
    assert (found.status, found.reason, found.hold) == (Status.DRIFTED, "unreadable", True)
    return found.detail


def test_a_byte_order_mark_is_no_part_of_the_first_column(world: World) -> None:
    world.put("in/a.csv", b"\xef\xbb\xbfid,name\n1,x\n")
    world.put("in/b.csv", b"\xef\xbb\xbf" + b'"id",name\n2,y\n')
    world.provision("raw", _csv())
    assert world.rows("bronze", "raw", "id", "name") == [("1", "x"), ("2", "y")]


def test_a_byte_order_mark_before_json_is_skipped(world: World) -> None:
    world.put("in/a.ndjson", b'\xef\xbb\xbf{"id": 1}\n{"id": 2}\n')
    world.provision("raw", NDJSON)
    assert world.rows("bronze", "raw", "id") == [("1",), ("2",)]
    world.put("one.json", b'\xef\xbb\xbf[{"id": 3}]')
    world.provision("one", _open(specs.Source("one", "one.json", "json")))
    assert world.rows("bronze", "one", "id") == [("3",)]


def test_another_encoding_is_refused_and_lossy_reading_has_to_be_asked_for(world: World) -> None:
    world.put("in/a.csv", "id,city\n1,Köln\n2,Zürich\n".encode("latin-1"))
    assert "in/a.csv" in _refused(world, _csv())
    world.provision("raw", _csv(encoding="utf8-lossy"))
    assert world.rows("bronze", "raw", "city") == [("K\ufffdln",), ("Z\ufffdrich",)]


def test_semicolons_quotes_and_newlines_in_fields(world: World) -> None:
    world.put("in/a.csv", 'id;text\n1;"a;b"\n2;"line 1\nline 2"\n3;"say ""hi"""\n4;\n')
    world.provision("raw", _csv(separator=";"))
    assert world.rows("bronze", "raw", "id", "text") == [
        ("1", "a;b"), ("2", "line 1\nline 2"), ("3", 'say "hi"'), ("4", None),
    ]  # fmt: skip


def test_windows_and_missing_line_ends_are_no_part_of_values(world: World) -> None:
    world.put("in/a.csv", "id,name\r\n1,x\r\n2,y")
    world.provision("raw", _csv())
    assert world.rows("bronze", "raw", "id", "name") == [("1", "x"), ("2", "y")]


def test_gzip_is_read_by_its_content(world: World) -> None:
    world.put("in/a.csv.gz", gzip.compress(b"id,name\n1,x\n"))
    world.provision("raw", _csv())
    assert world.rows("bronze", "raw", "id", "name") == [("1", "x")]
    world.put("nd/a.ndjson.gz", gzip.compress(b'{"id": 1}\n{"id": 2, "late": "z"}\n'))
    world.provision("nd", _open(specs.Source("nd", "nd/*", "ndjson")))
    assert world.rows("bronze", "nd", "id", "late") == [("1", None), ("2", "z")]


@pytest.mark.parametrize(("name", "spec"), [("a.csv.gz", _csv()), ("a.ndjson.gz", NDJSON)])
def test_a_gzip_file_that_is_cut_off_is_refused(world: World, name: str, spec: specs.IngestionSpec) -> None:
    lines = b"".join(b'{"id": %d}\n' % i for i in range(5000))
    world.put(f"in/{name}", gzip.compress(lines)[:-400])
    assert f"in/{name}" in _refused(world, spec)


def test_a_quote_that_is_never_closed_is_refused_and_takes_no_rows_with_it(world: World) -> None:
    world.put("in/a.csv", 'id,name\n1,x\n2,"y\n3,z\n4,w\n')
    world.put("in/b.csv", "id,name\n5,v\n")
    assert "in/a.csv" in _refused(world, _csv())
    assert world.rows("bronze", "raw", "id") == [("5",)]


def test_a_file_that_is_being_written_waits_and_a_half_written_line_is_refused(world: World) -> None:
    path = world.put("in/a.ndjson", '{"id": 1}\n{"id": 2, "na')
    assert "line 2" in _refused(world, NDJSON)
    path.write_text('{"id": 1}\n{"id": 2, "name": "x"}\n')
    world.provision("raw", NDJSON)
    assert world.rows("bronze", "raw", "id", "name") == [("1", None), ("2", "x")]


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
@pytest.mark.parametrize("start", ["", "first"])
def test_one_endless_line_is_refused_with_its_place(world: World, kind: str, start: str) -> None:
    # Given: 200 MB without an end of line
    path = world.put(f"in/long.{kind}", {"csv": "id,name\n1,", "ndjson": '{"id": "'}[kind] if start else "")
    with open(path, "ab") as f:
        for _ in range(50):
            f.write(b"x" * 4_000_000)

    # When
    said = _refused(world, _csv() if kind == "csv" else NDJSON)

    # Then
    assert f"in/long.{kind}" in said
    assert "line 2" in said if start and kind == "csv" else "line 1" in said
    assert "longer than" in said


_HELD = """
import re, sys
import msgspec
from pathlib import Path
from holdfast_pipeline.engine import Engine, StageTask
from holdfast_pipeline.tasks import EngineSettings

def peak():  # kB; what getrusage tells of a new process begins with what its parent had
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

task = msgspec.json.decode(sys.argv[3], type=StageTask)
engine = Engine(EngineSettings(Path(sys.argv[1]), {task.tenant: (Path(sys.argv[2]),)}), lambda: 2e9)
before = peak()
print(engine.provision(task).observation.detail)
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_one_endless_line_is_refused_in_bounded_memory(world: World, kind: str) -> None:
    path = world.put(f"in/long.{kind}", {"csv": "id\n", "ndjson": '{"id": "'}[kind])
    with open(path, "ab") as f:
        for _ in range(50):
            f.write(b"x" * 4_000_000)
    task = world.task("raw", _csv() if kind == "csv" else NDJSON)
    argv = [str(world.settings.warehouse), str(world.data), msgspec.json.encode(task).decode()]
    child = subprocess.run([sys.executable, "-c", _HELD, *argv], check=False, timeout=180, capture_output=True)
    assert child.returncode == 0, child.stderr
    said, grown = child.stdout.decode().splitlines()
    assert f"line {2 if kind == 'csv' else 1} is longer than" in said
    assert int(grown) < 150_000  # kilobytes, for a line of 200 megabytes


def test_values_of_many_types_in_one_column_stay_what_they_were(world: World) -> None:
    world.put("in/a.ndjson", '{"v": 1}\n{"v": "01"}\n{"v": 1.50}\n{"v": null}\n{"v": [1, 2]}\n{"v": true}\n')
    world.provision("raw", NDJSON)
    assert world.rows("bronze", "raw", "_row", "v") == [
        (0, "1"), (1, "01"), (2, "1.50"), (3, None), (4, "[1,2]"), (5, "true"),
    ]  # fmt: skip


def test_a_file_replaced_by_one_of_the_same_size_is_taken_anew(world: World) -> None:
    path = world.put("in/a.csv", "id\n1\n")
    world.provision("raw", _csv())
    stat = path.stat()
    path.write_text("id\n2\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    world.provision("raw", _csv())
    assert world.rows("bronze", "raw", "id") == [("2",)]


def test_a_file_deleted_while_it_is_read_leaves_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: the file goes after it was read, right before its rows would be committed
    path = world.put("in/a.csv", "id\n1\n")

    def vanishing(file: object, source: object) -> None:
        path.unlink(missing_ok=True)
        assert_unchanged(file, source)  # type: ignore[arg-type]

    monkeypatch.setattr("holdfast_pipeline.ingestion.assert_unchanged", vanishing)

    # When / Then
    with pytest.raises(Temporary, match="went away"):
        world.provision("raw", _csv())
    assert Table.open(world.folder("bronze", "raw")) is None


def test_names_with_anything_in_them(world: World) -> None:
    names = [
        "a b.csv",
        "100%.csv",
        "c#1.csv",
        "ü ß.csv",
        "x'y.csv",
        "[z].csv",
        "%20.csv",
        "q?.csv",
        '"d".csv',
        "e\\f.csv",
    ]
    for i, name in enumerate(names):
        world.put(f"in/{name}", f"id\n{i}\n")
    world.provision("raw", _csv())
    assert {f for (f,) in world.rows("bronze", "raw", "_file")} == {f"in/{n}" for n in names}
    world.put("in/x'y.csv", "id\n99\n")
    world.provision("raw", _csv())
    assert {i for (i,) in world.rows("bronze", "raw", "id")} == {"0", "1", "2", "3", "99", "5", "6", "7", "8", "9"}


def test_ten_thousand_small_files_land_once_whatever_happens_to_some(world: World) -> None:
    # Given: ten thousand files, two of which are awkward
    for i in range(10_000):
        world.put(f"in/{i:05}.csv", f"id,name\n{i},n{i}\n")
    world.put("in/00007.csv", "id,name\n")
    world.put("in/00008.csv", 'id,name\n8,"n8\n')

    # When
    said = _refused(world, _csv())

    # Then
    assert "in/00008.csv: the quote that opens in line 2 is never closed" in said
    frame = world.frame("bronze", "raw")
    wanted = [i for i in range(10_000) if i not in (7, 8)]
    assert frame["id"].cast(pl.Int64).sort().to_list() == wanted
    assert frame.filter(pl.col("_file") != pl.format("in/{}.csv", pl.col("id").str.zfill(5))).height == 0
    assert frame.filter(pl.col("name") != pl.format("n{}", pl.col("id"))).height == 0
    assert frame["_row"].unique().to_list() == [0]

    # And one that changes, one that is renamed and one that is repaired cost one commit, and no row twice
    version = world.table("bronze", "raw").version
    world.put("in/00000.csv", "id,name\n10000,n10000\n")
    (world.data / "in/00001.csv").rename(world.data / "in/x.csv")
    world.put("in/00008.csv", "id,name\n8,n8\n")
    assert world.provision("raw", _csv()).observation.status is Status.PRESENT
    frame = world.frame("bronze", "raw")
    wanted = [i for i in range(1, 10_001) if i != 7]
    assert frame["id"].cast(pl.Int64).sort().to_list() == wanted
    assert frame.filter(pl.col("id") == "1")["_file"].to_list() == ["in/x.csv"]
    assert world.table("bronze", "raw").version == version + 1


def test_a_folder_that_appears_later_is_taken_then(world: World) -> None:
    with pytest.raises(Temporary, match="not there"):
        world.provision("raw", _csv())
    world.put("in/a.csv", "id\n1\n")
    assert world.provision("raw", _csv()).observation.status is Status.PRESENT


def test_decimals_that_overflow_are_errors_of_their_rows(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", f"{HEADER}1,9999999999.99,DE\n2,10000000000.00,DE\n3,1e5,DE\n4,1,DE\n5,2,DE\n")
    shop.run(world, shop.silver()[:2])
    found = world.rows("silver", "orders-clean", "order_id", "amount", "_errors")
    assert [(i, str(a), e) for i, a, e in found] == [
        (1, "9999999999.99", None), (2, "None", "amount:cast"), (3, "None", "amount:cast"),
        (4, "1.00", None), (5, "2.00", None),
    ]  # fmt: skip


_FULL = """
import resource, signal, sys
import msgspec
from pathlib import Path
from holdfast_model.errors import Temporary
from holdfast_pipeline.engine import Engine, StageTask
from holdfast_pipeline.tasks import EngineSettings

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
task = msgspec.json.decode(sys.argv[3], type=StageTask)
try:
    Engine(EngineSettings(Path(sys.argv[1]), {task.tenant: (Path(sys.argv[2]),)}), lambda: 2e9).provision(task)
except Temporary as e:
    print(e.message)
    sys.exit(7)
"""


def test_storage_that_takes_no_more_is_temporary_and_leaves_no_version(world: World, shop: Shop) -> None:
    # Given: a limit for every file that stands for a full disk
    rows = "".join(f"{i},{i * 7919 % 100003}.{i % 100:02},DE\n" for i in range(20_000))
    world.put("orders/a.csv", HEADER + rows)
    task = world.task("orders-raw", shop.ingestion)
    argv = [str(world.settings.warehouse), str(world.data), msgspec.json.encode(task).decode()]

    # When
    child = subprocess.run(
        [sys.executable, "-c", _FULL, *argv], check=False, timeout=180, capture_output=True, text=True
    )

    # Then: nothing took effect, and with room again everything is there
    assert child.returncode == 7, child.stderr
    assert Table.open(world.folder("bronze", "orders-raw")) is None
    world.engine.provision(task)
    assert world.table("bronze", "orders-raw").rows() == 20_000


def test_good_files_land_beside_every_awkward_one(world: World, shop: Shop) -> None:
    world.put("orders/good.csv", GOOD)
    world.put("orders/latin.csv", f"{HEADER}8,1.00,".encode() + "Ö\n".encode("latin-1"))
    world.put("orders/empty.csv", "")
    world.put("orders/binary.csv", bytes(range(256)) * 20)
    world.put("orders/.hidden.csv", GOOD)
    world.put("orders/half.csv.part", GOOD)
    world.provision("orders-raw", shop.ingestion)
    assert {f for (f,) in world.rows("bronze", "orders-raw", "_file")} == {"orders/good.csv"}
    assert world.observe("orders-schema", shop.schema).hold


@pytest.mark.parametrize("content", [None, ""])
def test_a_target_whose_mark_was_never_finished_is_still_the_sinks(
    world: World, shop: Shop, content: str | None
) -> None:
    world.put("orders/a.csv", GOOD)
    world.put("countries.csv", "country,region\nDE,Central\nFR,West\n")
    world.put("out/report/.report.mark.tmp", "holdf")
    if content is not None:
        world.put("out/report/_holdfast", content)
    shop.run(world)
    assert world.observe("report", shop.sink()).status is Status.PRESENT
