"""What is there though nobody desires it: told, shown, and removed only where its type says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Told, World, thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


def put(world: World, kind: str, node: str, text: str = "1") -> None:
    (world.folder / kind).mkdir(exist_ok=True)
    (world.folder / kind / node).write_text(text)


def there(world: World, kind: str) -> list[str]:
    return sorted(path.name for path in (world.folder / kind).iterdir())


def plot(id: str, value: Any = "1", type: str = "plot") -> dict[str, Any]:
    return {"id": id, "type": type, "spec": {"value": value}}


async def left(told: Told, graph: str = "g") -> list[tuple[str, str]]:
    reply = await told.ask("get", graph=graph)
    return [(row["id"], row["type"]) for row in reply["leftovers"]]


async def test_leftovers_are_told_and_shown_and_left_alone(system: System, told: Told, world: World) -> None:
    # Given two plots, of which one is declared, in a graph that uses the domain by another type
    put(world, "plot", "stray", "7")
    put(world, "plot", "mine")
    await told.publish("g", {"nodes": [thing("a"), plot("mine")]})

    # Then the other one is told once, and shown with what is known of it
    found = await told.wait_for("node.default.g.leftover")
    assert (found["node"], found["nodeType"], found["adoptOrphans"]) == ("stray", "plot", "report")
    await told.wait_for("graph.default.g.converged")
    reply = await told.ask("get", graph="g")
    (row,) = reply["leftovers"]
    assert (row["id"], row["spec"], row["detail"]) == ("stray", {"value": "7"}, "it is left alone")
    assert reply["graph"]["leftovers"] == 1
    explained = await told.ask("explain", graph="g", node="stray")
    assert explained["summary"] == "stray is a leftover (plot): it is there, and nobody desires it; it is left alone"
    assert "error" in await told.ask("explain", graph="g", node="nothing")

    # And looking again tells nothing new, and does nothing
    await told.ask("reconcile", graph="g")
    put(world, "plot", "later")
    await told.ask("reconcile", graph="g")
    await told.wait_for("node.default.g.leftover", 2)
    assert [d["node"] for d in told.of("node.default.g.leftover")] == ["stray", "later"]
    assert there(world, "plot") == ["later", "mine", "stray"]
    assert world.log() == [("provision", "a")]


async def test_a_graph_that_desires_nothing_finds_leftovers_and_removes_none(
    system: System, told: Told, world: World
) -> None:
    put(world, "plot", "stray")
    put(world, "weed", "thistle")
    await told.publish("g", {"nodes": []})
    await told.wait_for("node.default.g.leftover", 2)
    assert await left(told) == [("stray", "plot"), ("thistle", "weed")]
    (told_of,) = [d for d in told.of("node.default.g.leftover") if d["node"] == "thistle"]
    assert "nothing in this graph is in force that uses 'world'" in told_of["detail"]
    await told.ask("reconcile", graph="g")
    assert there(world, "weed") == ["thistle"]


async def test_a_type_that_says_so_has_its_leftovers_removed(system: System, told: Told, world: World) -> None:
    # Given a blueprint of the domain that desires nothing of that type
    for name, text in {"thistle": "1", "nettle": ""}.items():
        put(world, "weed", name, text)
    await told.publish("g", {"domain": "world", "spec": {"things": {}}})

    # Then they are told, found again, removed, and forgotten
    await told.wait_for("node.default.g.leftover", 2)
    await eventually(lambda: there(world, "weed") == [])
    assert sorted(world.log()) == [("deprovision", "nettle"), ("deprovision", "thistle")]
    await told.wait_for("graph.default.g.converged", 2)
    assert await left(told) == []
    entries = (await told.ask("log", graph="g"))["entries"]
    adopted = [m for e in entries for op in e["ops"] for m in op["mutations"] if m["kind"] == "ADOPT"]
    assert sorted(node for m in adopted for node in m["nodes"]) == ["nettle (weed)", "thistle (weed)"]


async def test_what_another_graph_desires_or_removes_is_nobodys_leftover(
    system: System, told: Told, world: World
) -> None:
    # Given a weed that one graph keeps, and another graph that removes weeds
    await told.publish("keeper", {"nodes": [plot("rose", type="weed"), plot("lily", type="plot")]})
    await told.wait_for("graph.default.keeper.converged")
    put(world, "weed", "thistle")
    await told.publish("g", {"nodes": [plot("mine", type="weed")]})

    # Then only what nobody desires goes
    await eventually(lambda: there(world, "weed") == ["mine", "rose"])
    assert [d["node"] for d in told.of("node.default.g.leftover")] == ["thistle"]
    assert there(world, "plot") == ["lily"]

    # And what the other graph cannot remove yet is its own business
    await told.ask("pause", graph="keeper")
    await told.publish("keeper", {"nodes": [plot("lily", type="plot")]})
    await told.wait_for("graph.default.keeper.accepted", 2)
    await told.ask("reconcile", graph="g")
    put(world, "weed", "nettle")
    await told.ask("reconcile", graph="g")
    await eventually(lambda: ("deprovision", "nettle") in world.log())
    await eventually(lambda: there(world, "weed") == ["mine", "rose"])


async def test_what_a_phase_to_come_declares_is_nobodys_leftover(system: System, told: Told, world: World) -> None:
    # Given two weeds, of which the second phase declares one, and a first phase that waits for a person
    put(world, "weed", "rose")
    put(world, "weed", "thistle")
    first = {"nodes": [{**thing("gate"), "gating": "ALL"}, plot("mine", type="weed")]}
    second = {"nodes": [plot("rose", type="weed")]}
    await told.publish("g", {"phases": [{"id": "one", "graph": first}, {"id": "two", "graph": second}]})

    # Then the other one goes, and that one stays, and is not to be imported
    await eventually(lambda: ("deprovision", "thistle") in world.log())
    await told.ask("reconcile", graph="g")
    put(world, "weed", "nettle")
    await told.ask("reconcile", graph="g")
    await eventually(lambda: ("deprovision", "nettle") in world.log())
    assert {d["node"] for d in told.of("node.default.g.leftover")} == {"thistle", "nettle"}
    await eventually(lambda: there(world, "weed") == ["mine", "rose"])
    assert (await told.ask("import", graph="g", type="weed"))["found"] == []


async def test_a_search_that_fails_removes_and_forgets_nothing(system: System, told: Told, world: World) -> None:
    put(world, "plot", "stray")
    await told.publish("g", {"nodes": [thing("a")]})
    await told.wait_for("node.default.g.leftover")
    put(world, "plot", "closed")
    await told.ask("reconcile", graph="g")
    put(world, "weed", "thistle")
    await told.ask("reconcile", graph="g")
    await eventually(lambda: there(world, "weed") == [])
    assert await left(told) == [("stray", "plot")]


async def test_a_leftover_is_told_once_whoever_owns_the_graph_and_a_deleted_graph_has_none(
    make_system: Callable[..., System], own_told: Told, world: World
) -> None:
    put(world, "plot", "stray")
    async with make_system(HOLDFAST_LEASE_TTL="1.5") as system:
        await own_told.publish("g", {"nodes": [thing("a")]})
        await own_told.wait_for("node.default.g.leftover")
        await own_told.wait_for("graph.default.g.converged")
        await system.planners[0].kill()
        await system.planners[0].restart()
        assert await left(own_told) == [("stray", "plot")]
        await own_told.ask("reconcile", graph="g")
        put(world, "plot", "later")
        await own_told.ask("reconcile", graph="g")
        await own_told.wait_for("node.default.g.leftover", 2)
        assert [d["node"] for d in own_told.of("node.default.g.leftover")] == ["stray", "later"]

        await own_told.publish("g", {"delete": True})
        await own_told.wait_for("graph.default.g.deleted")
        assert await left(own_told) == []
        assert there(world, "plot") == ["later", "stray"]


async def test_what_is_declared_and_there_already_is_taken_on_without_a_step(
    system: System, told: Told, world: World
) -> None:
    put(world, "plot", "p")
    (world.folder / "a.json").write_text('{"value": 1}')
    await told.publish("g", {"nodes": [thing("a"), plot("p")]})
    await told.wait_for("graph.default.g.converged")
    assert await told.phases("g") == {"a": "present", "p": "present"}
    assert world.log() == []


async def test_what_was_found_is_imported_as_a_blueprint_and_taken_on_without_a_step(
    system: System, told: Told, world: World
) -> None:
    # Given things that are there, of which another graph desires one, and a graph that never was
    for node, text in {"p": "1", "q": "2", "theirs": "3", "nameless": ""}.items():
        put(world, "plot", node, text)
    await told.publish("other", {"nodes": [plot("theirs", "3")]})
    await told.wait_for("graph.default.other.converged")

    # When they are imported
    reply = await told.ask("import", graph="g", type="plot")
    assert reply["document"]["name"] == "imported"
    assert reply["document"]["nodes"] == [
        {"id": "nameless", "type": "plot", "spec": {}},
        {"id": "p", "type": "plot", "spec": {"value": "1"}},
        {"id": "q", "type": "plot", "spec": {"value": "2"}},
    ]
    assert reply["without_spec"] == ["nameless"]
    assert "fill them in" in reply["warnings"][0]
    refused = await told.ask("apply", graph="g", blueprint=reply["document"])
    assert (refused["status"], refused["problems"][0]["path"]) == ("rejected", "/nodes/0/spec")

    # Then what is complete is taken on as it is
    taken = {**reply["document"], "nodes": reply["document"]["nodes"][1:]}
    await told.publish("g", taken)
    await told.wait_for("graph.default.g.converged")
    assert await told.phases("g") == {"p": "present", "q": "present"}

    # And a second import holds it too, so that applying it takes nothing away
    put(world, "plot", "r", "4")
    (world.folder / "plot" / "nameless").unlink()
    again = await told.ask("import", graph="g")
    assert ([n["id"] for n in again["document"]["nodes"]], again["kept"]) == (["p", "q", "r"], 2)
    await told.publish("g", again["document"])
    await told.wait_for("graph.default.g.converged", 2)
    assert (there(world, "plot"), world.log()) == (["p", "q", "r", "theirs"], [])


async def test_an_import_says_what_cannot_be_searched_for(system: System, told: Told, world: World) -> None:
    cannot = await told.ask("import", graph="g", type="thing")
    assert "cannot be searched for" in cannot["error"]["message"]
    assert cannot["error"]["paths"][0]["path"] == "/type"
    assert "plot, weed" in cannot["error"]["hint"]
    unknown = await told.ask("import", graph="g", type="unheard")
    assert unknown["error"]["code"] == "not_found"
    put(world, "plot", "closed")
    put(world, "weed", "thistle")
    failed = await told.ask("import", graph="g", type="plot")
    assert "the land register is closed" in failed["error"]["message"]
    rest = await told.ask("import", graph="g")
    assert (list(rest["failed"]), [f["id"] for f in rest["found"]]) == (["plot"], ["thistle"])
