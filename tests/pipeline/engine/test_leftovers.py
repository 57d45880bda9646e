"""Tables that are there, whoever declares them: found in folders and in object stores, with what they were made for."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from holdfast_model.errors import Forbidden, HoldfastError, Temporary
from holdfast_model.messages import Decision, Status
from holdfast_model.rows import Gating
from holdfast_pipeline import leftovers, specs
from holdfast_pipeline.engine import StageTask
from holdfast_pipeline.forms import FORM, Form
from holdfast_pipeline.locations import write_whole
from holdfast_pipeline.objects import Location, ObjectPath

from .conftest import COUNTRIES, GOOD, Shop, World, ref

if TYPE_CHECKING:
    pass

TABLES = {
    "orders-raw": specs.INGESTION, "orders-clean": specs.CLEANSER, "orders-geo": specs.ENRICHER,
    "orders-valid": specs.VALIDATOR, "by-region": specs.TRANSFORMER, "report": specs.SINK,
}  # fmt: skip


@pytest.fixture(params=["folder", "store"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Tables in a folder, and in an object store."""
    world = World(tmp_path)
    if request.param == "store":
        store = ref(request.getfixturevalue("lake"), "ware ä #1")
        world.settings = dataclasses.replace(world.settings, warehouse=ObjectPath(store, store.prefix))
    world.put("orders/a.csv", GOOD)
    world.put("countries.csv", COUNTRIES)
    return world


def found(world: World, node_type: str, graph: str = "", tenant: str = "") -> list[str]:
    return [one.id for one in world.engine.search(tenant or world.tenant, graph or world.graph, node_type)]


def everything(world: World, graph: str = "", tenant: str = "") -> dict[str, str]:
    return {id: kind for kind in specs.SPEC_OF_TYPE for id in found(world, kind, graph, tenant)}


def of(world: World, node: str, node_type: str) -> leftovers.Leftover:
    return next(one for one in world.engine.search(world.tenant, world.graph, node_type) if one.id == node)


def make(world: World, shop: Shop, edges: dict[str, tuple[str, ...]] | None = None) -> None:
    for node, spec in shop.all():
        task = world.task(node, spec)
        world.engine.provision(msgspec.structs.replace(task, depends_on=(edges or {}).get(node, ())))


def listing(world: World) -> set[str]:
    return _below(world.settings.warehouse)


def _below(place: Location) -> set[str]:
    if isinstance(place, ObjectPath):
        return {entry.key for entry in place.list()}
    return {str(p.relative_to(place)) for p in place.rglob("*")}


def remove(world: World, one: leftovers.Leftover, node_type: str) -> None:
    """As the planner has what was found removed: all that is known of it is what the search said."""
    spec = one.spec or msgspec.Raw(b"{}")
    world.engine.deprovision(StageTask(world.tenant, world.graph, one.id, node_type, spec, "any", "inc", "step"))


def test_every_table_is_found_with_exactly_what_it_was_made_for(world: World, shop: Shop) -> None:
    assert everything(world) == {}
    make(world, shop, {"orders-clean": ("orders-raw", "orders-schema")})
    before = listing(world)
    assert everything(world) == {
        "orders": "data-source",
        "countries": "data-source",
        "orders-schema": "schema",
        **TABLES,
    }
    for node, spec in shop.all():
        one = of(world, node, TABLES[node])
        assert one.spec is not None
        assert bytes(one.spec) == specs.encode_spec(spec)
        assert one.gating is Gating.NONE
    assert of(world, "orders-clean", specs.CLEANSER).depends_on == ("orders-raw", "orders-schema")
    assert listing(world) == before


