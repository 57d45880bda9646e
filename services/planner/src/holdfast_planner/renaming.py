"""Asking domains whether they go along with renames: what they see under the old name, and under the new one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import msgspec

from holdfast_bus import Bus
from holdfast_bus.asking import ask_domain
from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import HoldfastError, Invalid, Problem, Temporary
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

AGAIN = 0.2
"""Seconds after which a blueprint is taken in again of which something has changed while domains were asked."""
_AT_ONCE = 200


class Judged(msgspec.Struct, frozen=True):
    """A rename with which a domain goes along: it holds for what was declared then (``digest``), and, where there was
    nothing to be lost, as long as nothing was made since (``known``: the record, as stored; None = something is there).
    """

    digest: str
    known: bytes | None = None


_observed = msgspec.json.Decoder(ObserveReply).decode
_record = msgspec.json.Decoder(Record).decode
_MISSING = Observation(Status.UNKNOWN, detail="the observer did not report it")


async def check_renames(
    bus: Bus, store: GraphStore, catalog: Catalog, settings: PlannerSettings, graph: DesiredGraph, intake: Intake,
    pairs: Sequence[Rename],
) -> dict[Rename, Judged]:  # fmt: skip
    """Raises Invalid, with the place of every rename that a domain does not go along with."""
    judged: dict[Rename, Judged] = {}
    place = {move: i for i, move in enumerate(intake.moved)}
    nodes = {pair: graph.nodes[pair[0]] for pair in pairs}  # now: while domains are asked, the graph changes
    by_type: dict[str, list[Rename]] = {}
    for pair in pairs:
        by_type.setdefault(nodes[pair].type, []).append(pair)
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
            (records,) = await store.kv.run(("HMGET", keys.state(intake.ref), *(source for source, _ in part)))
            known = {pair: raw or b"" for pair, raw in zip(part, records, strict=True)}
            forms = _forms({pair: nodes[pair] for pair in part}, known)
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
                absent = seen[1].status is Status.ABSENT
                judged[pair] = Judged(nodes[pair].digest, known[pair] if absent else None)
            judged |= {pair: Judged(nodes[pair].digest, known[pair]) for pair in part if pair not in forms}
    if problems:
        raise Invalid(f"a node cannot be renamed: {problems[0].message}", problems)
    return judged


def check_judged(
    graph: DesiredGraph, pairs: Sequence[Rename], judged: Mapping[Rename, Judged],
    known: Mapping[str, bytes], flying: Collection[str],
) -> None:  # fmt: skip
    """Raises Temporary where domains have not been asked about just these renames of what is declared now. ``known``:
    the records, as stored, of those of which nothing was there; ``flying``: nodes for which a step may be under way.
    """
    for source, target in pairs:
        found = judged.get((source, target))
        same = found is not None and found.digest == graph.nodes[source].digest
        if found is not None and found.known is not None:
            same = same and found.known == known.get(source, b"") and source not in flying
        if not same:
            text = f"{source!r} has changed since its domain was asked whether it may be called {target!r}"
            raise Temporary(text, retry_after=AGAIN)


def _forms(nodes: dict[Rename, Node], known: Mapping[Rename, bytes]) -> dict[Rename, Node]:
    """These with their references resolved; without those of which nothing can be there yet."""
    found: dict[Rename, Node] = {}
    for pair, node in nodes.items():
        rec = _record(known[pair]) if known[pair] and node.refs else Record()
        form, missing = resolved(node, rec.refs, rec.known)
        if not missing:
            found[pair] = form
    return found


async def _in_flight(store: GraphStore, ref: GraphRef) -> frozenset[str]:
    """Nodes for which a step may be under way."""
    return flying_in(await store.todo(ref))


def flying_in(todo: Mapping[str, bytes]) -> frozenset[str]:
    """Nodes for which open intents say that a step may be under way."""
    intents = [decode_intent(field, raw) for field, raw in todo.items()]
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
