"""What becomes of a blueprint, as changes of its graph: admitted, kept waiting, or dropped. See ``commits.Change``.

Each is one transaction of graph, floors, what waits, and events. A question to a person, and its withdrawal, go to the
owner of the graph by the inbox: it carries them out as it does those of nodes. They write what they read (floors, what
waits, ladders), so each must be committed alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from holdfast_model.blueprint import ANY_OWNER
from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Invalid, Problem
from holdfast_model.manifest import Ladder, OwnedLadder
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import CloseIntent, ItemIntent
from holdfast_model.renames import Rename
from holdfast_model.staging import decode_standings
from holdfast_store import keys
from holdfast_store.bulk import hash_cmds
from holdfast_store.commits import Extra
from holdfast_store.kv import Cmd
from holdfast_store.records import META_LADDERS, inbox_cmd

from . import planning
from .inbox import entry_fields
from .pending import Pending, Waiting, asking, decode_waiting, missing_domains, question, withdrawal
from .phasing import phase_cmds
from .planning import META_COMPILED, META_DOMAINS, META_PHASE, Admitted, Floor, Intake, Place, TooMuchError
from .renaming import Judged, check_judged, flying_in

KEPT_DOCUMENT = 1_000_000
"""Bytes up to which a blueprint is kept as it was published, so that people and tools can build on it."""
_place = msgspec.json.Decoder(Place)
_encode = msgspec.json.Encoder().encode
_FLOOR = "floor:"


_ladders = msgspec.json.Decoder(list[OwnedLadder])


class Limits(msgspec.Struct, frozen=True):
    """Blast radius: from which number, and above which share of the graph, removals must be meant."""

    least: int
    share: float


class AdmissionChange:
    """An intake as a change of the graph: declared, or, if it would remove too much, kept until a person agrees.

    ``document``: what is kept then. ``ids``: five ids never used before. ``answered``: the request by which a person
    agreed already. ``judged``: the renames that domains go along with.
    """

    def __init__(
        self, intake: Intake, document: bytes, now: float, ids: Sequence[str], limits: Limits, answered: str = "",
        judged: Mapping[Rename, Judged] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.intake = intake
        self._document = document
        self._now = now
        self._ids = ids
        self._limits = limits
        self._answered = answered
        self._judged = judged
        self._absent = [source for (source, _), found in judged.items() if found.known is not None]

    @property
    def watch(self) -> Sequence[str]:
        """No step may be sent meanwhile for what is renamed because there is nothing of it yet."""
        return (keys.turn(self.intake.ref),) if self._absent else ()

    @property
    def reads(self) -> Sequence[Cmd]:
        ref, owner = self.intake.ref, self.intake.owner
        floors = (f"{_FLOOR}{owner}", f"{_FLOOR}{ANY_OWNER}")
        return [
            ("HMGET", keys.meta(ref), *floors, "incarnation", "status", META_LADDERS, META_DOMAINS, META_COMPILED),
            _waiting_of(ref, owner),
            ("HGET", keys.meta(ref), META_PHASE),
            *([("HGETALL", keys.meta(ref))] if self.intake.everything else []),
            *([("HGETALL", keys.todo(ref)), ("HMGET", keys.state(ref), *self._absent)] if self._absent else []),
        ]

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        standings = decode_standings(reads[2])
        places = _places(reads[3]) if self.intake.everything else {}
        newer = frozenset(o for o, place in places.items() if place > self.intake.sequence and graph.owned.get(o))
        self.intake = msgspec.structs.replace(self.intake, newer=newer)
        intake, standing = planning.in_phase(self.intake, standings, self._now)
        owner_floor, everything, incarnation, status, ladders, domains, compiled = reads[0]
        waiting = _read_waiting(intake.owner, reads[1])
        _check_floors(intake, owner_floor, everything, waiting)
        waiting = {owner: old for owner, old in waiting.items() if not old.place > intake.sequence}
        self._check_renames(graph, reads)
        mark, before = graph.mark(), len(graph)
        warnings = planning.warned(graph, intake)
        change = planning.declare(graph, intake)
        try:
            planning.check_blast(change.removed, before, intake, self._limits.least, self._limits.share)
        except TooMuchError as error:
            graph.undo(mark)
            return self._ask(error, waiting)
        version = graph.version + 1
        meta: list[Any] = [f"{_FLOOR}{intake.owner}", _encode(intake.sequence)]
        meta += [] if intake.delete else [planning.admitted_field(intake.owner), self._now]
        meta += [META_DOMAINS, planning.domains_field(domains, intake)]
        meta += [META_COMPILED, planning.compiled_field(compiled, intake)]
        if intake.everything and not intake.newer:
            meta += ["status", "deleting"]
        else:
            meta += ["status", "reconciling"]
            if incarnation is None or status == b"deleted":
                meta += ["incarnation", self._ids[2]]
        events = planning.tell_admitted(intake, change, version, warnings, self._now, self._ids, standing)
        told = {"owner": intake.owner, "delete": intake.delete}
        lists: dict[str, Any] = {n: planning.shown(getattr(change, n)) for n in ("added", "updated", "removed")}
        if change.moved:
            lists["moved"] = planning.moved_rows(change)
        cmds: list[Cmd] = [("HSET", keys.meta(intake.ref), *meta), *self._ladders(ladders)]
        cmds += [*self._keep_document(places), *self._nothing_waits(waiting)]
        cmds += phase_cmds(intake, standings, standing, version)
        left = [*change.removed, *(source for source, _ in change.moved)]
        if left:  # what was counted of a node goes with it
            cmds += hash_cmds(keys.counts(intake.ref), [(node, None) for node in left])
        return Extra(
            cmds=cmds,
            events=events,
            mutations=[{"kind": "DELETE" if intake.delete else "DECLARE", **told, **lists}],
            value=Admitted(version, change.added, change.updated, change.removed),
        )

    def _check_renames(self, graph: DesiredGraph, reads: list[Any]) -> None:
        """Raises Invalid, or Temporary where domains have to be asked (again)."""
        todo, records = reads[-2:] if self._absent else ({}, ())
        known = {source: raw or b"" for source, raw in zip(self._absent, records, strict=True)}
        flying = flying_in({field.decode(): raw for field, raw in todo.items()})
        check_judged(graph, planning.renames(graph, self.intake), self._judged, known, flying)

    def _keep_document(self, owners: Iterable[str]) -> list[Cmd]:
        """``owners``: of whom something was ever admitted."""
        intake, key = self.intake, keys.document(self.intake.ref)
        if not intake.delete and len(self._document) <= KEPT_DOCUMENT:
            return [("HSET", key, intake.owner, self._document)]
        gone = sorted(owner for owner in {*owners, intake.owner} if intake.takes_back(owner))
        if not intake.delete:
            return [("HDEL", key, *gone)]
        return [("HDEL", key, *gone), ("HDEL", keys.meta(intake.ref), *map(planning.admitted_field, gone))]

    def _ladders(self, stored: bytes | None) -> list[Cmd]:
        """This owner's ladders instead of those it had."""
        intake, key = self.intake, keys.meta(self.intake.ref)
        old = _ladders.decode(stored) if stored else []
        others = [ladder for ladder in old if not intake.takes_back(ladder.owner)]
        planning.check_ladders(intake, [(ladder.owner, ladder.name) for ladder in others])
        new = [*others, *(_owned(ladder, intake.owner) for ladder in intake.ladders)]
        if new == old:
            return []
        return [("HSET", key, META_LADDERS, _encode(new)) if new else ("HDEL", key, META_LADDERS)]

    def _nothing_waits(self, waiting: dict[str, Waiting]) -> list[Cmd]:
        """What waited for this owner is overtaken: the questions about it are withdrawn."""
        ref = self.intake.ref
        cmds: list[Cmd] = [("HDEL", keys.pending(ref), *waiting)] if waiting else []
        for owner, old in waiting.items():
            if old.request and old.request != self._answered:
                cmds.append(_tell_owner(ref, withdrawal(ref, owner, old.request, "a newer version was admitted")))
        return cmds

    def _ask(self, error: TooMuchError, waiting: dict[str, Waiting]) -> Extra:
        """Nothing is declared; the blueprint is kept, and a person is asked."""
        intake, ref, request = self.intake, self.intake.ref, self._ids[3]
        kept = asking(intake, self._document, error, request)
        cmds: list[Cmd] = [("HSET", keys.pending(ref), intake.owner, _encode(kept))]
        old = waiting.get(intake.owner)
        if old is not None and old.request and old.request != self._answered:
            cmds.append(_tell_owner(ref, withdrawal(ref, intake.owner, old.request, "another version waits instead")))
        cmds.append(_tell_owner(ref, question(ref, intake.owner, kept)))
        return Extra(cmds=cmds, events=[planning.tell_asking(intake, error, request, self._now, self._ids[4])])


