"""A turn as commands for the store: one transaction, nothing decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Fenced
from holdfast_model.events import Event, Family, GraphEvent
from holdfast_model.fault_engine import Owned
from holdfast_model.fixes import FIX_INVALID
from holdfast_model.names import AI_REVIEW, GraphRef
from holdfast_model.policies import apply_all, audit
from holdfast_model.reconciler import CloseIntent, ItemIntent, StepIntent, Turn
from holdfast_model.staging import (
    Standings,
    common_field,
    decode_part,
    encode_standings,
    enter,
    part_field,
)
from holdfast_store import keys
from holdfast_store.bulk import hash_cmds
from holdfast_store.commits import Extra
from holdfast_store.kv import Cmd
from holdfast_store.records import fault_cmds, inbox_done_cmd, outbox_cmd

from .planning import META_PHASE, shown

_encode = msgspec.json.Encoder().encode
_KINDS: dict[str, type[StepIntent] | type[ItemIntent] | type[CloseIntent]] = {
    "b": StepIntent,
    "o": ItemIntent,
    "c": CloseIntent,
}


def decode_intent(field: str, raw: bytes) -> StepIntent | ItemIntent | CloseIntent:
    """An open intent; what it is stands before the colon of its field."""
    return msgspec.json.decode(raw, type=_KINDS[field[:1]])


def turn_cmds(ref: GraphRef, turn: Turn, done: Iterable[str], summary: bytes | None, phased_at: int = 0) -> list[Cmd]:
    """Rows, intents, faults, events and meta of a turn; ``done``: inbox entries it has taken in.

    ``phased_at``: the version of the graph when a phase last began, this turn included.
    """
    cmds: list[Cmd] = []
    _hash(cmds, keys.state(ref), turn.rows)
    _hash(cmds, keys.todo(ref), turn.todo)
    cmds += [outbox_cmd(ref, event) for event in turn.heralds]
    for fault in turn.faults:
        cmds += fault_cmds(ref, fault)
        cmds.append(outbox_cmd(ref, fault.event()))
    cmds += [outbox_cmd(ref, event) for event in turn.events]
    meta: list[Any] = [w for pair in turn.meta.items() for w in pair]
    if summary is not None:
        meta += ["summary", summary]
    if turn.standings is not None:
        meta += [META_PHASE, encode_standings(Standings(phased_at, turn.standings))]
    if meta:
        cmds.append(("HSET", keys.meta(ref), *meta))
    entries = list(done)
    if entries:
        cmds.append(inbox_done_cmd(ref, entries))
    return cmds


def _hash(cmds: list[Cmd], key: str, values: dict[str, Any]) -> None:
    cmds += hash_cmds(key, [(f, None if value is None else _encode(value)) for f, value in values.items()])


class GraphTurn:
    """A turn that changes the desired graph: it forgets tombstones, adopts leftovers, carries out fixes or enters
    a phase.

    A ``commits.Change``. Raises Fenced, MovedOnError, or Invalid when the phase does not fit the graph.
    """

    def __init__(
        self, ref: GraphRef, epoch: int, at_version: int, turn: Turn, cmds: list[Cmd], turn_id: str, now: float
    ) -> None:
        self._ref = ref
        self._epoch = epoch
        self._at_version = at_version
        self._turn = turn
        self._cmds = cmds
        self._turn_id = turn_id
        self._now = now

    @property
    def watch(self) -> Sequence[str]:
        return (keys.epoch(self._ref),)

    @property
    def reads(self) -> Sequence[Cmd]:
        cmds: list[Cmd] = [("GET", keys.epoch(self._ref))]
        enter = self._turn.enter
        if enter is not None:
            fields = (common_field(enter.owner), part_field(enter.owner, enter.index))
            cmds.append(("HMGET", keys.phases(self._ref), *fields))
        return cmds

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        if int(reads[0] or 0) != self._epoch:
            raise Fenced(f"graph {self._ref} has another owner")
        if graph.version != self._at_version:
            raise MovedOnError(f"graph {self._ref} is at version {graph.version}, not {self._at_version}")
        said: list[Any] = []
        if self._turn.forget:
            graph.forget(self._turn.forget)
            gone = [f"{node} ({kind})" for node, kind in self._turn.forget[:100]]
            said.append({"kind": "FORGET", "nodes": gone})
        if taken := graph.adopt_leftovers(self._turn.adopt):
            said.append({"kind": "ADOPT", "nodes": [f"{t.id} ({t.type})" for t in taken[:100]]})
        applied, dropped = apply_all(graph, [Owned(a.owner, a.mutation) for a in self._turn.amend])
        said += audit(applied)
        turn, entered = self._turn.enter, None
        if turn is not None and self._turn.standings is not None:
            nodes = [pair for raw in reads[1] for pair in decode_part(raw)]
            standing = self._turn.standings[turn.owner]
            entered = enter(graph, turn.owner, nodes, standing.strategy)
            lists = {n: shown(getattr(entered, n)) for n in ("added", "updated", "removed")}
            said.append({"kind": "PHASE", "owner": turn.owner, "phase": standing.term.id, **lists})
        cmds = self._cmds
        if entered is not None and entered.removed:  # what was counted of a node goes with it
            cmds = cmds + hash_cmds(keys.counts(self._ref), [(node, None) for node in entered.removed])
        return Extra(cmds=cmds, events=[self._told(why, i) for i, why in enumerate(dropped)], mutations=said)

    def _told(self, why: str, number: int) -> Event:
        data: dict[str, Any] = {"kind": FIX_INVALID, "message": why, "policies": [AI_REVIEW]}
        name = f"{self._turn_id}.policy_failed.{number}"
        return Event(name, Family.GRAPH, GraphEvent.POLICY_FAILED, self._ref.tenant, self._ref.graph, self._now, data)


class MovedOnError(Exception):
    """The desired graph moved between a turn and its commit: plan again."""
