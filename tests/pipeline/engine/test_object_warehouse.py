"""Tables in an object store: what is true of tables on a disk is true there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from holdfast_model.errors import Temporary
from holdfast_model.messages import Decision, Status
from holdfast_pipeline import specs
from holdfast_pipeline.engine import PendingApproval
from holdfast_pipeline.lineage import graph_lineage, stage_lineage
from holdfast_pipeline.maintenance import maintain
from holdfast_pipeline.objects import ObjectPath
from holdfast_pipeline.previews import difference, preview
from holdfast_pipeline.shelves import Shelves
from holdfast_pipeline.tables import KEY, Table, write
from holdfast_pipeline.tasks import Context
from holdfast_testkit.objects import SECRET_ENV, Bucket

from .conftest import COUNTRIES, GOOD, Shop, World, ref

HOME = "ware ä #1"


@pytest.fixture
def world(tmp_path: Path, lake: Bucket) -> World:
    """A world whose files are in a folder and whose tables are in a store."""
    world = World(tmp_path)
    store = ref(lake, HOME)
    world.settings = dataclasses.replace(world.settings, warehouse=ObjectPath(store, store.prefix))
    world.put("orders/a.csv", GOOD)
    world.put("countries.csv", COUNTRIES)
    return world


def names(lake: Bucket) -> set[str]:
    """Stages and their side tables: ``layer/name``."""
    return {"/".join(k.split("/")[3:5]) for k in lake.names(f"{HOME}/acme/main/")}


def test_every_stage_is_built_once_and_present(world: World, shop: Shop, lake: Bucket) -> None:
    shop.run(world)
    assert world.rows("gold", "by-region", "region", "orders") == [("Central", 2), ("West", 1)]
    before = lake.names()
    shop.run(world)
    assert lake.names() == before
    assert {world.observe(node, spec).status for node, spec in shop.all()} == {Status.PRESENT}
    assert not list(world.base.rglob("*.parquet")) or all("out" in p.parts for p in world.base.rglob("*.parquet"))


def test_new_changed_and_renamed_files_change_what_they_must(world: World, shop: Shop) -> None:
    shop.run(world)
    world.put("orders/b.csv", "order_id,amount,country\n4,8.00,FR\n")
    shop.run(world)
    world.put("orders/a.csv", "order_id,amount,country\n1,10.00,DE\n")
    shop.run(world)
    (world.data / "orders/b.csv").rename(world.data / "orders/c.csv")
    shop.run(world)
    assert world.rows("bronze", "orders-raw", "_file", "order_id") == [("orders/a.csv", "1"), ("orders/c.csv", "4")]
    assert world.rows("gold", "by-region", "region", "orders") == [("Central", 1), ("West", 1)]


def test_racing_steps_put_every_row_in_once(world: World, shop: Shop) -> None:
    world.race(world.task("orders-raw", shop.ingestion, key="same"))
    assert (world.table("bronze", "orders-raw").version, world.table("bronze", "orders-raw").rows()) == (0, 3)
    world.put("orders/b.csv", "order_id,amount,country\n4,8.00,FR\n")
    world.race(world.task("orders-raw", shop.ingestion, key="again"))
    assert (world.table("bronze", "orders-raw").version, world.table("bronze", "orders-raw").rows()) == (1, 4)


def test_a_lost_race_leaves_no_file_behind_that_is_read(world: World, shop: Shop) -> None:
    world.provision("orders-raw", shop.ingestion)
    table = world.table("bronze", "orders-raw")
    context = Context(world.settings, world.task("orders-raw", shop.ingestion), lambda: world.time)

    def others() -> None:
        write(context, table.folder, world.table("bronze", "orders-raw"), table.scan(), {KEY: "theirs"})

    with pytest.raises(Temporary, match="lost a race"):
        write(context, table.folder, table, table.scan(), {KEY: "ours"}, before=others)
    assert (world.table("bronze", "orders-raw").key, world.table("bronze", "orders-raw").rows()) == ("theirs", 3)


def test_held_files_and_quarantined_rows_are_decided(world: World, shop: Shop) -> None:
    shop = dataclasses.replace(shop, quality_threshold=0.9)
    world.put("orders/b.csv", "order_id,total,country\n4,8.00,FR\n")
    world.put("orders/c.csv", "order_id,amount,country\n5,-1.00,FR\n")
    world.provision("orders-raw", shop.ingestion)
    assert world.observe("orders-schema", shop.schema).reason == "schema_drift"
    decision = Decision("accept", "ann", data={"rename": {"total": "amount"}}, at=world.time)
    world.provision("orders-schema", shop.schema, decision)
    shop.run(world, shop.silver())
    assert world.observe("orders-valid", shop.validator).reason == "quarantined"
    world.provision("orders-valid", shop.validator, Decision("drop-rows", "ann", at=world.time))
    assert [i for (i,) in world.rows("silver", "orders-valid", "order_id")] == [1, 2, 3, 4]
    assert world.observe("orders-valid", shop.validator).status is Status.PRESENT


def test_an_approved_version_is_what_is_published(world: World, shop: Shop) -> None:
    shop.run(world, shop.all()[:-1])
    spec = shop.sink("csv", approval_required=True)
    with pytest.raises(PendingApproval) as asked:
        world.provision("report", spec)
    world.put("orders/b.csv", "order_id,amount,country\n4,8.00,FR\n")
    shop.run(world, shop.all()[:-1])
    world.approve("report", spec, asked.value.plan, asked.value.pins)
    assert (world.data / "out/report/report.csv").read_text().count("\n") == 3
    assert "West,16.4" in (world.data / "out/report/report.csv").read_text()


def test_small_files_are_joined_and_old_versions_go(world: World, shop: Shop, lake: Bucket) -> None:
    for i in range(6):
        world.put(f"orders/{i}.csv", f"order_id,amount,country\n{10 + i},1.00,DE\n")
        world.provision("orders-raw", shop.ingestion)
    rows, data = world.rows("bronze", "orders-raw"), world.table("bronze", "orders-raw").data_version
    context = Context(world.settings, world.task("orders-raw", shop.ingestion), lambda: world.time)
    maintain(context, compact_every=2)
    table = world.table("bronze", "orders-raw")
    assert (len(table.paths()), table.data_version, world.rows("bronze", "orders-raw")) == (1, data, rows)
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT
    shop.run(world, shop.silver()[:2])
    for i in range(5):
        shop.run(world, [("orders-clean", dataclasses.replace(shop).cleanser)])
        world.put(f"orders/{i}.csv", f"order_id,amount,country\n{20 + i},1.00,DE\n")
        shop.run(world, shop.silver()[:2])
    clean = [k for k in lake.names(f"{HOME}/acme/main/silver/orders-clean/") if k.endswith(".parquet")]
    assert len(clean) == 3


def test_people_see_lineage_rows_and_versions(world: World, shop: Shop) -> None:
    shop.run(world)
    world.put("orders/b.csv", "order_id,amount,country\n4,8.00,FR\n")
    shop.run(world)
    shelves = Shelves(world.settings, "acme", "main")
    assert [s.stage for s in shelves.stages()] == [node for node, _ in shop.all()]
    told = stage_lineage(shelves, "by-region", "", world.time)
    assert [f.file for f in told.files] == ["orders/a.csv", "orders/b.csv"]
    assert len(graph_lineage(shelves).stages) == len(shop.all())
    seen = preview(shelves, "orders-valid", as_of="", limit=10, quarantine=False, now=world.time)
    assert seen.total == 4
    changed = difference(shelves, "by-region", "0", "", 10, world.time)
    assert (changed.added, changed.removed) == (1, 1)


def test_removing_a_stage_removes_its_own_tables_and_nothing_else(world: World, shop: Shop, lake: Bucket) -> None:
    shop.run(world)
    before = names(lake)
    world.deprovision("orders-valid", shop.validator)
    world.deprovision("orders-valid", shop.validator)
    assert before - names(lake) == {"silver/orders-valid", "silver/orders-valid__quarantine"}
    assert world.observe("orders-valid", shop.validator).status is Status.ABSENT
    for node, spec in shop.all():
        world.deprovision(node, spec)
    assert lake.names() == []
    shop.run(world)
    assert {world.observe(node, spec).status for node, spec in shop.all()} == {Status.PRESENT}


def test_a_removal_that_was_cut_off_is_finished_by_the_next(
    world: World, shop: Shop, lake: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run(world)

    def cut_off(folder: ObjectPath, *, last: str = "") -> None:
        for entry in list(folder.list(most=2)):
            ObjectPath(folder.store, tuple(entry.key.split("/"))).unlink()
        raise OSError(5, "the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "remove_all", cut_off)
        with pytest.raises(Temporary, match="cannot be removed"):
            world.deprovision("orders-valid", shop.validator)
    world.deprovision("orders-valid", shop.validator)
    assert not {n for n in names(lake) if n.startswith("silver/orders-valid")}
    assert world.observe("orders-valid", shop.validator).status is Status.ABSENT


def test_a_stage_that_changed_its_type_keeps_its_data_when_the_old_form_goes(world: World, shop: Shop) -> None:
    shop.run(world, shop.silver()[:2])
    new = specs.TransformerSpec((specs.Input("orders-raw", specs.INGESTION),), "select order_id from orders_raw")
    world.provision("by-country", new)
    old = specs.SinkSpec(specs.Input("orders-clean", specs.CLEANSER), "out", "csv")
    world.provision("by-country", old)
    world.deprovision("by-country", new)
    assert world.observe("by-country", old).status is Status.PRESENT
    assert world.observe("by-country", new).status is Status.ABSENT


def test_a_store_that_cannot_be_reached_is_unknown_and_never_absent(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run(world)
    with monkeypatch.context() as patch:
        patch.delenv(SECRET_ENV)
        seen = {node: world.observe(node, spec) for node, spec in shop.all()}
        assert {s.status for s in seen.values()} == {Status.UNKNOWN}
        assert all(SECRET_ENV in s.detail for s in seen.values())
        for node, spec in shop.all():
            with pytest.raises(Temporary, match=SECRET_ENV):
                world.provision(node, spec)
        with pytest.raises(Temporary, match=SECRET_ENV):
            Shelves(world.settings, "acme", "main").stages()
    assert {world.observe(node, spec).status for node, spec in shop.all()} == {Status.PRESENT}


def test_tenants_and_graphs_keep_apart(world: World, shop: Shop, lake: Bucket) -> None:
    world.provision("orders-raw", shop.ingestion)
    other = World(world.base / "other", graph="second")
    other.settings = world.settings
    assert other.observe("orders-raw", shop.ingestion).status is Status.ABSENT
    other.provision("orders-raw", shop.ingestion)
    other.deprovision("orders-raw", shop.ingestion)
    assert Table.open(world.folder("bronze", "orders-raw")) is not None
    assert not lake.names(f"{HOME}/acme/second/")
