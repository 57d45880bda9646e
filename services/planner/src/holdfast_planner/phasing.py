"""Phases as they are stored: written with an admission, brought to a graph's reconciler together with the graph."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from holdfast_model.desired import DesiredGraph
from holdfast_model.names import GraphRef
from holdfast_model.phases import Standing
from holdfast_model.reconciler import Reconciler
from holdfast_model.rows import Declaration
from holdfast_model.staging import (
    Standings,
    common_field,
    decode_part,
    decode_standings,
    encode_standings,
    kept_fields,
    part_field,
)
from holdfast_store import keys
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Cmd

from .planning import META_PHASE, Intake


async def to_come(
    store: GraphStore, ref: GraphRef
) -> AsyncIterator[tuple[str, Standing, int, Mapping[str, Declaration]]]:
    """The phases of a graph that are not in force yet: owner, how far its blueprint is, their number, their nodes."""
    (raw,) = await store.kv.run(("HGET", keys.meta(ref), META_PHASE))
    for owner, standing in sorted(decode_standings(raw).owners.items()):
        for index in range(standing.index + 1, len(standing.terms)):
            (part,) = await store.kv.run(("HGET", keys.phases(ref), part_field(owner, index)))
            yield owner, standing, index, dict(await asyncio.to_thread(decode_part, part))


class Phases:
    """How far the blueprints of a graph are, as last read. ``version``: of the graph when a phase last began."""

    def __init__(self, ref: GraphRef, store: GraphStore) -> None:
        self._ref = ref
        self._store = store
        self.version = 0

    async def read(
        self, graph: DesiredGraph, reconciler: Reconciler, refresh: Callable[[], Awaitable[None]]
    ) -> tuple[Mapping[str, Standing], dict[str, frozenset[str]]]:
        """What belongs to exactly the version at which ``graph`` stands when this returns: standings, and the own
        nodes of phases that the reconciler does not know.
        """
        while True:
            at = graph.version
            found = await self._standings()
            shared: dict[str, frozenset[str]] = {}
            for owner in reconciler.unknown_phases(found.owners):
                shared[owner] = await self._common(owner)
            if found.version > at:
                await refresh()
            elif graph.version == at:
                self.version = found.version
                members = {o: frozenset(graph.owned.get(o, ())) - common for o, common in shared.items()}
                return found.owners, members

    async def _standings(self) -> Standings:
        (raw,) = await self._store.kv.run(("HGET", keys.meta(self._ref), META_PHASE))
        return decode_standings(raw)

    async def _common(self, owner: str) -> frozenset[str]:
        (raw,) = await self._store.kv.run(("HGET", keys.phases(self._ref), common_field(owner)))
        return frozenset(node for node, _ in decode_part(raw))


def phase_cmds(intake: Intake, stored: Standings, standing: Standing | None, version: int) -> list[Cmd]:
    """What an admission writes of phases: how far each blueprint is, and the nodes of phases that are to come."""
    ref, owner = intake.ref, intake.owner
    owners = {o: s for o, s in stored.owners.items() if not intake.takes_back(o)}
    before = {o: s for o, s in stored.owners.items() if intake.takes_back(o)}
    if standing is not None and not intake.delete:
        owners[owner] = standing
    if owners == stored.owners:
        return []
    gone = [field for name, old in before.items() for field in kept_fields(name, old)]
    cmds: list[Cmd] = [("HDEL", keys.phases(ref), *gone)] if gone else []
    if owner in owners and intake.staged is not None:
        cmds += [("HSET", keys.phases(ref), field, raw) for field, raw in intake.staged.parts(owner).items()]
    meta = keys.meta(ref)
    if owners:
        return [*cmds, ("HSET", meta, META_PHASE, encode_standings(Standings(version, owners)))]
    return [*cmds, ("HDEL", meta, META_PHASE)]
