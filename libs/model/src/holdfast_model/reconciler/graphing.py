"""A changed desired graph: nodes that come, go, change their form or their edges, and what becomes of their state."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast_model.messages import Action, Status
from holdfast_model.names import BUILT_IN_TYPES
from holdfast_model.rows import Node, Tombstone

from . import gating
from .core import Core
from .facts import review_spec, union
from .records import GateState, Record, Unit, reported
from .removing import bury, forgotten, fresh_removed, note_odd, revived

_replace = msgspec.structs.replace


def on_graph(core: Core, nodes: Mapping[str, Node | None], gone: Mapping[tuple[str, str], Tombstone | None]) -> None:
    """Take in changed nodes (None = no longer desired) and tombstones (None = forgotten), as they are now."""
    core.converged = core.undo.converged = False
    moved: dict[tuple[str, str], Record] = {}
    below: dict[str, Mapping[str, None]] = {}
    left = [u for u, node in _known(core, nodes) if node is None or node.type != u.type]
    for unit in left:
        _unlink(core, unit)
    for unit in left:
        moved[(unit.id, unit.type)] = _replace(unit.rec, uses=core.uses(unit))
        below[unit.id] = unit.below
        gating.close_all(core, unit, "the node was removed")
        core.write(unit.id, None)
        core.drop(unit)
    buried = _graves(core, gone, moved)
    fresh = _added(core, nodes, moved, below)
    for id, node in nodes.items():
        if node is not None:
            _rewire(core, core.units[id], node, fresh=id in fresh)
    for id in fresh & below.keys():  # a changed type: those that hang on it may not have changed themselves
        for name in core.units[id].below:
            core.recount(core.units[name])
            core.mark(core.units[name])
    for grave in buried:
        bury(core, grave)
    for key in moved:
        if key not in core.graves and (key[0] not in core.units or core.units[key[0]].type != key[1]):
            core.strike(*key)
    for id, _ in gone:
        forgotten(core, id)


def _known(core: Core, nodes: Mapping[str, Node | None]) -> list[tuple[Unit, Node | None]]:
    units = core.units
    return [(units[id], node) for id, node in nodes.items() if id in units]


def _unlink(core: Core, unit: Unit) -> None:
    assert unit.node is not None
    for target in unit.node.depends_on:
        core.units[target].leaves(unit.id)


def _graves(
    core: Core, gone: Mapping[tuple[str, str], Tombstone | None], moved: dict[tuple[str, str], Record]
) -> list[Unit]:
    """Tombstones come and go; records of those that go are ``moved`` on, to nodes that are wanted again."""
    buried = []
    for key, tomb in gone.items():
        grave = core.graves.get(key)
        if tomb is None:
            if grave is not None:
                moved[key] = grave.rec
                gating.close_all(core, grave, "no longer to be removed")
                core.write(grave.field, None)
                core.drop(grave)
            continue
        if grave is not None:  # wanted and unwanted again meanwhile, perhaps in another form
            gating.close_all(core, grave, "the node changed")
            rec = _replace(grave.rec, gate=None, approval=None, round=grave.rec.round + 1)
            core.drop(grave)
        else:
            rec = fresh_removed(moved[key] if key in moved else core.blank(tomb.type)[0])
        grave = core.add_grave(tomb, _replace(rec, uses=union(rec.uses, tomb.depends_on)))
        core.write(grave.field, grave.rec)
        core.adopt_flight(grave)
        buried.append(grave)
    return buried


def _added(
    core: Core,
    nodes: Mapping[str, Node | None],
    moved: Mapping[tuple[str, str], Record],
    below: Mapping[str, Mapping[str, None]],
) -> set[str]:
    fresh: set[str] = set()
    units, flights = core.units, core.flights
    for id, node in nodes.items():
        if node is None or id in units:
            continue
        fresh.add(id)
        unit = core.add_unit(node, revived(core, node.type, moved.get((id, node.type))))
        unit.tick = core.next_tick()
        if id in below:
            unit.below = below[id]
        if id in flights:
            adopt(core, unit)
        for grave in core.forms_removed(id):
            note_odd(core, grave)
        if unit.rec not in core.blank(node.type):
            core.write(id, unit.rec)
            core.look(unit)
    return fresh


def adopt(core: Core, unit: Unit) -> None:
    """A unit takes over the step that is under way for the same node and type."""
    core.adopt_flight(unit)
    if unit.node is None or not unit.flying:
        return
    flight = core.flights[unit.id][1]
    if flight.action is Action.DEPROVISION and unit.rec.status is not None:
        core.change(unit, status=None)  # nobody knows how far its removal has got
    if not set(flight.uses) <= {*unit.node.depends_on, *unit.rec.uses}:
        core.change(unit, uses=core.uses(unit))  # nothing else remembers what it was sent with


def _rewire(core: Core, unit: Unit, node: Node, *, fresh: bool) -> None:
    old = unit.node
    assert old is not None
    units, name = core.units, unit.id
    if not fresh:
        if old.depends_on != node.depends_on:
            for target in old.depends_on:
                if target not in node.depends_on and target in units:
                    units[target].leaves(name)
        _keep_uses(core, unit, old, node)
        unit.node = node
        if old.digest != node.digest:
            core.lose_currency(unit)  # before it is known what that means, it may not be taken for current again
        else:
            core.refresh(unit, uses=True)
    for target in node.depends_on:
        units[target].stands_below(name)
    if not fresh and old.digest != node.digest:
        if unit.type in BUILT_IN_TYPES:
            _retarget(core, unit, old, node)
        respecified(core, unit)
        core.refresh(unit, uses=True)
    if fresh or old.depends_on != node.depends_on:
        core.recount(unit)
    core.mark(unit)


def _keep_uses(core: Core, unit: Unit, old: Node, node: Node) -> None:
    """What a node was made with is remembered once it is no longer what it declares."""
    if unit.current:
        if old.digest == node.digest:
            return  # it stays as declared: it stands on what it declares, whatever that is
    elif old.depends_on == node.depends_on:
        return
    uses = core.uses(unit)
    if uses != unit.rec.uses:
        core.change(unit, uses=uses)


def _retarget(core: Core, review: Unit, old: Node, node: Node) -> None:
    before, after = str(review_spec(old).get("target", "")), str(review_spec(node).get("target", ""))
    if before != after:
        core.reviews[before].pop(review.id, None)
        if not core.reviews[before]:
            del core.reviews[before]
        core.reviews.setdefault(after, {})[review.id] = None


def respecified(core: Core, unit: Unit) -> None:
    """A new digest ends what was decided, refused or failed for the old one, and is looked at first."""
    unit.tick = core.next_tick()
    gating.close_all(core, unit, "the node changed")
    rec = unit.rec
    if rec in core.blank(unit.type):
        core.mark(unit)
        return
    asked = rec.gate is not None and rec.gate.state is GateState.OPEN  # a person may have done it by now
    core.change(
        unit, status=Status.UNKNOWN if asked else rec.status, hold=False, hold_digest="", released=None, decision=None,
        doubted=False, permanent="", refused="", next_try=0.0, approval=None, gate=None, quarantined_until=0.0,
        heals=(), failed_at=(), failures=0, error="", error_reason="", round=rec.round + 1, raised=reported(rec.raised),
        episode=f"e{core.next_number()}" if rec.episode else "", about=unit.form.digest if rec.episode else "",
    )  # fmt: skip
    core.look(unit)
