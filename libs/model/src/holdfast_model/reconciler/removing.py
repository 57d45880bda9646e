"""In which order removed things go: after the new form of their node, and after everything made with them.

When a node goes, those that were made with it are noted (``Unit.below`` of its grave, ``Record.users`` on disk). One
of them stands in the way while it is there and not as declared now, or while its own removal is still to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from holdfast_model.messages import Action, Status
from holdfast_model.rows import Node, Tombstone

from .core import Core
from .records import Flight, GateState, Record, Unit


def asked(rec: Record) -> bool:
    """Whether a person is asked to do something, and may have done it by now."""
    return rec.gate is not None and rec.gate.state is GateState.OPEN


def fresh_removed(rec: Record) -> Record:
    """The record of a node that has just been removed: if it may be there though it is not known to be, look first."""
    tried = rec.operation and rec.status is not Status.PRESENT
    status = Status.UNKNOWN if asked(rec) else None if tried else rec.status
    return Record(
        type=rec.type, status=status, reason=rec.reason, detail=rec.detail, token=rec.token, digest=rec.digest,
        operation=rec.operation, attempt=rec.attempt, request=rec.request, outputs=rec.outputs, info=rec.info,
        round=rec.round + 1, paused=rec.paused, uses=rec.uses, refs=rec.refs, known=rec.known,
    )  # fmt: skip


def never_ours(core: Core, tomb: Tombstone) -> Record:
    """The record of a removed node of which there is none: what a search has found is there."""
    if tomb.found:
        return Record(type=tomb.type, status=Status.PRESENT)
    return fresh_removed(core.blank(tomb.type)[0])


def revived(core: Core, node: Node, rec: Record | None) -> Record:
    """The record of a node that is wanted (again): what is known of it stays, what was decided or failed is over."""
    if rec is None or (rec.status is None and not rec.operation):
        return core.blank(node.type)[0]  # nothing was ever known of it
    tried = rec.intent.startswith(Action.DEPROVISION)  # it failed, or so it was said: it may be gone, or half gone
    status = Status.UNKNOWN if asked(rec) or tried else rec.status
    return Record(
        type=rec.type, status=status, reason=rec.reason, detail=rec.detail, token=rec.token, digest=rec.digest,
        operation=rec.operation, attempt=rec.attempt, request=rec.request, outputs=rec.outputs, info=rec.info,
        round=rec.round + 1, uses=rec.uses, refs=rec.refs if node.refs else None, known=rec.known if node.refs else "",
    )  # fmt: skip


def bury(core: Core, grave: Unit) -> None:
    """Note who was made with a removed node. To be called once every node and grave of the change is in place."""
    assert grave.tomb is not None
    tomb = grave.tomb
    names = dict.fromkeys((*grave.rec.users, *tomb.dependents))
    names.update((unit.id, None) for unit in core.former.get(tomb.id, ()))
    if tomb.id in core.units:
        names.update(core.units[tomb.id].below)
    users = tuple([n for n in names if n != tomb.id and _made_with(core, n, tomb.id)])
    if users != grave.rec.users:
        core.set_record(grave, msgspec.structs.replace(grave.rec, users=users))
    grave.tick = core.next_tick()
    core.mourn(grave, dict.fromkeys(users))
    core.mark(grave)
    core.unsorted[grave] = None
    note_odd(core, grave)


def note_odd(core: Core, grave: Unit) -> None:
    """Orders of different times may contradict each other where something was made with what it declares no longer, or
    where a node has had several forms."""
    assert grave.tomb is not None
    forms = core.forms_removed(grave.id)
    if len(forms) > 1 or grave.id in core.units:
        core.odd.update(dict.fromkeys(forms))
    elif any(target not in grave.tomb.depends_on for target in grave.rec.uses):
        core.odd[grave] = None


def _made_with(core: Core, name: str, target: str) -> bool:
    unit = core.units.get(name)
    if unit is not None and target in core.uses(unit):
        return True
    return any(target in grave.rec.uses for grave in core.forms_removed(name))


def renewed(core: Core, unit: Unit, flight: Flight) -> None:
    """A node was made anew: it is in the way of no removal that was pending when the step was sent."""
    _released(core, unit, [g for g in core.mourners.get(unit.id, ()) if flight.order > g.tick])


def gone(core: Core, unit: Unit) -> None:
    """A thing is not there any more: it is in the way of nobody."""
    _released(core, unit, list(core.mourners.get(unit.id, ())))


def _released(core: Core, unit: Unit, graves: list[Unit]) -> None:
    """``graves`` wait for this unit no longer, but perhaps for another form of its node."""
    for grave in graves:
        forms = core.forms_removed(unit.id)
        desired = core.units.get(unit.id)
        if desired is not None:
            forms.append(desired)
        if not any(f is not unit and grave.id in core.uses(f) for f in forms):
            core.unmourn(grave, unit.id)


def forgotten(core: Core, node: str) -> None:
    """Nothing is left of a node: nobody waits for it."""
    if node not in core.units and node not in core.grave_types:
        for grave in tuple(core.mourners.get(node, ())):
            core.unmourn(grave, node)


def comes_first(core: Core, grave: Unit, last: str) -> str:
    """Who has to be renewed or removed before this grave's turn; "" = nobody. ``last``: the answer of last time."""
    successor = core.units.get(grave.id)
    if successor is not None and not successor.current:
        return grave.id
    if last in grave.below and _in_the_way(core, grave, last):
        return last
    return next((name for name in grave.below if _in_the_way(core, grave, name)), "")


