"""A reconciler with one node and what it has stored, for tests of single turns."""

from __future__ import annotations

from itertools import count
from typing import Any

from holdfast_model.events import Fault
from holdfast_model.mutations import declaration
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Look, Reconciler, Record, TypeInfo
from holdfast_model.rows import Gating, Node, declare

INFO = TypeInfo("d", "1", True, resync=60.0, timeout=10.0, batch=1, observes=False)
ROOM = {("d", "thing"): 1}


def node(gating: Gating = Gating.NONE) -> Node:
    d = declare(declaration("a", "thing", {}, gating.value))
    return Node("a", d.type, d.spec, d.digest, (), gating, Gating.NONE, "main")


class Planner:
    """A reconciler and what it has stored; :meth:`restart` loads another one from that."""

    def __init__(self, declared: Node) -> None:
        self.declared = declared
        self.catalog: dict[str, TypeInfo] = {}
        """What is known of types when it is loaded."""
        self.ids = count()
        self.records: dict[str, Record] = {}
        self.counter = 0
        self.todo: dict[str, Any] = {}
        self.sent: list[Any] = []
        self.looks: list[Look] = []
        self.faults: list[Fault] = []
        self.forgotten: list[tuple[str, str]] = []
        self.restart()

    def restart(self) -> None:
        self.reconciler = Reconciler(GraphRef("t", "g"), "i", 1, lambda: f"id{next(self.ids)}")
        self.reconciler.on_catalog(0.0, self.catalog)
        self.reconciler.load(0.0, {"a": self.declared}, (), self.records, self.todo, counter=self.counter)

    def turn(self, now: float = 1.0) -> None:
        done = self.reconciler.finish(now, ROOM)
        for row, rec in done.rows.items():
            self.records.pop(row, None)
            if rec is not None:
                self.records[row] = rec
        self.counter = int(done.meta.get("counter", self.counter))
        for field, intent in done.todo.items():
            self.todo.pop(field, None)
            if intent is not None:
                self.todo[field] = intent
        self.sent += [step for dispatch in done.dispatch for step in dispatch.batch.steps]
        self.looks += done.look
        self.forgotten += done.forget
        self.faults += done.faults

    @property
    def record(self) -> Record:
        return self.reconciler.core.units["a"].rec
