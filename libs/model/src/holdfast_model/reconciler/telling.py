"""What is told of a node that stands in others' way or is well again, and of the graph as a whole."""

from __future__ import annotations

from holdfast_model.events import Family, FaultType, GraphEvent, NodeEvent
from holdfast_model.reasons import Reason

from .core import Core
from .facts import parent_of
from .failing import livelocked
from .gating import no_longer_needed
from .records import Phase, Unit, reported
from .turn import STATUS

_FAILURES = frozenset({Phase.FAILED, Phase.BACKOFF, Phase.QUARANTINED})
STUCK = _FAILURES | {Phase.HELD, Phase.WAITING, Phase.REFUSED, Phase.WATCHED}
"""Phases that do not pass by themselves, or only after a failure: dependents are told of them."""


def well_again(core: Core, unit: Unit) -> None:
    """A node is as declared: end its episode, tell of the recovery, clear what failures and decisions left behind."""
    rec = unit.rec
    if rec.gate is not None or rec.approval is not None or rec.decision is not None:
        no_longer_needed(core, unit)
    if rec.episode and not unit.suspect:
        over(core, unit)
        core.change(
            unit,
            episode="",
            raised=reported(rec.raised),
            fault="",
            failures=0,
            error="",
            error_reason="",
            failed_at=(),
            quarantined_until=rec.quarantined_until if livelocked(core, unit) else 0.0,
            alone=False,
            watched=False,
            recovered=core.now,
        )
    if rec.blamed:
        core.change(unit, blamed=())


def over(core: Core, unit: Unit, why: str = "") -> None:
    """Tell that a node's episode is over: what was counted in it, and added for it, is done with."""
    rec = unit.rec
    data = {"node": unit.id, "nodeType": unit.type, "episode": rec.episode, "failures": rec.failures, "detail": why}
    core.emit(Family.NODE, NodeEvent.RECOVERED, {**data, "parentNodeId": parent_of(unit)}, unit.id)


def blame(core: Core, unit: Unit) -> None:
    """A node got stuck: tell of those that it blocks."""
    for name in unit.below:
        other = core.units[name]
        if other.phase is Phase.BLOCKED:
            blame_one(core, unit, other)


def blame_one(core: Core, blocker: Unit, blocked: Unit) -> None:
    """Tell once per episode that a node is blocked by one that failed, is held or waits for a person."""
    told = blocked.rec.blamed
    mark = blocker.rec.episode or f"{blocker.phase}:{blocker.id}"
    if mark not in told:
        told = _remember(core, blocked, mark)
        data: dict[str, object] = {
            "node": blocked.id,
            "nodeType": blocked.type,
            "by": blocker.id,
            "because": str(blocker.phase),
        }
        core.emit(Family.NODE, NodeEvent.BLOCKED, data, blocked.id)
    if blocker.rec.failures and blocker.phase in _FAILURES and f"!{mark}" not in told:
        _remember(core, blocked, f"!{mark}")
        detail = f"{blocker.id} failed: {blocker.rec.error}"
        cause = (blocker.rec.fault,) if blocker.rec.fault else ()
        core.fault(blocked, FaultType.DEPENDENCY_UNAVAILABLE, Reason.DEPENDENCY_FAILED, detail, parents=cause)


def _remember(core: Core, blocked: Unit, mark: str) -> tuple[str, ...]:
    told = (*blocked.rec.blamed[-15:], mark)
    core.change(blocked, blamed=told)
    return told


def nobody_there(core: Core) -> None:
    """Types whose nodes have waited too long for a provisioner: one fault per type."""
    for type, since in list(core.missing_since.items()):
        if type in core.missing_told or since + core.settings.no_provisioner_after > core.now:
            continue
        unit = next((u for u in core.by_type.get(type, ()) if u.phase is Phase.NO_PROVISIONER and not u.watched), None)
        if unit is None:  # nobody waits any more
            del core.missing_since[type]
            continue
        core.missing_told.add(type)
        core.undo.told.append(type)
        core.fault(
            unit, FaultType.PROVISION_FAILED, Reason.NO_PROVISIONER, f"no provisioner for type {type!r} is running"
        )


def tell(core: Core, version: int, deleting: bool, deleted: bool) -> bool:
    """The graph as a whole: the end of a wave, and convergence, once per transition. Returns whether it is still
    being deleted."""
    busy = core.flights or core.doubtful or any(core.phases[p] for p in (Phase.READY, Phase.OBSERVING, Phase.FORGET))
    if core.wave["steps"] and not busy:
        counts: dict[str, object] = {
            "nodeCount": len(core.units),
            "additionsCount": core.wave["additions"],
            "removalsCount": core.wave["removals"],
            "faultCount": core.wave["faults"],
        }
        core.emit(Family.GRAPH, GraphEvent.RECONCILED, counts)
        core.wave.clear()
    settled = core.settled
    if settled and deleting and not core.units:
        core.converged = True
        core.emit(Family.GRAPH, GraphEvent.DELETED, {"version": version})
        core.turn.meta[STATUS] = "deleted"
        return False
    if settled and deleted and not core.units:
        core.converged = True
    elif settled and not core.converged:
        core.converged = True
        core.emit(Family.GRAPH, GraphEvent.CONVERGED, {"nodeCount": len(core.units), "version": version})
        if not deleting:
            core.turn.meta[STATUS] = "converged"
    elif not settled and core.converged:
        core.converged = False
        if not deleting:
            core.turn.meta[STATUS] = "reconciling"
    return deleting
