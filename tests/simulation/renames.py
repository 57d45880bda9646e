"""Renames in the simulated world: a node gets another name at any moment, and names that were left are used again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from holdfast_model.errors import Invalid
from holdfast_model.messages import NodeDeclaration, Step
from holdfast_model.rows import Declaration, declare

from .phased import OWNER

if TYPE_CHECKING:
    from .world import World


class Renames:
    """What each operation is of, under its name of today. Operations are numbered per graph, and go with their node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ops: dict[int, tuple[str, str]] = {}  # operation -> name, type
        self.at: dict[tuple[int, int], int] = {}  # attempt -> how many renames there had been when it was sent
        self.history: list[tuple[str, str, str]] = []  # former name, type, name
        self.heard = 0  # renames of which the planner knows
        self.count = 0

    def sent(self, step: Step) -> None:
        """A step goes out under the name that its node has at that moment."""
        self.ops[step.operation] = (step.node, step.type)
        self.at[step.operation, step.attempt] = len(self.history)

    def now(self, operation: int) -> str:
        """What the node of an operation is called now."""
        return self.ops[operation][0]

    def since(self, node: str, type: str, step: Step) -> str:
        """What another node is called now that was called so when a step was sent."""
        return self._since(self.at[step.operation, step.attempt], node, type)

    def called(self, node: str, type: str) -> str:
        """What a node is called now, by the name that the planner knows."""
        return self._since(self.heard, node, type)

    def _since(self, first: int, node: str, type: str) -> str:
        for old, of, new in self.history[first:]:
            if (old, of) == (node, type):
                node = new
        return node

    def rename(self) -> None:
        """Publish the same blueprint with another name for one of its nodes, sometimes also edited."""
        world, dice = self.world, self.world.dice
        graph = world.disk.graph
        mine = {n: d for n in sorted(graph.owned.get(OWNER, ())) if (d := graph.rows[n].of(OWNER)) is not None}
        known = [n for n in world.names if n in mine and n in graph.nodes]
        if not known or world.phased.kept.plan(OWNER) is not None:
            return
        old, new = dice.choice(known), self._name()
        type = graph.nodes[old].type
        nodes = [(new if n == old else n, self._declared(n, d, old, new)) for n, d in mine.items()]
        world.say(f"rename {old} to {new}")

        def change() -> None:
            try:
                done = graph.declare(OWNER, nodes, moved=[(old, new)])
            except Invalid as refused:  # what is in the way is on its way out
                world.say(f"refused: {refused}")
                return
            assert done.moved == ((old, new),)
            world.phased.published += 1
            graph.version += 1
            world.names[world.names.index(old)] = new
            self.history.append((old, type, new))
            self.ops = {op: (new, type) if of == (old, type) else of for op, of in self.ops.items()}
            world.outside.rename(old, new, type)

        world.mutate(change)

    def _name(self) -> str:
        """A new name, or one that was left."""
        graph, dice = self.world.disk.graph, self.world.dice
        left = sorted({old for old, _, _ in self.history})
        free = [n for n in left if n not in graph.rows and n not in self.world.names]
        if free and dice.random() < 0.5:
            return dice.choice(free)
        self.count += 1
        return f"m{self.count}"

    def _declared(self, node: str, d: Declaration, old: str, new: str) -> Declaration:
        spec = bytes(d.spec).replace(f'"{old}#/'.encode(), f'"{new}#/'.encode())
        if node == old and self.world.dice.random() < 0.2:
            spec = msgspec.json.encode({**msgspec.json.decode(spec), "v": self.world.dice.randint(0, 2)})
        edges = tuple(new if target == old else target for target in d.depends_on)
        return declare(NodeDeclaration(node, d.type, Raw(spec), d.gating.value, d.spec_gating.value, edges))
