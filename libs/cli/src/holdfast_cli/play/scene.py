"""What the game shows, as data and as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from holdfast_cli.items import outcomes
from holdfast_cli.screen import STYLES

ROOM, CORRIDOR, CREATURE = "room", "corridor", "creature"
GLYPHS = {ROOM: "▣", CORRIDOR: "═", CREATURE: "☻", "trap": "▲", "garrison": "⚑", "wall": "▥"}
OTHER_GLYPH = "■"
WELL = "present"
FORTIFY = "FORTIFY"
WIDTH = 40


@dataclass(frozen=True, slots=True)
class Tile:
    """One node. ``places`` are the rooms it stands in; ``why`` says what it waits for or suffers from; ``posture`` is
    how a garrison defends its location."""

    id: str
    type: str
    phase: str
    places: tuple[str, ...] = ()
    why: str = ""
    posture: str = ""

    @property
    def well(self) -> bool:
        return self.phase == WELL


@dataclass(frozen=True, slots=True)
class Item:
    """A WorkItem that is open. ``choices`` are the outcomes a person may choose from."""

    id: str
    title: str
    choices: tuple[str, ...]


def tiles(nodes: Iterable[Mapping[str, Any]]) -> list[Tile]:
    """The planner's rows in the order in which they are drawn: each room with what is in it, the rest after."""
    found = [
        Tile(
            str(row["id"]),
            str(row["type"]),
            str(row.get("phase") or ""),
            tuple(row.get("depends_on") or ()),
            " ".join(str(row[key]) for key in ("reason", "detail") if row.get(key)),
            str((row.get("info") or {}).get("posture") or ""),
        )
        for row in nodes
        if not row.get("removed")
    ]
    rooms = sorted((t for t in found if t.type == ROOM), key=lambda t: t.id)
    ordered: list[Tile] = []
    for room in rooms:
        ordered += [room, *_inside(room, found)]
    return ordered + sorted((t for t in found if t not in ordered), key=lambda t: (t.type, t.id))


def _inside(room: Tile, found: Sequence[Tile]) -> list[Tile]:
    return sorted((t for t in found if t.places == (room.id,)), key=lambda t: (t.type, t.id))


def items(rows: Iterable[Mapping[str, Any]]) -> list[Item]:
    """Open WorkItems of a reply, oldest last as the service orders them."""
    return [Item(str(row["id"]), str(row.get("title", "")), tuple(outcomes(dict(row)))) for row in rows]


def draw_map(shown: Sequence[Tile], selected: str) -> RenderableType:
    """Rooms as boxes with what is in them, ways and everything else below."""
    boxes: list[RenderableType] = []
    rest: list[Text] = []
    for tile in shown:
        if tile.type == ROOM:
            lines = [_line(inner, selected) for inner in _inside(tile, shown)] or [Text("empty", style="dim")]
            boxes.append(
                Panel(
                    Group(*lines), title=_line(tile, selected), title_align="left", width=WIDTH,
                    border_style=_style(tile),
                )
            )  # fmt: skip
        elif not any(tile in _inside(room, shown) for room in shown if room.type == ROOM):
            rest.append(_line(tile, selected))
    if not boxes and not rest:
        return Text("there is nothing yet", style="dim")
    return Group(*boxes, *rest)


def draw_items(open_items: Sequence[Item], chosen: int) -> Text:
    """What waits for a person, with the keys that decide the chosen one."""
    if not open_items:
        return Text("nothing waits for you", style="dim")
    text = Text()
    for number, item in enumerate(open_items):
        mark = "> " if number == chosen else "  "
        text.append(f"{mark}{item.title}\n", style="bold" if number == chosen else "")
        if number == chosen:
            text.append("    " + "   ".join(f"[{i}] {c}" for i, c in enumerate(item.choices, 1)) + "\n", "magenta")
    return text


def summary(shown: Sequence[Tile], destroyed: int, phase: str = "") -> str:
    """One line: how much stands, how much has fallen so far, the phase, and the postures of garrisons."""
    standing = sum(tile.well for tile in shown)
    state = "the dungeon stands" if shown and standing == len(shown) else "Holdfast is at work"
    parts = [f"{standing}/{len(shown)} as declared, {destroyed} fallen: {state}"]
    parts += [f"phase {phase}"] if phase else []
    return "; ".join([*parts, *(f"{tile.id}: {tile.posture}" for tile in shown if tile.posture)])


def _line(tile: Tile, selected: str) -> Text:
    style = _style(tile)
    text = Text.assemble((f"{GLYPHS.get(tile.type, OTHER_GLYPH)} {tile.id}", style))
    if tile.posture:
        text.append(f"  {tile.posture}", style="bold red" if tile.posture == FORTIFY else "bold")
    if not tile.well:
        text.append(f"  {tile.phase} {tile.why}".rstrip()[:60], style="dim")
    if tile.id == selected:
        text.stylize("reverse")
    return text


def _style(tile: Tile) -> str:
    return "green" if tile.well else STYLES.get(tile.phase, "yellow")
