"""The two changes this service commits: a fault handled, an episode ended. Functions of the newest graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.events import Event, Fault
from holdfast_model.fault_engine import Owned, PolicyFailure, policy_failed
from holdfast_model.names import GraphRef
from holdfast_model.policies import Answer, Case, Policies, Verdict, apply_all, audit, recovered, reviews_in, rule
from holdfast_model.reconciler.records import Record
from holdfast_model.thresholds import NodeCounts, decode_counts, encode_counts
from holdfast_store import keys
from holdfast_store.commits import Extra
from holdfast_store.kv import Cmd
from holdfast_store.records import fault_done_cmds

from .watching import UNWATCHED, Watched

_decode_fault = msgspec.json.Decoder(Fault).decode

META_INCARNATION = "incarnation"


class Outcome(msgspec.Struct, frozen=True):
    """What a commit did. ``verdict`` None: the fault had been handled already."""

    verdict: Verdict | None = None
    applied: tuple[Owned, ...] = ()
    dropped: tuple[str, ...] = ()
    failure: PolicyFailure | None = None
    told: bool = False

    @property
    def concerns_planner(self) -> bool:
        """Whether the owner of the graph has something to plan or to publish."""
        return bool(self.applied) or self.failure is not None or self.told


class FaultHandled:
    """Count a fault, apply what it leads to, and delete it: all of it, or nothing of it, and once.

    ``answer`` is what the domain's own policy said beforehand, if it has one; ``now`` in seconds since the
    epoch.
    """

    def __init__(
        self,
        fault: Fault,
        policies: Policies,
        answer: Answer | None,
        now: float,
        watched: Watched = UNWATCHED,
    ) -> None:
        self._watched = watched
        self._fault = fault
        self._policies = policies
        self._answer = answer
        self._now = now
        self._asked = (fault.node, *policies.consults(fault.node))

    @property
    def watch(self) -> Sequence[str]:
        ref = self._fault.ref
        return [keys.fault(ref, self._fault.id), keys.counts(ref), *self._watched.keys(ref)]

    @property
    def reads(self) -> Sequence[Cmd]:
        fault = self._fault
        return [
            ("GET", keys.fault(fault.ref, fault.id)),
            ("HGET", keys.counts(fault.ref), fault.node),
            ("HGET", keys.meta(fault.ref), META_INCARNATION),
            ("HMGET", keys.state(fault.ref), *self._asked),
            *self._watched.reads(fault.ref),
        ]

    def case(self, graph: DesiredGraph, reads: list[Any]) -> Case | None:
        """The fault as it stands at this version of the graph; None when it has been handled."""
        stored, counts, incarnation, rows = reads[:4]
        if stored is None:
            return None
        records = decode_records(self._asked, rows)
        record = records[self._fault.node]
        return Case(
            _decode_fault(stored),
            graph,
            (incarnation or b"").decode(),
            record,
            decode_counts(counts),
            reviews_in(graph, {i: r for i, r in records.items() if i != self._fault.node}),
        )

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        case = self.case(graph, reads)
        if case is None:
            return Extra(value=Outcome(), no_version=True)
        fault = case.fault
        ruling = rule(case, self._policies, self._answer)
        events: list[Event] = []
        if ruling.failure is not None:
            events.append(policy_failed(fault, ruling.failure, self._now))
        wanted, failure, cmds = ruling.mutations, ruling.failure, []
        if ruling.verdict is Verdict.COUNTED:
            met = self._watched.meet(fault, graph, reads[4:], ruling.mutations, self._now)
            wanted, cmds, failure = (*wanted, *met.mutations), met.cmds, failure or met.failure
            events += met.events
        applied, dropped = apply_all(graph, wanted)
        counted = counts_cmds(fault.ref, fault.node, case.counts, ruling.counts)
        return Extra(
            cmds=[*counted, *cmds, *fault_done_cmds(fault.ref, fault.id)],
            events=events,
            mutations=audit(applied),
            value=Outcome(ruling.verdict, applied, dropped, failure, bool(events)),
            no_version=True,
        )


class EpisodeEnded:
    """Clear what an episode left behind: counts that recovery resets, and reviews (without step or gate)."""

    def __init__(self, ref: GraphRef, node: str, episode: str) -> None:
        self._ref = ref
        self._node = node
        self._episode = episode

    @property
    def watch(self) -> Sequence[str]:
        return [keys.counts(self._ref)]

    @property
    def reads(self) -> Sequence[Cmd]:
        return [("HGET", keys.counts(self._ref), self._node)]

    def needed(self, graph: DesiredGraph, counts: bytes | None) -> bool:
        """False when the episode has left nothing behind."""
        before = decode_counts(counts)
        after, removals = recovered(graph, self._node, self._episode, before)
        return bool(removals) or after != before

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        before = decode_counts(reads[0])
        after, removals = recovered(graph, self._node, self._episode, before)
        applied, dropped = apply_all(graph, removals)
        return Extra(
            cmds=counts_cmds(self._ref, self._node, before, after),
            mutations=audit(applied),
            value=Outcome(None, applied, dropped),
            no_version=True,
        )


class CountsEvicted:
    """Drop the counts of nodes that left the graph."""

    def __init__(self, ref: GraphRef, nodes: Sequence[str]) -> None:
        self._ref = ref
        self._nodes = nodes

    @property
    def watch(self) -> Sequence[str]:
        return [keys.counts(self._ref)]

    @property
    def reads(self) -> Sequence[Cmd]:
        return []

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        gone = [n for n in self._nodes if n not in graph]
        return Extra(cmds=[("HDEL", keys.counts(self._ref), *gone)] if gone else [], no_version=True)


def counts_cmds(ref: GraphRef, node: str, before: NodeCounts, after: NodeCounts | None) -> list[Cmd]:
    """Write a node's counts if they changed; none left is no field."""
    if after == before:
        return []
    if not after:
        return [("HDEL", keys.counts(ref), node)]
    return [("HSET", keys.counts(ref), node, encode_counts(after))]


def decode_records(ids: Iterable[str], rows: Sequence[bytes | None]) -> dict[str, Record | None]:
    """State rows by id, in the order in which they were asked for."""
    return {i: msgspec.json.decode(r, type=Record) if r else None for i, r in zip(ids, rows, strict=True)}
