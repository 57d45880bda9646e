"""Tables shed what nobody needs, and nobody notices: not the stages that read them, not who approves, not a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec
import polars as pl
import pytest

from holdfast_model.errors import Temporary
from holdfast_model.messages import Status
from holdfast_pipeline.engine import PendingApproval
from holdfast_pipeline.maintenance import MARKER, ORPHAN_AGE, PINS, compacted, maintain
from holdfast_pipeline.tables import KEY, Table, write
from holdfast_pipeline.tasks import Context

from .conftest import COUNTRIES, GOOD, Shop, World

ONE_BY_ONE = Shop(batch_size=1)


def _files(world: World, count: int, start: int = 0) -> None:
    for i in range(start, start + count):
        world.put(f"orders/{i:03}.csv", f"order_id,amount,country\n{i},1.00,DE\n")


def _parquet(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix == ".parquet")


def _more(world: World, shop: Shop, number: int) -> None:
    world.put(f"orders/more{number}.csv", f"order_id,amount,country\n{1000 + number},1.00,DE\n")
    shop.run(world, [*shop.silver(), ("by-region", shop.transformer)])


def test_bronze_is_compacted_and_no_stage_becomes_stale(world: World) -> None:
    # Given: as many commits as files, and readers of the table as it is then
    shop = ONE_BY_ONE
    _files(world, 49)
    shop.run(world, shop.silver()[:2])
    assert world.table("bronze", "orders-raw").version == 48
    _files(world, 6, start=49)

    # When
    world.provision("orders-raw", shop.ingestion)

    # Then: one commit more than files, which repeats the newest content
    table = world.table("bronze", "orders-raw")
    assert (table.version, table.data_version.version, table.foreign) == (55, 54, False)
    assert len(table.paths()) == 1
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT
    world.provision("orders-raw", shop.ingestion)
    assert world.table("bronze", "orders-raw").version == 55
    assert world.provision("orders-clean", shop.cleanser).observation.status is Status.PRESENT
    assert world.rows("silver", "orders-clean", "order_id") == sorted(
        [(i,) for i in range(55)], key=lambda r: str(r[0])
    )

    # Then: files go on to be taken, replaced and compared with what was compacted
    world.put("orders/000.csv", "order_id,amount,country\n77000,1.00,DE\n")
    world.provision("orders-raw", shop.ingestion)
    assert ("77000",) in world.rows("bronze", "orders-raw", "order_id")
    assert len(world.rows("bronze", "orders-raw")) == 55


def test_three_data_versions_are_kept_and_older_files_go(world: World, shop: Shop) -> None:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    for number in range(7):
        _more(world, shop, number)
    for layer, node in (("silver", "orders-clean"), ("silver", "orders-valid"), ("gold", "by-region")):
        folder = world.folder(layer, node)
        assert len(_parquet(folder)) == 3
        for version in (4, 5, 6):
            found = Table.open(folder, version)
            assert found is not None
            assert found.scan().collect().height > 0
        assert Table.open(folder, 3) is None or not all(p.exists() for p in Table.open(folder, 3).paths())  # type: ignore[union-attr]


def test_versions_that_an_open_approval_is_about_are_kept_until_it_is_answered(world: World, shop: Shop) -> None:
    # Given: a question, and an input that moves on by more versions than are kept
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world, [*shop.silver(), ("by-region", shop.transformer)])
    spec = shop.sink("parquet", approval_required=True)
    with pytest.raises(PendingApproval) as asked:
        world.provision("report", spec)
    for number in range(6):
        _more(world, shop, number)
    assert len(_parquet(world.folder("gold", "by-region"))) == 4
    assert world.observe("report", spec).status is Status.ABSENT

    # When
    world.approve("report", spec, asked.value.plan, asked.value.pins)

    # Then
    published = pl.read_parquet(world.data / "out/report/report.parquet", glob=False)
    assert int(published["orders"].sum()) == 3
    assert not (world.folder("gold", "report") / PINS).exists()
    _more(world, shop, 9)
    assert len(_parquet(world.folder("gold", "by-region"))) == 3


def test_files_of_killed_steps_go_once_no_step_can_be_writing_them(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver()[:2])
    folder = world.folder("silver", "orders-clean")
    for name, age in (("part-old.parquet", 2 * ORPHAN_AGE), ("part-young.parquet", 60.0), ("notes.txt", 9e6)):
        path = folder / name
        path.write_bytes(b"x")
        os.utime(path, (path.stat().st_mtime - age,) * 2)

    # When
    world.put("orders/b.csv", "order_id,amount,country\n9,1.00,DE\n")
    shop.run(world, shop.silver()[:2])

    # Then
    assert not (folder / "part-old.parquet").exists()
    assert (folder / "part-young.parquet").exists()
    assert (folder / "notes.txt").exists()
    assert len(world.rows("silver", "orders-clean")) == 4


_CHILD = """
import os, signal, sys
import msgspec
from pathlib import Path
from holdfast_pipeline import maintenance
from holdfast_pipeline.engine import Engine, StageTask
from holdfast_pipeline.tasks import EngineSettings

