"""The reconciler's writes and their fence."""

from __future__ import annotations

import pytest

from holdfast_model.errors import Fenced
from holdfast_store import keys
from holdfast_store.kv import Changed, Kv

from .between import Between, times
from .changes import REF, add, op
from .conftest import Client, Stores

STATE = keys.state(REF)


async def test_a_turn_is_written_while_its_owner_holds_the_epoch(stores: Stores) -> None:
    store = stores()
    await store.raise_epoch(REF, 3)
    await store.turn(REF, epoch=3, cmds=[("HSET", STATE, "n", "{}")])
    assert await store.state(REF, ["n", "m"]) == {"n": b"{}"}


async def test_a_new_owner_fences_the_old_one_off(stores: Stores) -> None:
    # Given an owner, and a new one that raised the epoch
    old, new = stores(), stores()
    await old.raise_epoch(REF, 1)
    await new.raise_epoch(REF, 2)
    # When / Then
    with pytest.raises(Fenced):
        await old.turn(REF, epoch=1, cmds=[("HSET", STATE, "n", "{}")])
    with pytest.raises(Fenced):
        await old.raise_epoch(REF, 1)
    assert await old.state(REF, ["n"]) == {}
    await new.raise_epoch(REF, 2)
    await new.turn(REF, epoch=2, cmds=[("HSET", STATE, "n", "{}")])


async def test_an_epoch_that_nobody_raised_is_no_licence(stores: Stores) -> None:
    with pytest.raises(Fenced):
        await stores().turn(REF, epoch=1, cmds=[("HSET", STATE, "n", "{}")])


async def test_an_epoch_raised_during_the_turn_aborts_it(stores: Stores, kv: Kv) -> None:
    # Given an owner that pauses between its read and its EXEC
    between, new = Between(kv), stores()
    old = stores(between)
    await old.raise_epoch(REF, 1)
    # When another owner comes meanwhile
    between.before_commit = times(1, lambda: new.raise_epoch(REF, 2))
    # Then
    with pytest.raises(Fenced):
        await old.turn(REF, epoch=1, cmds=[("HSET", STATE, "n", "{}")])
    assert await new.state(REF, ["n"]) == {}


async def test_a_turn_that_rests_on_a_version_fails_when_the_graph_moved(stores: Stores, kv: Kv) -> None:
    # Given a graph at version 1
    between, writer = Between(kv), stores()
    owner = stores(between)
    await owner.raise_epoch(REF, 1)
    await writer.commit(REF, op("0"), add("n"))
    await owner.turn(REF, epoch=1, at_version=1, cmds=[("HSET", STATE, "n", "1")])
    # When it moves before or during the turn / Then the turn is not written
    with pytest.raises(Changed):
        await owner.turn(REF, epoch=1, at_version=0, cmds=[("HSET", STATE, "n", "2")])

    async def move() -> None:
        await writer.commit(REF, op("1"), add("m"))

    between.before_commit = times(1, move)
    with pytest.raises(Changed):
        await owner.turn(REF, epoch=1, at_version=1, cmds=[("HSET", STATE, "n", "3")])
    assert await owner.state(REF, ["n"]) == {"n": b"1"}
    # But a turn that does not depend on the graph goes through
    between.before_commit = times(1, move)
    await owner.turn(REF, epoch=1, cmds=[("HSET", STATE, "n", "4")])
    assert await owner.state(REF, ["n"]) == {"n": b"4"}


async def test_the_same_turn_is_written_once(stores: Stores, client: Client) -> None:
    store = stores()
    await store.raise_epoch(REF, 1)
    for _ in range(2):
        await store.turn(REF, epoch=1, turn_id="t1", cmds=[("HINCRBY", keys.meta(REF), "operation", 1)])
    assert await store.meta(REF) == {"operation": b"1"}


async def test_a_turn_does_not_disturb_commits(stores: Stores) -> None:
    # Given a replica
    store = stores()
    await store.raise_epoch(REF, 1)
    await store.commit(REF, op("0"), add("n"))
    # When the owner writes
    await store.turn(REF, epoch=1, cmds=[("HSET", STATE, "n", "1")])
    # Then neither the version nor the log moved
    assert await store.version(REF) == 1
    assert len(await store.log(REF)) == 1
