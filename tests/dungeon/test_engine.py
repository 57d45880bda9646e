"""The domain under the planner's own reconciler, in virtual time."""

from __future__ import annotations

from holdfast_dungeon.domain import Builder, make_domain
from holdfast_dungeon.raiding import Kind
from holdfast_sdk.testing import harness

from .lairs import LAIR, REF, TAME, memory_world


async def test_a_dungeon_is_built_and_removed() -> None:
    world = memory_world()
    async with harness(make_domain(), Builder(world)) as h:
        await h.apply(TAME)
        await h.converged()
        assert set(await world.things(REF)) == {"hall", "crypt", "hall--crypt", "grub", "spikes"}
        await h.delete()
        await h.converged()
        assert await world.things(REF) == {}


async def test_what_a_raid_destroys_is_rebuilt_in_order() -> None:
    world = memory_world()
    async with harness(make_domain(), Builder(world)) as h:
        await h.apply(TAME)
        await h.converged()

        raid = await world.raid(REF, "r", Kind.DESTROY, 1, "hall")
        await h.wake(*(victim.node for victim in raid.victims))
        await h.converged()

        assert {await world.times_built(REF, victim.node) for victim in raid.victims} == {2}
        assert await world.times_built(REF, "crypt") == 1


async def test_damage_is_found_by_the_next_look_and_mended() -> None:
    world = memory_world()
    async with harness(make_domain(), Builder(world)) as h:
        await h.apply(TAME)
        await h.converged()
        await h.advance("1s")  # the timer of regular looks runs from here

        await world.raid(REF, "r", Kind.DEGRADE, 1, "spikes")
        await h.advance("10s")

        assert [(f.node, f.type, f.reason) for f in h.faults] == [("spikes", "NODE_DEGRADED", "damaged")]
        assert (await world.things(REF))["spikes"].damage == ""


async def test_a_human_agrees_before_its_creature_comes_and_before_it_comes_back() -> None:
    world = memory_world()
    async with harness(make_domain(), Builder(world)) as h:
        # Given a dragon that needs a human
        await h.apply(LAIR)
        await h.advance("10s")
        assert "dragon" not in await world.things(REF)
        assert [item.node for item in h.workitems] == ["dragon"]

        # When somebody agrees, then it comes
        await h.decide("dragon", h.workitem("dragon").outcomes[0])
        await h.converged()
        assert "dragon" in await world.things(REF)

        # When it is killed, then it does not come back by itself
        await world.raid(REF, "r", Kind.KILL, 1, "dragon")
        await h.advance("30s")
        assert "dragon" not in await world.things(REF)
        await h.decide("dragon", h.workitem("dragon").outcomes[0])
        await h.converged()
        assert await world.times_built(REF, "dragon") == 2


async def test_a_stronger_creature_is_work_and_no_fault() -> None:
    world = memory_world()
    async with harness(make_domain(), Builder(world)) as h:
        await h.apply(TAME)
        await h.converged()
        stronger = {**TAME, "creatures": [{"id": "grub", "room": "hall", "strength": 5}]}
        await h.apply(stronger)
        await h.converged()

        assert '"strength":5' in (await world.things(REF))["grub"].form
        assert h.faults == []
