"""Partitions: one owner at a time, an epoch that only rises."""

from __future__ import annotations

import asyncio
import time

import pytest

from holdfast_store import keys
from holdfast_store.kv import Kv
from holdfast_store.leases import Lease, Leases, share
from holdfast_testkit.waiting import eventually

from .between import Between, times
from .conftest import Client


def _leases(client: Client, instance: str, ttl: float = 60.0) -> Leases:
    return Leases(client(), instance, time.time, ttl)


async def test_one_of_many_planners_gets_the_partition(client: Client) -> None:
    # When ten planners want it at once
    got = await asyncio.gather(*[_leases(client, f"p{i}").acquire(7) for i in range(10)])
    # Then one has it, and everyone can see who
    (lease,) = [lease for lease in got if lease is not None]
    assert (lease.partition, lease.epoch) == (7, 1)
    owners = await _leases(client, "x").owners()
    assert owners == {7: lease.holder.partition(" ")[2]}


async def test_the_epoch_rises_with_every_owner_and_never_expires(client: Client, kv: Kv) -> None:
    # Given a lease that is given back, and one that runs out
    one, two = _leases(client, "one", ttl=0.05), _leases(client, "two")
    first = await one.acquire(0)
    assert first is not None
    await one.release(first)
    second = await one.acquire(0)
    assert second is not None
    # When it is not renewed
    third = await eventually(lambda: two.acquire(0))
    # Then
    assert [first.epoch, second.epoch, third.epoch] == [1, 2, 3]
    assert await kv.run(("TTL", keys.partition_epoch(0))) == [-1]
    # And the old owner knows it, and cannot give away what is not its own
    assert not await one.renew(second)
    await one.release(second)
    assert await two.renew(third)


async def test_a_renewed_lease_lives_on(client: Client, kv: Kv) -> None:
    leases = _leases(client, "one")
    lease = await leases.acquire(1)
    assert lease is not None
    await kv.run(("PEXPIRE", keys.owner(1), 1000))
    assert await leases.renew(lease)
    assert (await kv.run(("PTTL", keys.owner(1))))[0] > 20_000
    assert await _leases(client, "two").acquire(1) is None


async def test_an_expired_lease_that_nobody_took_is_held_on_to(client: Client, kv: Kv) -> None:
    leases = _leases(client, "one")
    lease = await leases.acquire(1)
    assert lease is not None
    await kv.run(("DEL", keys.owner(1)))
    assert await leases.renew(lease)
    assert await leases.owners() == {1: "one"}


async def test_a_renewal_that_races_with_a_new_owner_is_lost(client: Client, kv: Kv) -> None:
    # Given an owner whose lease runs out while it renews
    between = Between(kv)
    old, new = Leases(between, "old", time.time), _leases(client, "new")
    lease = await old.acquire(2)
    assert lease is not None

    async def overtake() -> None:
        await client().run(("DEL", keys.owner(2)))
        assert await new.acquire(2) is not None

    between.before_commit = times(1, overtake)
    # When / Then
    assert not await old.renew(lease)
    assert await new.owners() == {2: "new"}


async def test_live_planners_are_counted_and_share_the_partitions(client: Client) -> None:
    # Given two that live and one that was last heard of long ago
    one, two = _leases(client, "one"), _leases(client, "two")
    gone = Leases(client(), "gone", lambda: time.time() - 600)
    await gone.announce()
    assert await one.announce() == 1
    assert await two.announce() == 2
    # When one leaves
    await two.leave()
    # Then
    assert await one.announce() == 1


@pytest.mark.parametrize(("live", "most"), [(0, 64), (1, 64), (2, 32), (3, 22), (64, 1), (100, 1)])
def test_a_planner_holds_its_share_at_most(live: int, most: int) -> None:
    assert share(live) == most


def test_a_lease_is_a_value() -> None:
    assert Lease(1, 2, "2 a") == Lease(1, 2, "2 a")
