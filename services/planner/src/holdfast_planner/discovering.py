"""Searching for leftovers: domains are asked, and what any graph in the type's scope desires is taken out."""

from __future__ import annotations

import logging
from collections.abc import Collection

import msgspec

from holdfast_bus import Bus
from holdfast_bus.asking import ask_domain
from holdfast_model.errors import HoldfastError
from holdfast_model.manifest import Scope
from holdfast_model.messages import ObserveReply, ObserveRequest
from holdfast_model.names import PARTITIONS, GraphRef
from holdfast_model.reconciler import Found, TypeInfo
from holdfast_model.reconciler.searching import found_in
from holdfast_model.rows import gone_field
from holdfast_store import keys
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Cmd

from .phasing import to_come

log = logging.getLogger("holdfast.planner")

_GRAPHS_AT_ONCE = 200
_observed = msgspec.json.Decoder(ObserveReply).decode


async def search(
    bus: Bus, store: GraphStore, ref: GraphRef, incarnation: str, type: str, info: TypeInfo, *,
    timeout: float, ours: Collection[str],
) -> Found:  # fmt: skip
    """What is there of a type. ``ours``: ids that need not be asked about; whatever fails, there is an answer."""
    request = ObserveRequest(ref.tenant, ref.graph, incarnation, type, [], discover=True, domain_version=info.version)
    try:
        reply = await ask_domain(bus, info.domain, "observe", request, timeout=timeout)
        found = found_in(_observed(reply))
        strange = [id for id in found.things if id not in ours]
        elsewhere = await desired_elsewhere(store, ref, type, strange, info.scope)
        return msgspec.structs.replace(found, elsewhere=elsewhere | await desired_later(store, ref, strange))
    except (HoldfastError, msgspec.DecodeError, RecursionError) as error:
        log.info("leftovers of type %r of graph %s cannot be searched for: %s", type, ref, error)
        return Found(failed=str(error))


async def desired_later(store: GraphStore, ref: GraphRef, ids: Collection[str]) -> frozenset[str]:
    """Those of ``ids`` that a phase to come of the graph itself declares: it will find its things where they are."""
    if not ids:
        return frozenset()
    return frozenset([id async for *_, nodes in to_come(store, ref) for id in ids if id in nodes])


async def desired_elsewhere(
    store: GraphStore, ref: GraphRef, type: str, ids: Collection[str], scope: str
) -> frozenset[str]:
    """Those of ``ids`` that another graph in the scope desires (as whatever type) or is about to remove.

    Costs a round trip for each two hundred graphs, and only where something strange was found.
    """
    if not ids or scope == Scope.GRAPH:
        return frozenset()
    names = list(ids)
    every = await store.kv.run(*[("SMEMBERS", keys.graphs(p)) for p in range(PARTITIONS)])
    refs = [GraphRef(*name.decode().split("/", 1)) for found in every for name in found]
    others = [r for r in refs if r != ref and (scope != Scope.TENANT or r.tenant == ref.tenant)]
    graves = [gone_field((id, type)) for id in names]
    elsewhere: set[str] = set()
    for at in range(0, len(others), _GRAPHS_AT_ONCE):
        part = others[at : at + _GRAPHS_AT_ONCE]
        cmds: list[Cmd] = [("HMGET", keys.node(other), *names) for other in part]
        cmds += [("HMGET", keys.gone(other), *graves) for other in part]
        for known in await store.kv.run(*cmds):
            elsewhere.update(id for id, value in zip(names, known, strict=True) if value is not None)
    return frozenset(elsewhere)
