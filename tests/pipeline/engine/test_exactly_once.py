"""Every result takes effect once: whoever races, repeats, crashes or comes too late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.messages import Status
from holdfast_pipeline import specs, tables
from holdfast_pipeline.engine import Engine
from holdfast_pipeline.tables import KEY, Table, assert_types, repeated, write
from holdfast_pipeline.tasks import Context

from .conftest import COUNTRIES, GOOD, Shop, World


def _context(world: World, deadline: float = 0.0) -> Context:
    task = world.task("orders-raw", Shop().ingestion, deadline=deadline)
    return Context(world.settings, task, lambda: world.time)


def test_a_second_provision_of_the_same_step_commits_nothing(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/a.csv", GOOD)
    world.put("countries.csv", COUNTRIES)
    shop.run(world)
    places = [("bronze", "orders-raw"), ("silver", "orders-clean"), ("silver", "orders-geo")]
    places += [("silver", "orders-valid"), ("gold", "by-region"), ("gold", "report")]
    before = [world.table(*p).version for p in places]

    # When
    shop.run(world)

    # Then
    assert [world.table(*p).version for p in places] == before
    assert [world.observe(n, s).status for n, s in shop.all()] == [Status.PRESENT] * 6


def test_racing_provisions_of_one_step_put_every_row_in_once(world: World, shop: Shop) -> None:
    # Given
    for i in range(6):
        world.put(f"orders/{i}.csv", f"order_id,amount,country\n{i},1.00,DE\n")
    shop = Shop(batch_size=2)
    start = Barrier(4)
    task = world.task("orders-raw", shop.ingestion, key="same")

    def provision() -> bool:
        start.wait()
        try:
            world.engine.provision(task)
        except Temporary:
            return False
        return True

    # When
    with ThreadPoolExecutor(4) as pool:
        done = [f.result() for f in [pool.submit(provision) for _ in range(4)]]

    # Then
    assert any(done)
    world.engine.provision(task)
    assert world.rows("bronze", "orders-raw", "order_id") == [(str(i),) for i in range(6)]


def test_a_writer_that_lost_the_race_is_told_to_come_again(world: World) -> None:
    # Given
    folder = world.folder("bronze", "x")
    first = write(_context(world), folder, None, pl.LazyFrame({"a": [1]}), {KEY: "one"})
    stale = Table.open(folder)
    write(_context(world), folder, first, pl.LazyFrame({"a": [2]}), {KEY: "two"}, mode="append")

    # When / Then
    with pytest.raises(Temporary):
        write(_context(world), folder, stale, pl.LazyFrame({"a": [3]}), {KEY: "three"}, mode="append")
    assert world.rows("bronze", "x") == [(1,), (2,)]


def test_a_lost_race_against_the_same_content_is_a_success(world: World) -> None:
    # Given
    folder = world.folder("bronze", "x")
    first = write(_context(world), folder, None, pl.LazyFrame({"a": [1]}), {KEY: "one"})
    stale = Table.open(folder)
    write(_context(world), folder, first, pl.LazyFrame({"a": [2]}), {KEY: "two"})

    # When
    table = write(_context(world), folder, stale, pl.LazyFrame({"a": [2]}), {KEY: "two"})

    # Then
    assert (table.key, table.version) == ("two", 1)


def test_a_version_that_was_committed_on_is_what_it_was_and_takes_no_second_commit(world: World) -> None:
    folder = world.folder("bronze", "x")
    first = write(_context(world), folder, None, pl.LazyFrame({"a": [1]}), {KEY: "one"})
    second = write(_context(world), folder, first, pl.LazyFrame({"b": [2, 3]}), {KEY: "two"})
    assert [(t.key, t.version, t.rows(), t.scan().collect().columns) for t in (first, second)] == [
        ("one", 0, 1, ["a"]),
        ("two", 1, 2, ["b"]),
    ]
    for again in (lambda: write(_context(world), folder, first, pl.LazyFrame({"a": [4]}), {KEY: "three"}),
                  lambda: repeated(_context(world), first, {KEY: "three"})):  # fmt: skip
        with pytest.raises(Temporary, match="lost a race"):
            again()
    assert world.rows("bronze", "x") == [(2,), (3,)]


def test_a_file_on_top_has_each_log_read_once(world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Counted(DeltaTable):
        def __init__(self, table: str, *more: object, **options: object) -> None:
            super().__init__(table, *more, **options)  # type: ignore[arg-type]
            read.append(Path(table).name)

    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    world.put("orders/b.csv", "order_id,amount,country\n4,1.00,DE\n")
    monkeypatch.setattr(tables, "DeltaTable", Counted)
    world.provision("orders-raw", shop.ingestion)
    assert sorted(read) == ["orders-raw", "orders-raw__files"]
    assert world.table("bronze", "orders-raw").rows() == 4


def test_two_first_writes_make_one_table(world: World) -> None:
    folder = world.folder("bronze", "x")
    write(_context(world), folder, None, pl.LazyFrame({"a": [1]}), {KEY: "one"})
    again = write(_context(world), folder, None, pl.LazyFrame({"a": [1]}), {KEY: "one"})
    with pytest.raises(Temporary):
        write(_context(world), folder, None, pl.LazyFrame({"a": [2]}), {KEY: "two"})
    assert again.version == 0
    assert world.rows("bronze", "x") == [(1,)]


def test_nothing_takes_effect_after_the_deadline(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    with pytest.raises(Temporary, match="time for this step is over"):
        world.engine.provision(world.task("orders-raw", shop.ingestion, deadline=world.time - 1))
    assert world.observe("orders-raw", shop.ingestion).status is Status.ABSENT


def test_an_error_while_rows_are_computed_commits_nothing_and_is_permanent(world: World) -> None:
    frame = pl.LazyFrame({"a": ["1", "x"]}).select(pl.col("a").cast(pl.Int64))
    with pytest.raises(Permanent):
        write(_context(world), world.folder("bronze", "x"), None, frame, {KEY: "k"})
    assert Table.open(world.folder("bronze", "x")) is None


def test_types_are_compared_before_an_append(world: World) -> None:
    """Delta itself would store 1.7 in an int64 column as 1."""
    folder = world.folder("bronze", "x")
    table = write(_context(world), folder, None, pl.LazyFrame({"a": [1]}), {KEY: "one"})
    with pytest.raises(Permanent, match="do not fit"):
        write(_context(world), folder, table, pl.LazyFrame({"a": [1.7]}), {KEY: "two"}, mode="append")
    assert_types(pl.Schema({"a": pl.Int64(), "b": pl.String()}), pl.Schema({"b": pl.String(), "a": pl.Int64()}), "x")


def test_a_foreign_commit_is_seen_and_healed(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver()[:2])
    folder = world.folder("silver", "orders-clean")
    DeltaTable(str(folder)).delete("order_id = 1")

    # When
    seen = world.observe("orders-clean", shop.cleanser)
    world.provision("orders-clean", shop.cleanser)

    # Then
    assert (seen.status, seen.reason) == (Status.DRIFTED, "stale")
    assert world.rows("silver", "orders-clean", "order_id") == [(1,), (2,), (3,)]


def test_rows_that_somebody_deleted_from_bronze_come_back(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.put("orders/b.csv", "order_id,amount,country\n9,1.00,DE\n")
    world.provision("orders-raw", shop.ingestion)
    DeltaTable(str(world.folder("bronze", "orders-raw"))).delete("_file = 'orders/b.csv'")
    assert world.observe("orders-raw", shop.ingestion).reason == "stale"
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "order_id") == [("1",), ("2",), ("3",), ("9",)]


def test_a_version_is_read_at_its_pin_and_a_table_made_anew_is_another(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver()[:2])
    key = world.observe("orders-clean", shop.cleanser).token
    world.deprovision("orders-raw", shop.ingestion)
    gone = world.observe("orders-clean", shop.cleanser)
    with pytest.raises(Temporary, match="not there yet"):
        world.provision("orders-clean", shop.cleanser)
    world.provision("orders-raw", shop.ingestion)
    anew = world.observe("orders-clean", shop.cleanser)
    assert (gone.status, gone.reason) == (Status.DRIFTED, "stale")
    assert anew.reason == "stale"
    assert anew.token != key


def test_newest_own_commit_counts_when_somebody_wrote_after_it(world: World) -> None:
    folder = world.folder("bronze", "x")
    table = write(_context(world), folder, None, pl.LazyFrame({"a": [1]}), {KEY: "one"})
    write_deltalake(table.handle, pl.DataFrame({"a": [2]}), mode="append")
    found = Table.open(folder)
    assert found is not None
    assert (found.key, found.foreign, found.data_version.version, found.version) == ("", True, 0, 1)


_CHILD = """
import os, signal, sys, time
import msgspec, polars as pl
from pathlib import Path
from holdfast_pipeline import ingestion, tables
from holdfast_pipeline.engine import Engine, StageTask
from holdfast_pipeline.tasks import EngineSettings

