"""Gold: transformers and sinks, what people approve, and targets that are ours or not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import cast

import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from holdfast_model.errors import Forbidden, Permanent, Temporary
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.engine import PendingApproval

from .conftest import COUNTRIES, GOOD, Shop, World

VALID = specs.Input("orders-valid", specs.VALIDATOR)


@pytest.fixture
def silver(world: World, shop: Shop) -> World:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver())
    return world


@pytest.fixture
def gold(silver: World, shop: Shop) -> World:
    silver.provision("by-region", shop.transformer)
    return silver


def _more(world: World, shop: Shop) -> None:
    world.put("orders/z.csv", "order_id,amount,country\n9,100.00,FR\n")
    shop.run(world, [*shop.silver(), ("by-region", shop.transformer)])


def _out(world: World, node: str = "report") -> Path:
    return world.data / "out" / node


def test_sql_sees_the_data_columns_and_money_stays_decimal(silver: World, shop: Shop) -> None:
    silver.provision("by-region", shop.transformer)
    assert silver.rows("gold", "by-region") == [("Central", Decimal("8.080"), 2), ("West", Decimal("16.400"), 1)]
    spec = specs.TransformerSpec((VALID,), "select * from orders_valid order by order_id desc")
    silver.provision("all", spec)
    assert silver.frame("gold", "all").columns == ["order_id", "amount", "country", "region", "net"]
    assert silver.frame("gold", "all")["order_id"].to_list() == [3, 2, 1]


def test_aggregations_group_one_input_and_a_sum_over_nulls_is_null(world: World) -> None:
    shop = Shop(checks=(), quality_threshold=0.0)
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", "order_id,amount,country\n1,,DE\n2,1.00,FR\n3,2.50,FR\n")
    shop.run(world, shop.silver())
    spec = specs.TransformerSpec(
        (VALID,), group_by=("country",), aggregations={"total": "sum(amount)", "n": "count(*)"}
    )
    world.provision("totals", spec)
    assert world.rows("gold", "totals", "country", "total", "n") == [("DE", None, 1), ("FR", Decimal("3.50"), 2)]


def test_a_transformer_joins_several_inputs(gold: World) -> None:
    sql = "select v.order_id, r.net from orders_valid v join by_region r on v.region = r.region"
    spec = specs.TransformerSpec((VALID, specs.Input("by-region", specs.TRANSFORMER)), sql)
    gold.provision("both", spec)
    assert len(gold.rows("gold", "both")) == 3


def test_a_query_that_cannot_be_computed_is_permanent(silver: World) -> None:
    for sql in ("select nope from orders_valid", "select * from elsewhere", "selec"):
        with pytest.raises(Permanent):
            silver.provision("bad", specs.TransformerSpec((VALID,), sql))


def test_a_missing_input_is_temporary(world: World, shop: Shop) -> None:
    with pytest.raises(Temporary, match="not there yet"):
        world.provision("by-region", shop.transformer)
    assert world.observe("by-region", shop.transformer).status is Status.ABSENT


@pytest.mark.parametrize("kind", ["csv", "parquet", "delta"])
def test_each_format_is_published_and_published_again(gold: World, shop: Shop, kind: str) -> None:
    spec = shop.sink(kind)

    def published() -> int:
        if kind == "csv":
            return pl.read_csv(_out(gold) / "report.csv", glob=False).height
        if kind == "parquet":
            return int(pl.read_parquet(_out(gold) / "report.parquet", glob=False)["orders"].sum())
        return DeltaTable(str(_out(gold))).version()

    gold.provision("report", spec)
    first = published()
    assert gold.provision("report", spec).observation.status is Status.PRESENT
    assert published() == first
    _more(gold, shop)
    assert gold.observe("report", spec).reason == "stale"
    assert gold.provision("report", spec).observation.status is Status.PRESENT
    assert published() == {"csv": 2, "parquet": 4, "delta": 1}[kind]
    assert gold.table("gold", "report").version == 1
    assert not list(_out(gold).glob("*.tmp")) + list(_out(gold).glob(".*"))


@pytest.mark.parametrize("asks", [False, True])
def test_a_csv_sink_of_nested_columns_names_them_before_anybody_is_asked(world: World, shop: Shop, asks: bool) -> None:
    frame = pl.DataFrame({"id": [1], "tags": [["a"]], "place": [{"x": 1}], "raw": [b"z"]})
    frame.write_parquet(world.put("in/a.parquet", b""))
    world.provision("raw", specs.IngestionSpec(specs.Source("in", "in/*", "parquet")))
    world.provision("all", specs.TransformerSpec((specs.Input("raw", specs.INGESTION),)))
    sink = specs.SinkSpec(specs.Input("all", specs.TRANSFORMER), "out", "csv", approval_required=asks)
    with pytest.raises(Permanent, match=r"'tags' \(List\(String\)\), 'place' \(Struct.*'raw' .*parquet or delta"):
        world.provision("report", sink)
    assert not (world.data / "out" / "report").exists()
    world.provision("report", specs.SinkSpec(sink.input, "out", "parquet"))
    assert pl.read_parquet(world.data / "out/report/report.parquet", glob=False)["tags"].to_list() == [["a"]]


@pytest.mark.parametrize("kind", ["csv", "delta"])
def test_a_target_that_somebody_changed_is_published_again(gold: World, shop: Shop, kind: str) -> None:
    spec = shop.sink(kind)
    gold.provision("report", spec)
    if kind == "csv":
        (_out(gold) / "report.csv").write_text("mine now")
    else:
        DeltaTable(str(_out(gold))).delete()
    assert gold.observe("report", spec).reason == "stale"
    gold.provision("report", spec)
    assert gold.observe("report", spec).status is Status.PRESENT
    if kind == "csv":
        assert pl.read_csv(_out(gold) / "report.csv", glob=False).height == 2
    else:
        assert DeltaTable(str(_out(gold))).count() == 2


def test_targets_of_somebody_else_are_never_touched(gold: World, shop: Shop) -> None:
    gold.put("out/report/precious.txt", "x")
    for kind in ("csv", "parquet", "delta"):
        with pytest.raises(Permanent, match="not marked"):
            gold.provision("report", shop.sink(kind))
    assert sorted(p.name for p in _out(gold).iterdir()) == ["precious.txt"]


def test_a_foreign_delta_table_or_another_graphs_target_is_refused(gold: World, shop: Shop) -> None:
    write_deltalake(str(_out(gold)), pl.DataFrame({"a": [1]}))
    with pytest.raises(Permanent, match="not marked"):
        gold.provision("report", shop.sink("delta"))
    other = specs.SinkSpec(shop.sink("csv").input, "elsewhere", "csv")
    gold.put("elsewhere/report/_holdfast", "holdfast:acme/other/report")
    with pytest.raises(Permanent, match="another sink"):
        gold.provision("report", other)


def test_a_sink_that_changes_format_or_place_takes_its_old_files_along(gold: World, shop: Shop) -> None:
    gold.provision("report", shop.sink("csv", on_delete="drop"))
    gold.provision("report", shop.sink("parquet", on_delete="drop"))
    assert sorted(p.name for p in _out(gold).iterdir()) == ["_holdfast", "report.parquet"]
    gold.provision("report", shop.sink("delta", on_delete="drop"))
    assert not (_out(gold) / "report.parquet").exists()
    moved = specs.SinkSpec(shop.sink().input, "elsewhere", "csv", on_delete="drop")
    gold.provision("report", moved)
    assert not _out(gold).exists()
    assert (gold.data / "elsewhere/report/report.csv").exists()


def test_a_crash_between_target_and_ledger_publishes_once_more_and_records_it(
    gold: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    for kind in ("csv", "delta"):
        spec = specs.SinkSpec(shop.sink().input, f"out-{kind}", kind)
        with monkeypatch.context() as patch:
            patch.setattr("holdfast_pipeline.sinks.write", crash)
            with pytest.raises(KeyboardInterrupt):
                gold.provision(f"r-{kind}", spec)
        assert gold.provision(f"r-{kind}", spec).observation.status is Status.PRESENT
        assert gold.table("gold", f"r-{kind}").version == 0
    assert DeltaTable(str(gold.data / "out-delta" / "r-delta")).version() == 0


# Approval


def _asks(world: World, node: str, spec: specs.StageSpec) -> PendingApproval:
    with pytest.raises(PendingApproval) as asked:
        world.provision(node, spec)
    return asked.value


def test_a_sink_asks_with_rows_schema_difference_and_sample(gold: World, shop: Shop) -> None:
    asked = _asks(gold, "report", shop.sink("delta", approval_required=True))
    assert asked.plan == "gold-tier:report"
    assert (asked.summary["rows"], asked.summary["difference"]) == (2, {"rows_before": 0, "added": 2, "removed": 0})
    assert asked.summary["schema"] == {"region": "String", "net": "Decimal(precision=38, scale=3)", "orders": "Int64"}
    assert {"region": "West", "net": "16.400", "orders": 1} in cast("list[object]", asked.summary["sample"])
    assert not (gold.data / "out").exists()
    assert gold.observe("report", shop.sink("delta", approval_required=True)).status is Status.ABSENT


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_exactly_the_approved_version_is_published_then_the_digest_asks_no_more(
    gold: World, shop: Shop, kind: str
) -> None:
    # Given: the data moves on while a person thinks
    spec = shop.sink(kind, approval_required=True)
    asked = _asks(gold, "report", spec)
    _more(gold, shop)

    # When
    result = gold.approve("report", spec, asked.plan, asked.pins)

    # Then: what was approved is there, and the newer content follows without a question
    frame = pl.scan_parquet([str(p) for p in _out(gold).glob("*.parquet")], glob=False).collect()
    assert int(frame["orders"].sum()) == 3
    assert (result.observation.status, result.observation.reason) == (Status.DRIFTED, "stale")
    assert gold.provision("report", spec).observation.status is Status.PRESENT


def test_another_digest_asks_again_and_shows_the_difference(gold: World, shop: Shop) -> None:
    spec = shop.sink("parquet", approval_required=True)
    asked = _asks(gold, "report", spec)
    gold.approve("report", spec, asked.plan, asked.pins)
    _more(gold, shop)
    other = shop.sink("parquet", approval_required=True, on_delete="drop")
    assert gold.observe("report", other).reason == "spec_changed"
    again = _asks(gold, "report", other)
    assert again.summary["difference"] == {
        "rows_before": 2, "columns_added": [], "columns_removed": [], "added": 1, "removed": 1,
    }  # fmt: skip


def test_an_approval_of_another_plan_or_of_inputs_that_are_gone_asks_again(gold: World, shop: Shop) -> None:
    spec = shop.sink("parquet", approval_required=True)
    asked = _asks(gold, "report", spec)
    with pytest.raises(PendingApproval):
        gold.approve("report", spec, "gold-tier:other", asked.pins)
    with pytest.raises(PendingApproval):
        gold.approve("report", spec, asked.plan, {})
    gold.deprovision("by-region", shop.transformer)
    gold.provision("by-region", shop.transformer)
    with pytest.raises(PendingApproval):
        gold.approve("report", spec, asked.plan, asked.pins)


def test_a_transformer_asks_too_and_publishes_the_approved_pins(silver: World, shop: Shop) -> None:
    spec = specs.TransformerSpec((VALID,), "select count(*) as n from orders_valid", approval_required=True)
    asked = _asks(silver, "counted", spec)
    silver.put("orders/z.csv", "order_id,amount,country\n9,100.00,FR\n")
    shop.run(silver, shop.silver())
    result = silver.approve("counted", spec, asked.plan, asked.pins)
    assert silver.rows("gold", "counted") == [(3,)]
    assert result.observation.reason == "stale"
    silver.provision("counted", spec)
    assert silver.rows("gold", "counted") == [(4,)]


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_each_version_is_asked_about_and_an_approval_is_good_for_one(gold: World, shop: Shop, kind: str) -> None:
    # Given: the first version is approved and published
    spec = shop.sink(kind, approval_required="each")
    first = _asks(gold, "report", spec)
    assert gold.approve("report", spec, first.plan, first.pins).observation.status is Status.PRESENT
    assert gold.provision("report", spec).observation.status is Status.PRESENT
    _more(gold, shop)
    assert gold.observe("report", spec).reason == "stale"

    # When: the used approval comes along once more
    with pytest.raises(PendingApproval) as second:
        gold.approve("report", spec, first.plan, first.pins)

    # Then
    assert second.value.pins != first.pins
    _asks(gold, "report", spec)
    ledger = gold.table("gold", "report").version
    assert gold.approve("report", spec, second.value.plan, second.value.pins).observation.status is Status.PRESENT
    assert gold.table("gold", "report").version == ledger + 1


def test_what_was_approved_is_put_back_without_a_question(gold: World, shop: Shop) -> None:
    spec = shop.sink("csv", approval_required="each")
    asked = _asks(gold, "report", spec)
    gold.approve("report", spec, asked.plan, asked.pins)
    (_out(gold) / "report.csv").write_text("mine now")
    assert gold.provision("report", spec).observation.status is Status.PRESENT
    assert pl.read_csv(_out(gold) / "report.csv", glob=False).height == 2


def test_a_transformer_asks_for_each_version_too(silver: World, shop: Shop) -> None:
    spec = specs.TransformerSpec((VALID,), "select count(*) as n from orders_valid", approval_required="each")
    asked = _asks(silver, "counted", spec)
    silver.approve("counted", spec, asked.plan, asked.pins)
    silver.put("orders/z.csv", "order_id,amount,country\n9,100.00,FR\n")
    shop.run(silver, shop.silver())
    again = _asks(silver, "counted", spec)
    with pytest.raises(PendingApproval):
        silver.approve("counted", spec, asked.plan, asked.pins)
    assert silver.rows("gold", "counted") == [(3,)]
    silver.approve("counted", spec, again.plan, again.pins)
    assert silver.rows("gold", "counted") == [(4,)]


# Removal


def _everything(base: Path) -> set[str]:
    return {str(p.relative_to(base)) for p in base.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("kind", "on_delete"), [("csv", "drop"), ("delta", "drop"), ("csv", "keep"), ("delta", "keep")]
)
def test_deprovision_removes_the_stages_own_things_and_nothing_else(
    gold: World, shop: Shop, kind: str, on_delete: str
) -> None:
    # Given
    for path in ("bronze/by-region/x", "gold/by-region-2/x", "gold/by-region__other/x", "gold/report2/x"):
        target = gold.folder(*path.split("/")[:2])
        target.mkdir(parents=True)
        (target / "x").write_text("keep me")
    sink = shop.sink(kind, on_delete=on_delete)
    gold.provision("report", sink)
    warehouse = gold.settings.warehouse
    before, sources = _everything(warehouse), _everything(gold.data)

    # When
    gold.deprovision("report", sink)
    gold.deprovision("report", sink)

    # Then
    gone = before - _everything(warehouse)
    assert gone
    assert all(f.startswith("acme/main/gold/report/") for f in gone)
    lost = sources - _everything(gold.data)
    assert all(f.startswith("out/report/") for f in lost)
    assert bool(lost) is (on_delete == "drop")
    assert gold.observe("report", sink).status is Status.ABSENT


def test_each_stage_takes_its_own_side_tables_along(world: World, shop: Shop) -> None:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world)
    for node, spec in reversed(shop.all()):
        world.deprovision(node, spec)
    assert _everything(world.settings.warehouse) == set()
    assert (world.data / "orders/a.csv").exists()


def test_dropping_a_folder_in_which_somebody_put_files_leaves_these(gold: World, shop: Shop) -> None:
    sink = shop.sink("csv", on_delete="drop")
    gold.provision("report", sink)
    gold.put("out/report/notes.txt", "mine")
    gold.deprovision("report", sink)
    assert [p.name for p in _out(gold).iterdir()] == ["notes.txt"]


def test_a_stage_that_changed_its_type_keeps_its_data_when_the_old_form_goes(world: World, shop: Shop) -> None:
    # Given: "x" was a cleanser and becomes an enricher; the new form is provisioned first
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    old, new = shop.cleanser, specs.EnricherSpec(specs.Input("base", specs.CLEANSER), None, {"twice": "amount * 2"})
    world.provision("base", shop.cleanser)
    world.provision("x", old)
    world.provision("x", new)

    # When
    world.deprovision("x", old)

    # Then
    assert world.observe("x", new).status is Status.PRESENT
    assert world.observe("x", old).status is Status.ABSENT
    assert "twice" in world.frame("silver", "x.enricher").columns
    reader = specs.ValidatorSpec(specs.Input("x", specs.ENRICHER))
    assert world.provision("y", reader).observation.status is Status.PRESENT


def test_an_unreadable_spec_can_be_removed(gold: World, shop: Shop) -> None:
    task = gold.task("by-region", shop.transformer)
    gold.engine.deprovision(msgspec.structs.replace(task, spec=msgspec.Raw(b'{"from_another_version":1}')))
    assert gold.observe("by-region", shop.transformer).status is Status.ABSENT


# Paths


@pytest.mark.parametrize(
    "uri",
    ["../x.csv", "/etc/passwd", "file:///etc/passwd", "a/../../x", "file://host/x", "s3://b/x", "file:///%2e%2e/x", ""],
)
def test_no_uri_leads_out_of_the_roots(world: World, uri: str) -> None:
    shop = Shop(source=specs.Source("orders", uri, "csv"))
    with pytest.raises(Permanent):
        world.provision("orders-raw", shop.ingestion)
    assert world.observe("orders", specs.DataSourceSpec(shop.source)).status is not Status.PRESENT


@pytest.mark.parametrize("pattern", ["orders/*.csv", "orders/link.csv", "folder/x.csv", "folder/*"])
def test_no_link_leads_out_of_the_roots(world: World, tmp_path: Path, pattern: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.csv").write_text(GOOD)
    (world.data / "orders").mkdir()
    (world.data / "orders/link.csv").symlink_to(outside / "x.csv")
    (world.data / "folder").symlink_to(outside)
    shop = Shop(source=specs.Source("orders", pattern, "csv"))
    with pytest.raises(Forbidden):
        world.provision("orders-raw", shop.ingestion)
    assert world.observe("orders-raw", shop.ingestion).status is Status.DRIFTED


def test_links_inside_the_roots_are_followed(world: World, shop: Shop) -> None:
    path = world.put("real/a.csv", GOOD)
    (world.data / "orders").mkdir()
    (world.data / "orders/a.csv").symlink_to(path)
    world.provision("orders-raw", shop.ingestion)
    assert len(world.rows("bronze", "orders-raw")) == 3


def test_a_delta_source_whose_log_names_outside_files_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "secret.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(secret)
    write_deltalake(str(world.data / "dl"), pl.DataFrame({"a": [1]}))
    log = next((world.data / "dl/_delta_log").glob("*.json"))
    part = next((world.data / "dl").glob("*.parquet")).name
    for path in (f"../../outside/{secret.name}", f"..%2F..%2Foutside%2F{secret.name}", secret.as_uri()):
        text = log.read_text()
        log.write_text(text.replace(part, path))
        shop = Shop(specs.Source("dl", "dl", "delta"), None)
        with pytest.raises((Permanent, Temporary)):
            world.provision("orders-raw", shop.ingestion)
        log.write_text(text)


def test_sinks_stay_inside_the_roots_and_outside_the_warehouse(gold: World, shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (gold.data / "link").symlink_to(tmp_path / "outside")
    (gold.data / "out2").mkdir()
    (gold.data / "out2/report").symlink_to(tmp_path / "outside")
    for destination in ("../out", "/tmp", "link", "out2", str(gold.settings.warehouse)):
        spec = specs.SinkSpec(shop.sink().input, destination, "csv")
        with pytest.raises(Permanent):
            gold.provision("report", spec)
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_warehouse_is_no_source(world: World, tmp_path: Path) -> None:
    inside = World(tmp_path / "nested")
    settings = inside.settings.__class__(inside.data / "warehouse", {"acme": (inside.data,)})
    inside.settings = settings
    (inside.data / "warehouse" / "acme").mkdir(parents=True)
    (inside.data / "warehouse" / "acme" / "x.csv").write_text(GOOD)
    shop = Shop(source=specs.Source("orders", "warehouse/acme/x.csv", "csv"))
    with pytest.raises(Forbidden, match="warehouse"):
        inside.provision("orders-raw", shop.ingestion)


@pytest.mark.parametrize("node", ["../x", "a/b", "A", "a__b", "", "x.y", "a" * 64])
def test_no_stage_id_leads_out_of_the_warehouse(world: World, shop: Shop, node: str) -> None:
    world.put("orders/a.csv", GOOD)
    with pytest.raises(Permanent):
        world.provision(node, shop.ingestion)
    with pytest.raises(Permanent):
        world.deprovision(node, shop.ingestion)


def test_a_tenant_without_roots_reaches_nothing(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.tenant = "other"
    with pytest.raises(Forbidden, match="no data roots"):
        world.provision("orders-raw", shop.ingestion)
