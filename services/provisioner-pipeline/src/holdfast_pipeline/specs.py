"""What a compiled stage is told: one struct per node type, complete enough to run without seeing the
blueprint.

The compiler encodes these as a node's spec (JSON); the engine decodes them with :func:`decode_spec`. Unknown
keys are refused. Nothing here touches a disk.

SQL and expressions are polars SQL text. A frame that SQL sees holds the data columns of its table only,
never the lineage columns (:data:`RESERVED_COLUMNS`). A transformer's tables are named by :func:`table_name`;
with ``group_by`` its only table is its only input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Literal

import msgspec

from holdfast_model.errors import Invalid, Problem

DATA_SOURCE = "data-source"
SCHEMA = "schema"
INGESTION = "ingestion"
CLEANSER = "cleanser"
ENRICHER = "enricher"
VALIDATOR = "validator"
TRANSFORMER = "transformer"
SINK = "sink"

LAYERS: Mapping[str, str] = {
    DATA_SOURCE: "bronze",
    SCHEMA: "bronze",
    INGESTION: "bronze",
    CLEANSER: "silver",
    ENRICHER: "silver",
    VALIDATOR: "silver",
    TRANSFORMER: "gold",
    SINK: "gold",
}
"""Node type -> layer; also the name of the folder its tables are in."""
GOLD = frozenset(name for name, layer in LAYERS.items() if layer == "gold")
"""Types that may need a person's approval: an approved stage is removed only after a person agreed."""

LINEAGE_COLUMNS = ("_file", "_tag", "_sha", "_row", "_batch")
ERRORS_COLUMN = "_errors"
RESERVED_COLUMNS = frozenset({*LINEAGE_COLUMNS, ERRORS_COLUMN})
"""Columns of Bronze and Silver that belong to Holdfast. No field may bear such a name."""
QUARANTINE_COLUMNS = ("_failed", "_status", "_breach")
"""Columns that a quarantine has besides. No column of a validator's input may bear such a name."""


