"""The two changes this service commits: a fault handled, an episode ended. Functions of the newest graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Invalid, NotFound
from holdfast_model.events import Event, Fault
from holdfast_model.fault_engine import Owned, PolicyFailure, policy_failed
from holdfast_model.names import GraphRef
from holdfast_model.thresholds import NodeCounts, decode_counts, encode_counts
from holdfast_store import keys
from holdfast_store.commits import Extra
from holdfast_store.kv import Cmd
from holdfast_store.records import fault_done_cmds

from .policy import Answer, Case, Policies, Verdict, decode_records, recovered, reviews_in, rule

_decode_fault = msgspec.json.Decoder(Fault).decode

META_INCARNATION = "incarnation"
META_LADDERS = "ladders"
"""Field of ``meta`` that holds the ladders a blueprint brought along, as a JSON list."""


class Outcome(msgspec.Struct, frozen=True):
    """What a commit did. ``verdict`` None: the fault had been handled already."""

    verdict: Verdict | None = None
    applied: tuple[Owned, ...] = ()
    dropped: tuple[str, ...] = ()
    failure: PolicyFailure | None = None

    @property
    def concerns_planner(self) -> bool:
        """Whether the owner of the graph has something to plan or to publish."""
        return bool(self.applied) or self.failure is not None


class FaultHandled:
    """Count a fault, apply what it leads to, and delete it: all of it, or nothing of it, and once.

    ``answer`` is what the domain's own policy said beforehand, if it has one; ``now`` in seconds since the
    epoch.
    """

    def __init__(self, fault: Fault, policies: Policies, answer: Answer | None, now: float) -> None:
        self._fault = fault
        self._policies = policies
        self._answer = answer
        self._now = now
        self._asked = (fault.node, *policies.consults(fault.node))

    @property
    def watch(self) -> Sequence[str]:
        ref = self._fault.ref
        return [keys.fault(ref, self._fault.id), keys.counts(ref)]

    @property
    def reads(self) -> Sequence[Cmd]:
        fault = self._fault
        return [
            ("GET", keys.fault(fault.ref, fault.id)),
            ("HGET", keys.counts(fault.ref), fault.node),
            ("HGET", keys.meta(fault.ref), META_INCARNATION),
            ("HMGET", keys.state(fault.ref), *self._asked),
        ]

    def case(self, graph: DesiredGraph, reads: list[Any]) -> Case | None:
        """The fault as it stands at this version of the graph; None when it has been handled."""
        stored, counts, incarnation, rows = reads
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
        applied, dropped = apply_all(graph, ruling.mutations)
        events: list[Event] = []
        if ruling.failure is not None:
            events.append(policy_failed(fault, ruling.failure, self._now))
        counted = counts_cmds(fault.ref, fault.node, case.counts, ruling.counts)
        return Extra(
            cmds=[*counted, *fault_done_cmds(fault.ref, fault.id)],
            events=events,
            mutations=audit(applied),
            value=Outcome(ruling.verdict, applied, dropped, ruling.failure),
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


def apply_all(graph: DesiredGraph, wanted: Sequence[Owned]) -> tuple[tuple[Owned, ...], tuple[str, ...]]:
    """Apply what fits the newest graph; returns that, and why the rest was dropped."""
    applied: list[Owned] = []
    dropped: list[str] = []
    for owned in wanted:
        try:
            graph.apply(owned.mutation, owned.owner)
        except (Invalid, NotFound) as error:
            dropped.append(f"{type(owned.mutation).__name__} by {owned.owner}: {error.message}")
        else:
            applied.append(owned)
    return tuple(applied), tuple(dropped)


def counts_cmds(ref: GraphRef, node: str, before: NodeCounts, after: NodeCounts | None) -> list[Cmd]:
    """Write a node's counts if they changed; none left is no field."""
    if after == before:
        return []
    if not after:
        return [("HDEL", keys.counts(ref), node)]
    return [("HSET", keys.counts(ref), node, encode_counts(after))]


def audit(applied: Sequence[Owned]) -> list[Any]:
    """Mutations for the log, each with the owner in whose name it was applied."""
    return [{**msgspec.json.decode(msgspec.json.encode(o.mutation)), "owner": o.owner} for o in applied]
