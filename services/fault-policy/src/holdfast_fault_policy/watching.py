"""Situations in the store: counted in the transaction that handles a fault, ended by time, recovery or a fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.events import Event, Fault
from holdfast_model.fault_engine import Owned, PolicyFailure, policy_failed
from holdfast_model.names import GraphRef
from holdfast_model.situations import (
    MAX_ZONES,
    CompiledSituation,
    Zone,
    consider,
    decode_zone,
    owner_of,
    parse_zone_field,
    withdraw,
    zone_field,
)
from holdfast_store import keys
from holdfast_store.commits import Extra
from holdfast_store.kv import Cmd

_encode = msgspec.json.Encoder().encode


class Met(msgspec.Struct):
    """What a fault means for situations, as parts of its transaction."""

    mutations: tuple[Owned, ...] = ()
    failure: PolicyFailure | None = None
    events: list[Event] = []
    cmds: list[Cmd] = []


class Watched:
    """The situations in which one fault counts, each with its zone, and those that could not say whether it does."""

    def __init__(
        self, concerned: Sequence[tuple[CompiledSituation, str]] = (), failures: Sequence[PolicyFailure] = ()
    ) -> None:
        self._concerned = concerned
        self._failures = failures
        self._fields = [zone_field(situation.name, zone) for situation, zone in concerned]

    def __bool__(self) -> bool:
        return bool(self._concerned)

    def keys(self, ref: GraphRef) -> list[str]:
        return [keys.situations(ref)] if self._concerned else []

    def reads(self, ref: GraphRef) -> list[Cmd]:
        if not self._concerned:
            return []
        return [("HMGET", keys.situations(ref), *self._fields), ("HLEN", keys.situations(ref))]

    def meet(
        self, fault: Fault, graph: DesiredGraph, reads: Sequence[Any], accepted: Sequence[Owned], now: float
    ) -> Met:
        """Count the fault; ``accepted`` are the mutations that other policies ask for."""
        met, failures = Met(), list(self._failures)
        if self._concerned:
            stored, size = reads
            known = {f: zone for f, raw in zip(self._fields, stored, strict=True) if (zone := decode_zone(raw))}
            reply = consider(self._concerned, known, MAX_ZONES - size, fault, graph, accepted, now)
            withdraw(graph, reply.ended)
            met.mutations, met.events = reply.mutations, list(reply.events)
            failures += reply.failures
            for field, zone in reply.zones.items():
                met.cmds.append(("HSET", keys.situations(fault.ref), field, _encode(zone)))
        for failure in failures:
            told = policy_failed(fault, failure, now)
            met.events.append(msgspec.structs.replace(told, id=f"{told.id}.{'.'.join(failure.policies)}"))
            met.failure = met.failure or failure
        return met


UNWATCHED = Watched()


class SituationsEnded:
    """End the situations of a graph whose window has passed, or (``recovered``) that were about this node only.

    A change of the graph: what they had added goes. ``now`` in seconds since the epoch.
    """

    def __init__(self, ref: GraphRef, now: float, recovered: str = "") -> None:
        self._ref = ref
        self._now = now
        self._recovered = recovered

    @property
    def watch(self) -> Sequence[str]:
        return [keys.situations(self._ref)]

    @property
    def reads(self) -> Sequence[Cmd]:
        return [("HGETALL", keys.situations(self._ref))]

    def needed(self, stored: Mapping[bytes, bytes]) -> bool:
        """False when nothing changes."""
        return bool(self._changed(stored))

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        over, key = self._over(reads[0]), keys.situations(self._ref)
        removed, _ = withdraw(graph, [owner_of(*parse_zone_field(field)) for field in over])
        cmds: list[Cmd] = [("HDEL", key, *over)] if over else []
        for field, zone in self._changed(reads[0]).items():
            if zone is not None:
                cmds.append(("HSET", key, field, _encode(zone)))
        ended = [list(parse_zone_field(field)) for field in over]
        said = [{"kind": "SITUATION_ENDED", "situations": ended, "removed": list(removed)[:100]}] if over else []
        return Extra(cmds=cmds, mutations=said, value=over, no_version=True)

    def _over(self, stored: Mapping[bytes, bytes]) -> list[str]:
        return [field for field, zone in self._changed(stored).items() if zone is None]

    def _changed(self, stored: Mapping[bytes, bytes]) -> dict[str, Zone | None]:
        """Zones that are other than stored; None for those that are over."""
        changed: dict[str, Zone | None] = {}
        for raw_field, raw in stored.items():
            before = decode_zone(raw)
            after = None if before is None or before.is_over(self._now) else before
            if after is not None and self._recovered:
                after = after.without(self._recovered)
            if after is not before:
                changed[raw_field.decode()] = after
        return changed