def stands_for_others(name: str) -> bool:
    """Whether polars takes a column's name for a pattern of names, wherever it is said."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


_DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(\d{1,2})\)\Z")
_SCALARS = frozenset({"any", "int64", "float64", "string", "bool", "date", "timestamp"})


Approval = bool | Literal["each"]
"""Whether a person must consent: never, once per digest, or to each version of the inputs."""


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Field(_Spec, frozen=True):
    """One column of a contract. ``type``: int64, float64, decimal(p,s), string, bool, date, timestamp, or
    ``any`` (a field that is declared by name only: taken as it comes).

    ``optional``: the file may lack the column (then it is null). ``tz``: the zone of naive timestamps ("" =
    naive values are row errors). ``format``: strptime format of a date or timestamp
    ("" = ISO 8601). ``decimal`` and ``thousands``: the marks of numbers in text ("" = a point, and none).
    """

    name: str
    type: str = "any"
    optional: bool = False
    tz: str = ""
    format: str = ""
    decimal: str = ""
    thousands: str = ""


class Contract(_Spec, frozen=True):
    """What files of a source must look like. ``node`` is the schema's node id. ``extra``: columns not
    declared."""

    node: str
    version: int = 1
    extra: Literal["refuse", "ignore"] = "refuse"
    fields: tuple[Field, ...] = ()


class Source(_Spec, frozen=True):
    """Where files are. ``uri`` is relative to the tenant's roots or ``file://``; globs (``*``, ``?``,
    ``**``) allowed.

    ``options``: csv: separator, quote_char, encoding (utf8, utf8-lossy or one that Python knows), has_header,
    columns (names by position where there is no header; those that follow are column_4 and so on), null_values
    (list of text), skip_rows, comment_prefix. Other formats: none.
    """

    node: str
    uri: str
    format: Literal["csv", "ndjson", "json", "parquet", "delta"]
    options: dict[str, str | int | bool | list[str]] = {}


class Input(_Spec, frozen=True):
    """A stage whose table is read: its node id and node type (both are needed to find the table).

    ``as_of``: the data version that is read; -1 = the newest."""

    node: str
    type: str
    as_of: int = -1

    @property
    def table(self) -> str:
        """What SQL calls this table."""
        return table_name(self.node)


class DataSourceSpec(_Spec, frozen=True):
    """``dependents``: nodes that are touched when the source becomes listable (its ingestions, enrichers)."""

    source: Source
    dependents: tuple[str, ...] = ()


class SchemaSpec(_Spec, frozen=True):
    """``ingestions``: ids of the ingestions whose files this contract judges; their held files hold the
    schema."""

    contract: Contract
    ingestions: tuple[str, ...] = ()


class IngestionSpec(_Spec, frozen=True):
    """``contract`` None: no declared schema, every column is taken as text (csv, ndjson, json) or as it is.

    ``batch_size``: most files per commit. ``run``, here and in all stages with tables: another text makes the table
    again."""

    source: Source
    contract: Contract | None = None
    batch_size: int = 1000
    run: str = ""


class Rule(_Spec, frozen=True):
    """One cleanser rule, applied in order after trim and casts.

    * ``trim``: strip white space of all text columns (or ``columns``); always runs first, before the casts.
    * ``filter``: keep rows where ``expression`` is true (null drops).
    * ``fill_null``: put ``value`` where ``columns`` (all that can hold it, if empty) are null.
    * ``drop_nulls``: drop rows with a null in ``columns`` (any data column, if empty).
    * ``drop_duplicates``: keep the first of rows that agree in ``columns`` (all data columns, if empty).
    * ``lower`` / ``upper``: change case of text in ``columns`` (all text columns, if empty).
    """

    kind: Literal["trim", "filter", "fill_null", "drop_nulls", "drop_duplicates", "lower", "upper"]
    expression: str = ""
    columns: tuple[str, ...] = ()
    value: str | int | float | bool | None = None


class Deduplication(_Spec, frozen=True):
    """Keep one of the rows that agree in ``keys`` (all data columns, if empty); nulls are equal.

    Order: ``order_by`` columns ascending (nulls first), then the file's name and row; ``keep`` says which
    end."""

    keys: tuple[str, ...] = ()
    keep: Literal["first", "last"] = "first"
    order_by: tuple[str, ...] = ()


class CleanserSpec(_Spec, frozen=True):
    """``fields``: casts, from the schema of the source upstream (() = no casts, all columns are kept).

    ``fill``: null_handling as a mapping; ``drop_nulls``: null_handling DROP (("*",) = any data column).
    Order: trim, casts, rules, fill, drop_nulls, deduplication."""

    input: Input
    fields: tuple[Field, ...] = ()
    rules: tuple[Rule, ...] = ()
    fill: dict[str, str | int | float | bool] = {}
    drop_nulls: tuple[str, ...] = ()
    deduplication: Deduplication | None = None
    run: str = ""


class Lookup(_Spec, frozen=True):
    """A source that is joined to the left by ``join_keys``. ``take``: its columns to add (() = all others).

    ``fields``: the contract's fields of the lookup's source, for casts (() = text as it is)."""

    source: Source
    join_keys: tuple[str, ...]
    take: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()


class EnricherSpec(_Spec, frozen=True):
    """``derive``: new column -> expression over the columns of the joined row, evaluated in order."""

    input: Input
    lookup: Lookup | None = None
    derive: dict[str, str] = {}
    run: str = ""


class Check(_Spec, frozen=True):
    """One row check. Null passes all kinds but ``not_null``. ``unique`` fails every copy (over ``columns``
    if given).

    ``value``: a number, text (decimals, dates and timestamps as text), a list for ``in``/``not_in``, the
    regular expression for ``pattern``, the SQL condition for ``expression`` (a row fails where it is
    false)."""

    column: str
    kind: Literal[
        "not_null", "ge", "gt", "le", "lt", "eq", "ne", "in", "not_in", "pattern", "min_length", "max_length",
        "unique", "expression",
    ]  # fmt: skip
    value: str | int | float | bool | list[str | int | float | bool] | None = None
    columns: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How people and the quarantine table call this check, e.g. ``amount:ge``."""
        return f"{self.column}:{self.kind}"


