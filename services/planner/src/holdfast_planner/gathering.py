"""What an explanation needs to know from elsewhere: WorkItems, blueprints that wait, phases to come, the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast_bus import Bus, subjects
from holdfast_model.errors import HoldfastError, NotFound
from holdfast_model.events import Fault
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Reconciler
from holdfast_model.work_items import WorkItem
from holdfast_store import keys
from holdfast_store.graphs import GraphStore

from . import explaining
from .catalog import Catalog
from .pending import Pending, decode_pending
from .phasing import to_come
from .sentences import Known, instant
from .views import leftover_rows

log = logging.getLogger("holdfast.planner")

_ITEM_TIMEOUT = 2.0
_ITEMS = 8
_ENTRIES = 50
_SHOWN = 5
_item = msgspec.json.Decoder(WorkItem).decode


class Explainer:
    """Answers why a node is as it is. Every wait is bounded; what cannot be found out is left out, and said so."""

    def __init__(self, bus: Bus, store: GraphStore, catalog: Catalog) -> None:
        self._bus = bus
        self._catalog = catalog
        self._store = store

    async def explain(self, reconciler: Reconciler, ref: GraphRef, node: str) -> dict[str, Any]:
        """The explanation of a node of a loaded graph. Raises NotFound where nothing declares it."""
        pending = await self.pending(ref)
        unit = explaining.find(reconciler, node)
        if unit is None:
            left = [row for row in leftover_rows(reconciler) if row["id"] == node]
            told = explaining.leftover(node, left) if left else await self._later(reconciler, ref, node)
            if told is None:
                said = explaining.nowhere(f"node {node!r} is not in graph {ref}", pending)
                raise NotFound(said, hint=f"holdfast get nodes -g {ref.graph}")
        else:
            items = await self._items(ref, explaining.items_of(reconciler, unit))
            known = Known(items, pending, self._catalog.gone(), await self._unhandled(ref, unit.rec.fault))
            unit = explaining.find(reconciler, node) or unit  # it went on meanwhile
            told = explaining.explain(reconciler, unit, known)
        told["mutations"] = await self._touched(ref, node)
        return told

    async def pending(self, ref: GraphRef) -> dict[str, Pending]:
        """The blueprints of a graph that wait, by owner."""
        return {owner: decode_pending(raw) for owner, raw in (await self._store.pending(ref)).items()}

    async def _items(self, ref: GraphRef, ids: list[str]) -> Mapping[str, WorkItem]:
        async def ask(id: str) -> WorkItem | None:
            query = {"tenant": ref.tenant, "id": id}
            try:
                return _item(await self._bus.request(subjects.rpc_workitems("get"), query, timeout=_ITEM_TIMEOUT))
            except (HoldfastError, msgspec.DecodeError) as error:
                log.info("WorkItem %s cannot be asked after: %s", id, error)
                return None

        answers = await asyncio.gather(*(ask(id) for id in ids[:_ITEMS]))
        return {item.id: item for item in answers if item is not None}

    async def _unhandled(self, ref: GraphRef, fault: str) -> Mapping[str, float]:
        (stored,) = await self._store.kv.run(("GET", keys.fault(ref, fault))) if fault else (None,)
        return {fault: msgspec.json.decode(stored, type=Fault).time} if stored is not None else {}

    async def _later(self, reconciler: Reconciler, ref: GraphRef, node: str) -> dict[str, Any] | None:
        """The explanation of a node that only a phase to come declares."""
        async for owner, standing, index, nodes in to_come(self._store, ref):
            if (declared := nodes.get(node)) is not None:
                stage = reconciler.core.stages.by_owner.get(owner)
                missing = sorted(stage.missing) if stage is not None else []
                phase = standing.terms[index].id
                return explaining.later(ref.graph, node, declared, owner, standing, phase, missing)
        return None

    async def _touched(self, ref: GraphRef, node: str) -> list[dict[str, Any]]:
        """The newest entries of the log that name a node: when, who, why, and what was done to it."""
        out: list[dict[str, Any]] = []
        name = msgspec.json.encode(node)
        for entry in await self._store.log(ref, count=_ENTRIES, newest_first=True):
            for op in entry.ops:
                mine = [m for m in op.mutations if name in msgspec.json.encode(m)]
                if mine:
                    text = f"version {entry.version} at {instant(entry.at)} by {op.actor or 'nobody named'}: {op.cause}"
                    said = {"actor": op.actor, "cause": op.cause, "mutations": mine}
                    out.append({"version": entry.version, "at": entry.at, "text": text, **said})
        return out[:_SHOWN]
