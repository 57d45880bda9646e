"""Asking domains whether they go along with renames: what they see under the old name, and under the new one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from holdfast_bus import Bus
from holdfast_bus.asking import ask_domain
from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import HoldfastError, Invalid, Problem
from holdfast_model.messages import Observation, ObserveItem, ObserveReply, ObserveRequest, Status
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Record, StepIntent, TypeInfo
from holdfast_model.reconciler.records import resolved
from holdfast_model.renames import Rename, judge
from holdfast_model.rows import Node
from holdfast_store import keys
from holdfast_store.graphs import GraphStore

from .catalog import Catalog
from .planning import Intake
from .settings import PlannerSettings
from .writing import decode_intent

_AT_ONCE = 200
_observed = msgspec.json.Decoder(ObserveReply).decode
_record = msgspec.json.Decoder(Record).decode
_MISSING = Observation(Status.UNKNOWN, detail="the observer did not report it")


async def check_renames(
    bus: Bus, store: GraphStore, catalog: Catalog, settings: PlannerSettings, graph: DesiredGraph, intake: Intake,
    pairs: Sequence[Rename],
) -> None:  # fmt: skip
    """Raises Invalid, with the place of every rename that a domain does not go along with."""
    place = {move: i for i, move in enumerate(intake.moved)}
    by_type: dict[str, list[Rename]] = {}
    for pair in pairs:
        by_type.setdefault(graph.nodes[pair[0]].type, []).append(pair)
    problems: list[Problem] = []

    def refuse(pair: Rename, text: str) -> None:
        problems.append(Problem(f"/moved/{place[pair]}", text))

    for kind, renames in by_type.items():
        info = catalog.infos.get(kind)
        if info is None or not info.live or not info.observes:
            why = "no domain that knows it is running" if info is None or not info.live else "it cannot be observed"
            for pair in renames:
                refuse(pair, f"whether a {kind!r} is found under another name is not known: {why}")
            continue
        for at in range(0, len(renames), _AT_ONCE):
            part = renames[at : at + _AT_ONCE]
            forms = await _forms(store, graph, part)
            limit = max(settings.observe_timeout, info.timeout + 5.0)
            old, new = await asyncio.gather(
                *(
                    _see(bus, intake.ref, info, kind, {p[end]: form for p, form in forms.items()}, limit)
                    for end in (0, 1)
                )
            )
            flying = await _in_flight(store, intake.ref) if any(s.status is Status.ABSENT for s in new.values()) else ()
            for pair in forms:
                seen = (old.get(pair[0], _MISSING), new.get(pair[1], _MISSING))
                if why := judge(pair, kind, *seen, in_flight=pair[0] in flying):
                    refuse(pair, why)
    if problems:
        raise Invalid(f"a node cannot be renamed: {problems[0].message}", problems)


async def _forms(store: GraphStore, graph: DesiredGraph, renames: Sequence[Rename]) -> dict[Rename, Node]:
    """What is declared under the old names, references resolved; without those of which nothing can be there yet."""
    nodes = {pair: graph.nodes[pair[0]] for pair in renames}
    referring = [pair for pair, node in nodes.items() if node.refs]
    if referring:
        (raws,) = await store.kv.run(("HMGET", keys.state(graph.ref), *(source for source, _ in referring)))
        for pair, raw in zip(referring, raws, strict=True):
            rec = _record(raw) if raw is not None else Record()
            form, missing = resolved(nodes[pair], rec.refs, rec.known)
            if missing:
                del nodes[pair]
            else:
                nodes[pair] = form
    return nodes


async def _in_flight(store: GraphStore, ref: GraphRef) -> frozenset[str]:
    """Nodes for which a step may be under way."""
    intents = [decode_intent(field, raw) for field, raw in (await store.todo(ref)).items()]
    return frozenset(step[0] for intent in intents if isinstance(intent, StepIntent) for step in intent.steps)


async def _see(
    bus: Bus, ref: GraphRef, info: TypeInfo, kind: str, forms: dict[str, Node], limit: float
) -> dict[str, Observation]:
    """What is seen of these forms under these names."""
    items = [ObserveItem(name, form.spec, form.digest, form.depends_on) for name, form in forms.items()]
    request = ObserveRequest(ref.tenant, ref.graph, "", kind, items, domain_version=info.version)
    try:
        return _observed(await ask_domain(bus, info.domain, "observe", request, timeout=limit)).observations
    except (HoldfastError, msgspec.DecodeError, RecursionError) as error:
        return {name: Observation(Status.UNKNOWN, detail=str(error)) for name in forms}
