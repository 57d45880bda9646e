"""Files that do not fit their contract are held; a person decides; good files land meanwhile."""

from __future__ import annotations

from typing import cast

import pytest

from holdfast_model.errors import Permanent
from holdfast_model.messages import Decision, Observation, Status
from holdfast_pipeline import specs
from holdfast_pipeline.engine import StageResult

from .conftest import GOOD, Shop, World

RENAMED = "order_id,total,country\n7,5.00,DE\n8,x,FR\n"


def _touched(result: StageResult) -> Observation:
    assert result.touch[0].observation is not None
    return result.touch[0].observation


def _decide(world: World, shop: Shop, outcome: str, *, key: str = "", **data: object) -> StageResult:
    return _decide_with(world, shop, outcome, data or None, key)


def _decide_with(world: World, shop: Shop, outcome: str, data: dict[str, object] | None, key: str = "") -> StageResult:
    return world.provision("orders-schema", shop.schema, Decision(outcome, "ann", data=data), key)


def _ids(world: World) -> list[object]:
    return [r[0] for r in world.rows("bronze", "orders-raw", "order_id")]


def test_a_misfit_is_held_the_good_land_and_the_schema_is_touched(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/a.csv", GOOD)
    world.put("orders/b.csv", RENAMED)

    # When
    result = world.provision("orders-raw", shop.ingestion)

    # Then
    held = _touched(result)
    assert result.observation.status is Status.PRESENT
    assert (result.touch[0].node, held.status, held.reason, held.hold) == (
        "orders-schema", Status.DRIFTED, "schema_drift", True,
    )  # fmt: skip
    assert world.observe("orders-schema", shop.schema) == held
    assert world.provision("orders-schema", shop.schema).observation == held
    assert held.info is not None
    file = cast("list[dict[str, object]]", held.info["files"])[0]
    assert (file["missing"], file["extra"], file["renames"]) == (["amount"], ["total"], {"total": "amount"})
    assert _ids(world) == ["1", "2", "3"]
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("order_id,country\n1,DE\n", "missing amount"),
        ("order_id,amount,country,new\n1,1.00,DE,x\n", "not declared new"),
        ("order_id,amount,country\n1,abc,DE\n2,xyz,DE\n3,1.00,DE\n", "of another type amount"),
        ("order_id,amount,country\n1,1.00,DE,too,many\n", "line 2 has 5 values, the header has 3 names"),
        (b"order_id,amount,country\n1,1.00,\xff\xfe\n", "line 2 is not UTF-8"),
    ],
)
def test_each_kind_of_misfit_is_held_and_named(world: World, shop: Shop, content: str | bytes, part: str) -> None:
    world.put("orders/b.csv", content)
    held = _touched(world.provision("orders-raw", shop.ingestion))
    assert held.reason == "schema_drift"
    assert part in held.detail
    assert _ids(world) == []


