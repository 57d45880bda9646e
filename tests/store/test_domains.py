"""Manifests, heartbeats, claims of types, preferences."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_model.errors import Invalid
from holdfast_model.manifest import Announcement, Manifest, NodeType
from holdfast_store.domains import Domains, Preferences
from holdfast_store.kv import Kv

from .conftest import Client


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def domains(kv: Kv, clock: Clock) -> Domains:
    return Domains(kv, clock)


def announcement(
    domain: str = "dns", version: str = "1.0", instance: str = "a", types: tuple[str, ...] = ("record",), slots: int = 2
) -> Announcement:
    manifest = Manifest(domain, version, [NodeType(t) for t in types])
    return Announcement(manifest, instance, dict.fromkeys(types, slots))


async def test_the_highest_live_version_speaks_for_the_domain(domains: Domains, clock: Clock) -> None:
    # Given three versions
    assert await domains.announce(announcement(version="1.9")) == "1.9"
    assert await domains.announce(announcement(version="1.10", instance="b")) == "1.10"
    assert await domains.announce(announcement(version="1.2", instance="c")) == "1.10"
    # When the highest is not heard of any more
    clock.now += 20
    await domains.announce(announcement(version="1.9"))
    clock.now += 15
    # Then the next one speaks, and the manifests stay
    registry = await domains.registry()
    newest = registry.newest_live("dns", clock.now)
    assert newest is not None
    assert newest.version == "1.9"
    assert [v.manifest.version for v in registry.versions("dns")] == ["1.2", "1.9", "1.10"]


async def test_expiry_ends_liveness_and_not_the_manifest(domains: Domains, clock: Clock) -> None:
    # Given
    await domains.announce(announcement())
    # When
    clock.now += 31
    registry = await domains.registry()
    # Then
    assert registry.live(clock.now) == []
    assert registry.newest_live("dns", clock.now) is None
    assert registry.slots("dns", "record", clock.now) == 0
    assert registry.names() == ["dns"]
    known = registry.manifest("dns", clock.now)
    assert known is not None
    assert known.version == "1.0"
    assert registry.domain_of("record") == "dns"
    # And a heartbeat makes it live again
    await domains.announce(announcement())
    assert (await domains.registry()).live(clock.now) == ["dns"]


async def test_slots_of_live_instances_of_the_newest_version_add_up(domains: Domains, clock: Clock) -> None:
    await domains.announce(announcement(version="1.0", instance="old", slots=10))
    await domains.announce(announcement(version="2.0", instance="a", slots=2))
    await domains.announce(announcement(version="2.0", instance="b", slots=3))
    assert (await domains.registry()).slots("dns", "record", clock.now) == 5
    # When one says that it leaves
    leaving = announcement(version="2.0", instance="b")
    await domains.announce(Announcement(leaving.manifest, "b", {}, leaving=True))
    # Then
    assert (await domains.registry()).slots("dns", "record", clock.now) == 2
    assert (await domains.registry()).slots("dns", "none", clock.now) == 0


async def test_slots_for_reviews_are_those_that_were_announced(domains: Domains, clock: Clock) -> None:
    announced = announcement()
    await domains.announce(Announcement(announced.manifest, "a", {"record": 2, "ai-review": 5}))
    assert (await domains.registry()).slots("dns", "ai-review", clock.now) == 5
    assert (await domains.registry()).slots("other", "ai-review", clock.now) == 0


async def test_a_type_that_another_domain_claimed_is_refused_naming_both(domains: Domains, clock: Clock) -> None:
    # Given
    await domains.announce(announcement("dns", types=("zone", "record")))
    # When
    with pytest.raises(Invalid) as refused:
        await domains.announce(announcement("web", types=("page", "record")))
    # Then both are named, the place too, and nothing of the second is kept
    assert "'dns'" in refused.value.message
    assert "'web'" in refused.value.message
    assert [p.path for p in refused.value.problems] == ["/types/1/name"]
    registry = await domains.registry()
    assert registry.names() == ["dns"]
    assert registry.domain_of("page") is None
    # Even when the first is not running
    clock.now += 3600
    with pytest.raises(Invalid):
        await domains.announce(announcement("web", types=("record",)))
    # But once it is forgotten the type is free
    assert await domains.forget("dns")
    assert not await domains.forget("dns")
    assert await domains.announce(announcement("web", types=("record",))) == "1.0"


async def test_of_two_domains_that_claim_a_type_at_once_one_is_refused(client: Client, clock: Clock) -> None:
    done = await asyncio.gather(
        *[Domains(client(), clock).announce(announcement(f"d{i}")) for i in range(6)], return_exceptions=True
    )
    assert sum(isinstance(d, Invalid) for d in done) == 5
    registry = await Domains(client(), clock).registry()
    assert registry.names() == [registry.domain_of("record")]


async def test_a_manifest_that_is_not_valid_is_refused(domains: Domains) -> None:
    with pytest.raises(Invalid):
        await domains.announce(announcement(types=("human-review",)))
    assert (await domains.registry()).names() == []


async def test_a_manifest_may_change_under_its_version(domains: Domains) -> None:
    await domains.announce(announcement(types=("record",)))
    await domains.announce(announcement(types=("record", "zone")))
    registry = await domains.registry()
    assert [t.name for t in registry.versions("dns")[0].manifest.types] == ["record", "zone"]
    assert registry.domain_of("zone") == "dns"


async def test_instances_that_are_long_gone_are_dropped(domains: Domains, clock: Clock) -> None:
    await domains.announce(announcement())
    clock.now += 3601
    await domains.registry()
    assert (await domains.registry()).versions("dns")[0].instances == {}


async def test_since_when_a_domain_is_gone_is_known_however_it_ended(domains: Domains, clock: Clock) -> None:
    assert (await domains.registry()).gone_since("dns", clock.now) is None
    await domains.announce(announcement())
    assert (await domains.registry()).gone_since("dns", clock.now) is None
    # Given one that is not heard of any more, for a long time
    clock.now += 100
    assert (await domains.registry()).gone_since("dns", clock.now) == 1030
    clock.now += 10_000
    for _ in range(2):
        assert (await domains.registry()).gone_since("dns", clock.now) == 1030
    # And one that said goodbye
    await domains.announce(announcement())
    left = clock.now = clock.now + 5
    await domains.announce(Announcement(announcement().manifest, "a", {}, leaving=True))
    clock.now += 100
    assert (await domains.registry()).gone_since("dns", clock.now) == left
    await domains.announce(announcement())
    assert (await domains.registry()).gone_since("dns", clock.now) is None


async def test_a_tenant_s_preference_comes_before_the_platform_s(kv: Kv) -> None:
    preferences = Preferences(kv)
    assert await preferences.get("acme", "resync") is None
    await preferences.set("", "resync", "PT5M")
    assert await preferences.get("acme", "resync") == "PT5M"
    await preferences.set("acme", "resync", {"every": 1})
    assert await preferences.get("acme", "resync") == {"every": 1}
    assert await preferences.all() == {("", "resync"): "PT5M", ("acme", "resync"): {"every": 1}}
    await preferences.unset("acme", "resync")
    assert await preferences.get("acme", "resync") == "PT5M"
