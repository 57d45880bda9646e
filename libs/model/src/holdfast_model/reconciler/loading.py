"""Taking over a graph from its stored state, and rebuilding what an earlier owner had sent."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

import msgspec

from holdfast_model.messages import Action, Status, Step, StepBatch
from holdfast_model.names import BUILT_IN_TYPES
from holdfast_model.rows import Node, Tombstone

from . import gating, renaming
from .core import Core
from .executing import build_step, first_of
from .facts import union
from .graphing import adopt, ask_anew, resolve, respecified, review_gone, stand, switched
from .phasing import due_of
from .records import REPORTED, Flight, GateState, Record, Unit, grave_field, grave_of, reported
from .removing import bury, fresh_removed, never_ours, note_odd, revived
from .turn import CloseIntent, ItemIntent, StepIntent


def load(
    core: Core,
    nodes: Mapping[str, Node],
    gone: Iterable[Tombstone],
    records: Mapping[str, Record],
    todo: Mapping[str, StepIntent | ItemIntent | CloseIntent],
) -> None:
    """Fill an empty core. What changed while nobody owned the graph is made up for, and written with the first turn."""
    gone, stored = list(gone), records
    names = renaming.renames_in(nodes, gone, records) if records else {}
    stands = renaming.expanded(core, names, {tomb.key: tomb for tomb in gone})
    records = _under_new_names(core, records, names, stands)
    for node in nodes.values():
        core.add_unit(node, _record(core, node, records))
    for node in nodes.values():
        for target in node.depends_on:
            core.units[target].stands_below(node.id)
    unknown = [_grave(core, tomb, records) for tomb in gone]
    core.renamed.update(names)
    forms: list[Node | Tombstone] = [*nodes.values(), *gone]
    for form in forms:
        for former in form.was:
            if former not in nodes:
                core.renamed.setdefault(former, form.id)
    renaming.follow(core, names, stands)
    for field, intent in todo.items():
        if isinstance(intent, StepIntent):
            mine = {s[0]: renaming.resumed_as(core, s[0], intent.type, names) for s in intent.steps}
            renamed = renaming.in_new_names(intent, {o: n for o, n in mine.items() if o != n}, stands)
            if renamed is not intent:
                core.todo(field, renamed)
            _resume(core, field[2:], renamed, records)
    for unit in core.units.values():
        if unit.node is not None and unit.node.depends_on:
            core.recount(unit)
            stand(core, unit)
    for grave in unknown:
        if grave is not None:
            bury(core, grave)
    for grave in core.graves.values():
        core.unsorted[grave] = None
        note_odd(core, grave)
    for field, rec in records.items():
        key = grave_of(field)
        if (key not in core.graves) if key is not None else (field not in core.units):
            core.write(field, None)
            if rec.type in BUILT_IN_TYPES:
                _without_review(core, field)
    resolve(core)
    ask_anew(core, names.values())
    _withdraw(core, stored)
    for unit in (*core.units.values(), *core.graves.values()):
        _look_first(core, unit)


def _without_review(core: Core, review: str) -> None:
    """A review left while nobody owned the graph. Its record does not say which node it was about: its id does."""
    for unit in list(core.units.values()):
        if unit.id in review and unit.rec.episode and not core.reviews.get(unit.id):
            review_gone(core, unit, unit.rec.episode)


def _under_new_names(
    core: Core, records: Mapping[str, Record], names: Mapping[str, str], stands: renaming.Expanded
) -> Mapping[str, Record]:
    """Records of what was renamed while nobody owned the graph."""
    if not names:
        return records
    out = {field: rec for field, rec in records.items() if field not in names}
    for old in names:
        core.write(old, None)
    for old, new in names.items():
        out[new] = renaming.record_of(core, old, new, records[old], names, stands)
        core.write(new, out[new])
    return out


def _record(core: Core, node: Node, records: Mapping[str, Record]) -> Record:
    rec = records.get(node.id)
    if rec is not None and rec.type == node.type:
        if rec.refs is not None and not node.refs:
            rec = msgspec.structs.replace(rec, refs=None, known="")
            core.write(node.id, rec)
        return rec
    # The owner fell before it could write what a change meant: this form may have been removed before.
    fresh = revived(core, node, records.get(grave_field(node.id, node.type)))
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
    rec = fresh_removed(last) if last is not None and known else never_ours(core, tomb)
    grave = core.add_grave(tomb, msgspec.structs.replace(rec, uses=union(rec.uses, tomb.depends_on)))
    core.write(field, grave.rec)
    return grave


def _withdraw(core: Core, stored: Mapping[str, Record]) -> None:
    """Questions that nobody stands behind any more: of nodes and reviews that left, of forms that were to be removed
    and are wanted again, of names and types that another node has now."""
    for field, rec in stored.items():
        for gate in (rec.gate, rec.approval):
            if gate is not None and gate.state is GateState.OPEN and gate.id not in core.gates:
                node, _ = grave_of(field) or (field, "")
                gating.close(core, gate.id, gating.caller_ref(core, node, gate), "the node changed or was removed")


def _resume(core: Core, batch: str, intent: StepIntent, records: Mapping[str, Record]) -> None:
    """Steps of an open intent are in flight, whoever sent them; also one of a form that left meanwhile without a trace
    (it came to be only observed, say): until it has ended, no other form of its node may be worked on.
    """
    known = []
    for step in intent.steps:
        node, action, operation, attempt, digest, uses, carries = step
        act = Action(action)
        desired, grave = core.units.get(node), core.graves.get((node, intent.type))
        if desired is not None and desired.type != intent.type:
            desired = None
        unit = (desired or grave) if act is Action.PROVISION else (grave or desired)
        if unit is None:
            if _answered(records, node, intent.type, (operation, attempt)):
                continue
            unit = Unit(Record(type=intent.type), tomb=Tombstone(node, intent.type, msgspec.Raw(b"{}"), ""))
        known.append(step)
        if (operation, attempt) <= (unit.rec.operation, unit.rec.attempt):
            continue
        form = unit.form
        whole = form.digest if form.digest.startswith(digest) else digest
        flight = Flight(
            batch, act, operation, attempt, intent.type, whole, unit.rec.token, intent.deadline, intent.sent, uses,
            carries, first=first_of(unit.rec, act, whole, operation),
        )  # fmt: skip
        core.set_flight(unit, flight)
        if core.knows(unit):
            adopt(core, unit)
    if batch in core.batches:
        if len(known) < len(intent.steps):  # nothing says any more that the others were answered
            intent = msgspec.structs.replace(intent, steps=known)
            core.todo(f"b:{batch}", intent)
        core.sent[batch] = (intent, frozenset(s[0] for s in intent.steps))
        heapq.heappush(core.deadlines, (intent.deadline, batch))
    else:
        core.todo(f"b:{batch}", None)


def _answered(records: Mapping[str, Record], node: str, kind: str, attempt: tuple[int, int]) -> bool:
    """Whether it is recorded how an attempt at a form ended that is there no longer."""
    found = (records.get(field) for field in (node, grave_field(node, kind)))
    return any(r is not None and r.type == kind and attempt <= (r.operation, r.attempt) for r in found)


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
    if rec.watched is not unit.watched and (rec.watched or rec.gate or rec.approval or rec.episode):
        switched(core, unit)  # while nobody owned the graph
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
            step = build_step(unit, flight, due_of(core, unit))
            sent_as = intent.sent_as.get(node)
            steps.append(step if sent_as is None else msgspec.structs.replace(step, node=sent_as))
    if not steps:
        return None
    ref = core.ref
    return StepBatch(
        batch, ref.tenant, ref.graph, core.incarnation, ref.partition, intent.epoch, intent.domain_version,
        intent.start_by, steps,
    )  # fmt: skip