def test_half_of_the_values_may_fail_before_a_column_counts_as_changed(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", "order_id,amount,country\n1,abc,DE\n2,1.00,DE\n3,,DE\n")
    assert _touched(world.provision("orders-raw", shop.ingestion)).status is Status.PRESENT


def test_extra_columns_may_be_ignored_and_optional_ones_missing(world: World) -> None:
    fields = (specs.Field("order_id", "int64"), specs.Field("amount", "decimal(12,2)", optional=True))
    shop = Shop(contract=specs.Contract("orders-schema", extra="ignore", fields=fields))
    world.put("orders/b.csv", "order_id,more,_sha\n1,x,y\n")
    assert _touched(world.provision("orders-raw", shop.ingestion)).status is Status.PRESENT
    assert world.rows("bronze", "orders-raw", "order_id", "amount") == [("1", None)]


def test_accept_takes_the_file_through_its_mapping_and_ends_the_hold(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/b.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)

    # When
    decided = _decide(world, shop, "accept", rename={"total": "amount"})
    stale = world.observe("orders-raw", shop.ingestion)
    result = world.provision("orders-raw", shop.ingestion)

    # Then
    assert decided.observation.status is Status.PRESENT
    assert [(t.node, t.observation.reason if t.observation else "") for t in decided.touch] == [("orders-raw", "stale")]
    assert (stale.status, stale.reason) == (Status.DRIFTED, "stale")
    assert _touched(result).status is Status.PRESENT
    assert world.rows("bronze", "orders-raw", "order_id", "amount") == [("7", "5.00"), ("8", "x")]
    world.provision("orders-clean", shop.cleanser)
    assert world.rows("silver", "orders-clean", "order_id", "_errors") == [(7, None), (8, "amount:cast")]


def test_an_accepted_way_of_not_fitting_is_not_asked_about_again(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)
    _decide(world, shop, "accept", rename={"total": "amount"})
    world.provision("orders-raw", shop.ingestion)
    world.put("orders/c.csv", "order_id,total,country\n9,6.00,DE\n")
    assert _touched(world.provision("orders-raw", shop.ingestion)).status is Status.PRESENT
    assert ("9", "6.00") in world.rows("bronze", "orders-raw", "order_id", "amount")
    world.put("orders/d.csv", "order_id,sum,country\n9,6.00,DE\n")
    assert _touched(world.provision("orders-raw", shop.ingestion)).reason == "schema_drift"


def test_defaults_fill_missing_columns_and_what_does_not_fit_becomes_a_row_error(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", "order_id,extra\n5,x\nz,y\n")
    world.provision("orders-raw", shop.ingestion)
    _decide(world, shop, "accept", default={"amount": 0.5, "country": "DE"}, ignore=["extra"])
    world.provision("orders-raw", shop.ingestion)
    assert world.rows("bronze", "orders-raw", "order_id", "amount", "country") == [
        ("5", "0.5", "DE"),
        ("z", "0.5", "DE"),
    ]


def test_a_rejected_file_stays_out_until_its_content_changes(world: World, shop: Shop) -> None:
    # Given
    world.put("orders/a.csv", GOOD)
    path = world.put("orders/b.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)

    # When
    assert _decide(world, shop, "reject").observation.status is Status.PRESENT

    # Then: not under another name either
    assert world.observe("orders-raw", shop.ingestion).status in (Status.PRESENT, Status.DRIFTED)
    assert _touched(world.provision("orders-raw", shop.ingestion)).status is Status.PRESENT
    path.rename(path.with_name("c.csv"))
    assert _touched(world.provision("orders-raw", shop.ingestion)).status is Status.PRESENT
    assert _ids(world) == ["1", "2", "3"]
    world.put("orders/c.csv", RENAMED.replace("7,", "17,"))
    assert _touched(world.provision("orders-raw", shop.ingestion)).reason == "schema_drift"


def test_a_misfit_that_replaces_a_good_file_leaves_its_old_rows(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    world.put("orders/a.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)
    assert _ids(world) == ["1", "2", "3"]
    _decide(world, shop, "accept", rename={"total": "amount"})
    world.provision("orders-raw", shop.ingestion)
    assert _ids(world) == ["7", "8"]


def test_a_rejected_misfit_leaves_the_old_rows_of_its_path(world: World, shop: Shop) -> None:
    world.put("orders/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    world.put("orders/a.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)
    _decide(world, shop, "reject")
    world.provision("orders-raw", shop.ingestion)
    assert _ids(world) == ["1", "2", "3"]
    assert world.observe("orders-raw", shop.ingestion).status is Status.PRESENT


@pytest.mark.parametrize("repaired", [True, False])
def test_a_held_file_that_vanishes_or_is_repaired_ends_its_hold(world: World, shop: Shop, repaired: bool) -> None:
    path = world.put("orders/b.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)
    if repaired:
        world.put("orders/b.csv", GOOD)
    else:
        path.unlink()
    assert world.observe("orders-raw", shop.ingestion).reason == "stale"
    assert _touched(world.provision("orders-raw", shop.ingestion)).status is Status.PRESENT
    assert world.observe("orders-schema", shop.schema).status is Status.PRESENT
    assert len(_ids(world)) == (3 if repaired else 0)


def test_a_new_held_file_changes_the_token_within_the_hold(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", RENAMED)
    first = _touched(world.provision("orders-raw", shop.ingestion))
    world.put("orders/c.csv", "x,y\n1,2\n")
    second = _touched(world.provision("orders-raw", shop.ingestion))
    assert (first.reason, first.token != second.token) == (second.reason, True)


def test_a_decision_delivered_twice_counts_once_and_covers_what_was_held_then(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)
    _decide(world, shop, "reject", key="once")
    world.put("orders/c.csv", "x,y\n1,2\n")
    world.provision("orders-raw", shop.ingestion)
    again = _decide(world, shop, "reject", key="once")
    assert again.observation.reason == "schema_drift"
    assert len(world.rows("bronze", "orders-schema__decisions")) == 1


@pytest.mark.parametrize(
    ("outcome", "data"),
    [
        ("maybe", {}),
        ("accept", {"rename": {"total": "nonsense"}}),
        ("accept", {"rename": ["total"]}),
        ("accept", {"rename": {"a": "amount", "b": "amount"}}),
        ("accept", {"delete": True}),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused_and_keeps_nothing(
    world: World, shop: Shop, outcome: str, data: dict[str, object]
) -> None:
    world.put("orders/b.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)
    with pytest.raises(Permanent):
        _decide_with(world, shop, outcome, data)
    assert world.observe("orders-schema", shop.schema).reason == "schema_drift"


def test_accepting_an_unreadable_file_takes_what_can_be_read(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", "order_id,amount,country\n1,1.00,DE,too,many\n2,2.00,FR\n")
    world.provision("orders-raw", shop.ingestion)
    _decide(world, shop, "accept")
    assert _touched(world.provision("orders-raw", shop.ingestion)).status is Status.PRESENT
    assert _ids(world) == ["1", "2"]


def test_an_accepted_unreadable_file_that_is_replaced_by_another_one_is_asked_about_anew(
    world: World, shop: Shop
) -> None:
    """Also where the same is said of both: a byte in line 2."""
    world.put("orders/b.csv", b"order_id,amount,country\n1,1.00,\xd6\n")
    world.provision("orders-raw", shop.ingestion)
    _decide(world, shop, "accept")
    world.put("orders/b.csv", b"order_id,amount,country\n2,2.00,\xd6\n")
    assert _touched(world.provision("orders-raw", shop.ingestion)).reason == "schema_drift"
    _decide(world, shop, "accept")
    assert _touched(world.provision("orders-raw", shop.ingestion)).status is Status.PRESENT
    assert _ids(world) == ["2"]


def test_a_new_contract_judges_held_files_anew(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", RENAMED)
    world.provision("orders-raw", shop.ingestion)
    fields = (specs.Field("order_id", "int64"), specs.Field("total", "string"), specs.Field("country"))
    other = Shop(contract=specs.Contract("orders-schema", 2, fields=fields))
    assert world.observe("orders-raw", other.ingestion).reason == "spec_changed"
    assert _touched(world.provision("orders-raw", other.ingestion)).status is Status.PRESENT
    assert world.rows("bronze", "orders-raw", "order_id", "total") == [("7", "5.00"), ("8", "x")]


def test_two_ingestions_of_one_schema_hold_it_together(world: World, shop: Shop) -> None:
    other = Shop(source=specs.Source("more", "more/*.csv", "csv"))
    world.put("orders/b.csv", RENAMED)
    world.put("more/a.csv", GOOD)
    world.provision("orders-raw", shop.ingestion)
    assert _touched(world.provision("more-raw", other.ingestion)).reason == "schema_drift"


def test_ndjson_without_a_declared_column_is_held(world: World) -> None:
    shop = Shop(source=specs.Source("nd", "nd/*", "ndjson"))
    world.put("nd/a.ndjson", '{"order_id":1,"amount":1}\n')
    assert "missing country" in _touched(world.provision("orders-raw", shop.ingestion)).detail


def test_an_unreadable_accepted_file_that_stays_unreadable_blocks_no_other(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", 'order_id,amount,country\n1,"1.00,DE\n2,2.00,FR\n')
    assert _touched(world.provision("orders-raw", shop.ingestion)).reason == "schema_drift"
    _decide(world, shop, "accept")
    world.put("orders/a.csv", GOOD)
    result = world.provision("orders-raw", shop.ingestion)
    assert _ids(world)[:3] == ["1", "2", "3"]
    assert result.observation.status in (Status.PRESENT, Status.DRIFTED)
    assert world.observe("orders-raw", shop.ingestion).reason != "stale"