class ValidatorSpec(_Spec, frozen=True):
    """``checks``: those of the declared fields and the blueprint's own. A failed cast is the check ``<column>:cast``,
    also where the cleanser filled the null. ``quality_threshold``: the least share of good rows per file, 0..1."""

    input: Input
    checks: tuple[Check, ...] = ()
    quality_threshold: float = 1.0
    run: str = ""


class TransformerSpec(_Spec, frozen=True):
    """Either ``sql`` over all inputs, or ``aggregations`` (new column -> SQL aggregate) grouped by
    ``group_by``.

    With neither, the only input is passed on as it is."""

    inputs: tuple[Input, ...]
    sql: str = ""
    group_by: tuple[str, ...] = ()
    aggregations: dict[str, str] = {}
    approval_required: Approval = False
    run: str = ""


class SinkSpec(_Spec, frozen=True):
    """Publishes its input as ``<destination>/<id>``: a Delta table, or a folder with
    ``<id>.csv``/``<id>.parquet``.

    ``mode``: ``upsert`` (delta only) replaces the rows of the target that agree in ``keys`` and keeps all others.
    ``on_delete``: what becomes of the target when the sink is removed."""

    input: Input
    destination: str
    format: Literal["csv", "parquet", "delta"]
    mode: Literal["overwrite", "upsert"] = "overwrite"
    options: dict[str, str | int | bool] = {}
    approval_required: Approval = False
    on_delete: Literal["keep", "drop"] = "keep"
    keys: tuple[str, ...] = ()
    run: str = ""


StageSpec = (
    DataSourceSpec
    | SchemaSpec
    | IngestionSpec
    | CleanserSpec
    | EnricherSpec
    | ValidatorSpec
    | TransformerSpec
    | SinkSpec
)

SPEC_OF_TYPE: Mapping[str, type[StageSpec]] = {
    DATA_SOURCE: DataSourceSpec,
    SCHEMA: SchemaSpec,
    INGESTION: IngestionSpec,
    CLEANSER: CleanserSpec,
    ENRICHER: EnricherSpec,
    VALIDATOR: ValidatorSpec,
    TRANSFORMER: TransformerSpec,
    SINK: SinkSpec,
}
_DECODERS = {kind: msgspec.json.Decoder(kind) for kind in SPEC_OF_TYPE.values()}


def table_inputs(spec: StageSpec) -> tuple[Input, ...]:
    """The tables that a stage reads."""
    if isinstance(spec, TransformerSpec):
        return spec.inputs
    if isinstance(spec, CleanserSpec | EnricherSpec | ValidatorSpec | SinkSpec):
        return (spec.input,)
    return ()


def table_name(node: str) -> str:
    """The SQL name of a stage's table: ``-`` becomes ``_``."""
    return node.replace("-", "_")


def decode_spec(node_type: str, raw: bytes | msgspec.Raw) -> StageSpec:
    """The spec of a stage from its JSON. Raises Invalid for an unknown type, key or value."""
    kind = SPEC_OF_TYPE.get(node_type)
    if kind is None:
        raise Invalid(f"{node_type!r} is not a stage of a pipeline", [Problem("/type", "unknown node type")])
    try:
        return _DECODERS[kind].decode(raw)
    except msgspec.DecodeError as e:
        text = f"spec of a {node_type} cannot be read: {e}"
        raise Invalid(text, [Problem("/spec", str(e))]) from e


def encode_spec(spec: StageSpec) -> bytes:
    """The spec as canonical JSON (keys in a fixed order), the inverse of :func:`decode_spec`."""
    return msgspec.json.encode(spec, order="sorted")


def contract_digest(contract: Contract) -> str:
    """Identifies what a contract asks of files; decisions about misfits are kept per this digest."""
    return sha256(msgspec.json.encode(contract, order="sorted")).hexdigest()


def decimal_type(name: str) -> tuple[int, int] | None:
    """(precision, scale) of ``decimal(p,s)``; None for anything else, also for p > 38 or s > p."""
    found = _DECIMAL.match(name)
    if found is None:
        return None
    precision, scale = int(found[1]), int(found[2])
    return (precision, scale) if 1 <= precision <= 38 and scale <= precision else None


def is_type(name: str) -> bool:
    """Whether ``name`` is a type that a field may have."""
    return name in _SCALARS or decimal_type(name) is not None
