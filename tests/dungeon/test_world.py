"""Raids and steps on the world: the same claims on the in-memory twin and on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast_dungeon import raiding
from holdfast_dungeon.raiding import Kind
from holdfast_dungeon.things import Thing
from holdfast_dungeon.world import World
from holdfast_model.errors import IllegalState, NotFound, Temporary
from holdfast_store.memory_kv import MemoryKv, MemoryServer
from holdfast_store.redis_kv import RedisKv

from .lairs import REF


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[World]:
    if request.param == "memory":
        yield World(MemoryKv(MemoryServer(lambda: 0.0)))
        return
    kv = RedisKv(redis_url)
    yield World(kv)
    await kv.close()


async def furnish(world: World) -> None:
    """A hall with a goblin and a trap, and a crypt beside it."""
    for id, type, places in (
        ("hall", "room", ()),
        ("crypt", "room", ()),
        ("way", "corridor", ("hall", "crypt")),
        ("grub", "creature", ("hall",)),
        ("pit", "trap", ("hall",)),
    ):
        await world.build(REF, id, type, "{}", places, f"first:{id}")


@pytest.mark.parametrize(
    ("posture", "target", "fate"),
    [
        ("FORTIFY", "nexus-L", "damaged"),
        ("FORTIFY", "nexus-M", "destroyed"),
        ("FORTIFY", "garrison-L", "destroyed"),
        ("PATROL", "nexus-L", "destroyed"),
    ],
)
async def test_a_garrison_that_fortifies_its_location_lets_nothing_there_fall_but_itself(
    world: World, posture: str, target: str, fate: str
) -> None:
    for place in "LM":
        await world.build(REF, f"nexus-{place}", "nexus", f'{{"location":"{place}"}}', (), place)
    garrison = f'{{"location":"L","posture":"{posture}"}}'
    await world.build(REF, "garrison-L", "garrison", garrison, (), "g")

    raid = await world.raid(REF, "r", Kind.DESTROY, 1, target)

    assert [(v.node, v.fate) for v in raid.victims] == [(target, fate)]
    assert (target in await world.things(REF)) is (fate == "damaged")


async def test_a_step_that_comes_twice_builds_once(world: World) -> None:
    first = await world.build(REF, "hall", "room", "{}", (), "key")
    second = await world.build(REF, "hall", "room", "{}", (), "key")

    assert first == second
    assert await world.times_built(REF, "hall") == 1


async def test_a_step_that_comes_again_after_a_raid_does_not_undo_it(world: World) -> None:
    await world.build(REF, "hall", "room", "{}", (), "key")
    await world.raid(REF, "r", Kind.DESTROY, 1, "hall")

    assert await world.build(REF, "hall", "room", "{}", (), "key") is None
    assert await world.things(REF) == {}


async def test_copies_of_a_step_at_the_same_time_build_once(world: World) -> None:
    await asyncio.gather(*(world.build(REF, "hall", "room", "{}", (), "key") for _ in range(10)))

    assert await world.times_built(REF, "hall") == 1


async def test_nothing_is_built_where_there_is_no_room(world: World) -> None:
    with pytest.raises(Temporary) as waits:
        await world.build(REF, "grub", "creature", "{}", ("hall",), "key")

    assert waits.value.reason == "no_room"


async def test_a_room_falls_with_everything_in_it(world: World) -> None:
    await furnish(world)

    raid = await world.raid(REF, "r", Kind.DESTROY, 1, "hall")

    assert [(v.node, v.fate) for v in raid.victims] == [
        ("hall", "destroyed"),
        ("grub", "killed"),
        ("pit", "destroyed"),
        ("way", "destroyed"),
    ]
    assert set(await world.things(REF)) == {"crypt"}


async def test_a_raid_asked_for_again_happened_once(world: World) -> None:
    # Given a raid whose reply was lost, and what was destroyed built again
    await furnish(world)
    first = await world.raid(REF, "r", Kind.DESTROY, 1, "pit")
    await world.build(REF, "pit", "trap", "{}", ("hall",), "second")

    # When it is asked for again
    again = await world.raid(REF, "r", Kind.DESTROY, 1, "pit")

    # Then the answer is the same, and the new trap stands
    assert again == first
    assert "pit" in await world.things(REF)


async def test_raids_at_the_same_time_kill_each_creature_once(world: World) -> None:
    await world.build(REF, "hall", "room", "{}", (), "hall")
    for n in range(5):
        await world.build(REF, f"c{n}", "creature", "{}", ("hall",), f"c{n}")

    raids = await asyncio.gather(*(world.raid(REF, f"r{n}", Kind.KILL, n) for n in range(5)))

    assert sorted(raid.victims[0].node for raid in raids) == [f"c{n}" for n in range(5)]


async def test_damage_changes_the_token_until_it_is_built_again(world: World) -> None:
    await furnish(world)

    await world.raid(REF, "r", Kind.DEGRADE, 1, "hall")
    (hurt,) = await world.look(REF, ["hall"])
    healed = await world.build(REF, "hall", "room", "{}", (), "second")

    assert hurt is not None
    assert (hurt.damage, hurt.token) == ("damaged", "1.1")
    assert healed is not None
    assert (healed.damage, healed.token) == ("", "2.0")


async def test_a_raid_on_what_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        await world.raid(REF, "r", Kind.DESTROY, 1, "hall")
    with pytest.raises(IllegalState, match="nothing is left"):
        await world.raid(REF, "r", Kind.KILL, 1)


THINGS = {
    "hall": Thing("hall", "room", "{}"),
    "crypt": Thing("crypt", "room", "{}", damage="damaged"),
    "grub": Thing("grub", "creature", "{}", ("hall",)),
}


@pytest.mark.parametrize(("kind", "target"), [(Kind.KILL, "hall"), (Kind.DESTROY, "grub"), (Kind.DEGRADE, "crypt")])
def test_a_raid_that_does_not_fit_its_target_is_refused(kind: Kind, target: str) -> None:
    with pytest.raises(IllegalState, match=f"cannot {kind}"):
        raiding.plan("r", kind, 1, target, THINGS)


def test_the_seed_alone_chooses_the_target() -> None:
    many = {f"r{n}": Thing(f"r{n}", "room", "{}") for n in range(20)}

    chosen = [raiding.choose(many, Kind.DESTROY, seed) for seed in range(50)]

    assert chosen == [raiding.choose(dict(reversed(many.items())), Kind.DESTROY, seed) for seed in range(50)]
    assert len(set(chosen)) > 5
