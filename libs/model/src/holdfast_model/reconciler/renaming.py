"""Nodes that come under another name: what is known of them, the step under way and open questions go along.

A node remembers what it was called (``Node.was``), so that an owner which takes the graph over later knows it, too.
Whoever was made with it, or waits for it, is told its new name. No step follows from a new name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from holdfast_model.references import parse
from holdfast_model.rows import Node, Tombstone

from .core import Core
from .gating import bind
from .records import GateState, Record, Unit, grave_field, grave_of
from .turn import StepIntent

_replace = msgspec.structs.replace


_Graves = Mapping[tuple[str, str], Tombstone | None]
Expanded = Mapping[str, tuple[str, ...]]


def renames(
    core: Core, nodes: Mapping[str, Node | None], gone: _Graves
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Old name -> new name, of what comes under another name in this change: of nodes, of what has been removed under
    its new name before anybody here heard of it, and of what was removed, wanted again, and renamed.

    What is new here, and was called as something that is known, is that: if a node of the old name is desired again,
    that is a new one.
    """
    forms: list[Node | Tombstone] = [node for node in nodes.values() if node is not None]
    forms += [tomb for key, tomb in gone.items() if tomb is not None and key not in core.graves]
    if not any(form.was for form in forms):
        return {}, {}, {}
    known = {id: type for (id, type), tomb in gone.items() if tomb is None and (id, type) in core.graves}
    known |= {id: unit.type for id, unit in core.units.items()}
    found = _matched(forms, known)
    mine = {old: form for old, form in found.items() if old in core.units}
    return (
        {old: form.id for old, form in mine.items() if isinstance(form, Node)},
        {old: form.id for old, form in mine.items() if isinstance(form, Tombstone)},
        {old: form.id for old, form in found.items() if old not in mine},
    )


def renames_in(nodes: Mapping[str, Node], gone: Iterable[Tombstone], records: Mapping[str, Record]) -> dict[str, str]:
    """The same for a graph that is taken over: what has no record, but one of its type under a former name."""
    forms: list[Node | Tombstone] = list(nodes.values())
    forms += [t for t in gone if grave_field(t.id, t.type) not in records]
    if not any(form.was for form in forms):
        return {}
    known = {field: rec.type for field, rec in records.items() if grave_of(field) is None}
    return {old: form.id for old, form in _matched(forms, known).items()}


def _matched(forms: Iterable[Node | Tombstone], known: Mapping[str, str]) -> dict[str, Node | Tombstone]:
    """By former name, those that are known under it. A name that was left may be one that another one has come to: so
    this goes on until nothing more is found."""
    found: dict[str, Node | Tombstone] = {}
    left = [form for form in forms if form.was]
    while True:
        rest: list[Node | Tombstone] = []
        for form in left:
            free = (
                form.id not in known
                or form.id in found
                or (isinstance(form, Tombstone) and known[form.id] != form.type)
            )
            names = (n for n in form.was if n not in found and known.get(n) == form.type)
            name = next(names, "") if free else ""
            if name:
                found[name] = form
            else:
                rest.append(form)
        if len(rest) == len(left):
            return found
        left = rest


def record_of(core: Core, old: str, new: str, rec: Record, names: Mapping[str, str], stands: Expanded) -> Record:
    """The record of a renamed node. What is open for it stays open: its items keep the name they were opened with."""
    gate, approval = rec.gate, rec.approval
    if gate is not None and gate.state is GateState.OPEN:
        gate = _replace(gate, asked=gate.asked or old)
    if approval is not None:
        asked = approval.asked or old if approval.state is GateState.OPEN else ""
        bound = bind(core.incarnation, new, approval.action, approval.digest, approval.plan, approval.pins)
        approval = _replace(approval, asked=asked, binding=bound)
    return _replace(
        rec, gate=gate, approval=approval, uses=named(rec.uses, stands), refs=referring(rec.refs, names), blamed=(),
        since=core.counter,
    )  # fmt: skip


def referring(refs: dict[str, object] | None, names: Mapping[str, str]) -> dict[str, object] | None:
    """Values of references, by their texts, once the nodes that they name are called otherwise."""
    if not refs or not names or not any(parse(text)[0] in names for text in refs):
        return refs
    out: dict[str, object] = {}
    for text, value in refs.items():
        node, pointer = parse(text)
        out[f"{names.get(node, node)}#{pointer}"] = value
    return out


