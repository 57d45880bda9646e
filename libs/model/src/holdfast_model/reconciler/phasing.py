"""Blueprints in phases, and deadlines: which nodes of a phase are still missing, and what follows when none is.

What is missing is kept up step by step, as nodes become current and cease to be: asking whether a phase is complete
costs nothing. A phase is left by a commit of the desired graph, so the turn only says so (``turn.enter``); the
graph's new nodes and the standing come back with the next version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from holdfast_model.events import Family, FaultType, GraphEvent
from holdfast_model.names import BUILT_IN_TYPES
from holdfast_model.phases import GRAPH, Standing, due
from holdfast_model.reasons import Reason

from .facts import review_spec
from .records import Phase, Unit
from .turn import STATUS, Enter

if TYPE_CHECKING:
    from .core import Core

TIMED_OUT = "timed_out"


class Stage:
    """One owner's phase in force: its own nodes, and which of them are not as declared."""

    __slots__ = ("entering", "members", "missing", "refused", "standing")

    def __init__(self, standing: Standing, members: frozenset[str]) -> None:
        self.standing = standing
        self.members = members
        self.missing: dict[str, None] = {}
        self.entering = False
        """The next phase is being entered: its nodes are still to come."""
        self.refused = ""
        """Why the next phase cannot be entered; "" when nothing is known to be in the way."""

    @property
    def ahead(self) -> bool:
        """Whether this phase is over and another one follows."""
        standing = self.standing
        return self.entering or (not self.missing and standing.after(True, standing.started).index != standing.index)


class Stages:
    """The stages of a graph, by owner and by node. Most graphs have none."""

    def __init__(self) -> None:
        self.by_owner: dict[str, Stage] = {}
        self.of: dict[str, tuple[Stage, ...]] = {}

    def note(self, node: str, current: bool) -> None:
        """A desired node is as declared, or is not (yet, or any more)."""
        for stage in self.of.get(node, ()):
            if current:
                stage.missing.pop(node, None)
            else:
                stage.missing[node] = None

    def gone(self, node: str) -> None:
        """A node is not desired any more: it is in nobody's way, e.g. when a policy took it out."""
        for stage in self.of.get(node, ()):
            stage.missing.pop(node, None)

    @property
    def ahead(self) -> bool:
        """Whether any owner has another phase before it that could begin."""
        return any(stage.ahead for stage in self.by_owner.values())

    def put(self, owner: str, stage: Stage | None) -> None:
        """Enter, replace or (None) drop the stage of an owner."""
        old = self.by_owner.pop(owner, None)
        if old is not None:
            for node in old.members:
                left = tuple(s for s in self.of.get(node, ()) if s is not old)
                if left:
                    self.of[node] = left
                else:
                    self.of.pop(node, None)
        if stage is not None:
            self.by_owner[owner] = stage
            for node in stage.members:
                self.of[node] = (*self.of.get(node, ()), stage)


def on_phases(core: Core, standings: Mapping[str, Standing], members: Mapping[str, Collection[str]]) -> None:
    """How far each owner's blueprint is, as committed. ``members``: the own nodes of phases that are new here.

    To be given after the graph that belongs to it; a rollback keeps it.
    """
    stages = core.stages
    for owner in [o for o in stages.by_owner if o not in standings]:
        stages.put(owner, None)
    for owner, standing in standings.items():
        stage = stages.by_owner.get(owner)
        if owner in members:
            stage = Stage(standing, frozenset(members[owner]))
            stages.put(owner, stage)
            units = core.units
            stage.missing = {n: None for n in sorted(stage.members) if n in units and not units[n].current}
        elif stage is not None:
            stage.standing = standing
            stage.entering = False
    core.undo.standings = standings_of(core)


def unknown(core: Core, standings: Mapping[str, Standing]) -> list[str]:
    """Owners whose phase has other nodes than those that are known: they have to be told again."""
    known = {o: s.standing for o, s in core.stages.by_owner.items()}
    return [o for o, s in standings.items() if o not in known or core.stages.by_owner[o].entering
            or (known[o].digest, known[o].index, known[o].begun) != (s.digest, s.index, s.begun)]  # fmt: skip


def standings_of(core: Core) -> dict[str, tuple[Standing, bool]]:
    """What a rollback puts back."""
    return {owner: (stage.standing, stage.entering) for owner, stage in core.stages.by_owner.items()}


def put_back(core: Core, standings: Mapping[str, tuple[Standing, bool]]) -> None:
    """The turn was not committed: no phase was left, no deadline told of."""
    for owner, (standing, entering) in standings.items():
        stage = core.stages.by_owner.get(owner)
        if stage is not None:
            stage.standing, stage.entering = standing, entering