warehouse, data, task, point = sys.argv[1:5]
task = msgspec.json.decode(task, type=StageTask)
real = tables.write

def write(context, folder, base, frame, metadata, **more):
    if point == "rows":
        def die():
            os.kill(os.getpid(), signal.SIGKILL)
        more["before"] = die
    if point == "second" and base is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    if point == "notes" and folder.name.endswith("__files"):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(context, folder, base, frame, metadata, **more)

ingestion.write = write
Engine(EngineSettings(Path(warehouse), {task.tenant: (Path(data),)}), lambda: 2e9).provision(task)
"""


@pytest.mark.parametrize("point", ["rows", "second", "notes"])
def test_a_step_killed_in_the_middle_and_run_again_gives_no_row_twice(world: World, point: str) -> None:
    # Given: three commits of one file each, and a child that kills itself without any clean-up
    shop = Shop(batch_size=1)
    for i in range(3):
        world.put(f"orders/{i}.csv", f"order_id,amount,country\n{i},1.00,DE\n")
    task = world.task("orders-raw", shop.ingestion)
    argv = [str(world.settings.warehouse), str(world.data), msgspec.json.encode(task).decode(), point]
    child = subprocess.run([sys.executable, "-c", _CHILD, *argv], check=False, timeout=180, env={**os.environ})
    assert child.returncode == -signal.SIGKILL

    # When
    world.engine.provision(task)

    # Then
    assert world.rows("bronze", "orders-raw", "order_id", "_file") == [(str(i), f"orders/{i}.csv") for i in range(3)]
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT


def test_engine_tells_permanent_and_unknown_types_apart(world: World) -> None:
    task = world.task("orders-raw", Shop().ingestion)
    strange = msgspec.structs.replace(task, type="kettle")
    assert world.engine.observe(strange).status is Status.UNKNOWN
    with pytest.raises(Permanent):
        world.engine.provision(strange)


def test_storage_that_cannot_be_read_is_unknown(world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)

    def broken(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("holdfast_pipeline.tables._newest_ours", broken)
    assert world.observe("orders-raw", shop.ingestion).status is Status.UNKNOWN
    with pytest.raises(Temporary):
        world.provision("orders-raw", shop.ingestion)


def test_an_engine_keeps_nothing_between_calls(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    other = Engine(world.settings, lambda: world.time)
    assert other.observe(world.task("orders-raw", shop.ingestion)).status is Status.PRESENT
    assert specs.decode_spec(specs.INGESTION, specs.encode_spec(shop.ingestion)) == shop.ingestion
