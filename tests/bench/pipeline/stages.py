"""The same pipeline as stages of Holdfast, one request to a step's child process each."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec

from holdfast_pipeline import specs
from holdfast_pipeline.engine import EngineSettings, StageTask
from holdfast_pipeline.folders import stage_folder
from holdfast_pipeline.steps import Places, Request
from holdfast_pipeline.tables import Table

from .plain import SQL

FIELDS = (
    specs.Field("order_id", "int64"),
    specs.Field("amount", "decimal(12,2)"),
    specs.Field("country", "string"),
)
STAGES: dict[str, specs.StageSpec] = {
    "raw": specs.IngestionSpec(specs.Source("orders", "orders/*.csv", "csv"), specs.Contract("s", fields=FIELDS)),
    "clean": specs.CleanserSpec(
        specs.Input("raw", specs.INGESTION),
        FIELDS,
        (specs.Rule("trim"), specs.Rule("filter", "order_id > 0")),
        deduplication=specs.Deduplication(("order_id",), "last"),
    ),
    "geo": specs.EnricherSpec(
        specs.Input("clean", specs.CLEANSER),
        specs.Lookup(specs.Source("countries", "countries.csv", "csv"), ("country",)),
        {"net": "amount * 0.8"},
    ),
    "valid": specs.ValidatorSpec(
        specs.Input("geo", specs.ENRICHER),
        (specs.Check("order_id", "not_null"), specs.Check("order_id", "unique"), specs.Check("amount", "ge", 0)),
        0.9,
    ),
    "gold": specs.TransformerSpec((specs.Input("valid", specs.VALIDATOR),), SQL.format("valid")),
    "report": specs.SinkSpec(specs.Input("gold", specs.TRANSFORMER), "out", "parquet"),
}
"""Stages by their ids, in order."""

_TYPES = {kind: name for name, kind in specs.SPEC_OF_TYPE.items()}


def settings(base: Path, warehouse: Path) -> EngineSettings:
    return EngineSettings(warehouse, {"t": (base / "data",)}, settle=0.0)


def request(stage: str, base: Path, warehouse: Path) -> bytes:
    """What the service sends to the child that runs a step of ``stage``."""
    spec = STAGES[stage]
    raw = specs.encode_spec(spec)
    task = StageTask("t", "g", stage, _TYPES[type(spec)], msgspec.Raw(raw), sha256(raw).hexdigest())
    return msgspec.json.encode(Request(Places.of(settings(base, warehouse)), task, True))


def table(stage: str, base: Path, warehouse: Path) -> Table:
    """The stage's table as it is now."""
    found = Table.open(stage_folder(settings(base, warehouse), "t", "g", stage, _TYPES[type(STAGES[stage])]).main)
    if found is None:
        raise LookupError(f"{stage} has no table")
    return found