warehouse, data, task, point = sys.argv[1:5]
task = msgspec.json.decode(task, type=StageTask)
doomed, compacted = maintenance._doomed, maintenance.compacted

def dies(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def dies_later(*args):
    paths = list(doomed(*args))
    yield paths[0]
    dies()

if point == "before":
    maintenance.compacted = dies
elif point == "compacted":
    maintenance._doomed = dies
else:
    maintenance._doomed = dies_later
Engine(EngineSettings(Path(warehouse), {task.tenant: (Path(data),)}), lambda: 2e9).provision(task)
"""


@pytest.mark.parametrize("point", ["before", "compacted", "removing"])
def test_a_kill_in_the_middle_is_harmless(world: World, point: str) -> None:
    # Given
    shop = ONE_BY_ONE
    _files(world, 52)
    world.provision("orders-raw", shop.ingestion)
    _files(world, 52, start=52)
    task = world.task("orders-raw", shop.ingestion)
    argv = [str(world.settings.warehouse), str(world.data), msgspec.json.encode(task).decode(), point]
    child = subprocess.run([sys.executable, "-c", _CHILD, *argv], check=False, timeout=180, env={**os.environ})
    assert child.returncode == -signal.SIGKILL

    # When
    result = world.engine.provision(task)

    # Then
    assert result.observation.status is Status.PRESENT
    assert sorted(int(str(i)) for (i,) in world.rows("bronze", "orders-raw", "order_id")) == list(range(104))
    _files(world, 52, start=104)
    world.provision("orders-raw", shop.ingestion)
    assert len(world.table("bronze", "orders-raw").paths()) < 5
    assert len(world.rows("bronze", "orders-raw")) == 156


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_compaction_that_others_overtook_says_nothing_about_their_content(
    world: World, mode: Literal["append", "overwrite"]
) -> None:
    # Given
    shop = ONE_BY_ONE
    _files(world, 3)
    world.provision("orders-raw", shop.ingestion)
    stale = world.table("bronze", "orders-raw")
    context = Context(world.settings, world.task("orders-raw", shop.ingestion), lambda: world.time)
    write(context, stale.folder, world.table("bronze", "orders-raw"), stale.scan().limit(1), {KEY: "theirs"}, mode=mode)

    # When: Delta refuses only what would bring replaced rows back
    if mode == "append":
        compacted(stale)
    else:
        with pytest.raises(Temporary):
            compacted(stale)

    # Then
    table = world.table("bronze", "orders-raw")
    assert (table.key, table.foreign, table.data_version.version) == ("theirs", False, 3)
    assert table.scan().collect().height == {"append": 4, "overwrite": 1}[mode]


def test_trouble_while_caring_for_tables_fails_no_step(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver()[:2])
    world.put("orders/b.csv", "order_id,amount,country\n9,1.00,DE\n")
    monkeypatch.setattr("holdfast_pipeline.maintenance._doomed", broken)
    assert [r.observation.status for r in shop.run(world, shop.silver()[:2])] == [Status.PRESENT] * 2
    assert "orders-clean" in caplog.text


def test_what_was_cared_for_is_not_looked_at_again(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    for number in range(2):
        world.put("orders/a.csv", f"order_id,amount,country\n{number},1.00,DE\n")
        shop.run(world, shop.silver()[:2])
    folder = world.folder("silver", "orders-clean")
    before = (folder / MARKER).stat().st_mtime_ns
    maintain(Context(world.settings, world.task("orders-clean", shop.cleanser), lambda: world.time))
    assert (folder / MARKER).stat().st_mtime_ns == before