def refused(core: Core, owner: str, why: str) -> None:
    """The next phase does not fit the graph. It is tried again when the graph has changed."""
    stage = core.stages.by_owner.get(owner)
    if stage is not None:
        stage.entering, stage.refused = False, why


def graph_changed(core: Core) -> None:
    """What was in the way of a phase may not be there any more."""
    for stage in core.stages.by_owner.values():
        stage.refused = ""


def move_on(core: Core) -> bool:
    """Leave the phase of one owner, if it is complete (True); a paused graph stays where it is.

    One transition per turn: what it brings is observed before anything else is decided about phases.
    """
    if core.paused or any(stage.entering for stage in core.stages.by_owner.values()):
        return False
    for owner, stage in core.stages.by_owner.items():
        if stage.missing or stage.refused or _doubted(core, stage):
            continue
        old = stage.standing
        new = old.after(True, core.now)
        if new is old:
            continue
        stage.standing = new
        core.turn.standings = {o: s.standing for o, s in core.stages.by_owner.items()}
        if new.index == old.index:
            continue
        stage.entering = True
        core.turn.enter = Enter(owner, new.index, old.digest)
        data: dict[str, object] = {
            "name": owner, "from": old.term.id, "phase": new.term.id, "index": new.index, "phases": len(new.terms),
            "nodeCount": len(stage.members),
        }  # fmt: skip
        core.emit(Family.GRAPH, GraphEvent.PHASE_ADVANCED, data)
        return True
    return False


def _just_in_time(core: Core, stage: Stage) -> bool:
    """Whether this turn finds the phase complete."""
    free = not (core.paused or stage.missing or stage.refused or stage.entering)
    return free and stage.standing.after(True, core.now) is not stage.standing


def _doubted(core: Core, stage: Stage) -> bool:
    return any(unit.id in stage.members for unit in core.doubtful)


def deadlines_due(core: Core) -> None:
    """Deadlines that have passed: kept as such, told, and made a fault of the node that stands in the way.

    Work under way goes on, and so does reconciliation. The fault is a PROVISION_FAILED with the reason ``timed_out``:
    what was declared is not there in time. A phase that is meant to last has nobody to blame, and raises none.
    """
    for owner, stage in core.stages.by_owner.items():
        names = stage.standing.overdue(core.now)
        if not names or _just_in_time(core, stage):
            continue
        old, stage.standing = stage.standing, stage.standing.out_of_time(names)
        core.turn.standings = {o: s.standing for o, s in core.stages.by_owner.items()}
        if not core.converged:
            core.turn.meta[STATUS] = TIMED_OUT
        for name in names:
            _tell(core, owner, stage, old, name)
        culprit = _in_the_way(core, stage)
        if culprit is not None:
            what = f"phase {old.term.id!r}" if GRAPH not in names else f"blueprint {owner!r}"
            detail = f"{what} is out of time, and {culprit.id} is {culprit.phase or Phase.OBSERVING}"
            core.fault(culprit, FaultType.PROVISION_FAILED, Reason.TIMED_OUT, detail)


def _tell(core: Core, owner: str, stage: Stage, old: Standing, name: str) -> None:
    when = old.graph_due if name == GRAPH and old.graph_due is not None else old.phase_due
    data: dict[str, object] = {
        "name": owner, "phase": old.term.id, "of": "graph" if name == GRAPH else "phase", "deadline": when,
        "missing": list(stage.missing)[:100], "missingCount": len(stage.missing),
    }  # fmt: skip
    core.herald(Family.GRAPH, GraphEvent.TIMED_OUT, data)


def _in_the_way(core: Core, stage: Stage) -> Unit | None:
    """A missing node for which the others wait: one that is not itself behind another."""
    missing = [core.units[node] for node in stage.missing if node in core.units]
    return next((unit for unit in missing if unit.phase is not Phase.BLOCKED), missing[0] if missing else None)


def next_due(core: Core) -> Iterable[float]:
    """When deadlines pass."""
    return (when for s in core.stages.by_owner.values() if (when := s.standing.next_due) is not None)


def due_of(core: Core, unit: Unit) -> float | None:
    """By when work on a node is to be done: the earliest deadline of the phases and blueprints that it is part of.

    A review is part of what its target is part of.
    """
    if not core.stages.by_owner or unit.node is None:
        return None
    if unit.type in BUILT_IN_TYPES:
        target = core.units.get(str(review_spec(unit.node).get("target", "")))
        return due_of(core, target) if target is not None and target.type not in BUILT_IN_TYPES else None
    whole = core.stages.by_owner.get(unit.node.owner)
    parents = [stage.standing.next_due for stage in core.stages.of.get(unit.id, ())]
    return due(0.0, None, *parents, whole.standing.graph_due if whole is not None else None)
