"""What is there though nobody desires it: asking for it, telling of it, and removing it where its type says so.

Types that can ``discover`` are asked even when nothing of them is desired: by the type's interval of searches (without
one, that of its looks) in a graph that uses its domain (a blueprint in force names it, or a node of one of its types is
there), in every other graph at first, on request, and then at most once an hour: so what that costs is bounded by the
number of graphs, and small.

Only what a graph that uses the domain has found twice, some time apart, becomes a tombstone of it, and is then removed
like any other one. An answer that failed says nothing; what this graph desires, or is about to remove, is no leftover,
whatever type it has; whether another graph desires it is for the host to say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from holdfast_model.errors import Invalid
from holdfast_model.events import Family, NodeEvent
from holdfast_model.messages import Observation, ObserveItem, ObserveReply, Status
from holdfast_model.names import check_node_id
from holdfast_model.reasons import Reason
from holdfast_model.resync import interval_for, missed_since, next_round
from holdfast_model.rows import Gating, Tombstone, digest_of

from .records import Unit
from .turn import Look, TypeInfo

if TYPE_CHECKING:
    from .core import Core

IDLE_INTERVAL = 3600.0
"""Seconds between two questions of a graph to domains that it does not use, at least."""

MOST = 1000
"""Leftovers of one type that a graph keeps in mind; of the others it knows how many there are."""

META_LEFTOVERS = "leftovers"
"""Field of ``meta``: the leftovers that were told, as a JSON list. Absent until there was a first answer."""

REMOVE = "remove"
_encode = msgspec.json.Encoder().encode


class Leftover(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something of a type that is there and that nobody desires. ``since``: when it was first found (s since the
    epoch); ``spec``: as JSON text, "" where its observer does not know it; ``gating``: which steps a person must agree
    to."""

    id: str
    type: str
    since: float
    spec: str = ""
    gating: Gating = Gating.NONE


class Found(msgspec.Struct, frozen=True):
    """The answer to a search: ids with their specs, where known. ``failed``: why there is none. ``elsewhere``: those of
    them that other graphs desire or are about to remove, or that a phase to come of this one desires. ``edges``,
    ``gates``: what they depend on, and which steps a person must agree to, where there is any of that."""

    things: Mapping[str, Raw | None] = {}
    failed: str = ""
    elsewhere: Collection[str] = ()
    edges: Mapping[str, tuple[str, ...]] = {}
    gates: Mapping[str, Gating] = {}


def found_in(reply: ObserveReply) -> Found:
    """What an observer's answer says of leftovers; whether other graphs desire them is not in it."""
    gates = {id: gating_of(text) for id, text in reply.gates.items()}
    return Found({id: reply.specs.get(id) for id in reply.leftovers}, reply.undiscovered, (), reply.edges, gates)


def gating_of(text: str) -> Gating:
    """What an observer says of gating. One that is not known here asks a person for everything."""
    try:
        return Gating(text)
    except ValueError:
        return Gating.ALL


_Key = tuple[str, str]
_decode = msgspec.json.Decoder(list[Leftover]).decode


class Search:
    """What a graph knows of leftovers, and when it asks. ``found`` is replaced as a whole, never changed."""

    def __init__(self) -> None:
        self.domains: frozenset[str] = frozenset()  # those that blueprints in force name
        self.types: tuple[str, ...] = ()  # that can discover, live or not
        self.intervals: dict[str, float] = {}
        self.due: dict[str, float] = {}
        self.asked: dict[str, int] = {}  # type -> number of the search under way
        self.wanted: dict[str, None] = {}  # types to be asked about in this turn
        self.found: Mapping[_Key, Leftover] = {}
        self.stored: Mapping[_Key, Leftover] | None = None  # as last written; None: there was no answer yet
        self.answered = False
        self.more: dict[str, int] = {}  # type -> how many were found besides
        self.failed: dict[str, str] = {}  # type -> why the last search said nothing
        self.forgotten: dict[str, int] = {}  # id -> number of the newest request when it was still ours
        self.slept_until: float | None = None  # unloaded until then: rounds since have not been held


def load(core: Core, raw: bytes | None) -> None:
    """Take over what an earlier owner had told."""
    if raw is not None:
        search = core.search
        search.found = search.stored = {(one.id, one.type): one for one in _decode(raw)}
        search.answered = True


