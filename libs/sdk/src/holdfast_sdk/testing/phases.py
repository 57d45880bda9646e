"""Blueprints in phases, as a test's planner keeps them."""

from __future__ import annotations

from holdfast_model.desired import DesiredGraph
from holdfast_model.phases import Standing, taken_up
from holdfast_model.reconciler import Turn
from holdfast_model.staging import Staged, enter


class Phases:
    """What stands beside the graph: for each owner the phases it published, and how far it is."""

    def __init__(self) -> None:
        self.owners: dict[str, Standing] = {}
        self._staged: dict[str, Staged] = {}

    def index(self, owner: str, staged: Staged, now: float) -> int:
        """The phase that is in force once this is published."""
        return taken_up(staged.standing(now), self.owners.get(owner)).index

    def put(self, owner: str, staged: Staged | None, now: float) -> None:
        """A blueprint was published: in phases, or (None) as one graph."""
        if staged is None:
            self.drop(owner)
            return
        self.owners[owner] = taken_up(staged.standing(now), self.owners.get(owner))
        self._staged[owner] = staged

    def drop(self, owner: str | None) -> None:
        """Forget the phases of an owner, or of all."""
        for name in [owner] if owner is not None else list(self.owners):
            self.owners.pop(name, None)
            self._staged.pop(name, None)

    def plan(self, owner: str) -> Staged | None:
        """What an owner published in phases; None where it has none."""
        return self._staged.get(owner)

    def members(self, owner: str, graph: DesiredGraph) -> frozenset[str]:
        """The own nodes of an owner's phase in force."""
        common = {node for node, _ in self._staged[owner].common}
        return frozenset(graph.owned.get(owner, ())) - common

    def follow(self, turn: Turn, graph: DesiredGraph) -> None:
        """Commit what a turn says of phases."""
        assert turn.standings is not None
        self.owners = dict(turn.standings)
        if turn.enter is not None:
            staged = self._staged[turn.enter.owner]
            enter(graph, turn.enter.owner, staged.nodes(turn.enter.index), staged.strategy)