class WaitChange:
    """Keep a blueprint whose domains are not running. A newer one of its owner replaces it."""

    def __init__(
        self, intake: Intake, document: bytes, missing: Sequence[str], there: Sequence[str], now: float, id: str
    ) -> None:
        self._intake = intake
        self._pending = missing_domains(intake, document, missing)
        self._event = planning.tell_waiting(
            intake.ref, missing, there, intake.message_id, intake.sequence.number, now, id
        )

    @property
    def watch(self) -> Sequence[str]:
        return ()

    @property
    def reads(self) -> Sequence[Cmd]:
        ref, owner = self._intake.ref, self._intake.owner
        return [("HMGET", keys.meta(ref), f"{_FLOOR}{owner}", f"{_FLOOR}{ANY_OWNER}"), _waiting_of(ref, owner)]

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        ref, owner = self._intake.ref, self._intake.owner
        waiting = _read_waiting(owner, reads[1])
        owner_floor, everything = reads[0]
        _check_floors(self._intake, owner_floor, everything, waiting)
        if owner in waiting:
            Floor(waiting[owner].place, None).check(self._intake.sequence)
        cmds: list[Cmd] = [("HSET", keys.pending(ref), owner, _encode(self._pending))]
        if owner in waiting and waiting[owner].request:
            cmds.append(
                _tell_owner(ref, withdrawal(ref, owner, waiting[owner].request, "another version waits instead"))
            )
        # The version rises although no node changed, so that admissions of one graph are ordered by it.
        return Extra(cmds=cmds, events=[self._event])


