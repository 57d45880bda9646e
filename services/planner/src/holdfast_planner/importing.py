"""A blueprint of what is there already: what searches find and nobody desires, beside what its owner declares now.

Declared as it was found, it is adopted: nothing is sent a step. The document holds everything that its owner declares,
because a new version of a blueprint replaces the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Invalid, NotFound, Problem
from holdfast_model.reconciler import Found, TypeInfo
from holdfast_model.rows import Declaration, Gating

from .hosting import HostedGraph
from .planning import declared

_AT_ONCE = 8


def chosen_types(infos: Mapping[str, TypeInfo], type: str) -> list[str]:
    """The types to search for: one, or all that can be. Raises NotFound, or Invalid for one that cannot."""
    able = sorted(name for name, info in infos.items() if info.discover)
    if not type:
        return able
    hint = f"types that can be searched for: {', '.join(able) or 'none'}"
    if type not in infos:
        raise NotFound(f"no domain has announced the type {type!r}", hint=hint)
    if type not in able:
        text = f"type {type!r} cannot be searched for: its domain has no discover for it"
        raise Invalid(text, [Problem("/type", text)], hint=hint)
    return [type]


async def search_all(graph: HostedGraph, types: Collection[str]) -> dict[str, Found]:
    """What is there of each type, a few at a time; a search that fails says why."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(type: str) -> Found:
        async with room:
            return await graph.search(type)

    return dict(zip(types, await asyncio.gather(*map(one, types)), strict=True))


def blueprint_of(graph: DesiredGraph, owner: str, found: Mapping[str, Found]) -> dict[str, Any]:
    """The document, and what is to be said of it: ``{name, nodes}``, ids found and kept, those without a spec, types
    of which nothing is known, warnings."""
    buried = {id for id, _ in graph.gone}
    kept = declared(graph, owner)
    nodes = [_node(id, d) for id, d in kept.items() if d.says_what]
    warnings: list[str] = []
    new: dict[str, str] = {}
    bare: list[str] = []
    for type in sorted(found):
        for id, spec in sorted(found[type].things.items()):
            if id in graph.nodes or id in graph.rows or id in buried or id in found[type].elsewhere:
                continue
            if id in new:
                warnings.append(f"{id!r} was found as {new[id]!r} and as {type!r}; only the former is in the blueprint")
                continue
            new[id] = type
            if spec is None:
                bare.append(id)
            nodes.append(_found_node(id, type, found[type]))
    known = {node["id"] for node in nodes} | graph.nodes.keys()
    if cut := [edge for node in nodes if node["id"] in new for edge in _cut_edges(node, known)]:
        warnings.append(f"{len(cut)} dependencies are on what is not there and are left out: {_shown(cut)}")
    if bare:
        warnings.append(f"the specs of {len(bare)} are not known, fill them in before it is applied: {_shown(bare)}")
    failed = {type: answer.failed for type, answer in found.items() if answer.failed}
    warnings += [f"{type!r} could not be searched for: {why}" for type, why in failed.items()]
    return {
        "document": {"name": owner, "nodes": nodes},
        "found": [{"id": id, "type": type} for id, type in new.items()],
        "kept": len(nodes) - len(new),
        "without_spec": bare,
        "failed": failed,
        "warnings": warnings,
    }


def _found_node(id: str, type: str, found: Found) -> dict[str, Any]:
    """What was found, as far as it is known, as a blueprint states it."""
    raw = found.things[id]
    spec = Raw(b"{}") if raw is None else raw
    return _node(id, Declaration(type, spec, "", found.edges.get(id, ()), found.gates.get(id, Gating.NONE)))


def _cut_edges(node: dict[str, Any], known: Collection[str]) -> list[str]:
    """Take out of a node what it depends on and nobody knows: no graph could have it."""
    wanted = node.pop("depends_on", [])
    kept = [id for id in wanted if id in known]
    if kept:
        node["depends_on"] = kept
    return [f"{node['id']} on {id}" for id in wanted if id not in known]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")


def _node(id: str, d: Declaration) -> dict[str, Any]:
    """A declaration as a blueprint states it."""
    node: dict[str, Any] = {"id": id, "type": d.type, "spec": msgspec.json.decode(d.spec)}
    if d.depends_on:
        node["depends_on"] = list(d.depends_on)
    for name, gating in (("gating", d.gating), ("spec_gating", d.spec_gating)):
        if gating is not Gating.NONE:
            node[name] = gating.value
    return node
