"""What people see of tables: where rows come from, where files go, rows of any kept version, what changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from holdfast_model.errors import Forbidden, Invalid, NotFound, Permanent
from holdfast_model.messages import Decision
from holdfast_pipeline import specs
from holdfast_pipeline.lineage import file_lineage, graph_lineage, stage_lineage
from holdfast_pipeline.previews import Difference, Preview, difference, preview
from holdfast_pipeline.requests import Requests
from holdfast_pipeline.shelves import Shelves

from .conftest import COUNTRIES, GOOD, Shop, World

LATE = "order_id,amount,country\n9,100.00,FR\n10,5.00,DE\n"


@pytest.fixture
def kept(world: World, shop: Shop) -> World:
    """The whole pipeline over two files, the second of which came late."""
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world)
    world.put("orders/z.csv", LATE)
    shop.run(world)
    return world


def _shelves(world: World, tenant: str = "", graph: str = "") -> Shelves:
    return Shelves(world.settings, tenant or world.tenant, graph or world.graph)


def _preview(world: World, stage: str, **asked: Any) -> Preview:
    said = {"as_of": "", "limit": 20, "quarantine": False, "now": world.time, **asked}
    return preview(_shelves(world), stage, **said)


def _diff(world: World, stage: str, before: str, after: str = "") -> Difference:
    return difference(_shelves(world), stage, before, after, 10, world.time)


def test_a_gold_table_names_the_versions_and_files_that_made_it(kept: World) -> None:
    told = stage_lineage(_shelves(kept), "by-region", "", kept.time)

    assert [v.stage for v in told.made_from] == [
        "by-region",
        "orders-valid",
        "orders-geo",
        "orders-clean",
        "orders-raw",
    ]
    assert {f.file: f.rows for f in told.files} == {"orders/a.csv": 3, "orders/z.csv": 2}
    assert told.goes_into == ["report"]
    assert [v.kept for v in told.versions] == [True, True]
    assert next(v for v in told.made_from if v.stage == "orders-geo").lookups == ["countries.csv"]


def test_an_older_version_names_what_it_was_made_of_then(kept: World) -> None:
    newest, first = stage_lineage(_shelves(kept), "by-region", "", kept.time).versions

    told = stage_lineage(_shelves(kept), "by-region", str(first.version), kept.time)

    assert [f.file for f in told.files] == ["orders/a.csv"]
    assert told.made_from[0].version == first.version != newest.version


def test_inputs_that_are_gone_are_told_and_hide_nothing_else(kept: World) -> None:
    kept.deprovision("orders-geo", Shop().enricher)

    told = stage_lineage(_shelves(kept), "by-region", "", kept.time)

    assert {f.file for f in told.files} == {"orders/a.csv", "orders/z.csv"}  # the validator's rows still say so
    assert {v.stage: bool(v.gone) for v in told.made_from} == {
        "by-region": False, "orders-valid": False, "orders-geo": True,
    }  # fmt: skip


def test_a_file_is_followed_from_bronze_to_gold(kept: World) -> None:
    told = file_lineage(_shelves(kept), "z.csv")

    assert (told.file, told.state) == ("orders/z.csv", "landed")
    assert [(s.stage, s.rows) for s in told.stations] == [
        ("orders-raw", 2), ("orders-clean", 2), ("orders-geo", 2), ("orders-valid", 2), ("by-region", None),
        ("report", None),
    ]  # fmt: skip


def test_a_file_that_came_after_a_table_was_made_is_not_said_to_be_in_it(world: World, shop: Shop) -> None:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world)
    world.put("orders/z.csv", LATE)
    shop.run(world, shop.silver())

    assert [s.stage for s in file_lineage(_shelves(world), "orders/z.csv").stations][-1] == "orders-valid"
    assert [s.stage for s in file_lineage(_shelves(world), "orders/a.csv").stations][-1] == "report"


def test_a_held_file_says_why_and_is_in_no_table(kept: World, shop: Shop) -> None:
    kept.put("orders/odd.csv", "id,sum\n1,2\n")
    kept.provision("orders-raw", shop.ingestion)

    told = file_lineage(_shelves(kept), "odd.csv")

    assert (told.state, told.stations) == ("held", [])
    assert "missing" in told.detail


def test_quarantined_rows_are_told_apart(world: World) -> None:
    shop = Shop(quality_threshold=0.9)
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver())
    world.put("orders/bad.csv", "order_id,amount,country\n20,-1.00,FR\n21,2.00,DE\n")
    shop.run(world, shop.silver())

    told = file_lineage(_shelves(world), "bad.csv")
    shown = _preview(world, "orders-valid", quarantine=True)

    assert told.stations[-1].stage == "orders-valid"
    assert (told.stations[-1].rows, told.stations[-1].quarantined) == (0, 1)
    assert shown.total == 1
    failed = [c.name for c in shown.columns].index("_failed")
    assert "amount:ge" in shown.rows[0][failed]


def test_a_graph_shows_every_stage_with_its_rows(kept: World) -> None:
    told = graph_lineage(_shelves(kept))

    assert [(s.stage, s.rows) for s in told.stages] == [
        ("orders-raw", 5), ("orders-clean", 5), ("orders-geo", 5), ("orders-valid", 5), ("by-region", 2), ("report", 2),
    ]  # fmt: skip
    assert all(s.at for s in told.stages)


def test_rows_are_shown_as_of_a_version_and_as_of_a_time(kept: World) -> None:
    now = _preview(kept, "orders-valid")
    first = stage_lineage(_shelves(kept), "orders-valid", "", kept.time).versions[-1]

    assert (now.total, len(_preview(kept, "orders-valid", limit=2).rows)) == (5, 2)
    assert _preview(kept, "orders-valid", as_of=str(first.version)).total == 3
    assert _preview(kept, "orders-valid", as_of="2100-01-01T00:00:00Z").total == 5
    with pytest.raises(NotFound, match="had no table at"):
        _preview(kept, "orders-valid", as_of="2001-01-01T00:00:00Z")
    with pytest.raises(Invalid, match="no version, no time"):
        _preview(kept, "orders-valid", as_of="yesterday")


def test_a_version_that_is_not_kept_names_those_that_are(kept: World, shop: Shop) -> None:
    for n in range(4):
        kept.put(f"orders/more{n}.csv", f"order_id,amount,country\n{100 + n},1.00,FR\n")
        shop.run(kept)

    with pytest.raises(NotFound, match="not kept") as refused:
        _preview(kept, "orders-clean", as_of="0")

    kept_versions = [v.version for v in stage_lineage(_shelves(kept), "orders-clean", "", 0).versions if v.kept]
    assert refused.value.hint == f"versions that are: {', '.join(map(str, kept_versions))}"
    assert _preview(kept, "orders-clean", as_of=str(kept_versions[-1])).total < 9


def test_what_changed_between_two_versions_is_counted_and_shown(kept: World) -> None:
    first = stage_lineage(_shelves(kept), "orders-valid", "", kept.time).versions[-1]

    told = _diff(kept, "orders-valid", str(first.version))
    back = _diff(kept, "orders-valid", str(first.version), str(first.version))

    assert (told.rows_before, told.rows_after, told.added, told.removed) == (3, 5, 2, 0)
    assert {row[0] for row in told.added_rows} == {9, 10}
    assert (back.added, back.removed, back.added_rows) == (0, 0, [])


def test_changed_columns_are_named_instead_of_comparing_rows(kept: World) -> None:
    spec = specs.TransformerSpec((specs.Input("orders-valid", specs.VALIDATOR),), "select country from orders_valid")
    kept.provision("by-region", spec)

    told = _diff(kept, "by-region", "0")

    assert (told.columns_added, told.added) == (["country"], None)
    assert set(told.columns_removed) == {"region", "net", "orders"}
    assert told.note


@pytest.mark.parametrize("kind", ["parquet", "csv", "delta"])
def test_a_sink_shows_what_it_published(kept: World, shop: Shop, kind: str) -> None:
    kept.provision("report", shop.sink(kind))
    told = stage_lineage(_shelves(kept), "report", "", kept.time)
    assert {v.rows for v in told.versions} == {told.made_from[0].rows} == {told.made_from[1].rows} == {2}

    shown = _preview(kept, "report")

    assert (shown.total, [c.name for c in shown.columns]) == (2, ["region", "net", "orders"])
    with pytest.raises(Invalid, match="as it is now"):
        _preview(kept, "report", as_of="0")


def test_a_target_that_became_a_link_out_of_the_roots_is_not_read(kept: World, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    out = kept.data / "out"
    (out / "report").rename(elsewhere / "report")
    out.rmdir()
    out.symlink_to(elsewhere, target_is_directory=True)

    with pytest.raises((Forbidden, Permanent)):
        _preview(kept, "report")


def test_nothing_of_another_tenant_or_graph_can_be_looked_at(kept: World) -> None:
    for tenant, graph in (("other", "main"), ("acme", "other")):
        assert graph_lineage(_shelves(kept, tenant, graph)).stages == []
        with pytest.raises(NotFound):
            preview(_shelves(kept, tenant, graph), "by-region", as_of="", limit=1, quarantine=False, now=0)
    for tenant, graph in (("..", "main"), ("acme/main", "gold"), ("a b", "main"), ("acme", "../acme/main")):
        with pytest.raises(Invalid):
            _shelves(kept, tenant, graph)
    for stage in ("../gold/by-region", "by-region/", ".", "", "orders-valid__quarantine"):
        with pytest.raises(NotFound):
            _preview(kept, stage)


def test_speed_and_rows_are_part_of_what_is_observed(kept: World, shop: Shop) -> None:
    kept.time = time.time() - 5  # commits bear the real time, so the work began five seconds before them
    file = kept.put("orders/y.csv", "order_id,amount,country\n77,1.00,FR\n")
    os.utime(file, (kept.time - 60, kept.time - 60))
    for node, spec in shop.silver():
        info = kept.provision(node, spec).observation.info
        assert info is not None
        assert info["rows"] == 6
        assert 5 <= float(str(info["seconds"])) < 300  # what a test may take
        assert info["rows_per_second"] in (0, 1)


async def _asked(handler: Callable[[bytes], Awaitable[Any]], **body: object) -> Any:
    return msgspec.to_builtins(await handler(json.dumps(body).encode()))


async def test_requests_name_the_place_of_what_is_wrong_with_them(kept: World) -> None:
    requests = Requests(kept.settings, lambda: kept.time)
    named = {"tenant": kept.tenant, "graph": kept.graph}

    shown = await _asked(requests.preview, **named, stage="by-region", limit=1)
    followed = await _asked(requests.lineage, **named, file="a.csv")
    changed = await _asked(requests.diff, **named, stage="orders-valid", before="0")

    assert (len(shown["rows"]), followed["file"], changed["added"]) == (1, "orders/a.csv", 2)
    with pytest.raises(Invalid) as refused:
        await requests.preview(json.dumps({**named, "stage": "by-region", "limit": 100_000}).encode())
    assert refused.value.problems[0].path == "/limit"
    with pytest.raises(msgspec.ValidationError):
        await requests.diff(json.dumps({**named, "stage": "by-region"}).encode())


def test_rows_are_kept_apart_although_a_decision_let_them_in(world: World) -> None:
    shop = Shop(quality_threshold=0.9)
    world.put("countries.csv", COUNTRIES)
    world.put("orders/bad.csv", "order_id,amount,country\n20,-1.00,FR\n21,2.00,DE\n")
    shop.run(world, shop.silver())
    world.provision("orders-valid", shop.validator, Decision("accept-rows", "ann"))

    told = file_lineage(_shelves(world), "bad.csv")

    assert (told.stations[-1].rows, told.stations[-1].quarantined) == (2, 0)
