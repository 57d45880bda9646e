"""Everything that the reconciler derives and keeps up step by step, recomputed from scratch and compared."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_model.names import BUILT_IN_TYPES
from holdfast_model.reconciler import CloseIntent, ItemIntent, Phase, StepIntent
from holdfast_model.reconciler.core import Core
from holdfast_model.reconciler.deciding import decide
from holdfast_model.reconciler.records import GateState, Unit, resolved
from holdfast_model.reconciler.referring import values_of
from holdfast_model.references import nodes_in

if TYPE_CHECKING:
    from .world import World


def audit(world: World) -> None:
    """Indexes, counters, queues and phases against what units, records and flights say."""
    core = world.reconciler.core
    units = [*core.units.values(), *core.graves.values()]
    known = {id(u) for u in units}
    flying = {node: unit for node, (unit, _) in core.flights.items() if id(unit) in known}

    def same(what: str, kept: object, counted: object) -> None:
        if kept != counted:
            world.fail(f"{what}: {differences(kept, counted)} (as kept, and as it is)")

    if world.reconciler.version == world.disk.graph.version:
        same("nodes", {i: u.declared for i, u in core.units.items()}, world.disk.graph.nodes)
        same("graves", set(core.graves), set(world.disk.graph.gone))
    same("dirty", list(core.dirty), [])
    same("to resolve", list(core.to_resolve), [])
    same("referrers", _members(core.referrers), _grouped(core.units.values(), lambda u: nodes_in(u.declared.refs)))
    for unit in units:
        form, missing = resolved(unit.declared, unit.rec.refs, unit.rec.known)
        same(f"form of {unit.field!r}", (unit.form, unit.missing), (form, missing))
        same(f"node of {unit.field!r}", unit.node, unit.form if unit.tomb is None else None)
    for unit in core.units.values():
        same(f"values of {unit.id}", unit.rec.refs, values_of(core, unit.declared, unit.rec.refs))
    same("flying", {u.field for u in units if u.flying}, {u.field for u in flying.values()})
    same("current", {u.field for u in units if u.current}, {u.field for u in units if _current(u)})
    same("below", {i: set(u.below) for i, u in core.units.items()}, _below(core))
    same("unmet", {i: u.unmet for i, u in core.units.items()}, _unmet(core))
    same("by_type", _members(core.by_type), _grouped(units, lambda u: [u.type]))
    same("grave_types", {i: set(t) for i, t in core.grave_types.items()}, _pairs(core.graves))
    same("unsorted", list(core.unsorted), [])
    same("former", _members(core.former), _grouped(units, _former))
    same("mourners", _members(core.mourners), _grouped(core.graves.values(), lambda g: list(g.below)))
    same("reviews", {k: set(v) for k, v in core.reviews.items()}, _reviews(core))
    gates = {g.id: u.field for u in units for g in (u.rec.gate, u.rec.approval) if g is not None}
    same("gates", {k: u.field for k, u in core.gates.items()}, gates)
    batches: dict[str, set[str]] = {}
    for node, (_, flight) in core.flights.items():
        batches.setdefault(flight.batch, set()).add(node)
    same("batches", {b: set(n) for b, n in core.batches.items()}, batches)
    same("phases", {p: n for p, n in core.phases.items() if n}, dict(Counter(u.phase for u in units)))
    lanes = {
        u.field: (k, lane is q.urgent) for k, q in core.queues.items() for lane in (q.urgent, q.bulk) for u in lane
    }
    ready = {u.field: (core.queue_of(u), u.urgent) for u in units if u.phase is Phase.READY}
    same("queues", lanes, ready)
    same("looks", [u.field for v in core.to_look.values() for u in v if id(u) not in known], [])
    same("converged", core.converged, core.settled)
    stages = {o: s for o, s in core.stages.by_owner.items() if not s.entering}
    late = {o: {n for n in s.members if n in core.units and not core.units[n].current} for o, s in stages.items()}
    same("missing of phases", {o: set(s.missing) for o, s in stages.items()}, late)
    same("phases of nodes", {n: len(s) for n, s in core.stages.of.items()},
         dict(Counter(n for s in core.stages.by_owner.values() for n in s.members)))  # fmt: skip
    for unit in units:
        phase, blocker = unit.phase, unit.blocker
        same(f"phase of {unit.field!r}", (phase, bool(blocker)), (decide(core, unit), bool(unit.blocker)))
        unit.blocker = blocker
    _one_question(world, units)


def _one_question(world: World, units: list[Unit]) -> None:
    """At most one open gate per node and action; none for something that is as declared."""
    asked = Counter(
        (u.id, g.action, type(g))
        for u in units
        for g in (u.rec.gate, u.rec.approval)
        if g is not None and g.state is GateState.OPEN
    )
    if any(n > 1 for n in asked.values()):
        world.fail(f"several open gates: {asked}")
    for unit in units:
        gate = unit.rec.gate
        if unit.phase is Phase.PRESENT and gate is not None and gate.state is GateState.OPEN:
            world.fail(f"{unit.id} is as declared, but its gate is open: {unit.rec}")


def _current(unit: Unit) -> bool:
    node, rec = unit.node, unit.rec
    return node is not None and not unit.flying and rec.status == "PRESENT" and rec.digest == node.digest


def _below(core: Core) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {i: set() for i in core.units}
    for unit in core.units.values():
        assert unit.node is not None
        for target in unit.node.depends_on:
            found[target].add(unit.id)
    return found


def _unmet(core: Core) -> dict[str, int]:
    return {i: sum(not core.units[t].current for t in u.node.depends_on) for i, u in core.units.items() if u.node}


def _former(unit: Unit) -> list[str]:
    if unit.node is None:
        return list(unit.rec.uses)
    return [] if unit.current else [t for t in unit.rec.uses if t not in unit.node.depends_on]


def _grouped(units: Any, keys: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for unit in units:
        for key in keys(unit):
            found.setdefault(key, set()).add(unit.field)
    return found


def _members(index: Any) -> dict[str, set[str]]:
    return {k: {u.field for u in v} for k, v in index.items() if v}


def _pairs(graves: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node, type in graves:
        found.setdefault(node, set()).add(type)
    return found


def _reviews(core: Core) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for unit in core.units.values():
        if unit.type in BUILT_IN_TYPES and unit.node is not None:
            found.setdefault(str(msgspec.json.decode(unit.node.spec).get("target", "")), set()).add(unit.id)
    return found


def audit_load(world: World) -> None:
    """A reconciler loaded from the disk knows what the living one knows, and has nothing to make up for."""
    living, ids = world.reconciler.core, world.ids
    if world.reconciler.version != world.disk.graph.version:
        return
    fresh = world.fresh(world.disk.epoch).core
    world.ids = ids

    def same(what: str, kept: object, loaded: object) -> None:
        if kept != loaded:
            world.fail(f"{what}: {differences(kept, loaded)} (the living reconciler, and a fresh one)")

    def records(core: Core) -> dict[str, Any]:
        units = (*core.units.values(), *core.graves.values())
        return {u.field: u.rec for u in units if u.rec not in core.blank(u.type)}

    def flights(core: Core) -> dict[str, Any]:
        return {
            n: (u.field, f.batch, f.action, f.operation, f.attempt, f.type, f.deadline, f.carries)
            for n, (u, f) in core.flights.items()
            if core.knows(u)
        }

    same("records", records(living), records(fresh))
    stored = {f: r for f, r in world.disk.records.items() if r not in living.blank(r.type)}
    same("records on the disk", records(living), stored)
    same("flights", flights(living), flights(fresh))
    same("gates", set(living.gates), set(fresh.gates))
    same("unmet", {i: u.unmet for i, u in living.units.items()}, {i: u.unmet for i, u in fresh.units.items()})
    same("current", {i for i, u in living.units.items() if u.current}, {i for i, u in fresh.units.items() if u.current})
    forms = [{u.field: u.form.digest for u in (*c.units.values(), *c.graves.values())} for c in (living, fresh)]
    same("forms", forms[0], forms[1])
    same("counter", (living.counter, living.paused, living.converged), (fresh.counter, fresh.paused, fresh.converged))
    same("rows to make up for", {}, fresh.turn.rows)
    todo = {f: t for f, t in world.disk.todo.items() if isinstance(t, StepIntent)}
    same("batches", set(living.batches), {f[2:] for f in todo})
    asked = {f for f, t in world.disk.todo.items() if isinstance(t, ItemIntent)}
    same("questions for nobody", {f for f in asked if f[2:] not in living.gates}, set())
    assert all(isinstance(t, StepIntent | ItemIntent | CloseIntent) for t in world.disk.todo.values())


def differences(one: object, other: object) -> object:
    """Where two structures differ, as short as can be."""
    if isinstance(one, msgspec.Struct) and isinstance(other, msgspec.Struct):
        one, other = msgspec.structs.asdict(one), msgspec.structs.asdict(other)
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [k for k in {**one, **other} if one.get(k) != other.get(k)]
        return {k: differences(one.get(k), other.get(k)) for k in keys}
    return (one, other)


def shown(record: msgspec.Struct) -> dict[str, object]:
    """The fields of a record that say anything."""
    return {k: v for k, v in msgspec.to_builtins(record).items() if v}
