"""A delta sink with keys: rows are replaced by key, all others stay, and a repeat changes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_model.errors import Permanent
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.engine import PendingApproval
from holdfast_pipeline.tables import Table

from .conftest import World

RAW = specs.IngestionSpec(specs.Source("prices", "prices.csv", "csv"))
GOLD = specs.Input("latest", specs.TRANSFORMER)
LATEST = specs.TransformerSpec(
    (specs.Input("clean", specs.CLEANSER),), "select item, shop, price from clean where item <> 'none'"
)
CLEAN = specs.CleanserSpec(
    specs.Input("raw", specs.INGESTION), (specs.Field("item"), specs.Field("shop"), specs.Field("price", "int64"))
)


def _sink(keys: tuple[str, ...] = ("item", "shop"), **more: object) -> specs.SinkSpec:
    return specs.SinkSpec(GOLD, "out", "delta", "upsert", keys=keys, **more)  # type: ignore[arg-type]


def _input(world: World, *lines: str, columns: str = "item,shop,price") -> None:
    world.put("prices.csv", "\n".join([columns, *lines]) + "\n")
    for node, spec in (("raw", RAW), ("clean", CLEAN), ("latest", LATEST)):
        world.provision(node, spec)


def _target(world: World) -> Table:
    table = Table.open(world.data / "out" / "cube")
    assert table is not None
    return table


def _rows(world: World) -> set[tuple[object, ...]]:
    frame = _target(world).scan().collect()
    rows = frame.select("item", "shop", "price").rows()
    assert len(rows) == len(set(rows))
    return set(rows)


def test_rows_are_replaced_by_key_and_all_others_stay(world: World) -> None:
    _input(world, "a,x,1", "b,x,2", "c,,3")
    assert world.provision("cube", _sink()).observation.status is Status.PRESENT
    _input(world, "b,x,20", "c,,30", "d,x,4")
    assert world.observe("cube", _sink()).reason == "stale"
    assert world.provision("cube", _sink()).observation.status is Status.PRESENT
    assert _rows(world) == {("a", "x", 1), ("b", "x", 20), ("c", None, 30), ("d", "x", 4)}


def test_a_repeat_commits_nothing_and_a_crash_before_the_ledger_publishes_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _input(world, "a,x,1")
    world.provision("cube", _sink())
    world.provision("cube", _sink())
    assert (_target(world).version, world.table("gold", "cube").version) == (0, 0)
    _input(world, "b,x,2")

    def crash(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("holdfast_pipeline.sinks.write", crash)
        with pytest.raises(KeyboardInterrupt):
            world.provision("cube", _sink())
    assert world.provision("cube", _sink()).observation.status is Status.PRESENT
    assert (_target(world).version, world.table("gold", "cube").version) == (1, 1)
    assert _rows(world) == {("a", "x", 1), ("b", "x", 2)}


def test_racing_upserts_of_one_step_make_one_commit(world: World) -> None:
    _input(world, "a,x,1")
    world.provision("cube", _sink())
    _input(world, "a,x,2", "b,x,2")
    world.race(world.task("cube", _sink(), key="same"))
    assert (_target(world).version, world.table("gold", "cube").version) == (1, 1)
    assert _rows(world) == {("a", "x", 2), ("b", "x", 2)}


def test_keys_that_are_not_unique_or_missing_are_permanent_and_publish_nothing(world: World) -> None:
    _input(world, "a,x,1", "a,x,2", "c,,1", "c,,2")
    with pytest.raises(Permanent, match=r"not unique.*'a', 'x'.*'c', 'None'"):
        world.provision("cube", _sink())
    with pytest.raises(Permanent, match="no key column colour"):
        world.provision("cube", _sink(("colour",)))
    assert not (world.data / "out").exists()


def test_what_somebody_deleted_comes_back_with_its_key_only(world: World) -> None:
    _input(world, "a,x,1", "b,x,2")
    world.provision("cube", _sink())
    _input(world, "b,x,3")
    world.provision("cube", _sink())
    DeltaTable(str(world.data / "out" / "cube")).delete()
    assert world.observe("cube", _sink()).reason == "stale"
    world.provision("cube", _sink())
    assert _rows(world) == {("b", "x", 3)}


def test_new_columns_are_null_in_older_rows_and_a_changed_type_is_permanent(world: World) -> None:
    _input(world, "a,x,1")
    world.provision("cube", _sink())
    _input(world, "b,x,2")
    wider = specs.TransformerSpec(LATEST.inputs, "select item, shop, price, price * 2 as twice from clean")
    world.provision("latest", wider)
    world.provision("cube", _sink())
    assert set(_target(world).scan().collect().select("item", "price", "twice").rows()) == {
        ("a", 1, None), ("b", 2, 4),
    }  # fmt: skip
    bent = specs.TransformerSpec(LATEST.inputs, "select item, shop, cast(price as double) as price from clean")
    world.provision("latest", bent)
    with pytest.raises(Permanent, match="price: Int64 there, Float64 given"):
        world.provision("cube", _sink())
    assert len(_rows(world)) == 2


def test_an_approval_shows_what_the_target_will_be_and_publishes_the_approved_version(world: World) -> None:
    # Given: a published target, another digest, and an input that moves on while a person thinks
    _input(world, "a,x,1", "b,x,2")
    world.provision("cube", _sink())
    _input(world, "b,x,3", "c,x,4")
    spec = _sink(approval_required=True)
    with pytest.raises(PendingApproval) as asked:
        world.provision("cube", spec)
    difference = cast("dict[str, object]", asked.value.summary["difference"])
    assert (asked.value.summary["rows"], difference["rows_before"]) == (3, 2)
    assert (difference["added"], difference["removed"]) == (2, 1)
    _input(world, "c,x,5")

    # When
    world.approve("cube", spec, asked.value.plan, asked.value.pins)

    # Then
    assert _rows(world) == {("a", "x", 1), ("b", "x", 3), ("c", "x", 4)}
    assert world.provision("cube", spec).observation.status is Status.PRESENT
    assert _rows(world) == {("a", "x", 1), ("b", "x", 3), ("c", "x", 5)}


_change = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), max_size=4)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(_change, st.booleans()), min_size=1, max_size=5))
def test_a_target_is_what_a_dictionary_would_be(steps: list[tuple[dict[str, int], bool]]) -> None:
    with tempfile.TemporaryDirectory() as base:
        world = World(Path(base) / "w")
        expected: dict[str, int] = {}
        again: Callable[[], object] = lambda: world.provision("cube", _sink(("item",)))  # noqa: E731
        for change, twice in steps:
            _input(world, *(f"{k},x,{v}" for k, v in change.items()), "none,x,0")
            again()
            if twice:
                again()
            expected |= change
            found = _target(world).scan().collect()
            assert dict(found.select("item", "price").rows()) == expected
            assert found.height == len(expected)
