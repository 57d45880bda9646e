"""A turn as commands for the store: one transaction, nothing decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Fenced
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import CloseIntent, ItemIntent, StepIntent, Turn
from holdfast_store import keys
from holdfast_store.bulk import hash_cmds
from holdfast_store.commits import Extra
from holdfast_store.kv import Cmd
from holdfast_store.records import fault_cmds, inbox_done_cmd, outbox_cmd

_encode = msgspec.json.Encoder().encode
_KINDS: dict[str, type[StepIntent] | type[ItemIntent] | type[CloseIntent]] = {
    "b": StepIntent,
    "o": ItemIntent,
    "c": CloseIntent,
}


def decode_intent(field: str, raw: bytes) -> StepIntent | ItemIntent | CloseIntent:
    """An open intent; what it is stands before the colon of its field."""
    return msgspec.json.decode(raw, type=_KINDS[field[:1]])


def turn_cmds(ref: GraphRef, turn: Turn, done: Iterable[str], summary: bytes | None) -> list[Cmd]:
    """Rows, intents, faults, events and meta of a turn; ``done``: inbox entries it has taken in."""
    cmds: list[Cmd] = []
    _hash(cmds, keys.state(ref), turn.rows)
    _hash(cmds, keys.todo(ref), turn.todo)
    for fault in turn.faults:
        cmds += fault_cmds(ref, fault)
        cmds.append(outbox_cmd(ref, fault.event()))
    cmds += [outbox_cmd(ref, event) for event in turn.events]
    meta: list[Any] = [w for pair in turn.meta.items() for w in pair]
    if summary is not None:
        meta += ["summary", summary]
    if meta:
        cmds.append(("HSET", keys.meta(ref), *meta))
    entries = list(done)
    if entries:
        cmds.append(inbox_done_cmd(ref, entries))
    return cmds


def _hash(cmds: list[Cmd], key: str, values: dict[str, Any]) -> None:
    cmds += hash_cmds(key, [(f, None if value is None else _encode(value)) for f, value in values.items()])


class Forget:
    """A turn that forgets tombstones: they belong to the desired graph, so it is a commit. See ``commits.Change``."""

    def __init__(self, ref: GraphRef, epoch: int, at_version: int, turn: Turn, cmds: list[Cmd]) -> None:
        self._ref = ref
        self._epoch = epoch
        self._at_version = at_version
        self._turn = turn
        self._cmds = cmds

    @property
    def watch(self) -> Sequence[str]:
        return (keys.epoch(self._ref),)

    @property
    def reads(self) -> Sequence[Cmd]:
        return (("GET", keys.epoch(self._ref)),)

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        if int(reads[0] or 0) != self._epoch:
            raise Fenced(f"graph {self._ref} has another owner")
        if graph.version != self._at_version:
            raise MovedOnError(f"graph {self._ref} is at version {graph.version}, not {self._at_version}")
        graph.forget(self._turn.forget)
        gone = [f"{node} ({kind})" for node, kind in self._turn.forget[:100]]
        return Extra(cmds=self._cmds, mutations=[{"kind": "FORGET", "nodes": gone}])


class MovedOnError(Exception):
    """The desired graph moved between a turn and its commit: plan again."""
