"""``holdfast play dungeon``: its drawing, and the game on a scripted system."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from holdfast_cli.connection import Found
from holdfast_cli.exits import CommandError
from holdfast_cli.play import app as screen
from holdfast_cli.play import scene
from holdfast_cli.play.app import DungeonApp
from holdfast_cli.play.game import Game
from holdfast_cli.session import connected
from holdfast_testkit.waiting import eventually

from .conftest import Peer

NODES: list[dict[str, Any]] = [
    {"id": "spikes", "type": "trap", "phase": "present", "depends_on": ["hall"]},
    {"id": "hall", "type": "room", "phase": "present", "depends_on": []},
    {"id": "way", "type": "corridor", "phase": "blocked", "depends_on": ["hall", "crypt"], "reason": "blocked"},
    {"id": "crypt", "type": "room", "phase": "running", "depends_on": []},
    {"id": "old", "type": "room", "phase": "removing", "depends_on": [], "removed": True},
]
ITEM = {"id": "w1", "title": "let the dragon in", "permittedOutcomes": ["approve", "reject"]}
RAID = {"id": "x", "victims": [{"node": "hall", "type": "room", "fate": "destroyed", "fault": "NODE_DESTROYED"}]}


def drawn(*parts: Any) -> str:
    console = Console(width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        console.print(part)
    return console.export_text()


def test_a_room_is_drawn_with_what_is_in_it_and_ways_below() -> None:
    shown = scene.tiles(NODES)

    assert [tile.id for tile in shown] == ["crypt", "hall", "spikes", "way"]
    text = drawn(scene.draw_map(shown, "hall"))
    assert text.index("crypt") < text.index("hall") < text.index("spikes") < text.index("way")
    assert "running" in text
    assert "old" not in text


def test_what_waits_for_a_person_names_the_keys_that_decide_it() -> None:
    text = drawn(scene.draw_items(scene.items([ITEM]), 0))

    assert "let the dragon in" in text
    assert "[1] approve   [2] reject" in text


def test_the_summary_says_when_all_stands() -> None:
    assert "the dungeon stands" in scene.summary([scene.Tile("a", "room", "present")], 0)
    assert "at work" in scene.summary([scene.Tile("a", "room", "running")], 1)


@pytest.fixture
async def game(peer: Peer, nats_url: str) -> AsyncIterator[Game]:
    await peer.client.subscribe("rpc.domain.dungeon.*", cb=peer.on_request)
    await peer.client.flush()
    peer.answers |= {
        "planner.domains": {"domains": [{"domain": "dungeon", "live": ["1"]}]},
        "planner.get": {"nodes": NODES},
        "planner.apply": {"accepted": True},
        "workitems.list": {"items": [ITEM]},
        "workitems.complete": {"status": "COMPLETED"},
        "domain.dungeon.raid": RAID,
    }
    async with connected("default", Found(nats_url, "the test")) as session:
        yield Game(session, "lair")


async def test_the_first_game_declares_the_dungeon_of_the_house(peer: Peer, game: Game) -> None:
    peer.answers["planner.get"] = {"error": {"code": "not_found", "message": "no graph"}}

    await game.prepare(None)

    (applied,) = peer.bodies("planner.apply")
    assert applied["graph"] == "lair"
    assert applied["blueprint"]["domain"] == "dungeon"


async def test_a_dungeon_that_is_declared_is_left_as_it_is(peer: Peer, game: Game) -> None:
    await game.prepare(None)

    assert peer.bodies("planner.apply") == []


async def test_without_the_service_the_game_says_how_to_start_it(peer: Peer, game: Game) -> None:
    peer.answers["planner.domains"] = {"domains": []}

    with pytest.raises(CommandError) as refused:
        await game.prepare(None)

    assert "holdfast up --dungeon" in refused.value.body.hint


async def test_keys_raid_the_selected_node_and_what_falls_is_told(peer: Peer, game: Game) -> None:
    app = DungeonApp(game)
    async with app.run_test(size=(120, 12)) as pilot:
        # Given a map that is larger than the screen, with its first room selected
        await eventually(lambda: app.selected == "crypt")

        # When the next room is selected and raided
        await pilot.press("down", "d")

        # Then the raid has this target and an id, and its victims are told
        await eventually(lambda: "raid! hall destroyed" in app.lines)
        (asked,) = peer.bodies("domain.dungeon.raid")
        assert (asked["kind"], asked["target"], asked["graph"], asked["tenant"]) == (
            "destroy", "hall", "lair", "default",
        )  # fmt: skip
        assert asked["id"]
        assert app.fallen == 1


async def test_events_scroll_by_and_have_the_map_drawn_again(
    peer: Peer, game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "LOOK_EVERY", 3600.0)  # so that nothing but an event has it drawn
    app = DungeonApp(game)
    async with app.run_test(size=(120, 40)):
        await eventually(lambda: app.shown != [])
        peer.answers["planner.get"] = {"nodes": NODES[:2]}

        async def told() -> bool:  # again, where it was not listening yet
            await peer.tell("fault.default.lair.node_destroyed", {"node": "hall", "detail": "destroyed in a raid"})
            return any("destroyed in a raid" in line for line in app.lines)

        await eventually(told)
        await eventually(lambda: [tile.id for tile in app.shown] == ["hall", "spikes"])


async def test_a_workitem_is_decided_in_place(peer: Peer, game: Game) -> None:
    app = DungeonApp(game)
    async with app.run_test(size=(120, 40)) as pilot:
        await eventually(lambda: app.open_items != [])
        peer.answers["workitems.list"] = lambda _: {"items": [] if peer.bodies("workitems.complete") else [ITEM]}

        await pilot.press("2")

        await eventually(lambda: app.open_items == [])
        (decided,) = peer.bodies("workitems.complete")
        assert (decided["id"], decided["outcome"]) == ("w1", "reject")


async def test_a_refused_raid_is_told_and_the_game_goes_on(peer: Peer, game: Game) -> None:
    peer.answers["domain.dungeon.raid"] = {"error": {"code": "illegal_state", "message": "cannot kill the room"}}
    app = DungeonApp(game)
    async with app.run_test(size=(120, 40)) as pilot:
        await eventually(lambda: app.selected != "")

        await pilot.press("k")
        await eventually(lambda: "cannot kill the room" in app.lines)
        peer.answers["domain.dungeon.raid"] = RAID
        await pilot.press("r")

        await eventually(lambda: app.fallen == 1)
        assert app.is_running


async def test_what_is_drawn_on_the_way_out_breaks_nothing(peer: Peer, game: Game) -> None:
    app = DungeonApp(game)
    async with app.run_test(size=(120, 40)):
        await eventually(lambda: app.shown != [])
        # When the screen is emptied before the last look ends
        await app.screen.remove_children()
        await app._look()
        app._tell(Text("the last word"))
    assert app.lines[-1] == "the last word"