def test_sources_and_schemas_are_put_together_from_the_tables_that_name_them(world: World, shop: Shop) -> None:
    make(world, shop)
    known = {kind: world.engine.search("acme", "main", kind) for kind in (specs.DATA_SOURCE, specs.SCHEMA)}
    decoded = {o.id: specs.decode_spec(kind, o.spec) for kind, each in known.items() for o in each if o.spec}
    assert decoded["orders"] == specs.DataSourceSpec(shop.source, ("orders-raw",))
    assert decoded["orders-schema"] == shop.schema
    assert isinstance(decoded["countries"], specs.DataSourceSpec)
    assert decoded["countries"].dependents == ("orders-geo",)
    assert world.observe("orders", decoded["orders"]).status is Status.PRESENT

    # Tables that contradict each other leave it open what their source is
    other = dataclasses.replace(shop, source=specs.Source("orders", "elsewhere/*.csv", "csv"), contract=None)
    world.put("elsewhere/b.csv", GOOD)
    world.provision("more-raw", other.ingestion)
    assert of(world, "orders", specs.DATA_SOURCE).spec is None
    assert of(world, "orders-schema", specs.SCHEMA).spec is not None


def test_decisions_without_their_schema_are_found_and_removed(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", "order_id,total,country\n4,8.00,FR\n")
    world.provision("orders-raw", shop.ingestion)
    decision = Decision("accept", "ann", data={"rename": {"total": "amount"}}, at=world.time)
    world.provision("orders-schema", shop.schema, decision)
    world.deprovision("orders-raw", shop.ingestion)
    (one,) = world.engine.search("acme", "main", specs.SCHEMA)
    assert (one.id, one.spec) == ("orders-schema", None)
    remove(world, one, specs.SCHEMA)
    assert everything(world) == {}


def test_what_another_graph_or_tenant_has_is_never_found(world: World, shop: Shop) -> None:
    make(world, shop)
    assert everything(world, graph="other") == {}
    assert everything(world, tenant="globex") == {}
    for tenant, graph in (("..", "main"), ("acme", "../acme/main"), ("acme", "")):
        with pytest.raises(HoldfastError):
            world.engine.search(tenant, graph or "/", specs.CLEANSER)


def test_tables_that_nobody_noted_anything_about_are_found_without_a_spec(world: World, shop: Shop) -> None:
    make(world, shop)
    for node, kind in TABLES.items():
        path = world.settings.warehouse / "acme" / "main" / specs.LAYERS[kind] / node / FORM
        if node == "orders-clean":
            write_whole(path, b"{half")
        elif node == "orders-valid":  # of a version that knew more
            write_whole(path, msgspec.json.encode(Form("d", msgspec.Raw(b'{"strange": 1}'), ("orders-geo",))))
        else:
            path.unlink()
    left = {node: of(world, node, kind) for node, kind in TABLES.items()}
    assert {one.spec for one in left.values()} == {None}
    # What may have been approved is not removed before a person agreed
    asks = {node for node, one in left.items() if one.gating is Gating.DEPROVISION_ONLY}
    assert asks == {"by-region", "report"}
    assert found(world, specs.DATA_SOURCE) == []


def test_the_removal_of_an_approved_leftover_asks(world: World, shop: Shop) -> None:
    shop.run(world, shop.all()[:-1])
    spec = shop.sink(approval_required=True)
    with pytest.raises(HoldfastError) as asked:
        world.provision("report", spec)
    assert (of(world, "report", specs.SINK).spec, of(world, "report", specs.SINK).gating) == (
        None,
        Gating.DEPROVISION_ONLY,
    )
    world.approve("report", spec, asked.value.plan, asked.value.pins)  # type: ignore[attr-defined]
    assert of(world, "report", specs.SINK).gating is Gating.DEPROVISION_ONLY
    assert of(world, "by-region", specs.TRANSFORMER).gating is Gating.NONE


def test_removing_what_was_found_removes_that_and_nothing_else(world: World, shop: Shop) -> None:
    make(world, shop)
    before = everything(world)
    for node in ("orders-valid", "report"):
        kind = TABLES[node]
        remove(world, of(world, node, kind), kind)
        remove(world, leftovers.Leftover(node), kind)
        del before[node]
        assert everything(world) == before
    assert (world.data / "out/report/report.parquet").exists()
    assert (world.data / "orders/a.csv").exists()
    assert not any("orders-valid" in name for name in listing(world))


def test_a_removal_never_reaches_out_of_the_tenants_roots(world: World, shop: Shop) -> None:
    make(world, shop)
    outside = world.base / "outside" / "report"
    outside.mkdir(parents=True)
    (outside / "report.parquet").write_text("precious")
    spec = specs.SinkSpec(shop.sink().input, str(outside.parent), "parquet", on_delete="drop")
    with pytest.raises(Forbidden):
        remove(world, leftovers.Leftover("report", msgspec.Raw(specs.encode_spec(spec))), specs.SINK)
    assert (outside / "report.parquet").read_text() == "precious"


def test_a_search_that_cannot_see_everything_says_nothing(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(world, shop)
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "MOST", 3)
        assert found(world, specs.SINK) == ["report"]
        with pytest.raises(Temporary, match="more than 3 tables in layer 'silver'"):
            world.engine.search("acme", "main", specs.CLEANSER)

    def fails(*_: Any, **__: Any) -> bytes:
        raise OSError(5, "the store does not answer")

    kind = ObjectPath if isinstance(world.settings.warehouse, ObjectPath) else Path
    for name in ("read_bytes", "read_text"):  # of one file among others
        with monkeypatch.context() as patch:
            patch.setattr(kind, name, fails)
            with pytest.raises(Temporary, match="the store does not answer"):
                world.engine.search("acme", "main", specs.CLEANSER)
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", fails)
        patch.setattr(ObjectPath, "children", fails)
        with pytest.raises(Temporary, match="the store does not answer"):
            world.engine.search("acme", "main", specs.CLEANSER)


def test_a_table_that_cannot_be_noted_is_made_all_the_same(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast_pipeline import forms

    def fails(*_: Any) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(forms, "write_whole", fails)
    make(world, shop)
    assert everything(world) == TABLES
    assert world.observe("report", shop.sink()).status is Status.PRESENT


@pytest.mark.parametrize("world", ["folder"], indirect=True)
def test_links_and_what_is_no_stage_are_passed_over(world: World, shop: Shop) -> None:
    make(world, shop)
    theirs = world.settings.warehouse / "globex" / "shop" / "silver" / "secret"
    shutil.copytree(world.folder("silver", "orders-clean"), theirs)
    world.folder("silver", "linked").symlink_to(theirs)
    for name in ("Not a stage", ".removed-x", "orders-clean__quarantine"):
        shutil.copytree(theirs, world.folder("silver", name))
    world.folder("silver", "bare").mkdir()
    (world.folder("silver", "a-file")).write_text("x")
    assert found(world, specs.CLEANSER) == ["orders-clean"]

    # A layer or a graph that is a link is another's
    home = world.settings.warehouse / "acme"
    (home / "mirror").symlink_to(theirs.parent.parent)
    with pytest.raises(Forbidden, match="is a link"):
        world.engine.search("acme", "mirror", specs.CLEANSER)
    (home / "half").mkdir()
    (home / "half" / "silver").symlink_to(theirs.parent)
    with pytest.raises(Forbidden, match="is a link"):
        world.engine.search("acme", "half", specs.CLEANSER)

    # The warehouse itself may be one
    moved = world.base / "moved"
    world.settings.warehouse.rename(moved)
    world.settings.warehouse.symlink_to(moved)
    assert found(world, specs.CLEANSER) == ["orders-clean"]


def test_a_stage_that_changed_its_type_is_found_as_both(world: World, shop: Shop) -> None:
    shop.run(world, shop.silver()[:2])
    world.provision(
        "by-country",
        specs.TransformerSpec((specs.Input("orders-raw", specs.INGESTION),), "select 1 as n from orders_raw"),
    )
    world.provision("by-country", specs.SinkSpec(specs.Input("orders-clean", specs.CLEANSER), "out", "csv"))
    assert found(world, specs.TRANSFORMER) == found(world, specs.SINK) == ["by-country"]
    remove(world, of(world, "by-country", specs.TRANSFORMER), specs.TRANSFORMER)
    assert (found(world, specs.TRANSFORMER), found(world, specs.SINK)) == ([], ["by-country"])
