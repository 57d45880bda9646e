"""Which ladders apply: those of the highest live version of the domain that claims the type."""

from __future__ import annotations

import msgspec

from holdfast_fault_policy.catalog import Catalog
from holdfast_model.manifest import Ladder, Manifest, NodeType, Rung
from holdfast_store.domains import EXPIRY, Heartbeat, Registry, Version

NOW = 1000.0


def ladder(name: str, when: str = "true") -> Ladder:
    return Ladder(name, ["PROVISION_FAILED"], [Rung(when)])


def version(number: str, ladders: list[Ladder], *, live: bool = True) -> Version:
    seen = NOW if live else NOW - EXPIRY - 1
    return Version(Manifest("dns", number, [NodeType("record")], ladders=ladders), {"a": Heartbeat(seen, {})})


class Read:
    """Manifests that count how often they are read."""

    def __init__(self, *versions: Version) -> None:
        self.registered = Registry(versions, {"record": "dns"})
        self.times = 0

    async def registry(self) -> Registry:
        self.times += 1
        return self.registered


class Clock:
    at = 0.0

    def __call__(self) -> float:
        return self.at


def catalog(read: Read, *, clock: Clock | None = None, kept: int = 8) -> Catalog:
    return Catalog(read, refresh=2.0, clock=clock or Clock(), now=lambda: NOW, kept=kept)


async def test_the_highest_live_version_decides() -> None:
    read = Read(
        version("1.9", [ladder("old")]),
        version("1.10", [ladder("new")]),
        version("2.0", [ladder("gone")], live=False),
    )

    found = await catalog(read).policies("record")

    assert (found.domain, [x.name for x in found.ladders]) == ("dns", ["new"])


async def test_a_domain_that_is_not_running_keeps_its_ladders() -> None:
    read = Read(version("1", [ladder("a")], live=False), version("2", [ladder("b")], live=False))

    assert [x.name for x in (await catalog(read).policies("record")).ladders] == ["b"]


async def test_a_type_that_nobody_claims_has_no_policies() -> None:
    found = await catalog(Read(version("1", [ladder("a")]))).policies("other")

    assert (found.domain, found.ladders, found.problem) == ("", (), "")


async def test_manifests_are_read_again_when_they_are_old_only() -> None:
    read, clock = Read(version("1", [ladder("a")])), Clock()
    known = catalog(read, clock=clock)

    for clock.at in (0.0, 1.0, 1.9, 2.0):
        await known.policies("record")

    assert read.times == 2


async def test_ladders_are_compiled_once_and_the_memory_is_bounded() -> None:
    known = catalog(Read(version("1", [ladder("a")])), kept=2)

    first = (await known.policies("record")).ladders[0]
    for i in range(5):
        await known.policies("record", msgspec.json.encode([ladder(f"own-{i}")]))
        assert len(known._compiled) <= 2

    assert first.name == (await known.policies("record")).ladders[0].name


async def test_ladders_that_cannot_be_used_are_told_not_raised() -> None:
    found = await catalog(Read(version("1", [ladder("a", "count >")]))).policies("record")
    garbage = await catalog(Read(version("1", [ladder("a")]))).policies("record", b"{")

    assert "cannot be used" in found.problem
    assert "cannot be used" in garbage.problem