def take_flights(core: Core, names: Mapping[str, str], types: Mapping[str, str], stands: Expanded) -> None:
    """Steps of renamed nodes are under way: they go on under the new names, and their outcomes come under the old.
    ``types``: of what was removed before, by former name."""
    core.renamed.update(names)
    flown = {old: core.flights.pop(old) for old in names if old in core.flights and _mine(core, old, types)}
    for old, (_, flight) in flown.items():
        members = core.batches[flight.batch]
        core.batches[flight.batch] = {n: None for n in members if n != old}
    for old, (unit, flight) in flown.items():
        core.flights[names[old]] = (unit, flight)
        core.batches[flight.batch][names[old]] = None
    kinds = {old: types[old] if old in types else core.units[old].type for old in names}
    for batch, (intent, nodes) in list(core.sent.items()):
        # Also those that were answered: another node may come to their names while the batch is open.
        mine = {old: new for old, new in names.items() if old in nodes and kinds[old] == intent.type}
        rewritten = in_new_names(intent, mine, stands)
        if rewritten is not intent:
            core.sent[batch] = (rewritten, frozenset(step[0] for step in rewritten.steps))
            core.todo(f"b:{batch}", rewritten)


def _mine(core: Core, name: str, types: Mapping[str, str]) -> bool:
    """Whether the step in flight under a name is of what is renamed, not of another form of it."""
    unit = core.flights[name][0]
    return unit is core.units.get(name) or (name in types and unit.type == types[name])


def in_new_names(intent: StepIntent, nodes: Mapping[str, str], stands: Expanded) -> StepIntent:
    """An open batch by the names that hold now; it remembers under which ones it was sent."""
    steps = [
        (nodes.get(node, node), action, op, attempt, digest, named(uses, stands), carries)
        for node, action, op, attempt, digest, uses, carries in intent.steps
    ]
    if steps == intent.steps:
        return intent
    sent_as = {new: intent.sent_as.get(old, old) for old, new in nodes.items()}
    return _replace(intent, steps=steps, sent_as={**intent.sent_as, **sent_as})


def follow(core: Core, names: Mapping[str, str], stands: Expanded) -> None:
    """Tell everybody who knows renamed nodes by their old names. To be called when all are in place."""
    users: dict[Unit, None] = {}
    graves: dict[Unit, None] = {}
    for old, new in names.items():
        unit = core.units.get(new)
        users.update(dict.fromkeys(core.former.get(old, ())))
        users.update((core.units[name], None) for name in (unit.below if unit is not None else ()))
        graves.update(dict.fromkeys(core.mourners.get(old, ())))
    for other in users:
        uses = named(other.rec.uses, stands)
        if uses is not other.rec.uses:
            core.change(other, uses=uses)
    for grave in graves:
        core.mourn(grave, dict.fromkeys(named(tuple(grave.below), stands)))
        core.change(grave, users=named(grave.rec.users, stands))
        core.mark(grave)
    for node, (unit, flight) in list(core.flights.items()) if names else ():
        uses = named(flight.uses, stands)
        if uses is not flight.uses:
            core.flights[node] = (unit, _replace(flight, uses=uses))


def flown_as(core: Core, node: str, operation: int, attempt: int) -> str:
    """The name under which a step is in flight now; operations are numbered per graph, so there is no doubt. "" = it is
    not in flight."""
    this = (operation, attempt)
    flown = core.flights.get(node)
    if flown is not None and (flown[1].operation, flown[1].attempt) == this:
        return node
    if not core.renamed:
        return ""
    return next((n for n, (_, f) in core.flights.items() if (f.operation, f.attempt) == this), "")


def resumed_as(core: Core, node: str, type: str, names: Mapping[str, str]) -> str:
    """The name, as it is now, of a node in an open intent of an earlier owner, which had not heard of its renames."""
    if node in names:
        return names[node]
    if node in core.units or (node, type) in core.graves:
        return node
    return core.renamed.get(node, node)


def expanded(core: Core, names: Mapping[str, str], gone: _Graves) -> dict[str, tuple[str, ...]]:
    """What stands for a former name where it says what something was made with: the new one, and also the former while
    another form of that name, of another type, is still to be removed."""
    buried = {id for (id, _), tomb in gone.items() if tomb is not None}
    return {old: (old, new) if old in core.grave_types or old in buried else (new,) for old, new in names.items()}


def named(names: tuple[str, ...], renamed: Expanded) -> tuple[str, ...]:
    if not any(name in renamed for name in names):
        return names
    return tuple(dict.fromkeys(new for name in names for new in renamed.get(name, (name,))))
