"""Making tables again on demand, and reading inputs as they were: both are part of the spec, nothing else."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_model.errors import Permanent
from holdfast_model.messages import REASON_SPEC_CHANGED, Decision, Status
from holdfast_pipeline import specs

from .conftest import COUNTRIES, GOOD, Shop, World

VALID = specs.Input("orders-valid", specs.VALIDATOR)
SQL = "select region, sum(net) as net, count(*) as orders from orders_valid group by region"


@pytest.fixture
def silver(world: World, shop: Shop) -> World:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver())
    return world


def _more(world: World, shop: Shop, number: int) -> None:
    world.put(f"orders/more{number}.csv", f"order_id,amount,country\n{number},100.00,FR\n")
    shop.run(world, shop.silver())


def _again(spec: specs.StageSpec, run: str) -> specs.StageSpec:
    return msgspec.structs.replace(spec, run=run)


def test_another_run_makes_a_table_again_with_a_new_version_that_everything_below_follows(
    silver: World, shop: Shop
) -> None:
    before = silver.table("silver", "orders-clean").data_version
    again = _again(shop.cleanser, "1")

    assert silver.observe("orders-clean", again).reason == REASON_SPEC_CHANGED
    silver.provision("orders-clean", again)

    assert silver.table("silver", "orders-clean").data_version != before
    assert silver.observe("orders-clean", again).status is Status.PRESENT
    assert silver.observe("orders-geo", shop.enricher).status is Status.DRIFTED
    # The same run again does nothing
    version = silver.table("silver", "orders-clean").version
    silver.provision("orders-clean", again)
    assert silver.table("silver", "orders-clean").version == version


def test_another_run_of_an_ingestion_reads_every_file_again_and_doubles_none(silver: World, shop: Shop) -> None:
    rows = silver.rows("bronze", "orders-raw", "order_id", "_file")
    tags = set(silver.frame("bronze", "orders-raw")["_tag"])

    silver.provision("orders-raw", _again(shop.ingestion, "backfill"))

    assert silver.rows("bronze", "orders-raw", "order_id", "_file") == rows
    assert set(silver.frame("bronze", "orders-raw")["_tag"]).isdisjoint(tags)


def test_decisions_about_rows_outlive_a_rerun(world: World) -> None:
    shop = Shop(quality_threshold=0.9)
    world.put("countries.csv", COUNTRIES)
    world.put("orders/bad.csv", "order_id,amount,country\n20,-1.00,FR\n21,2.00,DE\n")
    shop.run(world, shop.silver())
    world.provision("orders-valid", shop.validator, Decision("accept-rows", "ann"))

    result = world.provision("orders-valid", _again(shop.validator, "again"))

    assert result.observation.status is Status.PRESENT
    assert len(world.rows("silver", "orders-valid")) == 2


def test_an_input_is_read_as_of_the_version_that_is_named_whatever_came_after(silver: World, shop: Shop) -> None:
    then = silver.table("silver", "orders-valid").data_version.version
    _more(silver, shop, 9)
    spec = specs.TransformerSpec((specs.Input("orders-valid", specs.VALIDATOR, then),), SQL)

    silver.provision("then", spec)
    silver.provision("now", specs.TransformerSpec((VALID,), SQL))

    assert sum(int(str(r[0])) for r in silver.rows("gold", "then", "orders")) == 3
    assert sum(int(str(r[0])) for r in silver.rows("gold", "now", "orders")) == 4
    _more(silver, shop, 10)
    assert silver.observe("then", spec).status is Status.PRESENT


def test_a_version_that_is_named_is_kept_for_as_long_as_it_is_named(silver: World, shop: Shop) -> None:
    then = silver.table("silver", "orders-valid").data_version.version
    spec = specs.TransformerSpec((specs.Input("orders-valid", specs.VALIDATOR, then),), SQL)
    silver.provision("then", spec)

    for number in range(10, 16):
        _more(silver, shop, number)
    again = specs.TransformerSpec(spec.inputs, SQL + " order by region")
    silver.provision("then", again)
    assert sum(int(str(r[0])) for r in silver.rows("gold", "then", "orders")) == 3

    # When nothing names it any more, it goes like every other version
    silver.provision("then", specs.TransformerSpec((VALID,), SQL))
    for number in range(20, 26):
        _more(silver, shop, number)
    with pytest.raises(Permanent, match=f"version {then} of input 'orders-valid' is not kept"):
        silver.provision("then", spec)


def test_a_version_that_never_was_is_refused(silver: World) -> None:
    spec = specs.TransformerSpec((specs.Input("orders-valid", specs.VALIDATOR, 99),), SQL)

    with pytest.raises(Permanent, match="version 99"):
        silver.provision("then", spec)
    assert silver.observe("then", spec).status is not Status.PRESENT
