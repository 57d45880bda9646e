"""What stands in a dungeon though nobody declares it, over real servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast_dungeon.domain import MOST, Builder, make_domain
from holdfast_dungeon.world import World
from holdfast_model.errors import Unavailable
from holdfast_model.names import GraphRef
from holdfast_sdk import Context
from holdfast_store.memory_kv import MemoryKv, MemoryServer
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually
from holdfast_testkit.watching import Watcher

from .conftest import REF, ask, publish

SPECS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "hall": ("room", {"size": 3}, ()),
    "crypt": ("room", {"size": 1}, ()),
    "hall--crypt": ("corridor", {"between": ["hall", "crypt"]}, ("hall", "crypt")),
    "grub": ("creature", {"room": "hall", "species": "goblin", "strength": 1}, ("hall",)),
}


async def build(world: World, ref: GraphRef = REF) -> None:
    """A dungeon as it was built for whoever declared it once."""
    for id, (type, spec, places) in SPECS.items():
        form = json.dumps(spec, separators=(",", ":"))
        await world.build(ref, id, type, form, places, f"once-{id}")


def context(type: str, ref: GraphRef = REF) -> Context:
    return Context(ref.tenant, ref.graph, "inc", "", 0, 0, 0.0, type=type)


async def left(told: Watcher, graph: str = REF.graph) -> list[tuple[str, str]]:
    reply = await ask(told, "rpc.planner.get", graph=graph)
    return [(row["id"], row["type"]) for row in reply["leftovers"]]


async def test_each_type_finds_its_own_things_of_its_own_graph() -> None:
    kv = MemoryKv(MemoryServer(lambda: 0.0))
    world = World(kv)
    await build(world)
    builder = Builder(world)
    found = {type: await builder.discover(context(type)) for type in ("room", "corridor", "creature", "trap")}
    assert {type: [(one.id, one.spec, one.depends_on) for one in each] for type, each in found.items()} == {
        "room": [("crypt", {"size": 1}, ()), ("hall", {"size": 3}, ())],
        "corridor": [("hall--crypt", {"between": ["hall", "crypt"]}, ("hall", "crypt"))],
        "creature": [("grub", SPECS["grub"][1], ("hall",))],
        "trap": [],
    }
    assert await builder.discover(context("room", GraphRef("acme", "other"))) == []
    assert await builder.discover(context("room", GraphRef("other", "lair"))) == []
    with pytest.raises(Unavailable, match="more than 3 things"):
        await world.things(REF, most=3)
    assert len(await world.things(REF, most=4)) == 4
    assert MOST >= 1000
    assert {t.scope for t in make_domain().manifest().types} == {"graph"}


async def test_what_nobody_declares_is_told_and_imported_and_taken_on_without_a_step(
    told: Watcher, world: World
) -> None:
    # Given a dungeon whose declaration was lost, a graph beside it, and a new thing declared in its place
    await build(world)
    await build(world, GraphRef(REF.tenant, "other"))
    await publish(told, {"rooms": [{"id": "cellar"}]})

    # Then what stands besides is told, and left alone
    await told.wait_for("graph.acme.lair.converged")
    await told.wait_for("node.acme.lair.leftover", len(SPECS))
    assert sorted(await left(told)) == sorted((id, type) for id, (type, *_) in SPECS.items())

    # And can be taken on as it is, all of it or some
    some = await ask(told, "rpc.planner.import", type="corridor")
    assert some["document"]["nodes"] == [
        {"id": "hall--crypt", "type": "corridor", "spec": {"between": ["hall", "crypt"]}}
    ]
    assert "2 dependencies are on what is not there" in some["warnings"][0]
    reply = await ask(told, "rpc.planner.import")
    assert (reply["without_spec"], reply["warnings"]) == ([], [])
    edges = {node["id"]: node.get("depends_on", []) for node in reply["document"]["nodes"]}
    assert edges == {id: list(places) for id, (_, _, places) in SPECS.items()}
    body = json.dumps(reply["document"]).encode()
    await told.client.jetstream().publish(f"blueprint.{REF.tenant}.{REF.graph}", body)
    await told.wait_for("graph.acme.lair.converged", 2)
    assert await left(told) == []
    assert {await world.times_built(REF, id) for id in SPECS} == {1}
    other = await ask(told, "rpc.planner.import", graph="other")
    assert len(other["found"]) == len(SPECS)


class TestRemoving:
    @pytest.fixture
    async def system(self, nats_url: str, redis_url: str) -> AsyncIterator[System]:
        quick = {
            "HOLDFAST_DUNGEON_RESYNC": "2", "HOLDFAST_DUNGEON_PACE": "0", "HOLDFAST_DUNGEON_LEFTOVERS": "remove",
        }  # fmt: skip
        async with System(
            nats_url, redis_url, services=("dungeon",), modules={"dungeon": "holdfast_dungeon"},
            env={"HOLDFAST_ADOPT_AFTER": "1"}, env_of={"dungeon": quick},
        ) as running:  # fmt: skip
            yield running

    async def test_where_a_setting_says_so_what_nobody_declares_is_taken_down(
        self, told: Watcher, world: World
    ) -> None:
        beside = GraphRef(REF.tenant, "other")
        await build(world)
        await build(world, beside)
        await publish(told, {"rooms": [{"id": "hall", "size": 3}]})

        async def only_the_hall() -> bool:
            return set(await world.things(REF)) == {"hall"}

        await eventually(only_the_hall)
        assert await world.times_built(REF, "hall") == 1
        assert set(await world.things(beside)) == set(SPECS)
