"""The game's screen. It draws what :class:`.game.Game` tells and passes keys on; it decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Footer, Header, RichLog, Static

from holdfast_cli.narrate import narrate
from holdfast_model.errors import HoldfastError

from . import scene
from .game import Game

LOOK_EVERY = 2.0
"""Seconds between two looks when nothing is heard: events may be lost."""
GATHER = 0.1
"""Seconds in which events are gathered before the map is drawn again."""


class DungeonApp(App[None]):
    """Map on the left, what happens on the right, what waits for a person below."""

    TITLE = "Holdfast: the dungeon"
    CSS = """
    #map { width: 46; }
    #told { height: 2fr; border-top: solid $primary; }
    #items { height: 1fr; min-height: 6; border-top: solid $secondary; }
    #state { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # Before the panes, which would scroll; these scroll by page keys and the mouse.
        Binding("down,j", "select(1)", "next", priority=True),
        Binding("up,i", "select(-1)", "previous", priority=True),
        Binding("d", "raid('destroy')", "destroy"),
        Binding("x", "raid('degrade')", "damage"),
        Binding("k", "raid('kill')", "kill"),
        Binding("r", "raid_anywhere", "raid anywhere"),
        Binding("w", "next_item", "next WorkItem"),
        *(Binding(str(n), f"decide({n})", "decide", show=n == 1) for n in range(1, 10)),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, game: Game) -> None:
        super().__init__()
        self.game = game
        self.shown: list[scene.Tile] = []
        self.open_items: list[scene.Item] = []
        self.selected = ""
        self.chosen = 0
        self.fallen = 0
        self.lines: list[str] = []
        """The last things told, as plain text; bounded."""
        self._heard = asyncio.Event()
        # Held, not looked up: on the way out the screen is emptied before what still draws is ended.
        self._rooms = Static(id="rooms")
        self._state = Static(id="state")
        self._told = RichLog(id="told", wrap=True, max_lines=1000)
        self._waiting = Static(id="waiting")

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal():
            with VerticalScroll(id="map"):
                yield self._rooms
            with Vertical():
                yield self._state
                yield self._told
                with VerticalScroll(id="items"):
                    yield self._waiting
        yield Footer()

    def on_mount(self) -> None:
        self.run_worker(self._listen(), name="listen")
        self.run_worker(self._keep_looking(), name="look")

    # ---- keys

    def action_select(self, step: int) -> None:
        """Select the next or previous node."""
        ids = [tile.id for tile in self.shown]
        if ids:
            at = ids.index(self.selected) if self.selected in ids else -1 if step > 0 else 0
            self.selected = ids[(at + step) % len(ids)]
            self._draw()

    def action_raid(self, kind: str) -> None:
        """Raid the selected node."""
        if self.selected:
            self._try(self._raid(kind, self.selected))

    def action_raid_anywhere(self) -> None:
        """Let the service choose what falls."""
        self._try(self._raid("destroy", ""))

    def action_next_item(self) -> None:
        """Choose another WorkItem."""
        if self.open_items:
            self.chosen = (self.chosen + 1) % len(self.open_items)
            self._draw()

    def action_decide(self, number: int) -> None:
        """Decide the chosen WorkItem by the number of an outcome."""
        if self.chosen < len(self.open_items):
            item = self.open_items[self.chosen]
            if number <= len(item.choices):
                self._try(self._decide(item, item.choices[number - 1]))

    # ---- what happens

    def _try(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry out what a key asked for; a refusal is told, and the game goes on."""

        async def attempt() -> None:
            try:
                await work
            except HoldfastError as error:
                self._tell(Text(error.message, style="bold yellow"))
            self._heard.set()

        self.run_worker(attempt(), name="key")

    async def _raid(self, kind: str, target: str) -> None:
        raid = await self.game.raid(kind, target)
        victims = raid.get("victims", [])
        self.fallen += sum(v.get("fault") == "NODE_DESTROYED" for v in victims)
        told = ", ".join(f"{v.get('node')} {v.get('fate')}" for v in victims)
        self._tell(Text(f"raid! {told}", style="bold red"))

    async def _decide(self, item: scene.Item, outcome: str) -> None:
        await self.game.decide(item.id, outcome)
        self._tell(Text(f"you chose {outcome}: {item.title}", style="bold magenta"))

    async def _listen(self) -> None:
        session = self.game.session
        async with session.events(session.graph_events(self.game.graph)) as events:
            while True:
                seen = await events.get()
                if (line := narrate(seen)) is not None:
                    self._tell(line)
                self._heard.set()

    async def _keep_looking(self) -> None:
        while True:
            await self._look()
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._heard.wait()
                await asyncio.sleep(GATHER)
            except TimeoutError:
                pass  # nothing was heard; look all the same
            self._heard.clear()

    async def _look(self) -> None:
        try:
            self.shown = await self.game.look()
            self.open_items = await self.game.waiting()
        except HoldfastError as error:
            self.sub_title = error.message  # shown until the next look succeeds
            return
        self.sub_title = self.game.graph
        self.chosen = min(self.chosen, max(0, len(self.open_items) - 1))
        if self.selected not in {tile.id for tile in self.shown}:
            self.selected = self.shown[0].id if self.shown else ""
        self._draw()

    def _tell(self, line: Text) -> None:
        self.lines = [*self.lines[-199:], line.plain]
        self._told.write(line)

    def _draw(self) -> None:
        self._rooms.update(scene.draw_map(self.shown, self.selected))
        self._waiting.update(scene.draw_items(self.open_items, self.chosen))
        self._state.update(scene.summary(self.shown, self.fallen, self.game.phase))
