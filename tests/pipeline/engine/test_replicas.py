"""Two replicas, each a process of its own, given the same step at once: it takes effect once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import polars as pl
import pytest

from holdfast_model.messages import Decision, Status
from holdfast_pipeline import specs
from holdfast_pipeline.engine import StageTask
from holdfast_pipeline.tables import Table

from .conftest import COUNTRIES, Shop, World
from .mortal import DONE, LATER, Mortals

HEADER = "order_id,amount,country\n"
ROUNDS = 4
ROWS = 3000


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[Mortals]]:
    servers = [Mortals(), Mortals()]
    yield servers
    for server in servers:
        server.close()


def _at_once(world: World, replicas: list[Mortals], task: StageTask) -> list[int]:
    start = Barrier(len(replicas))

    def provision(replica: Mortals) -> int:
        start.wait(timeout=60)
        return replica.provision(world.settings, task, world.time)

    with ThreadPoolExecutor(len(replicas)) as pool:
        return list(pool.map(provision, replicas))


def _versions(world: World) -> dict[str, int]:
    """Path -> newest version of every table there is, targets too."""
    found = {}
    for base in (world.settings.warehouse, world.data / "out"):
        for log in base.rglob("_delta_log"):
            table = Table.open(log.parent)
            assert table is not None
            found[str(log.parent.relative_to(base))] = table.version
    return found


def _file(world: World, number: int) -> None:
    rows = (f"{number * ROWS + i},{i % 97}.50,{'DE' if i % 3 else 'FR'}\n" for i in range(ROWS))
    world.put(f"orders/{number}.csv", HEADER + "".join(rows))


def _sinks(kind: str) -> list[tuple[str, specs.StageSpec]]:
    more: dict[str, Any] = {"mode": "upsert", "keys": ("region",)} if kind == "upsert" else {}
    made = "delta" if kind == "upsert" else kind
    source = specs.Input("by-region", specs.TRANSFORMER)
    return [("report", specs.SinkSpec(source, "out", made, **more))]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["csv", "parquet", "delta", "upsert"])
def test_the_same_step_given_to_two_replicas_at_once_commits_once(
    world: World, replicas: list[Mortals], kind: str
) -> None:
    shop = Shop()
    world.put("countries.csv", COUNTRIES)
    stages = [*shop.silver(), ("by-region", shop.transformer), *_sinks(kind)]
    for number in range(ROUNDS):
        _file(world, number)
        for node, spec in stages:
            before = _versions(world)
            task = world.task(node, spec)

            # When
            codes = _at_once(world, replicas, task)

            # Then one is done, the other too or is told to come again, and each table has one commit more
            assert DONE in codes
            assert set(codes) <= {DONE, LATER}
            after = _versions(world)
            more = {table: version - before.get(table, -1) for table, version in after.items()}
            assert set(more.values()) <= {0, 1}
            assert more[f"{world.tenant}/{world.graph}/{specs.LAYERS[task.type]}/{node}"] == 1
            world.engine.provision(task)
            assert _versions(world) == after
            assert world.observe(node, spec).status is Status.PRESENT
    total = ROUNDS * ROWS
    assert world.frame("bronze", "orders-raw").select("_file", "_row").n_unique() == total
    assert world.table("bronze", "orders-raw").rows() == total
    published = _published(world, kind)
    assert published.select(pl.col("orders").sum()).item() == total
    assert sorted(published["region"]) == ["Central", "West"]
    assert not list((world.data / "out/report").glob(".*tmp"))


def _published(world: World, kind: str) -> pl.DataFrame:
    target = world.data / "out/report"
    if kind == "csv":
        return pl.read_csv(target / "report.csv", glob=False)
    if kind == "parquet":
        return pl.read_parquet(target / "report.parquet", glob=False)
    table = Table.open(target)
    assert table is not None
    return table.scan().collect()


def test_batches_of_one_file_each_are_put_in_once_by_two_replicas(world: World, replicas: list[Mortals]) -> None:
    shop = Shop(batch_size=1)
    for number in range(5):
        _file(world, number)
    task = world.task("orders-raw", shop.ingestion)
    while LATER in (codes := _at_once(world, replicas, task)):
        assert set(codes) <= {DONE, LATER}
    assert codes == [DONE, DONE]
    assert world.table("bronze", "orders-raw").version == 4
    assert world.frame("bronze", "orders-raw").select("_file", "_row").n_unique() == 5 * ROWS
    assert world.table("bronze", "orders-raw").rows() == 5 * ROWS


@pytest.mark.parametrize("node", ["schema", "validator"])
def test_a_decision_given_to_two_replicas_at_once_counts_once(world: World, replicas: list[Mortals], node: str) -> None:
    shop = Shop(quality_threshold=0.9)
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", f"{HEADER}1,1.00,DE\n2,-1.00,DE\n")
    world.put("orders/b.csv", "order_id,total,country\n3,1.00,DE\n")
    shop.run(world, shop.silver())
    if node == "schema":
        decision = Decision("accept", "ann", data={"rename": {"total": "amount"}}, at=world.time)
        task = world.task("orders-schema", shop.schema, decision=decision)
        decisions = ("bronze", "orders-schema__decisions")
    else:
        task = world.task("orders-valid", shop.validator, decision=Decision("drop-rows", "ann", at=world.time))
        decisions = ("silver", "orders-valid__decisions")
    while LATER in (codes := _at_once(world, replicas, task)):
        assert set(codes) <= {DONE, LATER}
    assert codes == [DONE, DONE]
    assert world.table(*decisions).rows() == 1
    shop.run(world, shop.silver())
    if node == "schema":
        assert [i for (i,) in world.rows("bronze", "orders-raw", "order_id")] == ["1", "2", "3"]
    else:
        assert world.rows("silver", "orders-valid", "order_id") == [(1,)]


def test_a_removal_and_a_step_at_once_leave_a_whole_table_or_none(
    world: World, replicas: list[Mortals], tmp_path: Path
) -> None:
    shop = Shop()
    _file(world, 0)
    for _ in range(ROUNDS):
        task = world.task("orders-raw", shop.ingestion)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(replicas[0].provision, world.settings, task, world.time)
            world.deprovision("orders-raw", shop.ingestion)
            assert running.result(timeout=180) in (DONE, LATER)
        world.provision("orders-raw", shop.ingestion)
        assert world.table("bronze", "orders-raw").rows() == ROWS
        world.deprovision("orders-raw", shop.ingestion)
        assert world.observe("orders-raw", shop.ingestion).status is Status.ABSENT
