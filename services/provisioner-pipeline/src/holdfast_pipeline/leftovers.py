"""What there is of a graph's stages, whoever declares them: what searches for leftovers are answered with.

A table is where its stage's folder is, ``<warehouse>/<tenant>/<graph>``; so nothing of another graph or tenant is ever
found. Sources and schemas have no folder: they are found where a table that is there was made from them. A layer that
cannot be listed, or holds too much, is an error: a search that says too little would have things forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from holdfast_model.errors import Forbidden, Invalid, Temporary
from holdfast_model.rows import Gating

from . import specs
from .abreast import in_order
from .folders import DECISIONS, is_stage
from .forms import Form, form_of
from .locations import names_in
from .objects import Location
from .shelves import Shelf, Shelves, readable
from .specs import LAYERS
from .tasks import EngineSettings

T = TypeVar("T")

MOST = 20_000
"""Names in a layer's folder (stages and the tables beside them) up to which it is searched."""


class Leftover(NamedTuple):
    """A stage that is there. ``spec``: as JSON, None where nobody knows what it was made for."""

    id: str
    spec: msgspec.Raw | None = None
    depends_on: tuple[str, ...] = ()
    gating: Gating = Gating.NONE


def search(settings: EngineSettings, tenant: str, graph: str, node_type: str) -> list[Leftover]:
    """Stages of a type that are there, by id.

    Raises Temporary when that cannot be seen, Forbidden when the folder is a link to somewhere else.
    """
    found = _Found(settings, tenant, graph)
    if node_type == specs.DATA_SOURCE:
        return _sources(found)
    if node_type == specs.SCHEMA:
        return _schemas(found)
    return [_table(shelf, form) for shelf, form in found.tables(node_type)]


class _Found:
    """The folders of one graph."""

    def __init__(self, settings: EngineSettings, tenant: str, graph: str) -> None:
        self._settings = settings
        self._shelves = Shelves(settings, tenant, graph)

    def tables(self, node_type: str) -> Iterator[tuple[Shelf, Form | None]]:
        """The folders of a type, with what they were made for."""
        layer = LAYERS[node_type]
        names = [n for n in self.names(layer) if "__" not in n and is_stage(n.removesuffix(f".{node_type}"))]
        claimed = in_order(lambda name: self._shelves.claimed(layer, name), names)
        shelves = {s.stage: s for s in claimed if s is not None and s.type == node_type}
        yield from zip(shelves.values(), in_order(self._form, shelves.values()), strict=True)

    def specs(self, node_type: str) -> Iterator[tuple[str, specs.StageSpec]]:
        """The stages of a type of which it is known what they were made for."""
        for shelf, form in self.tables(node_type):
            spec = _spec(node_type, form)
            if spec is not None:
                yield shelf.stage, spec

    def names(self, layer: str) -> list[str]:
        folder = self._shelves.layer(layer)
        self._assert_own(folder)
        with readable():
            names = names_in(folder, MOST + 1)
        if len(names) > MOST:
            raise Temporary(f"there are more than {MOST} tables in layer {layer!r}")
        return names

    def _form(self, shelf: Shelf) -> Form | None:
        with readable():
            return form_of(shelf.folder)

    def _assert_own(self, folder: Location) -> None:
        """What a link leads to may be another graph's, or nobody's of ours."""
        if not isinstance(folder, Path) or not isinstance(self._settings.warehouse, Path):
            return
        below = folder.relative_to(self._settings.warehouse)
        if Path(os.path.realpath(folder)) != Path(os.path.realpath(self._settings.warehouse)) / below:
            raise Forbidden(f"folder {str(below)!r} of the warehouse is a link: what it leads to is not searched")


def _table(shelf: Shelf, form: Form | None) -> Leftover:
    spec = _spec(shelf.type, form)
    gating = _gating(shelf.type, spec)
    if form is None or spec is None:
        return Leftover(shelf.stage, gating=gating)
    return Leftover(shelf.stage, form.spec, form.depends_on, gating)


def _spec(node_type: str, form: Form | None) -> specs.StageSpec | None:
    if form is None:
        return None
    try:
        return specs.decode_spec(node_type, form.spec)
    except Invalid:
        return None  # another version's


def _gating(node_type: str, spec: specs.StageSpec | None) -> Gating:
    """What somebody approved, or may have, is only removed after a person agreed."""
    if isinstance(spec, specs.TransformerSpec | specs.SinkSpec):
        return Gating.DEPROVISION_ONLY if spec.approval_required else Gating.NONE
    return Gating.DEPROVISION_ONLY if node_type in specs.GOLD else Gating.NONE


def _sources(found: _Found) -> list[Leftover]:
    named: dict[str, dict[str, specs.Source]] = {}
    for node_type in (specs.INGESTION, specs.ENRICHER):
        for stage, spec in found.specs(node_type):
            if isinstance(spec, specs.IngestionSpec):
                named.setdefault(spec.source.node, {})[stage] = spec.source
            elif isinstance(spec, specs.EnricherSpec) and spec.lookup is not None:
                named.setdefault(spec.lookup.source.node, {})[stage] = spec.lookup.source
    return [
        _reconstructed(id, specs.DataSourceSpec(source, tuple(said)) if (source := _agreed(said)) is not None else None)
        for id, said in sorted(named.items())
    ]


def _schemas(found: _Found) -> list[Leftover]:
    end = f"__{DECISIONS}"
    decided = (name.removesuffix(end) for name in found.names(LAYERS[specs.SCHEMA]) if name.endswith(end))
    named: dict[str, dict[str, specs.Contract]] = {id: {} for id in decided if is_stage(id)}
    for stage, spec in found.specs(specs.INGESTION):
        if isinstance(spec, specs.IngestionSpec) and spec.contract is not None:
            named.setdefault(spec.contract.node, {})[stage] = spec.contract
    return [
        _reconstructed(id, specs.SchemaSpec(contract, tuple(said)) if (contract := _agreed(said)) is not None else None)
        for id, said in sorted(named.items())
    ]


def _reconstructed(id: str, spec: specs.StageSpec | None) -> Leftover:
    return Leftover(id, None if spec is None else msgspec.Raw(specs.encode_spec(spec)))


def _agreed(said: Mapping[str, T]) -> T | None:
    """What all tables that name something say of it; None where they contradict each other, or there are none."""
    first = next(iter(said.values()), None)
    return first if all(one == first for one in said.values()) else None
