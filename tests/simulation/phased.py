"""Blueprints in phases in the simulated world: published at random, followed as the turns say, watched on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_model.phases import CompleteWhen, Standing
from holdfast_model.reconciler import Reconciler, Turn
from holdfast_model.rows import Declaration
from holdfast_model.staging import NO_DEADLINE, Deadline, Stage, staged
from holdfast_sdk.testing.phases import Phases

if TYPE_CHECKING:
    from .world import World

OWNER = "main"
Declared = list[tuple[str, Declaration]]


class Phased:
    """What is on the disk of phases, and what must hold of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept = Phases()
        self.published = 0
        self.known: dict[str, tuple[int, Standing]] = {}

    # ---- publishing

    def publish(self, make: list[Declared]) -> None:
        """Commit a blueprint: one graph, or phases with some nodes in common, with deadlines at times."""
        world, dice = self.world, self.world.dice
        if len(make) == 1 and dice.random() < 0.8:
            world.say(f"publish {_shown(make[0])}")
            self.kept.drop(OWNER)
            self._declare(make[0])
            return
        last = len(make) - 1
        stages = [
            Stage(
                f"p{i}",
                nodes,
                CompleteWhen.NEVER if i == last and dice.random() < 0.5 else CompleteWhen.ALL_PRESENT,
                Deadline(dice.uniform(5, 60)) if dice.random() < 0.3 else NO_DEADLINE,
            )
            for i, nodes in enumerate(make)
        ]
        self.put(stages, Deadline(dice.uniform(5, 90)) if dice.random() < 0.3 else NO_DEADLINE)

    def put(self, stages: list[Stage], deadline: Deadline) -> None:
        plan = staged(stages, (), deadline)
        index = self.kept.index(OWNER, plan, self.world.now)
        self.world.say(f"publish phases, now p{index}: {[_shown(s.nodes) for s in stages]}")
        self.kept.put(OWNER, plan, self.world.now)
        self._declare(plan.nodes(index))

    def again(self) -> None:
        """The same blueprint once more."""
        plan = self.kept.plan(OWNER)
        if plan is not None:
            self.put(list(plan.stages), plan.deadline)

    def clear(self) -> None:
        self.kept.drop(None)
        self.published += 1
        self.world.disk.graph.clear()

    def _declare(self, nodes: object) -> None:
        self.published += 1
        self.world.disk.graph.declare(OWNER, nodes)  # type: ignore[arg-type]
        self.world.disk.graph.version += 1  # every admission raises it

    # ---- the planner's host

    def feed(self, rec: Reconciler) -> None:
        """Bring what is on the disk to a reconciler, after the graph."""
        owners, graph = self.kept.owners, self.world.disk.graph
        unknown = rec.unknown_phases(owners)
        rec.on_phases(self.world.now, owners, {o: self.kept.members(o, graph) for o in unknown})

    def commit(self, done: Turn) -> None:
        """Write what a turn says of phases, with its other changes of the graph."""
        world = self.world
        if done.standings is None:
            return
        if done.enter is not None:
            self._check_left(done.enter.owner)
        self.kept.follow(done, world.disk.graph)
        if done.enter is not None:
            world.say(f"enter {done.enter}")
            world.disk.graph.take_delta()
            world.disk.graph.version += 1
            world.at(0.0, world.tick)

    # ---- what must hold

    def _check_left(self, owner: str) -> None:
        """A phase is left only when all of it is there, as far as anybody has seen."""
        world, standing = self.world, self.kept.owners[owner]
        if standing.term.complete_when is CompleteWhen.NEVER:
            world.fail(f"{owner} leaves a phase that never ends")
        units = world.reconciler.core.units
        for node in self.kept.members(owner, world.disk.graph):
            if node in world.disk.graph.nodes and not units[node].current:
                world.fail(f"{owner} leaves its phase {standing.term.id} before {node} is there")

    def check(self) -> None:
        """No phase goes back, and none is skipped, unless another blueprint was published meanwhile."""
        for owner, standing in self.kept.owners.items():
            before = self.known.get(owner)
            if before is not None and before[1].digest == standing.digest and before[1].begun == standing.begun:
                step = standing.index - before[1].index
                if step not in (0, 1):
                    self.world.fail(f"{owner} went from phase {before[1].index} to {standing.index} in one turn")
            self.known[owner] = (self.published, standing)
        declared = set(self.world.disk.graph.owned.get(OWNER, ()))
        plan = self.kept.plan(OWNER)
        if plan is not None and declared != {n for n, _ in plan.nodes(self.kept.owners[OWNER].index)}:
            self.world.fail(f"phase {self.kept.owners[OWNER].index} is in force, but {sorted(declared)} are declared")

    def check_end(self) -> None:
        """In the end every phase that can be complete has been left, and deadlines have been told of."""
        for owner, standing in self.kept.owners.items():
            if not standing.last and standing.term.complete_when is not CompleteWhen.NEVER:
                self.world.fail(f"{owner} stays in phase {standing.term.id}")
            if standing.overdue(self.world.now):
                self.world.fail(f"{owner} is out of time, and nobody was told: {standing}")
        held = {o: s.standing for o, s in self.world.reconciler.core.stages.by_owner.items()}
        if held != self.kept.owners:
            self.world.fail(f"the reconciler has {held}, the disk {self.kept.owners}")


def _shown(nodes: object) -> list[object]:
    return [(id, d.type, d.depends_on, str(d.gating)) for id, d in nodes]  # type: ignore[attr-defined]
