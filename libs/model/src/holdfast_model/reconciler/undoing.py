"""Taking back a turn that could not be committed.

What inputs did is taken back, for they are given again. What followed from a changed graph is kept and written with
the next turn, for the graph is not given again.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING

from .phasing import put_back, standings_of
from .records import Flight, Record, Unit, grave_of
from .searching import put_back as put_back_search
from .searching import write
from .turn import CloseIntent, ItemIntent, StepIntent, Turn

if TYPE_CHECKING:
    from .core import Core


class Undo:
    """First-touch copies of what a turn changes. While ``keeping``, nothing is copied: it is to stay."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.keeping = False
        self.kept_rows: dict[str, None] = {}
        self.kept_todo: dict[str, StepIntent | ItemIntent | CloseIntent | None] = {}
        self.units: dict[Unit, tuple[Record, int]] = {}
        self.flights: dict[str, tuple[Unit, Flight] | None] = {}
        self.sent: dict[str, tuple[StepIntent, frozenset[str]] | None] = {}
        self.told: list[str] = []
        self.doubts: list[Unit] = []
        self.mourned: list[tuple[Unit, str]] = []
        self.counter = core.counter
        self.converged = core.converged
        self.paused = core.paused
        self.wave = Counter(core.wave)
        self.standings = standings_of(core)
        self.found, self.stored = core.search.found, core.search.stored

    def note(self, unit: Unit) -> None:
        if unit not in self.units and not self.keeping:
            self.units[unit] = (unit.rec, unit.min_request)

    def note_flight(self, node: str) -> None:
        if node not in self.flights and not self.keeping:
            self.flights[node] = self._core.flights.get(node)

    def note_mourned(self, grave: Unit, name: str) -> None:
        if not self.keeping:
            self.mourned.append((grave, name))


def take_turn(core: Core) -> tuple[Turn, Undo]:
    """The finished turn, and what is needed to take it back."""
    turn, undo = core.turn, core.undo
    if core.counter != undo.counter:
        turn.meta["counter"] = str(core.counter)
    write(core)
    core.turn, core.undo = Turn(), Undo(core)
    return turn, undo


def _kept(core: Core, unit: Unit) -> bool:
    """Whether a unit's record is on disk: of what was renamed even if it says nothing, about this name."""
    return unit.rec not in core.blank(unit.type) or bool(unit.declared.was)


def rollback(core: Core, turn: Turn, undo: Undo) -> None:
    """Put back what a turn changed, because it could not be committed. Nothing may have been fed since."""
    core.undo.keeping = True  # putting back is nothing that could be taken back
    core.turn = Turn()
    for node, before in undo.flights.items():
        if node in core.flights:
            core.take_flight(node)
        if before is not None:
            core.put_flight(*before)
            heapq.heappush(core.deadlines, (before[1].deadline, before[1].batch))
    core.sent.update((b, sent) for b, sent in undo.sent.items() if sent is not None and b in core.batches)
    for unit, (rec, min_request) in undo.units.items():
        if core.knows(unit):
            core.set_record(unit, rec, write=False)
            core.set_phase(unit, None)  # so that what a change of phase leads to is done again
        unit.min_request = min_request
    core.doubtful.update((unit, None) for unit in undo.doubts if core.knows(unit))
    for grave, name in undo.mourned:
        if core.knows(grave):
            core.mourn(grave, {**grave.below, name: None})
            core.mark(grave)
    put_back(core, undo.standings)
    put_back_search(core, undo.found, undo.stored, turn.look)
    core.converged, core.paused, core.wave = undo.converged, undo.paused, Counter(undo.wave)
    core.missing_told.difference_update(undo.told)
    for look in turn.look:
        for item in look.nodes:
            found = core.units.get(item.node) if item.present else core.graves.get((item.node, look.type))
            if found is not None and found.type == look.type:
                found.asked = 0
                core.look(found)
    for key in turn.forget:
        if key in core.graves:
            core.mark(core.graves[key])
    rows: dict[str, Record | None] = {}
    for field in undo.kept_rows:
        grave_key = grave_of(field)
        found = core.graves.get(grave_key) if grave_key else core.units.get(field)
        rows[field] = found.rec if found is not None and _kept(core, found) else None
    core.turn = Turn(rows=rows, todo=dict(undo.kept_todo), served=[*turn.served, *core.turn.served])
    core.undo = Undo(core)
    core.undo.counter = undo.counter
    core.undo.kept_rows, core.undo.kept_todo = dict(undo.kept_rows), dict(undo.kept_todo)
