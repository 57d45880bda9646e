"""What must hold: of every step that is sent, at any time, and at the end."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_model import references
from holdfast_model.messages import Action, Step, StepBatch
from holdfast_model.names import BUILT_IN_TYPES
from holdfast_model.reconciler import Phase
from holdfast_model.rows import Node, digest_of

from .audit import audit, audit_load, differences, shown
from .outside import Key, Thing

if TYPE_CHECKING:
    from .world import World


class Invariants:
    """Looks at a world, and fails it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def sent(self, batch: StepBatch) -> None:
        graph = self._world.disk.graph
        for step in batch.steps:
            self._world.say(f"send {step.action} {step.node} op{step.operation}.{step.attempt} {step.digest[:4]}")
            node = graph.nodes.get(step.node)
            self.resolved(step.node, step.spec, step.action is Action.PROVISION)
            if step.action is Action.PROVISION:
                if node is None:
                    self._world.fail(f"{step.node} is sent although it is not desired")
                    return
                self._values(node, step)
                for target in node.depends_on:
                    self._world.sent_types[(step.node, step.operation, target)] = graph.nodes[target].type
                    self._dependency(step.node, target)
            elif node is not None and node.type == step.type:
                self._world.fail(f"{step.node} is removed although it is desired")
            else:
                self._world.outside.check_removal((step.node, step.type), self._wanted)

    def resolved(self, node: str, spec: msgspec.Raw, desired: bool) -> None:
        """References have been replaced. Only of a form that came and went again while nobody owned the graph may
        nobody know what it was made from."""
        if references.MARKED in bytes(spec) and (desired or self._world.disk.epoch == 1):
            self._world.fail(f"{node} is acted on with a spec that refers to others: {bytes(spec)!r}")

    def _values(self, node: Node, step: Step) -> None:
        """What a step is made from is what the nodes it refers to publish now, as the planner knows and as it is."""
        units, things = self._world.reconciler.core.units, self._world.outside.things
        for text in node.refs:
            target = units[references.parse(text)[0]]
            sent = (step.refs or {}).get(text)
            if sent != (target.rec.outputs or {}).get("v"):
                self._world.fail(f"{node.id} is sent with {text} = {sent}, but known is {target.rec.outputs}")
            thing = things.get((target.id, target.type))
            if (target.id, target.type) not in self._world.outside.disturbed and thing and thing.published != sent:
                self._world.fail(f"{node.id} is sent with {text} = {sent}, but it is {thing.published}")
        filled = references.filled_in(node.spec, step.refs) if node.refs else node.spec
        if digest_of(step.type, step.spec) != step.digest or digest_of(step.type, filled) != step.digest:
            self._world.fail(f"{node.id} is sent with {bytes(step.spec)!r}, digest {step.digest}, for {node}")

    def _dependency(self, node: str, target: str) -> None:
        if not self._world.reconciler.core.units[target].current:
            self._world.fail(f"{node} is sent before its dependency {target}")
        wanted = self._world.disk.graph.nodes[target]
        thing = self._world.outside.things.get((target, wanted.type))
        if (target, wanted.type) in self._world.outside.disturbed:
            return
        if thing is None or thing.digest != self._form_of(wanted).digest:
            self._world.fail(f"{node} is sent, but its dependency {target} is not there: {thing}")

    def _wanted(self, key: Key, thing: Thing) -> bool:
        node = self._world.disk.graph.nodes.get(key[0])
        return node is not None and node.type == key[1] and self._form_of(node).digest == thing.digest

    def _form_of(self, node: Node) -> Node:
        """What the planner takes a node to be, its references resolved."""
        unit = self._world.reconciler.core.units.get(node.id)
        return unit.node if unit is not None and unit.declared == node and unit.node is not None else node

    def _truth(self, node: Node) -> str:
        """The digest of a node as it should really be: made from what the others really publish."""
        if not node.refs:
            return node.digest
        values: dict[str, object] = {}
        for text in node.refs:
            target = references.parse(text)[0]
            thing = self._world.outside.things.get((target, self._world.disk.graph.nodes[target].type))
            values[text] = thing.published if thing is not None else None
        return digest_of(node.type, references.filled_in(node.spec, values))

    def units(self) -> list[Any]:
        core = self._world.reconciler.core
        return [*core.units.values(), *core.graves.values()]

    def loaded_again(self) -> None:
        """A new owner would find everything that the present one knows."""
        rec = self._world.reconciler
        self._world.tick()
        if self._world.reconciler is rec:
            audit(self._world)
            audit_load(self._world)

    def explained(self) -> None:
        """Nothing is under way any more; what is not as declared has a reason that only somebody else can end."""
        audit(self._world)
        for unit in self.units():
            rec, digest = unit.rec, unit.form.digest
            reason = {
                Phase.PRESENT: True,
                Phase.REFUSED: rec.refused == digest
                or any(g and g.state == "refused" for g in (rec.gate, rec.approval)),
                Phase.FAILED: rec.permanent == digest,
                Phase.BLOCKED: bool(unit.blocker),
                Phase.PAUSED: rec.paused or self._world.disk.paused,
                Phase.HELD: rec.hold,
                Phase.QUARANTINED: rec.quarantined_until > self._world.now,
            }.get(unit.phase, False)
            if not reason:
                self._world.fail(f"{unit.field!r} is {unit.phase} for no reason: {rec}")

    def converged(self) -> None:
        graph, core = self._world.disk.graph, self._world.reconciler.core
        things = {k: t.digest for k, t in self._world.outside.things.items()}
        wanted = {(n.id, n.type): self._truth(n) for n in graph.nodes.values() if n.type not in BUILT_IN_TYPES}
        if things != wanted or any(t.broken for t in self._world.outside.things.values()):
            broken = {k for k, t in self._world.outside.things.items() if t.broken}
            nodes = {k[0] for k in {*things, *wanted} if things.get(k) != wanted.get(k)} | {k[0] for k in broken}
            self._world.fail(f"not converged: {differences(things, wanted)} (there, and wanted), {self._phases(nodes)}")
        if graph.gone or core.flights or self._world.disk.todo or self._world.disk.inbox or not core.converged:
            self._world.fail(
                f"left over: gone {list(graph.gone)} flights {list(core.flights)} todo {list(self._world.disk.todo)} "
                f"inbox {self._world.disk.inbox} converged {core.converged} {core.phases}"
            )
        if [i.id for i in self._world.people.items.values() if i.active]:
            self._world.fail(f"WorkItems are left open: {[i for i in self._world.people.items.values() if i.active]}")
        self._world.phased.check_end()
        audit(self._world)
        audit_load(self._world)

    def _phases(self, nodes: Container[str]) -> dict[str, str]:
        return {u.field: f"{u.phase} {u.blocker} {shown(u.rec)}" for u in self.units() if u.id in nodes}
