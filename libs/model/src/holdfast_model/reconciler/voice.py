"""What a turn says: intents, events and faults, numbered from the graph's one counter."""

from __future__ import annotations

from collections.abc import Callable

from holdfast_model.events import Event, Family, Fault, FaultType, GraphEvent, NodeEvent
from holdfast_model.names import GraphRef

from .facts import parent_of
from .records import Unit
from .turn import Turn
from .undoing import Undo


class Voice:
    """The telling half of the core; the other half keeps the records it speaks of."""

    ref: GraphRef
    incarnation: str
    new_id: Callable[[], str]
    now: float
    counter: int
    turn: Turn
    undo: Undo

    def change(self, unit: Unit, **fields: object) -> None:
        """Replace some fields of a unit's record."""
        raise AssertionError("the core keeps the records")

    def todo(self, field: str, intent: object) -> None:
        """Write (None: delete) an intent with this turn."""
        self.turn.todo[field] = intent  # type: ignore[assignment]
        if self.undo.keeping:
            self.undo.kept_todo[field] = intent  # type: ignore[assignment]

    def emit(self, family: Family, name: GraphEvent | NodeEvent, data: dict[str, object], node: str = "") -> None:
        self.turn.events.append(
            Event(self.new_id(), family, name, self.ref.tenant, self.ref.graph, self.now, data, node=node)
        )

    def herald(self, family: Family, name: GraphEvent, data: dict[str, object]) -> None:
        """An event of the graph that is told before the faults of its turn."""
        self.emit(family, name, data)
        self.turn.heralds.append(self.turn.events.pop())

    def next_number(self) -> int:
        """The next operation number of this graph: never reused, also not after deletion."""
        self.counter += 1
        return self.counter

    def fault(
        self,
        unit: Unit,
        type: FaultType,
        reason: str,
        detail: str,
        *,
        id: str = "",
        permanent: bool = False,
        attempt: int = 0,
        parents: tuple[str, ...] = (),
    ) -> str:
        """Raise a fault, opening the node's episode if none is open; returns the episode."""
        rec = unit.rec
        name = id or self.new_id()
        episode = rec.episode or f"e{self.next_number()}"
        told: dict[str, object] = {"fault": name, "trouble": f"{type.value} ({reason})", "recovered": 0.0}
        if not rec.episode:
            told |= {"episode": episode, "about": unit.form.digest}
        self.change(unit, **told)
        context: dict[str, object] = {
            "failures": rec.failures,
            "status": rec.status.value if rec.status else None,
        }
        if rec.info:
            context["info"] = rec.info
        fault = Fault(
            name, self.incarnation, self.ref.tenant, self.ref.graph, unit.id, type, unit.type, self.now,
            reason=reason, detail=detail, permanent=permanent, attempt=attempt, operation=rec.operation,
            digest=unit.form.digest, episode=episode, parents=parents, parent=parent_of(unit) or "",
            context=context,
        )  # fmt: skip
        self.turn.faults.append(fault)
        return episode
