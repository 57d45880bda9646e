"""Everything else that must be right before a blueprint is admitted, each error with its JSON pointer.

:func:`check` looks at names, references, places and what is not supported; columns and SQL are
:mod:`.flow`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from holdfast_model.errors import Invalid, Problem
from holdfast_model.names import BUILT_IN_TYPES

from . import specs
from .blueprint import (
    Blueprint,
    Cleanser,
    DataStage,
    Enricher,
    FieldSpec,
    Ingestion,
    Schema,
    Sink,
    Source,
    Stage,
    Transformer,
    Validator,
    pointer,
)
from .casting import zone_of
from .figures import marks_problem
from .flow import column_problems, limit_problems, name_problems
from .formats import format_problem
from .shapes import type_of
from .stores import is_object_uri, object_parts
from .texts import encoding_of
from .wiring import DEFAULT_INPUTS, TABLE_TYPES, Wired, Wiring, wire

Refusal = Callable[[str], str]
"""Why a URI cannot be used (for the tenant at hand); "" when it can."""

SOURCE_FORMATS = ("csv", "ndjson", "json", "parquet", "delta")
SINK_FORMATS = ("csv", "parquet", "delta")
NOT_YET = "is not supported yet"
_INSTEAD: Mapping[str, str] = {
    "anomaly_detection": "is not supported: say what a good row is by checks, how many by quality_threshold",
    "reshape_rules": "is not supported: say it in sql",
    "output_format": "is not supported: a stage has a table, and a sink has a format",
    "partition_keys": "is not supported: a sink is one table or file; filter in sql, with one sink for each part",
}
"""What the reference has and we do not, on purpose, and what serves instead."""

_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OBJECT_STORES = frozenset({"s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "http", "https"})
_CSV_OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "separator": str,
    "quote_char": str,
    "encoding": str,
    "has_header": bool,
    "null_values": list,
    "skip_rows": int,
    "comment_prefix": str,
}
_CSV_SINK_OPTIONS: Mapping[str, type] = {"separator": str, "include_header": bool, "null_value": str}


def check(blueprint: Blueprint, wiring: Wiring | None = None, refuse: Refusal | None = None) -> None:
    """Raise Invalid with everything that is wrong; ``wiring`` is that of :func:`.wiring.wire`.

    ``refuse`` knows the places of a tenant; without it URIs are only checked for their form.
    """
    wiring = wire(blueprint) if wiring is None else wiring
    problems: list[Problem] = []
    for node in wiring.values():
        problems += _id_problems(node)
        problems += _stage_problems(node, wiring)
        problems += _input_problems(node, wiring)
        problems += _place_problems(node, refuse)
    problems += _target_problems(wiring)
    problems += column_problems(wiring)
    if problems:
        unique = list(dict.fromkeys((p.path, p.message) for p in problems))
        more = f" (and {len(unique) - 1} more)" if len(unique) > 1 else ""
        first = unique[0]
        raise Invalid(f"{first[0]}: {first[1]}{more}", [Problem(*p) for p in unique])


def _id_problems(node: Wired) -> Iterator[Problem]:
    at = f"{node.pointer}/id"
    if not _ID.match(node.id):
        text = f"id {node.id!r} must start with a-z, followed by at most 62 of a-z 0-9 _ -"
        yield Problem(at, text)
    elif "__" in node.id:
        yield Problem(at, f"id {node.id!r} must not hold '__': such names are those of our own tables")
    elif any(node.id.startswith(f"{kind}-") for kind in BUILT_IN_TYPES):
        yield Problem(at, f"id {node.id!r} would be taken for a review; choose another beginning")


def _stage_problems(node: Wired, wiring: Wiring) -> Iterator[Problem]:
    at = node.pointer
    match node.stage:
        case Source() as stage:
            yield from _source_problems(stage, wiring, at)
        case Schema() as stage:
            yield from _schema_problems(stage, at)
        case Ingestion() as stage:
            yield from _ingestion_problems(stage, wiring, at)
        case Cleanser() as stage:
            yield from _cleanser_problems(stage, at)
        case Enricher() as stage:
            yield from _enricher_problems(stage, wiring, at)
        case Validator() as stage:
            yield from _reference(stage.contract, Schema, "schema", wiring, f"{at}/schema")
            if stage.anomaly_detection:
                yield Problem(f"{at}/anomaly_detection", f"anomaly_detection {_INSTEAD['anomaly_detection']}")
        case Transformer() as stage:
            yield from _transformer_problems(stage, node, at)
        case Sink() as stage:
            yield from _sink_problems(stage, at)


def _reference(id: str | None, kind: type[Stage], what: str, wiring: Wiring, at: str) -> Iterator[Problem]:
    if id is None:
        return
    found = wiring.get(id)
    if found is None:
        yield Problem(at, f"there is no {what} {id!r}")
    elif not isinstance(found.stage, kind):
        yield Problem(at, f"{id!r} is a {found.type}, not a {what}")


def _source_problems(stage: Source, wiring: Wiring, at: str) -> Iterator[Problem]:
    yield from _reference(stage.contract, Schema, "schema", wiring, f"{at}/schema")
    yield from _choice(stage.format, SOURCE_FORMATS, "format", f"{at}/format")
    for name, value in stage.options.items():
        where = f"{at}/options{pointer(name)}"
        kind = _CSV_OPTIONS.get(name) if stage.format == "csv" else None
        if kind is None:
            known = f"; csv has {', '.join(_CSV_OPTIONS)}" if stage.format == "csv" else ""
            yield Problem(where, f"{stage.format} files have no option {name!r}{known}")
        elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            yield Problem(where, f"option {name!r} cannot be {value!r}")
        elif name == "separator" and not _is_mark(str(value)):
            yield Problem(where, "separator is a single character of ASCII")
        elif name == "separator" and value == stage.options.get("quote_char", '"'):
            yield Problem(where, "separator and quote_char cannot be the same character")
        elif name == "quote_char" and value and not _is_mark(str(value)):
            yield Problem(where, "quote_char is a single character of ASCII, or empty where nothing is quoted")
        elif name == "quote_char" and value == stage.options.get("separator", ","):
            yield Problem(where, "quote_char and separator cannot be the same character")
        elif name == "comment_prefix" and (not value or any(c in str(value) for c in "\r\n\x00")):
            yield Problem(where, "comment_prefix is what lines of comments begin with, like #")
        elif name == "skip_rows" and not 0 <= int(str(value)) < 1 << 31:
            yield Problem(where, "skip_rows is a number of lines, 0 or more")
        elif name == "encoding" and encoding_of(str(value)) is None:
            yield Problem(where, f"there is no encoding {value!r}; write it like utf8, latin-1, cp1252 or utf-16")


def _schema_problems(stage: Schema, at: str) -> Iterator[Problem]:
    if not stage.fields:
        yield Problem(f"{at}/fields", "a schema needs at least one field")
    yield from name_problems(stage.fields, lambda name: f"{at}/fields{pointer(name)}")
    for name, field in stage.fields.items():
        yield from _field_problems(field, f"{at}/fields{pointer(name)}")


def _field_problems(field: FieldSpec, at: str) -> Iterator[Problem]:
    kind = field.type
    if kind is not None and not specs.is_type(kind):
        text = f"unknown type {kind!r}; types are int64, float64, decimal(p,s), string, bool, date, timestamp"
        yield Problem(f"{at}/type", text)
        return
    if field.tz is not None:
        if kind != "timestamp":
            yield Problem(f"{at}/tz", "only a timestamp has a time zone")
        elif zone_of(field.tz) is None:
            yield Problem(f"{at}/tz", f"there is no time zone {field.tz!r}; write it like UTC or Europe/Berlin")
    if field.format is not None and kind not in ("date", "timestamp"):
        yield Problem(f"{at}/format", "only a date or timestamp has a format")
    elif field.format and kind and (why := format_problem(field.format, kind)):
        yield Problem(f"{at}/format", why)
    if field.decimal is not None or field.thousands is not None:
        name, why = "decimal" if field.decimal is not None else "thousands", "only a number has such marks"
        if kind in ("int64", "float64") or (kind and specs.decimal_type(kind)):
            name, why = marks_problem(field.decimal or "", field.thousands or "") or ("", "")
        if why:
            yield Problem(f"{at}/{name}", why)
    if field.optional and field.nullable is False:
        yield Problem(f"{at}/nullable", "an optional field is null where the file lacks it, so it is nullable")
    yield from limit_problems(field, type_of(kind or "any"), at)


def _ingestion_problems(stage: Ingestion, wiring: Wiring, at: str) -> Iterator[Problem]:
    yield from _reference(stage.source, Source, "source", wiring, f"{at}/source")
    source = wiring[stage.source].stage if stage.source in wiring else None
    if isinstance(source, Source) and stage.format not in (None, source.format):
        text = f"format {stage.format!r} is not that of source {source.id!r} ({source.format})"
        yield Problem(f"{at}/format", text)


def _cleanser_problems(stage: Cleanser, at: str) -> Iterator[Problem]:
    for i, rule in enumerate(stage.rules):
        if rule.fill_null is True and not isinstance(stage.null_handling, dict):
            text = "fill_null needs values: {fill_null: {column: value}}, or null_handling: {column: value}"
            yield Problem(f"{at}/rules/{i}", text)
        if not rule.model_fields_set:
            yield Problem(f"{at}/rules/{i}", "a rule has exactly one key, like trim or {filter: ...}")


def _enricher_problems(stage: Enricher, wiring: Wiring, at: str) -> Iterator[Problem]:
    yield from _reference(stage.lookup, Source, "source", wiring, f"{at}/lookup")
    if stage.lookup is None:
        for name in ("join_keys", "fields"):
            if getattr(stage, name):
                yield Problem(f"{at}/{name}", f"{name} need a lookup")
        if not stage.derive:
            yield Problem(at, "an enricher needs a lookup, or something to derive")
    elif not stage.join_keys:
        yield Problem(f"{at}/join_keys", "a lookup needs join_keys: the columns that rows are matched by")
    for i, name in enumerate(stage.fields):
        if name in stage.join_keys:
            yield Problem(f"{at}/fields/{i}", f"{name!r} is a join key, so it is there already")


def _transformer_problems(stage: Transformer, node: Wired, at: str) -> Iterator[Problem]:
    if isinstance(stage.aggregations, list) and stage.aggregations:
        text = 'aggregations needs expressions: a mapping such as {net: "sum(net)"}'
        yield Problem(f"{at}/aggregations", text)
    if stage.sql is not None:
        for name in ("group_by", "aggregations"):
            if getattr(stage, name):
                yield Problem(f"{at}/{name}", f"a transformer has sql or {name}, not both")
    elif len(node.inputs) > 1:
        yield Problem(f"{at}/inputs" if stage.inputs else at, "several inputs need sql that says how they meet")
    elif stage.group_by and not stage.aggregations:
        yield Problem(f"{at}/group_by", "group_by needs aggregations")
    names: dict[str, str] = {}
    for id in node.inputs:
        other = names.setdefault(specs.table_name(id), id)
        if other != id:
            text = f"inputs {other!r} and {id!r} are both the table {specs.table_name(id)!r} in SQL"
            yield Problem(f"{at}/inputs" if stage.inputs else at, text)
    for name in ("reshape_rules", "output_format"):
        if getattr(stage, name):
            yield Problem(f"{at}/{name}", f"{name} {_INSTEAD[name]}")


def _sink_problems(stage: Sink, at: str) -> Iterator[Problem]:
    yield from _choice(stage.format, SINK_FORMATS, "format", f"{at}/format")
    if stage.mode == "append":
        text = "mode append would double rows when a stage is computed again; use overwrite"
        yield Problem(f"{at}/mode", text)
    else:
        yield from _choice(stage.mode, ("overwrite", "upsert"), "mode", f"{at}/mode")
    if stage.mode == "upsert":
        yield from _upsert_problems(stage, at)
    elif stage.keys:
        yield Problem(f"{at}/keys", "keys belong to mode upsert")
    if stage.partition_keys:
        yield Problem(f"{at}/partition_keys", f"partition_keys {_INSTEAD['partition_keys']}")
    for name, value in stage.options.items():
        where = f"{at}/options{pointer(name)}"
        kind = _CSV_SINK_OPTIONS.get(name) if stage.format == "csv" else None
        if kind is None:
            known = f"; csv has {', '.join(_CSV_SINK_OPTIONS)}" if stage.format == "csv" else ""
            yield Problem(where, f"a {stage.format} sink has no option {name!r}{known}")
        elif not isinstance(value, kind):
            yield Problem(where, f"option {name!r} cannot be {value!r}")
        elif name == "separator" and (not _is_mark(str(value)) or value == '"'):
            yield Problem(where, "separator is a single character of ASCII, and no quote")


def _is_mark(text: str) -> bool:
    return len(text.encode()) == 1 and text not in "\r\n\x00"


def _upsert_problems(stage: Sink, at: str) -> Iterator[Problem]:
    if stage.format in SINK_FORMATS and stage.format != "delta":
        yield Problem(f"{at}/mode", f"mode upsert needs format delta; a {stage.format} file is always replaced")
    if not stage.keys:
        yield Problem(f"{at}/keys" if "keys" in stage.model_fields_set else at, "mode upsert needs keys: [...]")
    for i, key in enumerate(stage.keys):
        if key in stage.keys[:i]:
            yield Problem(f"{at}/keys/{i}", f"{key!r} is named twice")


def _choice(value: str, known: tuple[str, ...], what: str, at: str) -> Iterator[Problem]:
    if value not in known:
        yield Problem(at, f"unknown {what} {value!r}; one of {', '.join(known)}")


def _input_problems(node: Wired, wiring: Wiring) -> Iterator[Problem]:
    stage, at = node.stage, node.pointer
    if not isinstance(stage, DataStage):
        return
    several = isinstance(stage, Transformer)
    for id in stage.as_of:
        if id not in node.inputs:
            known = ", ".join(node.inputs) or "none"
            yield Problem(f"{at}/as_of{pointer(id)}", f"{id!r} is not an input of {node.id!r} (inputs: {known})")
    if stage.inputs is None:
        if len(node.inputs) != 1:
            kind = DEFAULT_INPUTS[node.type]
            found = f"there are {len(node.inputs)} ({', '.join(node.inputs)})" if node.inputs else "there is none"
            text = f"a {node.type} reads the only {kind} by default, but {found}; name its inputs: [...]"
            yield Problem(at, text)
        return
    if not stage.inputs:
        yield Problem(f"{at}/inputs", f"a {node.type} needs an input")
    if len(node.inputs) > 1 and not several:
        text = f"a {node.type} reads one table; only transformers join several"
        yield Problem(f"{at}/inputs/1", text)
    for i, id in enumerate(stage.inputs):
        if wiring[id].type not in TABLE_TYPES:
            yield Problem(f"{at}/inputs/{i}", f"{id!r} is a {wiring[id].type}, which has no table to read")
        elif id in stage.inputs[:i]:
            yield Problem(f"{at}/inputs/{i}", f"{id!r} is named twice")


def _place_problems(node: Wired, refuse: Refusal | None) -> Iterator[Problem]:
    match node.stage:
        case Source(uri=uri):
            at = f"{node.pointer}/uri"
        case Sink(destination=uri):
            at = f"{node.pointer}/destination"
        case _:
            return
    scheme = _SCHEME.match(uri)
    if scheme and scheme[1].lower() in _OBJECT_STORES:
        yield Problem(at, f"{scheme[1]}:// {NOT_YET}; use s3:// or a path below the data folder")
    elif scheme and scheme[1].lower() not in ("file", "s3"):
        yield Problem(at, f"a {scheme[1]}:// place cannot be used; use a path below the data folder")
    elif is_object_uri(uri) and (why := _object_problem(uri)):
        yield Problem(at, why)
    elif not uri.strip() or any(ord(c) < 32 or ord(c) == 127 for c in uri):
        yield Problem(at, "a path is expected here, without control characters")
    elif ".." in PurePosixPath(uri).parts:
        yield Problem(at, f"{uri!r} must not hold '..'")
    elif isinstance(node.stage, Sink) and _is_pattern(uri):
        yield Problem(at, f"{uri!r}: a destination is one folder, without * ? [")
    elif refuse is not None and (why := refuse(uri)):
        yield Problem(at, why)


def _object_problem(uri: str) -> str:
    try:
        object_parts(uri)
    except Invalid as e:
        return e.message
    return ""


def _target_problems(wiring: Wiring) -> Iterator[Problem]:
    """Sinks that would write into each other's target, or where a source would read them again."""
    sources = [(w.id, _segments(w.stage.uri)) for w in wiring.values() if isinstance(w.stage, Source)]
    sinks = [
        (w.id, f"{w.pointer}/destination", _segments(f"{w.stage.destination}/{w.id}"))
        for w in wiring.values()
        if isinstance(w.stage, Sink)
    ]
    for i, (id, at, target) in enumerate(sinks):
        for other, _, taken in sinks[:i]:
            if target[: len(taken)] == taken or taken[: len(target)] == target:
                text = f"sinks {other!r} and {id!r} would write to one place, {'/'.join(target)!r}"
                yield Problem(at, text)
        for source, files in sources:
            # A folder whose files a source lists is no place for a sink either, whatever the names.
            if _meet(files, target) or (files[:-1] == target[:-1] and _is_pattern(files[-1])):
                yield Problem(at, f"{'/'.join(target)!r} is where source {source!r} reads: {'/'.join(files)!r}")


def _segments(uri: str) -> tuple[str, ...]:
    return tuple(p for p in PurePosixPath(uri.removeprefix("file://")).parts if p != ".")


def _is_pattern(segment: str) -> bool:
    return any(c in segment for c in "*?[")


def _meet(files: tuple[str, ...], target: tuple[str, ...]) -> bool:
    """Whether a source's pattern could match something at or below ``target``, or ``target`` is inside it."""
    if not files or not target:
        return True
    if files[0] == "**":
        return _meet(files[1:], target) or _meet(files, target[1:])
    return fnmatchcase(target[0], files[0]) and _meet(files[1:], target[1:])
