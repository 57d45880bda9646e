"""From a blueprint to the nodes it stands for: domains are asked, raw nodes checked, parts composed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from holdfast_bus import Bus
from holdfast_bus.asking import ask_domain
from holdfast_model.blueprint import Blueprint, declarations, pointers
from holdfast_model.blueprint_parts import Compose, Mode, Part, PhasePart
from holdfast_model.composing import compose
from holdfast_model.errors import Invalid, Problem, Temporary, Unavailable
from holdfast_model.messages import CompiledPhase, CompileReply, CompileRequest, NodeDeclaration
from holdfast_model.names import GraphRef
from holdfast_model.plain import Unreadable, plain
from holdfast_model.rows import Declaration
from holdfast_model.staging import NO_DEADLINE, Stage, Staged, compiled_stages, complete_when_of, parse_deadline, staged
from holdfast_store.graphs import GraphStore

from .catalog import Catalog
from .schemas import SpecSchemas
from .settings import PlannerSettings

T = TypeVar("T")
R = TypeVar("R")

_LARGE = 64 * 1024
_reply = msgspec.json.Decoder(CompileReply)


class Compiled(msgspec.Struct, frozen=True):
    """The nodes of a document, where each stands in it, and how many rows of the graph they would change.

    ``staged``: the document in phases, if it has any or a deadline; ``nodes`` are then all of them.
    """

    nodes: list[tuple[str, Declaration]]
    pointers: Mapping[str, str]
    warnings: list[str]
    weight: int = 0
    staged: Staged | None = None
    versions: Mapping[str, str] = {}
    """Which version of each domain was asked."""


class _Source(msgspec.Struct, frozen=True):
    """The nodes of one source, where each stands, warnings, and the phases in which a domain put others."""

    nodes: Sequence[NodeDeclaration]
    places: Mapping[str, str] = {}
    warnings: Sequence[str] = ()
    phases: Sequence[CompiledPhase] = ()
    version: str = ""


class Compiler:
    """Asks the domains that run; whoever calls has seen that they do."""

    def __init__(self, bus: Bus, store: GraphStore, catalog: Catalog, settings: PlannerSettings) -> None:
        self._bus = bus
        self._store = store
        self._catalog = catalog
        self._settings = settings
        self._schemas = SpecSchemas()

    async def compile(self, ref: GraphRef, blueprint: Blueprint) -> Compiled:
        """The checked nodes of a blueprint. Raises Invalid with pointers into the document."""
        graph = await self._store.refresh(ref)
        rows, owner = graph.rows, blueprint.name

        def known(node: str) -> Declaration | None:
            row = rows.get(node)
            return row.of(owner) if row is not None else None

        declared: list[list[tuple[str, Declaration]]] = []
        places: list[Mapping[str, str]] = []
        warnings: list[str] = []
        phases: Sequence[CompiledPhase] = ()
        versions: dict[str, str] = {}
        for place, part in blueprint.sources:
            source = await self._part(ref, part, place)
            below = f"{place}/nodes" if part.nodes is not None else place
            declared.append(await aside(lambda raw, at=below: declarations(raw, at, known), source.nodes))  # type: ignore[misc]
            places.append(source.places)
            warnings += source.warnings
            phases = source.phases
            versions |= {part.domain: source.version} if source.version else {}
            if phases and (blueprint.phases is not None or blueprint.parts is not None):
                text = f"domain {part.domain!r} makes phases of it, which may not be part of something else"
                raise Invalid(text, [Problem(place, text)])
        observes = blueprint.mode == Mode.OBSERVE
        limit = parse_deadline(blueprint.deadline, "/deadline")
        if phases or blueprint.phases is not None:
            stages = (
                compiled_stages(phases, "/spec/phases")
                if blueprint.phases is None
                else _written(blueprint.phases, declared, places)
            )
            common = in_mode(declared[0] if phases else [], observes)
            stages = [msgspec.structs.replace(stage, nodes=in_mode(stage.nodes, observes)) for stage in stages]
            plan = staged(stages, common, limit, blueprint.conflict)
            every = [pair for stage in plan.stages for pair in stage.nodes] + list(plan.common)
            return Compiled(every, {}, warnings, len(every) + len(graph.owned.get(owner, ())), plan, versions)
        if blueprint.parts is None:
            composed, where = declared[0], places[0]
        else:
            how = Compose(blueprint.compose)
            composed = await aside(lambda parts: compose(parts, how, places), declared, sum(map(len, declared)))
            where = _Composed(places)
        composed = in_mode(composed, observes)
        fresh = sum(known(node) is not new for node, new in composed)
        removed = len(graph.owned.get(owner, ())) - (len(composed) - fresh)
        whole = Stage("", composed, places=where)
        plan_of_one = staged([whole], (), limit, blueprint.conflict) if limit != NO_DEADLINE else None
        return Compiled(composed, where, warnings, fresh + max(0, removed), plan_of_one, versions)

    async def _part(self, ref: GraphRef, part: Part, place: str) -> _Source:
        if part.nodes is not None:
            below = f"{place}/nodes"
            schemas = self._catalog.spec_schemas()
            await aside(lambda nodes: self._schemas.check_nodes(nodes, schemas, below), part.nodes)
            return _Source(part.nodes, pointers(part.nodes, below))
        try:
            await aside(plain, part.spec)
        except Unreadable as error:
            text = f"the blueprint is not valid: {error}"
            raise Invalid(text, [Problem(f"{place}/spec{error.place}", str(error))]) from error
        version = self._catalog.version_of(part.domain)
        request = CompileRequest(ref.tenant, ref.graph, part.spec, version)
        limit = self._settings.compile_timeout
        try:
            reply = await ask_domain(self._bus, part.domain, "compile", request, timeout=limit)
        except Invalid as error:
            placed = [Problem(_below_spec(place, p.path), p.message) for p in error.problems]
            raise Invalid(error.message, placed, hint=error.hint) from error
        except Unavailable as error:
            # Only this blueprint waits: an Unavailable of its own would stop the admission of all others.
            raise Temporary(f"domain {part.domain!r} does not answer: {error}", retry_after=2.0) from error
        try:
            compiled = _reply.decode(reply)
        except (msgspec.DecodeError, RecursionError) as error:
            text = f"domain {part.domain!r} answered what is no compiled blueprint: {error}"
            raise Invalid(text, [Problem(place, text)]) from error
        return _Source(compiled.nodes, {}, compiled.warnings, compiled.phases, version)


def _written(
    phases: Sequence[PhasePart], declared: Sequence[list[tuple[str, Declaration]]], places: Sequence[Mapping[str, str]]
) -> list[Stage]:
    """Phases as their author wrote them."""
    stages = []
    for i, (phase, nodes, where) in enumerate(zip(phases, declared, places, strict=True)):
        when = complete_when_of(phase.complete_when, f"/phases/{i}/complete_when")
        stages.append(Stage(phase.id, nodes, when, parse_deadline(phase.deadline, f"/phases/{i}/deadline"), where))
    return stages


def in_mode(nodes: Sequence[tuple[str, Declaration]], observe: bool) -> list[tuple[str, Declaration]]:
    """The nodes as declared in a mode."""
    if all(d.observe is observe for _, d in nodes):
        return list(nodes)
    return [(node, d if d.observe is observe else msgspec.structs.replace(d, observe=observe)) for node, d in nodes]


class _Composed(Mapping[str, str]):
    """Where the nodes of several parts stand: in the first one that names them. Compiled nodes have no place."""

    def __init__(self, places: Sequence[Mapping[str, str]]) -> None:
        self._places = places

    def __getitem__(self, node: str) -> str:
        for place in self._places:
            if node in place:
                return place[node]
        raise KeyError(node)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(node for place in self._places for node in place))

    def __len__(self) -> int:
        return len(list(iter(self)))


def _below_spec(place: str, path: str) -> str:
    return f"{place}/spec{path}" if path.startswith("/") or not path else path


async def aside(work: Callable[[T], R], value: T, size: int | None = None) -> R:
    """Large input is worked on in a thread, so that it does not hold up the loop. ``size``: of bytes or lists."""
    if size is None:
        size = len(value) if isinstance(value, bytes | list) else 0
    if size < (_LARGE if isinstance(value, bytes) else 1000):
        return work(value)
    return await asyncio.to_thread(work, value)
