"""From a checked blueprint to nodes: each stage with a spec that is complete without the blueprint.

SQL enters a spec in its canonical spelling, so that a comment or a line break changes no digest and
nothing is computed again because of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

import msgspec

from . import specs
from .blueprint import (
    Blueprint,
    Check,
    Cleanser,
    DataStage,
    Enricher,
    FieldSpec,
    Ingestion,
    Limits,
    Rule,
    Scalar,
    Schema,
    Sink,
    Source,
    TableStage,
    Transformer,
    Validator,
    pointer,
)
from .casting import zone_of
from .checks import Refusal, check
from .expressions import expression, query
from .wiring import Wired, Wiring, source_of, wire

_Comparison = Literal["ge", "gt", "le", "lt", "eq", "ne", "pattern", "min_length", "max_length"]
_COMPARISONS: tuple[_Comparison, ...] = (
    "ge", "gt", "le", "lt", "eq", "ne", "pattern", "min_length", "max_length",
)  # fmt: skip
_RowRule = Literal["trim", "lower", "upper", "drop_nulls", "drop_duplicates"]
_COLUMN_RULES: tuple[_RowRule, ...] = ("trim", "lower", "upper", "drop_nulls", "drop_duplicates")


@dataclass(frozen=True)
class Compiled:
    """One node. ``pointer`` is its place in the blueprint; ``depends_on`` in the order of the wiring."""

    id: str
    type: str
    spec: specs.StageSpec
    spec_gating: str
    depends_on: tuple[str, ...]
    pointer: str


def compile_blueprint(blueprint: Blueprint, refuse: Refusal | None = None) -> list[Compiled]:
    """The nodes of a blueprint. Raises Invalid with JSON pointers for everything that is wrong."""
    wiring = wire(blueprint)
    check(blueprint, wiring, refuse)
    return [
        Compiled(n.id, n.type, _spec(n, wiring), n.spec_gating, tuple(n.depends_on), n.pointer) for n in wiring.values()
    ]


def _spec(node: Wired, wiring: Wiring) -> specs.StageSpec:
    spec = _stage_spec(node, wiring)
    if isinstance(node.stage, TableStage) and node.stage.run:
        return msgspec.structs.replace(spec, run=node.stage.run)
    return spec


def _stage_spec(node: Wired, wiring: Wiring) -> specs.StageSpec:
    match node.stage:
        case Source() as stage:
            return specs.DataSourceSpec(_source(stage, wiring), tuple(_readers(stage, wiring)))
        case Schema() as stage:
            judged = (i.id for i, s in _ingestions(wiring) if s.contract == stage.id)
            return specs.SchemaSpec(_contract(stage), tuple(judged))
        case Ingestion() as stage:
            source = cast(Source, source_of(stage, wiring))
            schema = _schema(source.contract, wiring)
            contract = None if schema is None else _contract(schema)
            return specs.IngestionSpec(_source(source, wiring), contract, stage.batch_size)
        case Cleanser() as stage:
            return _cleanser(stage, node, wiring)
        case Enricher() as stage:
            return _enricher(stage, node, wiring)
        case Validator() as stage:
            return _validator(stage, node, wiring)
        case Transformer() as stage:
            return _transformer(stage, node, wiring)
        case Sink() as stage:
            return _sink(stage, node, wiring)
    raise TypeError(f"{type(node.stage).__name__} has no spec")


def _source(stage: Source, wiring: Wiring) -> specs.Source:
    formats = cast(Literal["csv", "ndjson", "json", "parquet", "delta"], stage.format)
    options = cast(dict[str, str | int | bool | list[str]], stage.options)
    schema = _schema(stage.contract, wiring)
    if options.get("has_header") is False and schema is not None:
        options = {**options, "columns": list(schema.fields)}
    return specs.Source(stage.id, stage.uri, formats, options)


def _readers(stage: Source, wiring: Wiring) -> Iterator[str]:
    for node in wiring.values():
        reads = isinstance(node.stage, Ingestion) and node.stage.source == stage.id
        if reads or (isinstance(node.stage, Enricher) and node.stage.lookup == stage.id):
            yield node.id


def _ingestions(wiring: Wiring) -> Iterator[tuple[Ingestion, Source]]:
    for node in wiring.values():
        source = source_of(node.stage, wiring) if isinstance(node.stage, Ingestion) else None
        if isinstance(node.stage, Ingestion) and source is not None:
            yield node.stage, source


def _schema(id: str | None, wiring: Wiring) -> Schema | None:
    found = wiring.get(id) if id else None
    return found.stage if found is not None and isinstance(found.stage, Schema) else None


def _contract(stage: Schema) -> specs.Contract:
    return specs.Contract(stage.id, stage.version, stage.extra, _fields(stage))


def _fields(stage: Schema | None) -> tuple[specs.Field, ...]:
    if stage is None:
        return ()
    return tuple(
        specs.Field(
            name,
            f.type or "any",
            f.optional,
            (zone_of(f.tz) or f.tz) if f.tz else "",
            f.format or "",
            f.decimal or "",
            f.thousands or "",
        )
        for name, f in stage.fields.items()
    )


def _inputs(node: Wired, wiring: Wiring) -> tuple[specs.Input, ...]:
    as_of = node.stage.as_of if isinstance(node.stage, DataStage) else {}
    return tuple(specs.Input(i, wiring[i].type, as_of.get(i, -1)) for i in node.inputs)


def _cleanser(stage: Cleanser, node: Wired, wiring: Wiring) -> specs.CleanserSpec:
    before = wiring[node.inputs[0]].stage
    source = source_of(before, wiring) if isinstance(before, Ingestion) else None
    rules = [r for i, rule in enumerate(stage.rules) for r in _rules(rule, f"{node.pointer}/rules/{i}")]
    deduplication = None
    if stage.deduplication is not None:
        d = stage.deduplication
        deduplication = specs.Deduplication(tuple(d.keys), d.keep, tuple(d.order_by))
    elif any(rule.dedupe for rule in stage.rules):
        deduplication = specs.Deduplication()
    return specs.CleanserSpec(
        _inputs(node, wiring)[0],
        _fields(_schema(source.contract, wiring)) if source is not None else (),
        tuple(rules),
        stage.null_handling if isinstance(stage.null_handling, dict) else {},
        ("*",) if stage.null_handling == "drop" else (),
        deduplication,
    )


def _rules(rule: Rule, at: str) -> Iterator[specs.Rule]:
    if rule.filter is not None:
        yield specs.Rule("filter", expression(rule.filter, f"{at}/filter").text)
    for kind in _COLUMN_RULES:
        columns: tuple[str, ...] | None = getattr(rule, kind)
        if columns is not None:
            yield specs.Rule(kind, columns=columns)
    if isinstance(rule.fill_null, dict):
        for column, value in rule.fill_null.items():
            yield specs.Rule("fill_null", columns=(column,), value=value)
    elif rule.fill_null is not None and rule.fill_null is not True:
        yield specs.Rule("fill_null", value=rule.fill_null)


def _enricher(stage: Enricher, node: Wired, wiring: Wiring) -> specs.EnricherSpec:
    found = wiring[stage.lookup].stage if stage.lookup else None
    lookup = None
    if isinstance(found, Source):
        fields = _fields(_schema(found.contract, wiring))
        lookup = specs.Lookup(_source(found, wiring), tuple(stage.join_keys), tuple(stage.fields), fields)
    derive = {
        name: expression(text, f"{node.pointer}/derive{pointer(name)}").text for name, text in stage.derive.items()
    }
    return specs.EnricherSpec(_inputs(node, wiring)[0], lookup, derive)


def _validator(stage: Validator, node: Wired, wiring: Wiring) -> specs.ValidatorSpec:
    schema = _schema(stage.contract, wiring)
    checks = [c for name, f in (schema.fields if schema else {}).items() for c in _field_checks(name, f)]
    for name, asked in stage.checks.items():
        checks += _checks(name, asked, f"{node.pointer}/checks{pointer(name)}")
    # A limit that the schema and the validator both state is one check.
    once = {(c.name, repr(c.value), c.columns): c for c in checks}
    return specs.ValidatorSpec(_inputs(node, wiring)[0], tuple(once.values()), stage.quality_threshold)


def _field_checks(name: str, field: FieldSpec) -> Iterator[specs.Check]:
    if not field.may_be_null:
        yield specs.Check(name, "not_null")
    yield from _limits(name, field)
    if field.unique:
        yield specs.Check(name, "unique")


def _checks(name: str, asked: Check, at: str) -> Iterator[specs.Check]:
    if asked.expression is not None:
        yield specs.Check(name, "expression", expression(asked.expression, at).text)
        return
    if not asked.nullable:
        yield specs.Check(name, "not_null")
    yield from _limits(name, asked)
    if asked.unique is not None:
        together = dict.fromkeys((name, *asked.unique)) if asked.unique else ()
        yield specs.Check(name, "unique", columns=tuple(together))


def _limits(name: str, limits: Limits) -> Iterator[specs.Check]:
    for kind in _COMPARISONS:
        value: Scalar | None = getattr(limits, kind)
        if value is not None:
            yield specs.Check(name, kind, value)
    if limits.one_of is not None:
        yield specs.Check(name, "in", list(limits.one_of))
    if limits.none_of is not None:
        yield specs.Check(name, "not_in", list(limits.none_of))


def _transformer(stage: Transformer, node: Wired, wiring: Wiring) -> specs.TransformerSpec:
    at, inputs = node.pointer, _inputs(node, wiring)
    sql = query(stage.sql, [i.table for i in inputs], f"{at}/sql").text if stage.sql is not None else ""
    aggregations = {
        name: expression(text, f"{at}/aggregations{pointer(name)}", aggregate=True).text
        for name, text in _items(stage.aggregations)
    }
    return specs.TransformerSpec(inputs, sql, tuple(stage.group_by), aggregations, stage.approval_required)


def _items(aggregations: dict[str, str] | list[str]) -> Iterable[tuple[str, str]]:
    return aggregations.items() if isinstance(aggregations, dict) else ()


def _sink(stage: Sink, node: Wired, wiring: Wiring) -> specs.SinkSpec:
    return specs.SinkSpec(
        _inputs(node, wiring)[0],
        stage.destination,
        cast(Literal["csv", "parquet", "delta"], stage.format),
        cast(Literal["overwrite", "upsert"], stage.mode),
        cast(dict[str, str | int | bool], stage.options),
        stage.approval_required,
        stage.on_delete,
        tuple(stage.keys),
    )
