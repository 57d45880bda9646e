"""Taking over a graph from its stored state, and rebuilding what an earlier owner had sent."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

import msgspec

from holdfast_model.messages import Action, Status, Step, StepBatch
from holdfast_model.rows import Node, Tombstone

from . import gating
from .core import Core
from .executing import build_step
from .facts import union
from .graphing import adopt, respecified
from .records import REPORTED, Flight, GateState, Record, Unit, grave_field, grave_of, reported
from .removing import bury, fresh_removed, note_odd, revived
from .turn import CloseIntent, ItemIntent, StepIntent


def load(
    core: Core,
    nodes: Mapping[str, Node],
    gone: Iterable[Tombstone],
    records: Mapping[str, Record],
    todo: Mapping[str, StepIntent | ItemIntent | CloseIntent],
) -> None:
    """Fill an empty core. What changed while nobody owned the graph is made up for, and written with the first turn."""
    for node in nodes.values():
        core.add_unit(node, _record(core, node, records))
    for node in nodes.values():
        for target in node.depends_on:
            core.units[target].stands_below(node.id)
    unknown = [_grave(core, tomb, records) for tomb in gone]
    for field, intent in todo.items():
        if isinstance(intent, StepIntent):
            _resume(core, field[2:], intent)
    for unit in core.units.values():
        if unit.node is not None and unit.node.depends_on:
            core.recount(unit)
    for grave in unknown:
        if grave is not None:
            bury(core, grave)
    for grave in core.graves.values():
        core.unsorted[grave] = None
        note_odd(core, grave)
    for field in records:
        key = grave_of(field)
        if (key not in core.graves) if key is not None else (field not in core.units):
            core.write(field, None)
    for unit in (*core.units.values(), *core.graves.values()):
        _look_first(core, unit)


def _record(core: Core, node: Node, records: Mapping[str, Record]) -> Record:
    rec = records.get(node.id)
    if rec is not None and rec.type == node.type:
        return rec
    # The owner fell before it could write what a change meant: this form may have been removed before.
    fresh = revived(core, node.type, records.get(grave_field(node.id, node.type)))
    if rec is not None and reported(rec.raised):
        fresh = msgspec.structs.replace(fresh, raised=reported(rec.raised))
    if fresh not in core.blank(node.type):
        core.write(node.id, fresh)
    elif rec is not None:
        core.write(node.id, None)
    return fresh


def _grave(core: Core, tomb: Tombstone, records: Mapping[str, Record]) -> Unit | None:
    """Enter a grave; returned if it is to be buried first, because nobody has noted yet who was made with it."""
    field = grave_field(tomb.id, tomb.type)
    rec = records.get(field)
    if rec is not None:
        grave = core.add_grave(tomb, rec)
        core.mourn(grave, dict.fromkeys(rec.users))
        return None
    last = records.get(tomb.id)
    known = last is not None and last.type == tomb.type
    rec = fresh_removed(last if last is not None and known else core.blank(tomb.type)[0])
    grave = core.add_grave(tomb, msgspec.structs.replace(rec, uses=union(rec.uses, tomb.depends_on)))
    core.write(field, grave.rec)
    if last is not None and known:
        _close_of(core, grave, last)
    return grave


def _close_of(core: Core, grave: Unit, last: Record) -> None:
    for gate, ref in ((last.gate, gating.human_ref), (last.approval, gating.approval_ref)):
        if gate is not None and gate.state is GateState.OPEN:
            gating.close(core, gate.id, ref(core, grave, gate.action), "the node was removed")


def _resume(core: Core, batch: str, intent: StepIntent) -> None:
    """Steps of an open intent are in flight, whoever sent them."""
    for node, action, operation, attempt, digest, uses, carries in intent.steps:
        act = Action(action)
        desired, grave = core.units.get(node), core.graves.get((node, intent.type))
        if desired is not None and desired.type != intent.type:
            desired = None
        unit = (desired or grave) if act is Action.PROVISION else (grave or desired)
        if unit is None or (operation, attempt) <= (unit.rec.operation, unit.rec.attempt):
            continue
        form = unit.form
        whole = form.digest if form.digest.startswith(digest) else digest
        flight = Flight(
            batch, act, operation, attempt, intent.type, whole, unit.rec.token, intent.deadline, intent.sent, uses,
            carries,
        )  # fmt: skip
        core.set_flight(unit, flight)
        adopt(core, unit)
    if batch in core.batches:
        core.sent[batch] = (intent, frozenset(s[0] for s in intent.steps))
        heapq.heappush(core.deadlines, (intent.deadline, batch))
    else:
        core.todo(f"b:{batch}", None)


def _look_first(core: Core, unit: Unit) -> None:
    """What cannot be known any more is looked at; what was decided for another digest is over."""
    rec = unit.rec
    if rec.status is Status.UNKNOWN:
        core.look(unit)
    if any(kind.startswith(REPORTED) for kind in rec.raised):
        unit.suspect = True
        core.look(unit)
    if unit.node is None:
        return
    digest = unit.node.digest
    outdated = any(gate is not None and gate.digest != digest for gate in (rec.gate, rec.approval))
    outdated = outdated or (rec.decision is not None and rec.decided != digest)
    if outdated or (rec.episode and rec.about != digest):
        respecified(core, unit)


def rebuild(core: Core, batch: str, intent: object) -> StepBatch | None:
    """The batch of an open intent, to be published again unchanged; None when nothing of it is left.

    A step whose node has changed or left is not rebuilt: it is looked at when it times out.
    """
    if not isinstance(intent, StepIntent) or batch not in core.batches:
        return None
    steps: list[Step] = []
    for node, _, _, _, digest, _, _ in intent.steps:
        flown = core.flights.get(node)
        if flown is None or flown[1].batch != batch:
            continue
        unit, flight = flown
        if unit.form.digest.startswith(digest) and unit.action is flight.action:
            steps.append(build_step(unit, flight))
    if not steps:
        return None
    ref = core.ref
    return StepBatch(
        batch, ref.tenant, ref.graph, core.incarnation, ref.partition, intent.epoch, intent.domain_version,
        intent.start_by, steps,
    )  # fmt: skip
