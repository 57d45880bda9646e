"""A changed desired graph: nodes that come, go, change their form or their edges, and what becomes of their state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from holdfast_model.messages import Action, Status
from holdfast_model.names import BUILT_IN_TYPES
from holdfast_model.rows import Node, Tombstone

from . import gating, phasing, renaming, searching
from .core import Core
from .facts import lacks, review_spec, union
from .records import Record, Unit, reported, resolved
from .referring import index_refs, known_before, remembering, values_of
from .removing import asked, bury, forgotten, fresh_removed, never_ours, note_odd, revived
from .telling import over

_replace = msgspec.structs.replace


def on_graph(core: Core, nodes: Mapping[str, Node | None], gone: Mapping[tuple[str, str], Tombstone | None]) -> None:
    """Take in changed nodes (None = no longer desired) and tombstones (None = forgotten), as they are now."""
    core.converged = core.undo.converged = False
    phasing.graph_changed(core)
    moved: dict[tuple[str, str], Record] = {}
    below: dict[str, Mapping[str, None]] = {}
    names, buried_names, back = renaming.renames(core, nodes, gone)
    renamed = [core.units[name] for name in names]
    left = [u for u, node in _known(core, nodes) if u.id not in names and (node is None or node.type != u.type)]
    removed = [core.units[name] for name in buried_names]
    left = [u for u in left if u.id not in buried_names]
    about = [review_spec(u.node) for u in left if u.type in BUILT_IN_TYPES and u.node is not None]
    for unit in (*renamed, *removed, *left):
        _unlink(core, unit)
    uses = {unit: core.uses(unit) for unit in (*renamed, *removed)}
    every = {**names, **buried_names, **back}
    stands = renaming.expanded(core, every, gone)
    graves = {old: next(g for g in core.forms_removed(old) if gone.get((old, g.type), g) is None) for old in back}
    if every:
        renaming.take_flights(core, every, {old: grave.type for old, grave in graves.items()}, stands)
    for old, grave in graves.items():
        moved[(back[old], grave.type)] = renaming.record_of(core, old, back[old], grave.rec, every, stands)
    for unit in removed:  # before others come to their names
        new = buried_names[unit.id]
        known = _replace(unit.rec, uses=uses[unit])
        moved[(new, unit.type)] = renaming.record_of(core, unit.id, new, known, every, stands)
        gating.close_all(core, unit, "the node was removed")
        core.write(unit.id, None)
        core.drop(unit)
    _rename(core, uses, renamed, names, stands, nodes)
    for unit in left:
        moved[(unit.id, unit.type)] = _replace(unit.rec, uses=core.uses(unit))
        below[unit.id] = unit.below
        gating.close_all(core, unit, "the node was removed")
        core.write(unit.id, None)
        core.drop(unit)
    before = {(u.id, u.type): u for u in left} | {(buried_names[u.id], u.type): u for u in removed}
    before |= {key: core.graves[key] for key in gone if key in core.graves}
    buried = _graves(core, gone, moved, before)
    fresh = _added(core, nodes, moved, below, before)
    fresh.update(dict.fromkeys(names.values()))
    units = core.units
    for id, node in nodes.items():
        if node is None:
            continue
        if id in fresh:
            for target in node.depends_on:
                units[target].stands_below(id)
            if node.depends_on:
                core.recount(units[id])
        else:
            _rewire(core, units[id], node, names)
    for id in [i for i in fresh if i in below]:  # a changed type: those that hang on it may not have changed themselves
        for name in core.units[id].below:
            core.recount(core.units[name])
            core.mark(core.units[name])
    renaming.follow(core, every, stands)
    _edited_along(core, renamed, names)
    ask_anew(core, names.values())
    for spec in about:
        target = str(spec.get("target", ""))
        review_gone(core, core.units.get(every.get(target, target)), str(spec.get("episode", "")))
    for grave in buried:
        bury(core, grave)
    for key in moved:
        if key not in core.graves and (key[0] not in core.units or core.units[key[0]].type != key[1]):
            _strike(core, *key)
    for id, _ in gone:
        forgotten(core, id)
    searching.claimed(core, nodes.keys() | {id for id, _ in gone})
    resolve(core)


def review_gone(core: Core, target: Unit | None, episode: str) -> None:
    """A review left while the episode that it is about goes on: for a moment its target was something else, which
    nobody saw. What was raised and decided before that has gone with the review, so all of it begins anew.
    """
    if target is None or not episode or target.rec.episode != episode:
        return
    seen = target.rec.status is Status.PRESENT
    respecified(core, target)
    info = core.info(target)
    if not seen and info is not None and info.observes:
        core.change(target, status=None)


def ask_anew(core: Core, renamed: Iterable[str]) -> None:
    """What was told of nodes that are stuck was told under their former names, and may not have been heard any more; a
    review that followed may have come and gone unseen. Nothing else would ever be told of them, so it begins anew.
    """
    for name in renamed:
        unit = core.units.get(name)
        if unit is None:
            continue
        rec = unit.rec
        if (rec.hold or rec.permanent) and rec.decision is None and not rec.refused:
            review_gone(core, unit, rec.episode)


def _rename(
    core: Core,
    uses: Mapping[Unit, tuple[str, ...]],
    units: list[Unit],
    names: Mapping[str, str],
    stands: renaming.Expanded,
    nodes: Mapping[str, Node | None],
) -> None:
    """Enter renamed nodes under their new names, with all that is known of them."""
    records = []
    for unit in units:
        node = nodes[names[unit.id]]
        assert node is not None
        known = _replace(unit.rec, uses=uses[unit])
        rec = renaming.record_of(core, unit.id, node.id, known, names, stands)
        records.append((node, remembering(node, rec, unit) if node.refs else _replace(rec, refs=None, known="")))
    for unit in units:
        core.write(unit.id, None)
        core.drop(unit)
    for node, rec in records:
        fresh = core.add_unit(node, rec)
        fresh.tick = core.next_tick()
        fresh.min_request = core.request_number  # whatever was asked about by this name was about something else
        if node.id in core.flights:
            adopt(core, fresh)
        core.write(node.id, fresh.rec)
        core.look(fresh)  # or, while a step is under way, after that


def _edited_along(core: Core, before: list[Unit], names: Mapping[str, str]) -> None:
    """What was renamed and edited in one version is something else now, as after any edit."""
    for old in before:
        unit = core.units[names[old.id]]
        if unit.form.digest != old.form.digest or unit.missing != old.missing:
            respecified(core, unit)
            core.refresh(unit, uses=True)
        if unit.watched is not old.watched:
            switched(core, unit)


def resolve(core: Core) -> None:
    """Follow the references of which a node has published another value. What is made from another value is something
    else: it is looked at and made anew as after an edit."""
    while core.to_resolve:
        unit, _ = core.to_resolve.popitem()
        declared, old, rec = unit.declared, unit.node, unit.rec
        assert isinstance(declared, Node)
        assert old is not None
        values = values_of(core, declared, rec.refs)
        if values is rec.refs:
            continue
        form, missing = resolved(declared, values, "")
        known = known_before(unit, missing)
        if form.digest == old.digest and missing == unit.missing:
            core.change(unit, refs=values, known=known)
            continue
        _keep_uses(core, unit, old, form)
        core.lose_currency(unit)
        unit.assume(declared, form, missing)
        if rec.episode:
            over(core, unit, "what its spec refers to has another value")
        respecified(core, unit, refs=values, known=known)
        core.refresh(unit, uses=True)
        core.mark(unit)


def _strike(core: Core, node: str, type: str) -> None:
    """A form of a node is forgotten, and with it that its steps were answered: open batches must not name it."""
    for batch, (intent, nodes) in core.sent.items():
        if node in nodes and intent.type == type and node not in core.batches[batch]:
            intent = _replace(intent, steps=[s for s in intent.steps if s[0] != node])
            core.sent[batch] = (intent, nodes - {node})
            core.todo(f"b:{batch}", intent)


def _known(core: Core, nodes: Mapping[str, Node | None]) -> list[tuple[Unit, Node | None]]:
    units = core.units
    return [(units[id], node) for id, node in nodes.items() if id in units]


def _unlink(core: Core, unit: Unit) -> None:
    assert unit.node is not None
    for target in unit.node.depends_on:
        core.units[target].leaves(unit.id)


def _graves(
    core: Core,
    gone: Mapping[tuple[str, str], Tombstone | None],
    moved: dict[tuple[str, str], Record],
    before: Mapping[tuple[str, str], Unit],
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
            status = Status.UNKNOWN if asked(grave.rec) else grave.rec.status
            rec = _replace(grave.rec, gate=None, approval=None, round=grave.rec.round + 1, status=status)
            core.drop(grave)
        else:
            rec = fresh_removed(moved[key]) if key in moved else never_ours(core, tomb)
        rec = remembering(tomb, rec, before.get(key))
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
    before: Mapping[tuple[str, str], Unit],
) -> dict[str, None]:
    fresh: dict[str, None] = {}
    units, flights = core.units, core.flights
    for id, node in nodes.items():
        if node is None or id in units:
            continue
        fresh[id] = None
        rec = revived(core, node, moved.get((id, node.type)))
        if node.refs and rec not in core.blank(node.type):
            rec = remembering(node, rec, before.get((id, node.type)))
        unit = core.add_unit(node, rec)
        unit.tick = core.next_tick()
        if id in core.renamed:  # what was asked about by this name before was about something else
            unit.min_request = core.request_number
        if id in below:
            unit.below = below[id]
        if id in flights:
            adopt(core, unit)
        for grave in core.forms_removed(id):
            note_odd(core, grave)
        stand(core, unit)
        if unit.rec not in core.blank(node.type):
            core.write(id, unit.rec)
            core.look(unit)
    return fresh


def stand(core: Core, unit: Unit) -> None:
    """What is wanted again and is as declared stands on what it declares now: a later owner has to know, for it may
    have become something else by then."""
    if unit.current and unit.node is not None and lacks(unit.rec.uses, unit.node.depends_on):
        core.change(unit, uses=unit.node.depends_on)


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


def _rewire(core: Core, unit: Unit, declared: Node, names: Mapping[str, str]) -> None:
    old, before, rec = unit.node, unit.declared, unit.rec
    assert old is not None
    values = values_of(core, declared, renaming.referring(rec.refs, names)) if declared.refs else None
    node, missing = resolved(declared, values, "")
    known = known_before(unit, missing)
    units, name = core.units, unit.id
    edges = old.depends_on != node.depends_on
    edited = old.digest != node.digest or missing != unit.missing
    if edges:
        for target in old.depends_on:
            if target not in node.depends_on and target in units:
                units[target].leaves(name)
    _keep_uses(core, unit, old, node)
    unit.assume(declared, node, missing)
    if before.refs != declared.refs:
        index_refs(core, unit, before.refs, declared.refs)
    if values is not rec.refs and not edited:
        core.change(unit, refs=values, known=known)
    if edited:
        core.lose_currency(unit)  # before it is known what that means, it may not be taken for current again
    else:
        core.refresh(unit, uses=True)
    for target in node.depends_on:
        units[target].stands_below(name)
    if edited:
        if unit.type in BUILT_IN_TYPES:
            _retarget(core, unit, old, node)
        respecified(core, unit, refs=values, known=known)
        core.refresh(unit, uses=True)
    if old.observe is not node.observe:
        switched(core, unit)
    if edges:
        core.recount(unit)
    core.mark(unit)


def _keep_uses(core: Core, unit: Unit, old: Node, node: Node) -> None:
    """What a node was made with is remembered, for it may become something else while nobody owns the graph.

    One that stays as declared stands on what it declares, whatever that is.
    """
    if not unit.current and old.depends_on == node.depends_on:
        return
    uses = node.depends_on if unit.current and old.digest == node.digest else core.uses(unit)
    if uses != unit.rec.uses:
        core.change(unit, uses=uses)


def _retarget(core: Core, review: Unit, old: Node, node: Node) -> None:
    before, after = str(review_spec(old).get("target", "")), str(review_spec(node).get("target", ""))
    if before != after:
        core.reviews[before].pop(review.id, None)
        if not core.reviews[before]:
            del core.reviews[before]
        core.reviews.setdefault(after, {})[review.id] = None


def switched(core: Core, unit: Unit) -> None:
    """From now on a node is only observed, or enforced (again): what was asked and told of it begins anew."""
    gating.close_all(core, unit, "the node is only observed" if unit.watched else "the node is enforced")
    rec = unit.rec
    if rec not in core.blank(unit.type):
        core.change(
            unit, hold=False, hold_digest="", released=None, decision=None, doubted=False, approval=None, gate=None,
            refused="", round=rec.round + 1, raised=reported(rec.raised), episode="", about="", watched=False,
        )  # fmt: skip
    core.look(unit)
    core.mark(unit)


def respecified(core: Core, unit: Unit, **more: object) -> None:
    """A new digest ends what was decided, refused or failed for the old one, and is looked at first. ``more``: fields
    of the record that change with it."""
    unit.tick = core.next_tick()
    gating.close_all(core, unit, "the node changed")
    rec = unit.rec
    if rec in core.blank(unit.type):
        if any(more.values()):
            core.change(unit, **more)
        core.mark(unit)
        return
    status = Status.UNKNOWN if asked(rec) else rec.status
    core.change(
        unit, status=status, hold=False, hold_digest="", released=None, decision=None,
        doubted=False, permanent="", refused="", given_up="", next_try=0.0, approval=None, gate=None, heals=(),
        quarantined_until=0.0, failed_at=(), failures=0, error="", error_reason="", fault="", round=rec.round + 1,
        episode=f"e{core.next_number()}" if rec.episode else "", about=unit.form.digest if rec.episode else "",
        raised=reported(rec.raised), trouble="", recovered=0.0,
        **more,
    )  # fmt: skip
    core.look(unit)
