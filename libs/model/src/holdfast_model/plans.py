"""The pure planner: a desired graph and what was observed in, steps in their order out.

It looks at everything at once and remembers nothing: for previews, for tests, and as the yardstick of the
incremental reconciler. What is *removed* falls into two kinds: what was ours (tombstones: known type, spec, gating
and edges) and what never was (an id that somebody found).

==================  =============================  ======  ==============================  ============================
                    PRESENT                        ABSENT  DRIFTED                         UNKNOWN
==================  =============================  ======  ==============================  ============================
desired             –                              step    step, or held                   wait, or step
not desired, ours   removal                        forget  removal                         wait
not desired, never  report, or removal             –       report, or removal              –
==================  =============================  ======  ==============================  ============================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from .errors import Cycle
from .graph import Graph
from .manifest import OnDrift, OnUnknown
from .messages import Action, NodeDeclaration, Status
from .order import TopologicalOrder
from .rows import Tombstone

UNKNOWN_TYPE = "unknown"
"""The type of a step that removes something of which nothing but its id is known."""

REPORT = "report"
REMOVE = "remove"


class Options(msgspec.Struct, frozen=True):
    """How the nodes of a type are treated; the defaults are those of a manifest."""

    on_drift: OnDrift = OnDrift.HEAL
    on_unknown: OnUnknown = OnUnknown.WAIT
    adopt_orphans: str = REPORT


class PlannedStep(msgspec.Struct, frozen=True):
    """One step. ``node`` is what it acts on, as declared or as last known."""

    node: NodeDeclaration
    action: Action


class Plan(msgspec.Struct, frozen=True):
    """Removals come before additions. Dependents are removed, dependencies added first; the rest has no order.

    ``waiting`` cannot be decided before they are observed; ``held`` are left to policies and people; ``forgotten``
    are tombstones of what is gone; ``reported`` are there, never were ours and are left alone.
    """

    removals: tuple[PlannedStep, ...] = ()
    additions: tuple[PlannedStep, ...] = ()
    waiting: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.removals and not self.additions


def plan(
    desired: Graph,
    observed: Mapping[str, Status],
    *,
    gone: Iterable[Tombstone] = (),
    options: Options | None = None,
    by_type: Mapping[str, Options] | None = None,
) -> Plan:
    """What to do so that ``observed`` becomes ``desired``. A desired or removed node that is missing from
    ``observed`` is UNKNOWN.

    ``gone`` are removed nodes that were ours; everything else in ``observed`` never was. ``options`` treat all types
    that ``by_type`` does not name.
    """
    usual, special = options or Options(), by_type or {}
    found = _Found()
    steps: set[str] = set()
    for id, node in desired.nodes.items():
        match observed.get(id, Status.UNKNOWN):
            case Status.ABSENT:
                steps.add(id)
            case Status.DRIFTED if special.get(node.type, usual).on_drift is OnDrift.HEAL:
                steps.add(id)
            case Status.DRIFTED:
                found.held.append(id)
            case Status.UNKNOWN if special.get(node.type, usual).on_unknown is OnUnknown.PROVISION:
                steps.add(id)
            case Status.UNKNOWN:
                found.waiting.append(id)
    buried = {t.id: t for t in gone if t.id not in desired.nodes}
    removed = [t for t in buried.values() if _is_there(t.id, observed.get(t.id, Status.UNKNOWN), found)]
    strays = [
        id
        for id, status in observed.items()
        if id not in desired.nodes and id not in buried and status in (Status.PRESENT, Status.DRIFTED)
    ]
    adopted = strays if usual.adopt_orphans == REMOVE else []
    return Plan(
        removals=(
            *(PlannedStep(_declared(t), Action.DEPROVISION) for t in _dependents_first(removed)),
            *(PlannedStep(NodeDeclaration(id, UNKNOWN_TYPE), Action.DEPROVISION) for id in adopted),
        ),
        additions=tuple(PlannedStep(desired.nodes[i], Action.PROVISION) for i in dependencies_first(desired, steps)),
        waiting=tuple(found.waiting),
        held=tuple(found.held),
        forgotten=tuple(found.forgotten),
        reported=tuple(i for i in strays if i not in adopted),
    )


def dependencies_first(graph: Graph, chosen: Iterable[str]) -> list[str]:
    """``chosen`` nodes of a graph so that each comes after those of them that it depends on."""
    picked = set(chosen)
    order = TopologicalOrder()
    order.rebuild({i: sorted(graph.dependencies_of(i) & picked) for i in graph.nodes if i in picked})
    return sorted(picked, key=order.__getitem__)


class _Found:
    """What gets no step."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.held: list[str] = []
        self.forgotten: list[str] = []


def _is_there(id: str, status: Status, found: _Found) -> bool:
    """Whether a removed node is still to be removed."""
    if status is Status.ABSENT:
        found.forgotten.append(id)
    elif status is Status.UNKNOWN:
        found.waiting.append(id)
    return status in (Status.PRESENT, Status.DRIFTED)


def _dependents_first(removed: list[Tombstone]) -> list[Tombstone]:
    ids = {t.id for t in removed}
    order = TopologicalOrder()
    try:
        order.rebuild({t.id: [d for d in t.depends_on if d in ids] for t in removed})
    except Cycle:
        # They were declared at different times, in orders that contradict each other: any order is as good.
        return removed
    return sorted(removed, key=lambda t: -order[t.id])


def _declared(tomb: Tombstone) -> NodeDeclaration:
    return NodeDeclaration(tomb.id, tomb.type, tomb.spec, tomb.gating.value, tomb.spec_gating.value)