def types_changed(core: Core) -> None:
    """Domains came, went or changed."""
    core.search.types = tuple([name for name, info in core.catalog.items() if info.discover])


def rounds_due(core: Core, active: bool) -> None:
    """Ask for the types whose time has come; an inactive graph (deleted, or about to be) asks for nothing. To be called
    with every turn; costs the number of types."""
    search = core.search
    if not (search.types or search.due):
        return
    if not active:
        search.due.clear()
        search.intervals.clear()
        search.found = {}
        return
    _regroup(core)
    for name, due in search.due.items():
        if due <= core.now:
            search.due[name] = next_round(f"{core.ref} {name}", search.intervals[name], core.now)
            ask(core, name)


def _regroup(core: Core) -> None:
    search, catalog = core.search, core.catalog
    for name in [n for n in search.due if n not in search.types]:  # it cannot be searched for any more
        del search.due[name], search.intervals[name]
        search.found = {key: one for key, one in search.found.items() if key[1] != name}
    declared = {name: catalog[name].resync for name in search.types}
    for name in search.types:
        interval = catalog[name].search or interval_for(name, declared, *core.preferences)
        if not uses(core, catalog[name].domain):
            interval = max(interval, IDLE_INTERVAL)
        last = search.intervals.get(name)
        if last == interval:
            continue
        search.intervals[name] = interval
        following = next_round(f"{core.ref} {name}", interval, missed_since(core.now, search.slept_until))
        if last is None:
            search.due[name] = following if search.answered else core.now
        else:
            search.due[name] = min(search.due[name], following) if interval < last else following
    search.slept_until = None if search.types else search.slept_until


def ask(core: Core, type: str) -> None:
    """Search for leftovers of a type in this turn, unless that is under way."""
    if type not in core.search.asked:
        core.search.wanted[type] = None


def ask_all(core: Core) -> None:
    """Search for leftovers of every type that can be searched for."""
    for name in core.search.due:
        ask(core, name)


def next_due(core: Core) -> list[float]:
    """When there is something to ask for. What cannot be asked then is asked as soon as its domain is back."""
    return list(core.search.due.values())


def uses(core: Core, domain: str) -> bool:
    """Whether a graph has to do with a domain."""
    if domain in core.search.domains:
        return True
    catalog = core.catalog
    return any(members and n in catalog and catalog[n].domain == domain for n, members in core.by_type.items())


def may_remove(core: Core, info: TypeInfo) -> bool:
    """Whether leftovers of a type are removed here: not by graphs that only observe, or have other business."""
    if info.adopt_orphans != REMOVE or core.paused:
        return False
    if info.domain in core.search.domains:
        return True
    mine = [n for n, i in core.catalog.items() if i.domain == info.domain]
    return any(not unit.watched for n in mine for unit in core.by_type.get(n, ()))


# ---- questions and answers


def searched(core: Core, unit: Unit) -> bool:
    """Whether a unit is looked at by a search: all that is known of some tombstones is that they were found."""
    if unit.tomb is None or not unit.tomb.found:
        return False
    info = core.info(unit)
    return info is not None and info.discover


def gather(core: Core) -> None:
    """Turn the types to be asked about into numbered requests; what was adopted of them is looked at along."""
    search = core.search
    for name in list(search.wanted):
        info = core.catalog.get(name)
        if info is None or not info.live:
            continue
        del search.wanted[name]
        core.request_number = search.asked[name] = number = core.request_number + 1
        items = []
        for unit in core.graves.values():
            if unit.type == name and searched(core, unit) and unit.id not in core.flights:
                unit.asked = number
                unit.again = False
                items.append(ObserveItem(unit.id, unit.form.spec, unit.form.digest, (), False))
        core.turn.look.append(Look(number, info.domain, name, items, discover=True))


def seen_of(look: Look, found: Found) -> dict[str, Observation]:
    """What a search says of the tombstones that are looked at by it: one that another graph desires by now is not ours
    to remove."""
    if found.failed:
        return {
            i.node: Observation(Status.UNKNOWN, reason=Reason.NOT_SEARCHED, detail=found.failed) for i in look.nodes
        }
    there, gone = Observation(Status.PRESENT), Observation(Status.ABSENT)
    left = [item.node for item in look.nodes if item.node in found.things and item.node not in found.elsewhere]
    return dict.fromkeys((item.node for item in look.nodes), gone) | dict.fromkeys(left, there)