def _in_the_way(core: Core, grave: Unit, name: str) -> bool:
    unit = core.units.get(name)
    if unit is not None and not unit.current and grave.id in core.uses(unit):
        return True
    cut = core.cuts.get(grave, ())
    return any(g not in cut and grave.id in g.rec.uses for g in core.forms_removed(name))


def untangle(core: Core) -> None:
    """Where removals would wait for each other for ever, what was declared last counts.

    Only graves that have just been buried, or been seen to be there, can have closed a circle.
    """
    graves, core.unsorted = core.unsorted, {}
    while core.odd and (circle := _circle(core, graves)):
        pairs = list(zip(circle, (*circle[1:], circle[0]), strict=True))
        waiting, awaited = min(pairs, key=lambda pair: _weight(core, *pair))
        core.cuts.setdefault(waiting, {})[awaited] = None
        core.mark(waiting)


def _weight(core: Core, waiting: Unit, awaited: Unit) -> int:
    """How much it matters that one removal waits for another."""
    assert awaited.tomb is not None
    if waiting.id not in awaited.tomb.depends_on:
        return 0  # it was made with it, but has not been declared to need it lately
    other_forms = waiting.id in core.units or len(core.grave_types[waiting.id]) > 1
    return 1 if other_forms else 2  # it may have meant another form of it


def _circle(core: Core, graves: Iterable[Unit]) -> list[Unit]:
    """Graves of which each waits for the next, and the last for the first; empty if there are none."""
    done: set[Unit] = set()
    for start in graves:
        if start in done or not _there(core, start):
            continue
        path: dict[Unit, Iterator[Unit]] = {start: iter(_awaited(core, start))}
        while path:
            at = next(reversed(path))
            other = next(path[at], None)
            if other is None:
                del path[at]
                done.add(at)
            elif other in path:
                found = list(path)
                return found[found.index(other) :]
            elif other not in done:
                path[other] = iter(_awaited(core, other))
    return []


def _awaited(core: Core, grave: Unit) -> list[Unit]:
    """The graves of things that are there, for whose removal this one waits."""
    cut = core.cuts.get(grave, ())
    found = [g for n in grave.below for g in core.forms_removed(n)]
    return [g for g in found if grave.id in g.rec.uses and g not in cut and _there(core, g)]


def _there(core: Core, grave: Unit) -> bool:
    if grave.rec.status in (None, Status.UNKNOWN):
        info = core.info(grave)
        return info is not None and not info.observes
    return grave.rec.status is not Status.ABSENT