class DropChange:
    """A blueprint that waited is not admitted: told as ``rejected``, unless another one waits by now."""

    def __init__(self, ref: GraphRef, owner: str, pending: Pending, error: Invalid, now: float, id: str) -> None:
        self._ref = ref
        self._owner = owner
        self._pending = pending
        place = pending.place
        self._event = planning.tell_rejected(*ref, error, pending.message_id, place.number, now, id)

    @property
    def watch(self) -> Sequence[str]:
        return ()

    @property
    def reads(self) -> Sequence[Cmd]:
        return [
            _waiting_of(self._ref, self._owner),
            ("HGET", keys.meta(self._ref), f"{_FLOOR}{self._owner}"),
        ]

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        mine, place = _read_waiting(self._owner, reads[0]).get(self._owner), self._pending.place
        if mine is None or mine.place != place or mine.request != self._pending.request:
            return Extra(no_version=True)
        cmds: list[Cmd] = [("HDEL", keys.pending(self._ref), self._owner)]
        floor = _place.decode(reads[1]) if reads[1] else None
        if floor is None or floor < place:  # or it would be asked about again if it is delivered again
            cmds.append(("HSET", keys.meta(self._ref), f"{_FLOOR}{self._owner}", _encode(place)))
        return Extra(cmds=cmds, events=[self._event])


def rejected_by(pending: Pending, who: str, note: str) -> Invalid:
    """Why a blueprint is dropped that a person did not agree to."""
    text = f"removing {len(pending.removes)} of {pending.size} nodes was rejected"
    text += f" by {who}" if who else ""
    text += f": {note}" if note else ""
    return Invalid(text, [Problem("/allow_removals", text)])


def _places(meta: dict[bytes, bytes]) -> dict[str, Place]:
    """Owner -> where the newest blueprint stands that was admitted of it."""
    floors = {f.decode().removeprefix(_FLOOR): raw for f, raw in meta.items() if f.decode().startswith(_FLOOR)}
    return {owner: _place.decode(raw) for owner, raw in floors.items() if owner != ANY_OWNER}


def _waiting_of(ref: GraphRef, owner: str) -> Cmd:
    return ("HGETALL", keys.pending(ref)) if owner == ANY_OWNER else ("HMGET", keys.pending(ref), owner)


def _read_waiting(owner: str, reply: Any) -> dict[str, Waiting]:
    """What waits, of one owner or of all."""
    if owner == ANY_OWNER:
        return {name.decode(): decode_waiting(raw) for name, raw in reply.items()}
    return {owner: decode_waiting(reply[0])} if reply[0] is not None else {}


def _check_floors(intake: Intake, owner: bytes | None, everything: bytes | None, waiting: dict[str, Waiting]) -> None:
    """Raises SupersededError or RedeliveredError; what waits for its owner supersedes older versions too."""
    mine = intake.sequence
    Floor(_place.decode(owner) if owner else None, _place.decode(everything) if everything else None).check(mine)
    newer = waiting.get(intake.owner)
    if newer is not None and newer.place != mine:
        Floor(newer.place, None).check(mine)


def _tell_owner(ref: GraphRef, intent: ItemIntent | CloseIntent) -> Cmd:
    return inbox_cmd(ref, entry_fields(intent))


def _owned(ladder: Ladder, owner: str) -> OwnedLadder:
    return OwnedLadder(**{name: getattr(ladder, name) for name in Ladder.__struct_fields__}, owner=owner)