def on_found(core: Core, look: Look, found: Found) -> None:
    """Take in the answer to a search."""
    search = core.search
    if search.asked.get(look.type) == look.number:
        del search.asked[look.type]
    forgotten = dict(search.forgotten)
    if not search.asked:
        search.forgotten.clear()
    info = core.catalog.get(look.type)
    if info is None or look.type not in search.due:
        return
    if found.failed:
        search.failed[look.type] = found.failed
        return
    search.failed.pop(look.type, None)
    search.answered = True
    left = sorted(i for i in found.things if _is_left(core, i, found) and forgotten.get(i, 0) < look.number)
    search.more[look.type] = max(0, len(left) - MOST)
    known, fresh = search.found, {key: one for key, one in search.found.items() if key[1] != look.type}
    removing = may_remove(core, info)
    for id in left[:MOST]:
        old, raw = known.get((id, look.type)), found.things[id]
        spec, gating = "" if raw is None else bytes(raw).decode(), found.gates.get(id, Gating.NONE)
        if old is None:
            one = Leftover(id, look.type, core.now, spec, gating)
            _tell(core, one, info)
        else:
            one = msgspec.structs.replace(old, spec=spec, gating=gating)
            if removing and core.now - one.since >= core.settings.adopt_after:
                _adopt(core, one)
                continue
        fresh[(id, look.type)] = one
        if removing:
            search.due[look.type] = min(search.due[look.type], one.since + core.settings.adopt_after)
    if fresh != known:
        search.found = fresh


def _is_left(core: Core, id: str, found: Found) -> bool:
    if id in core.units or id in core.grave_types or id in core.flights or id in found.elsewhere:
        return False
    try:
        check_node_id(id)
    except Invalid:
        return False  # no blueprint could ever name it
    return True


def _tell(core: Core, one: Leftover, info: TypeInfo) -> None:
    data: dict[str, object] = {
        "node": one.id,
        "nodeType": one.type,
        "reason": Reason.LEFTOVER,
        "detail": f"it is there, and nobody desires it; {what_becomes(core, info)}",
        "adoptOrphans": info.adopt_orphans,
    }
    core.emit(Family.NODE, NodeEvent.LEFTOVER, data, one.id)


def what_becomes(core: Core, info: TypeInfo) -> str:
    """What will be done about leftovers of a type, for people."""
    if may_remove(core, info):
        return "it is removed if it is found again"
    if info.adopt_orphans != REMOVE:
        return "it is left alone"
    why = "the graph is paused" if core.paused else f"nothing in this graph is in force that uses {info.domain!r}"
    return f"it is left alone while {why}"


def _adopt(core: Core, one: Leftover) -> None:
    spec = Raw((one.spec or "{}").encode())
    digest = digest_of(one.type, spec)
    core.turn.adopt.append(Tombstone(one.id, one.type, spec, digest, gating=one.gating, found=True))


# ---- the desired graph moves on


def claimed(core: Core, ids: Collection[str]) -> None:
    """These nodes are desired from now on: nothing of that name is left over."""
    search = core.search
    if any(key[0] in ids for key in search.found):
        search.found = {key: one for key, one in search.found.items() if key[0] not in ids}
        core.undo.found = search.found


def was_ours(core: Core, node: str) -> None:
    """A form of a node is forgotten: what was searched for before may still have seen it."""
    if core.search.asked:
        core.search.forgotten[node] = core.request_number


# ---- turns


def write(core: Core) -> None:
    """Write what was found with this turn, if that has changed."""
    search = core.search
    if search.answered and search.found != search.stored:
        core.turn.meta[META_LEFTOVERS] = _encode(list(search.found.values())).decode()
        search.stored = search.found


def put_back(
    core: Core, found: Mapping[_Key, Leftover], stored: Mapping[_Key, Leftover] | None, look: list[Look]
) -> None:
    """The turn was not committed."""
    search = core.search
    search.found, search.stored = found, stored
    for one in look:
        if one.discover:
            search.asked.pop(one.type, None)
            search.wanted[one.type] = None
