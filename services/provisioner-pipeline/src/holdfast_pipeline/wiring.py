"""From blueprint to nodes and edges, and the rule of the layers. Pure; knows nothing of columns, SQL or
files.

Without ``inputs`` the reference's rule holds: stages are wired by kind, each to all of the kind before
it, and a missing kind is not bridged. A stage with ``inputs`` depends on these, on the schemas of the
sources upstream of them (Silver only: Gold may not reach Bronze), on its own ``schema`` or ``lookup``,
and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from holdfast_model.errors import Cycle, Dangling, Invalid, Problem

from . import specs
from .blueprint import (
    Blueprint,
    DataStage,
    Enricher,
    Ingestion,
    Placed,
    Sink,
    Source,
    Stage,
    Transformer,
    Validator,
)

DEFAULT_INPUTS: Mapping[str, str] = {
    specs.CLEANSER: specs.INGESTION,
    specs.ENRICHER: specs.CLEANSER,
    specs.VALIDATOR: specs.ENRICHER,
    specs.TRANSFORMER: specs.VALIDATOR,
    specs.SINK: specs.TRANSFORMER,
}
"""Node type -> node type whose tables it reads where no ``inputs`` are named."""

TABLE_TYPES = frozenset({specs.INGESTION, specs.CLEANSER, specs.ENRICHER, specs.VALIDATOR, specs.TRANSFORMER})
"""Node types whose result is a table that another stage may read."""


class Layer(IntEnum):
    """How refined data is. Edges join the same or neighbouring layers, and point at the same or a lower
    one.
    """

    BRONZE = 1
    SILVER = 2
    GOLD = 3


def layer_of(node_type: str) -> Layer | None:
    """The layer of a node type; None for reviews and types of other domains, which may depend on anything."""
    name = specs.LAYERS.get(node_type)
    return None if name is None else Layer[name.upper()]


class LayerViolation(Invalid):
    """An edge joins layers that may not be joined. ``violation``: BACKWARD (upwards) or SKIP (Gold on
    Bronze).
    """

    def __init__(self, node: str, layer: Layer, dependency: str, other: Layer, pointer: str = "") -> None:
        self.violation = "BACKWARD" if other > layer else "SKIP"
        why = "data never flows back" if other > layer else "a layer may not be skipped"
        text = (
            f"{self.violation}: {node!r} is {layer.name.lower()} and cannot depend on "
            f"{dependency!r}, which is {other.name.lower()}: {why}"
        )
        super().__init__(text, [Problem(pointer, text)])
        self.node, self.node_layer = node, layer
        self.dependency, self.dependency_layer = dependency, other


@dataclass(frozen=True)
class Wired:
    """One stage with its edges. ``depends_on`` maps each dependency to the JSON pointer that asks for it.

    ``inputs`` are the stages whose tables it reads (one, unless ``check()`` says otherwise).
    """

    id: str
    type: str
    pointer: str
    stage: Stage
    inputs: tuple[str, ...]
    depends_on: Mapping[str, str]

    @property
    def layer(self) -> Layer | None:
        return layer_of(self.type)

    @property
    def gating(self) -> str:
        """What the node itself is gated for: nothing."""
        return "NONE"

    @property
    def spec_gating(self) -> str:
        """What the spec gates: the removal of an approved Gold stage."""
        approved = isinstance(self.stage, Transformer | Sink) and self.stage.approval_required
        return "DEPROVISION_ONLY" if approved else "NONE"


Wiring = Mapping[str, Wired]
"""Node id -> stage, in the order of the blueprint."""


def wire(blueprint: Blueprint) -> Wiring:
    """Nodes and edges of a blueprint. Raises Invalid (an id used twice), Dangling, Cycle, LayerViolation."""
    placed = _by_id(blueprint)
    of_type: dict[str, list[str]] = {}
    for id, part in placed.items():
        of_type.setdefault(part.type, []).append(id)
    inputs = {id: _inputs(part, placed, of_type) for id, part in placed.items()}
    wiring = {
        id: Wired(id, p.type, p.pointer, p.stage, tuple(inputs[id]), _edges(p, placed, of_type, inputs))
        for id, p in placed.items()
    }
    # Stages that are wired by kind have no say in their edges: there a source that closes a cycle is what is wrong.
    _refuse_cycles({id: {} if _named(w.stage) else w.depends_on for id, w in wiring.items()})
    for node in wiring.values():
        check_layers(node.id, node.type, ((d, placed[d].type, at) for d, at in node.depends_on.items()))
    _refuse_cycles({id: w.depends_on for id, w in wiring.items()})
    return wiring


def check_layers(node: str, node_type: str, dependencies: Iterable[tuple[str, str, str]]) -> None:
    """Raise LayerViolation for the first of ``(id, type, JSON pointer)`` that ``node`` may not depend on."""
    layer = layer_of(node_type)
    for dependency, dependency_type, at in dependencies:
        other = layer_of(dependency_type)
        if layer is not None and other is not None and not 0 <= layer - other <= 1:
            raise LayerViolation(node, layer, dependency, other, at)


def upstream(id: str, wiring: Wiring) -> list[str]:
    """``id`` and every stage its data comes from, nearest first, each once."""
    return _upstream([id], {i: w.inputs for i, w in wiring.items()})


def source_of(ingestion: Ingestion, wiring: Wiring) -> Source | None:
    """The source that an ingestion reads, if what it names is one."""
    found = wiring.get(ingestion.source)
    return found.stage if found is not None and isinstance(found.stage, Source) else None


def _by_id(blueprint: Blueprint) -> dict[str, Placed]:
    placed: dict[str, Placed] = {}
    problems: list[Problem] = []
    for part in blueprint.placed():
        first = placed.setdefault(part.stage.id, part)
        if first is not part:
            text = f"id {part.stage.id!r} is used twice: it is also {first.pointer}"
            problems.append(Problem(f"{part.pointer}/id", text))
    if problems:
        raise Invalid("ids must be unique in a blueprint", problems)
    return placed


def _inputs(part: Placed, placed: Mapping[str, Placed], of_type: Mapping[str, list[str]]) -> dict[str, str]:
    """Stages whose tables ``part`` reads -> the JSON pointer that says so."""
    stage = part.stage
    if not isinstance(stage, DataStage):
        return {}
    if stage.inputs is None:
        return dict.fromkeys(of_type.get(DEFAULT_INPUTS[part.type], ()), part.pointer)
    named: dict[str, str] = {}
    for i, id in enumerate(stage.inputs):
        at = f"{part.pointer}/inputs/{i}"
        if id not in placed:
            raise Dangling(stage.id, id, path=at)
        named.setdefault(id, at)
    return named


def _edges(
    part: Placed,
    placed: Mapping[str, Placed],
    of_type: Mapping[str, list[str]],
    inputs: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    stage, at = part.stage, part.pointer
    edges = dict(inputs[stage.id])
    if isinstance(stage, Ingestion):
        if stage.source not in placed:
            raise Dangling(stage.id, stage.source, path=f"{at}/source")
        edges[stage.source] = f"{at}/source"
    if isinstance(stage, Enricher) and stage.lookup and stage.lookup in of_type.get(specs.DATA_SOURCE, ()):
        edges[stage.lookup] = f"{at}/lookup"
    if isinstance(stage, DataStage) and stage.inputs is not None:
        if layer_of(part.type) is Layer.SILVER:
            for schema in _schemas_upstream(edges, placed, inputs):
                edges.setdefault(schema, at)
        if isinstance(stage, Validator) and stage.contract and stage.contract in of_type.get(specs.SCHEMA, ()):
            edges.setdefault(stage.contract, f"{at}/schema")
    elif part.type in (specs.CLEANSER, specs.VALIDATOR):
        edges.update(dict.fromkeys(of_type.get(specs.SCHEMA, ()), at))
    return edges


def _schemas_upstream(
    start: Iterable[str], placed: Mapping[str, Placed], inputs: Mapping[str, Mapping[str, str]]
) -> list[str]:
    found: dict[str, None] = {}
    for id in _upstream(start, inputs):
        stage = placed[id].stage
        if isinstance(stage, Ingestion) and stage.source in placed:
            stage = placed[stage.source].stage
        if isinstance(stage, Source) and stage.contract and stage.contract in placed:
            found[stage.contract] = None
    return list(found)


def _upstream(start: Iterable[str], inputs: Mapping[str, Iterable[str]]) -> list[str]:
    seen = dict.fromkeys(start)
    queue = list(seen)
    for id in queue:
        fresh = [i for i in inputs.get(id, ()) if i not in seen]
        seen.update(dict.fromkeys(fresh))
        queue.extend(fresh)
    return queue


def _named(stage: Stage) -> bool:
    """Whether a stage names its inputs itself."""
    return isinstance(stage, DataStage) and stage.inputs is not None


def _refuse_cycles(edges: Mapping[str, Mapping[str, str]]) -> None:
    """What ``inputs`` and the sources of ingestions name can form one. Iterative: chains may be long."""
    done: set[str] = set()
    for root in edges:
        path: dict[str, None] = {}
        stack = [(root, False)]
        while stack:
            id, leaving = stack.pop()
            if leaving:
                path.pop(id)
                done.add(id)
                continue
            if id in done:
                continue
            path[id] = None
            stack.append((id, True))
            for dependency, at in edges[id].items():
                if dependency in path:
                    trail = list(path)
                    raise Cycle([*trail[trail.index(dependency) :], dependency], pointer=at)
                stack.append((dependency, False))
