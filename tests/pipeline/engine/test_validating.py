"""Bad rows are set apart; too many of them in one file hold the stage until a person decides."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import polars as pl
import pytest

from holdfast_model.errors import Permanent
from holdfast_model.messages import Decision, Status
from holdfast_pipeline import specs
from holdfast_pipeline.engine import StageResult
from holdfast_pipeline.quarantine import FileShare
from holdfast_pipeline.validating import failing

from .conftest import COUNTRIES, GOOD, Shop, World

HEADER = "order_id,amount,country\n"
DIRTY = f"{HEADER}11,1.00,DE\n12,-1.00,DE\n13,x,FR\n14,,DE\n"
"""One good row of four: below 0.5."""


@pytest.fixture
def held(world: World, shop: Shop) -> StageResult:
    """A good file and a dirty one; the validator is held."""
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    world.put("orders/b.csv", DIRTY)
    return shop.run(world, shop.silver())[-1]


def _decide(world: World, shop: Shop, outcome: str, key: str = "") -> StageResult:
    return world.provision("orders-valid", shop.validator, Decision(outcome, "ann", workitem="wi-9"), key)


def _good(world: World) -> list[object]:
    return [r[0] for r in world.rows("silver", "orders-valid", "order_id")]


def _bad(world: World) -> list[tuple[object, ...]]:
    return world.rows("silver", "orders-valid__quarantine", "order_id", "_status")


def test_bad_rows_within_tolerance_are_set_apart_and_the_good_go_on(world: World, shop: Shop) -> None:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD + "4,-1.00,DE\n5,abc,FR\n")
    result = shop.run(world, shop.silver())[-1]
    assert result.observation.status is Status.PRESENT
    assert _good(world) == [1, 2, 3]
    columns = ("order_id", "_failed", "_row", "_file")
    assert world.rows("silver", "orders-valid__quarantine", *columns) == [
        (4, ["amount:ge"], 3, "orders/a.csv"),
        (5, ["amount:cast", "amount:not_null"], 4, "orders/a.csv"),
    ]


def test_a_file_below_the_threshold_holds_the_stage_and_publishes_nothing(
    world: World, shop: Shop, held: StageResult
) -> None:
    seen = held.observation
    assert (seen.status, seen.reason, seen.hold) == (Status.DRIFTED, "quarantined", True)
    assert "orders/b.csv: 3 of 4 rows fail amount:cast, amount:ge, amount:not_null" in seen.detail
    assert world.observe("orders-valid", shop.validator) == seen
    assert world.provision("orders-valid", shop.validator).observation == seen
    assert not world.folder("silver", "orders-valid").joinpath("_delta_log").exists()


def test_a_hold_leaves_the_older_good_version(world: World, shop: Shop) -> None:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver())
    world.put("orders/b.csv", DIRTY)
    assert shop.run(world, shop.silver())[-1].observation.reason == "quarantined"
    assert _good(world) == [1, 2, 3]


def test_accept_rows_publishes_them_and_takes_them_out_of_the_quarantine(
    world: World, shop: Shop, held: StageResult
) -> None:
    result = _decide(world, shop, "accept-rows")
    assert result.observation.status is Status.PRESENT
    assert _good(world) == [1, 11, 12, 13, 14, 2, 3]
    assert (13, None) in world.rows("silver", "orders-valid", "order_id", "amount")
    assert _bad(world) == []


def test_drop_rows_goes_on_without_them_and_keeps_them_marked(world: World, shop: Shop, held: StageResult) -> None:
    result = _decide(world, shop, "drop-rows")
    assert result.observation.status is Status.PRESENT
    assert _good(world) == [1, 11, 2, 3]
    assert _bad(world) == [(12, "dropped"), (13, "dropped"), (14, "dropped")]


def test_retry_judges_once_more_and_keeps_no_decision(world: World, shop: Shop, held: StageResult) -> None:
    # When
    version = world.table("silver", "orders-valid__quarantine").version
    result = _decide(world, shop, "retry", key="retry-1")

    # Then
    assert result.observation.reason == "quarantined"
    assert result.observation.token != held.observation.token
    assert world.table("silver", "orders-valid__quarantine").version == version + 1
    assert not world.folder("silver", "orders-valid__decisions").exists()
    assert world.observe("orders-valid", shop.validator) == result.observation
    assert _decide(world, shop, "retry", key="retry-1").observation == result.observation
    assert world.table("silver", "orders-valid__quarantine").version == version + 1


def test_a_decided_file_is_not_asked_about_again_even_renamed(world: World, shop: Shop, held: StageResult) -> None:
    _decide(world, shop, "drop-rows")
    (world.data / "orders/b.csv").rename(world.data / "orders/c.csv")
    world.put("orders/d.csv", f"{HEADER}20,1.00,DE\n")
    assert shop.run(world, shop.silver())[-1].observation.status is Status.PRESENT
    assert _good(world) == [1, 11, 2, 20, 3]


def test_a_decision_covers_the_files_that_breached_and_no_others(world: World, shop: Shop) -> None:
    # Given: a.csv has one bad row within tolerance, b.csv breaches
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD + "4,-1.00,DE\n")
    world.put("orders/b.csv", DIRTY)
    shop.run(world, shop.silver())

    # When
    _decide(world, shop, "accept-rows")

    # Then
    assert 4 not in _good(world)
    assert _bad(world) == [(4, "undecided")]


def test_changed_content_is_judged_anew_in_the_same_episode(world: World, shop: Shop, held: StageResult) -> None:
    _decide(world, shop, "drop-rows")
    world.put("orders/b.csv", DIRTY.replace("11,", "21,"))
    assert shop.run(world, shop.silver())[-1].observation.reason == "quarantined"


def test_new_input_while_held_changes_the_token_only_and_may_end_the_hold(
    world: World, shop: Shop, held: StageResult
) -> None:
    world.put("orders/b.csv", f"{HEADER}11,1.00,DE\n")
    shop.run(world, shop.silver()[:3])
    seen = world.observe("orders-valid", shop.validator)
    assert (seen.reason, seen.hold, seen.token != held.observation.token) == ("quarantined", True, True)
    assert world.provision("orders-valid", shop.validator).observation.status is Status.PRESENT
    assert _good(world) == [1, 11, 2, 3]


def test_another_spec_ends_a_hold(world: World, shop: Shop, held: StageResult) -> None:
    lax = Shop(quality_threshold=0.2)
    assert world.observe("orders-valid", lax.validator).reason == "spec_changed"
    assert world.provision("orders-valid", lax.validator).observation.status is Status.PRESENT


def test_a_decision_delivered_twice_is_kept_once(world: World, shop: Shop, held: StageResult) -> None:
    _decide(world, shop, "drop-rows", key="k")
    rows = world.rows("silver", "orders-valid__decisions", "check", "decision", "by", "workitem")
    assert _decide(world, shop, "drop-rows", key="k").observation.status is Status.PRESENT
    assert world.rows("silver", "orders-valid__decisions", "check", "decision", "by", "workitem") == rows
    assert rows[0] == ("amount:cast", "drop", "ann", "wi-9")


def test_an_unknown_decision_is_refused(world: World, shop: Shop, held: StageResult) -> None:
    with pytest.raises(Permanent, match="accept-rows, drop-rows, retry"):
        _decide(world, shop, "shrug")


def test_a_decision_for_a_stage_that_is_not_held_changes_nothing(world: World, shop: Shop) -> None:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver())
    assert _decide(world, shop, "drop-rows").observation.status is Status.PRESENT
    assert _good(world) == [1, 2, 3]


def test_unique_fails_every_copy_and_nulls_are_no_copies(world: World) -> None:
    shop = Shop(quality_threshold=0.0, checks=(specs.Check("order_id", "unique"),))
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", f"{HEADER}1,1.00,DE\n2,1.00,DE\n,1.00,DE\n,2.00,DE\n")
    world.put("orders/b.csv", f"{HEADER}1,3.00,DE\n")
    shop.run(world, shop.silver())
    assert world.rows("silver", "orders-valid", "order_id") == [(2,), (None,), (None,)]
    assert len(world.rows("silver", "orders-valid__quarantine")) == 2


def test_crash_between_quarantine_and_good_rows_is_made_good(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    shop.run(world, shop.silver()[:3])

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("holdfast_pipeline.validating._publish", crash)
        with pytest.raises(KeyboardInterrupt):
            world.provision("orders-valid", shop.validator)
    assert world.observe("orders-valid", shop.validator).status is Status.ABSENT
    assert world.provision("orders-valid", shop.validator).observation.status is Status.PRESENT
    assert _good(world) == [1, 2, 3]


@pytest.mark.parametrize(
    ("check", "dtype", "values", "failed"),
    [
        (specs.Check("x", "ge", 0.1), pl.Decimal(12, 2), [Decimal("0.10"), Decimal("0.09"), None], [False, True, None]),
        (specs.Check("x", "gt", "0.10"), pl.Decimal(12, 2), [Decimal("0.10"), Decimal("0.11")], [True, False]),
        (specs.Check("x", "le", 2), pl.Float64(), [2.0, 2.5, float("nan")], [False, True, True]),
        (specs.Check("x", "lt", 1.5), pl.Int64(), [1, 2], [False, True]),
        (specs.Check("x", "eq", "a"), pl.String(), ["a", "b"], [False, True]),
        (specs.Check("x", "ne", True), pl.Boolean(), [True, False], [True, False]),
        (specs.Check("x", "in", ["a", "b"]), pl.String(), ["a", "c", None], [False, True, None]),
        (specs.Check("x", "not_in", [1, 2]), pl.Int64(), [1, 3], [True, False]),
        (specs.Check("x", "in", []), pl.Int64(), [1, None], [True, False]),
        (specs.Check("x", "pattern", "^[A-Z]{2}$"), pl.String(), ["DE", "DEU"], [False, True]),
        (specs.Check("x", "min_length", 2), pl.String(), ["ü", "üb"], [True, False]),
        (specs.Check("x", "max_length", 1), pl.String(), ["ü", "üb"], [False, True]),
        (specs.Check("x", "ge", "2024-01-02"), pl.Date(), [date(2024, 1, 1), date(2024, 1, 2)], [True, False]),
        (specs.Check("x", "not_null"), pl.String(), ["", None], [False, True]),
        (specs.Check("rule", "expression", "x > 1"), pl.Int64(), [1, 2, None], [True, False, None]),
    ],
)
def test_each_kind_of_check(
    check: specs.Check, dtype: pl.DataType, values: list[object], failed: list[bool | None]
) -> None:
    frame = pl.DataFrame({"x": values}, schema={"x": dtype})
    assert frame.select(failing(check, dtype).alias("f"))["f"].to_list() == failed


def test_a_check_of_a_missing_column_is_permanent(world: World) -> None:
    shop = Shop(checks=(specs.Check("zz", "not_null"),))
    world.put("countries.csv", COUNTRIES)
    world.put("orders/a.csv", GOOD)
    with pytest.raises(Permanent, match="no column zz"):
        shop.run(world, shop.silver())


def test_the_share_is_compared_without_rounding() -> None:
    assert not FileShare("a", "s", good=98, bad=2).breaches(0.98)
    assert FileShare("a", "s", good=97, bad=3).breaches(0.98)
    assert not FileShare("a", "s", good=0, bad=0).breaches(1.0)
