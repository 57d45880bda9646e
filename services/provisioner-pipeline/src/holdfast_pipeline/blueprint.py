"""The blueprint as people write it: its keys, their types and defaults. No rule that looks at two places
at once.

Rules over the whole (wiring, column names, SQL) live in :mod:`.wiring` and :mod:`.checks`. The models
avoid unions on purpose: what has several spellings is brought into one form before validation, so that
every error names the place in the user's text and nothing of the model's inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from holdfast_model.references import pointer_of
from holdfast_sdk.wording import not_valid, problems_of

from . import specs

Scalar = bool | int | float | str

KINDS: Mapping[str, str] = {
    "sources": specs.DATA_SOURCE,
    "schemas": specs.SCHEMA,
    "ingestions": specs.INGESTION,
    "cleansers": specs.CLEANSER,
    "enrichers": specs.ENRICHER,
    "validators": specs.VALIDATOR,
    "transformers": specs.TRANSFORMER,
    "sinks": specs.SINK,
}
"""Key of the blueprint -> node type of its entries, in the order of the layers."""


def _wrong(message: str) -> PydanticCustomError:
    # The text is data: braces in it must not be read as placeholders.
    return PydanticCustomError("form", "{text}", {"text": message})


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | float | str) and not (isinstance(value, float) and not isfinite(value))


def _scalar(value: object) -> object:
    if not _is_scalar(value):
        raise _wrong("a number (not inf or nan), a text or true/false is expected here")
    return value


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _null_handling(value: object) -> object:
    if value is None or (isinstance(value, str) and value.lower() == "keep"):
        return None
    if isinstance(value, str) and value.lower() == "drop":
        return "drop"
    if not isinstance(value, Mapping):
        raise _wrong("null_handling is DROP, KEEP or a mapping {column: value}")
    for column, fill in value.items():
        if not _is_scalar(fill):
            raise _wrong(f"the fill value of {column!r} must be a number, a text or true/false")
    return dict(value)


def _approval(value: object) -> object:
    if isinstance(value, bool) or value == "each":
        return value
    raise _wrong("approval_required is true, false or 'each'")


def _aggregations(value: object) -> object:
    if isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values()):
        return dict(value)
    if _texts(value):
        return value
    raise _wrong('aggregations is a mapping {column: expression}, like {net: "sum(net)"}')


def _columns(value: object) -> object:
    """``true`` or a list of columns; an empty tuple stands for all of them."""
    if value is True:
        return ()
    if _texts(value) and value:
        return tuple(value)  # type: ignore[arg-type]
    raise _wrong("true (all columns) or a list of column names is expected here")


def _columns_or_none(value: object) -> object:
    return None if value is None or value is False else _columns(value)


def _fill_null(value: object) -> object:
    if value is True or _is_scalar(value):
        return value
    if isinstance(value, Mapping) and value and all(_is_scalar(v) for v in value.values()):
        return dict(value)
    raise _wrong("fill_null is a value or a mapping {column: value}")


def _names_only(value: object) -> object:
    """``fields: [a, b]`` is short for fields without a type."""
    if not isinstance(value, list):
        return value
    if not _texts(value):
        raise _wrong("fields is a mapping {name: {type: ...}} or a list of names")
    twice = sorted({v for v in value if value.count(v) > 1})
    if twice:
        raise _wrong(f"field {twice[0]!r} is named twice")
    return {v: {} for v in value}


def _switch(value: object) -> object:
    """``true`` is short for ``{}``, ``false`` for no entry."""
    if value is True:
        return {}
    return None if value is False else value


def _options(value: object) -> object:
    if isinstance(value, Mapping) and all(_is_scalar(v) or _texts(v) for v in value.values()):
        return dict(value)
    raise _wrong("options is a mapping {name: value}")


_SCALAR_SCHEMA = {"type": ["number", "string", "boolean"]}
_COLUMNS_SCHEMA = {"type": ["boolean", "array"], "items": {"type": "string"}}

Value = Annotated[Scalar, PlainValidator(_scalar), WithJsonSchema(_SCALAR_SCHEMA)]
Columns = Annotated[tuple[str, ...] | None, PlainValidator(_columns_or_none), WithJsonSchema(_COLUMNS_SCHEMA)]
NullHandling = Annotated[
    dict[str, Scalar] | Literal["drop"] | None,
    PlainValidator(_null_handling),
    WithJsonSchema({"type": ["object", "string", "null"]}),
]
Approval = Annotated[bool | Literal["each"], PlainValidator(_approval), WithJsonSchema({"enum": [True, False, "each"]})]
Aggregations = Annotated[
    dict[str, str] | list[str], PlainValidator(_aggregations), WithJsonSchema({"type": ["object", "array"]})
]
FillNull = Annotated[
    Scalar | dict[str, Scalar] | None,
    PlainValidator(_fill_null),
    WithJsonSchema({"type": ["object", "number", "string", "boolean"]}),
]
Options = Annotated[dict[str, Scalar | list[str]], PlainValidator(_options), WithJsonSchema({"type": "object"})]


def _also(*types: str) -> Any:
    """Lets the published JSON Schema accept the short spellings that a validator rewrites.

    Types are added, no ``anyOf``: then a checker still names the exact place of what is wrong inside.
    """

    def widen(schema: dict[str, Any]) -> None:
        if "type" in schema:
            schema["type"] = [schema["type"], *types]
        else:
            schema["anyOf"] = [*schema["anyOf"], *({"type": t} for t in types)]

    return widen


class Part(BaseModel):
    """Base of all parts: unknown keys are errors, values are never converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, title=None)


class Limits(Part):
    """What a value must satisfy; each limit is passed by null."""

    ge: Value | None = None
    gt: Value | None = None
    le: Value | None = None
    lt: Value | None = None
    eq: Value | None = None
    ne: Value | None = None
    one_of: list[Value] | None = Field(None, alias="in")
    none_of: list[Value] | None = Field(None, alias="not_in")
    pattern: str | None = None
    min_length: int | None = Field(None, ge=0)
    max_length: int | None = Field(None, ge=0)


class FieldSpec(Limits):
    """One field of a schema. Without ``type`` only the name is known: the values stay as the file has them.

    ``nullable`` None means: no, but yes for an ``optional`` field and for one without a type.
    """

    model_config = ConfigDict(json_schema_extra=_also("string"))

    type: str | None = None
    unique: bool = False
    nullable: bool | None = None
    optional: bool = False
    tz: str | None = None
    format: str | None = None
    decimal: str | None = None
    thousands: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"type": value} if isinstance(value, str) else value

    @property
    def may_be_null(self) -> bool:
        return self.nullable if self.nullable is not None else (self.optional or self.type is None)


class Check(Limits):
    """One check of a validator: limits of a column, or (a bare text) an SQL condition on the row.

    ``unique``: true, or the columns that are unique together with this one.
    """

    model_config = ConfigDict(json_schema_extra=_also("string"))

    expression: str | None = None
    nullable: bool = True
    unique: Columns = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"expression": value} if isinstance(value, str) else value


class Rule(Part):
    """One step of a cleanser: exactly one key. A bare text is short for ``{text: true}``."""

    model_config = ConfigDict(json_schema_extra=_also("string"))

    trim: Columns = None
    lower: Columns = None
    upper: Columns = None
    filter: str | None = None
    fill_null: FillNull = None
    drop_nulls: Columns = None
    drop_duplicates: Columns = None
    dedupe: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_key(cls, value: object) -> object:
        if isinstance(value, str):
            value = {value: True}
            unknown = [k for k in value if k not in cls.model_fields]
            if unknown:
                raise _wrong(f"unknown rule {unknown[0]!r}; rules are {', '.join(cls.model_fields)}")
        if isinstance(value, Mapping) and len(value) != 1:
            raise _wrong("a rule has exactly one key; write several rules as several entries")
        return value

    @property
    def name(self) -> str:
        return next(iter(self.model_fields_set), "")


class Deduplication(Part):
    """Keep one of the rows that agree in ``keys`` (all columns, if none are named)."""

    keys: list[str] = []
    keep: Literal["first", "last"] = "first"
    order_by: list[str] = []


class Stage(Part):
    """What all parts with an id share."""

    id: str


class Source(Stage):
    uri: str
    format: str
    contract: str | None = Field(None, alias="schema")
    options: Options = {}


class Schema(Stage):
    version: int = Field(1, ge=1)
    extra: Literal["refuse", "ignore"] = "refuse"
    fields: Annotated[dict[str, FieldSpec], BeforeValidator(_names_only), Field(json_schema_extra=_also("array"))]


class TableStage(Stage):
    """A stage with a table. ``run``: any text; another one makes the table again from what its inputs are now."""

    run: str = ""


class Ingestion(TableStage):
    """``batch_size``: most files per commit. ``format`` (of the reference) must repeat the source's."""

    source: str
    batch_size: int = Field(1000, ge=1)
    format: str | None = None


class DataStage(TableStage):
    """A stage that reads tables. ``inputs`` None: those of the default wiring. ``as_of``: input -> the data version
    that is read, whatever came after it.
    """

    inputs: list[str] | None = None
    as_of: dict[str, Annotated[int, Field(ge=0)]] = {}


class Cleanser(DataStage):
    rules: list[Rule] = []
    null_handling: NullHandling = None
    deduplication: Annotated[
        Deduplication | None, BeforeValidator(_switch), Field(json_schema_extra=_also("boolean"))
    ] = None


class Enricher(DataStage):
    lookup: str | None = None
    join_keys: list[str] = []
    fields: list[str] = []
    derive: dict[str, str] = {}


class Validator(DataStage):
    contract: str | None = Field(None, alias="schema")
    quality_threshold: float = Field(1.0, ge=0, le=1)
    checks: dict[str, Check] = {}
    anomaly_detection: bool = False


class Transformer(DataStage):
    sql: str | None = None
    group_by: list[str] = []
    aggregations: Aggregations = {}
    approval_required: Approval = False
    reshape_rules: list[str] = []
    output_format: str | None = None


class Sink(DataStage):
    destination: str
    format: str
    mode: str = "overwrite"
    keys: list[str] = []
    partition_keys: list[str] = []
    options: Options = {}
    approval_required: Approval = False
    on_delete: Literal["keep", "drop"] = "keep"


def _parts(value: object) -> object:
    """A key without a value (``sinks:`` in YAML) is the same as no key."""
    return [] if value is None else value


class Placed(NamedTuple):
    """A stage with its node type and the JSON pointer of its place in the blueprint."""

    pointer: str
    type: str
    stage: Stage


class Blueprint(Part):
    """A data pipeline. Every list may be missing; ids are unique over all lists."""

    sources: Annotated[list[Source], BeforeValidator(_parts)] = []
    schemas: Annotated[list[Schema], BeforeValidator(_parts)] = []
    ingestions: Annotated[list[Ingestion], BeforeValidator(_parts)] = []
    cleansers: Annotated[list[Cleanser], BeforeValidator(_parts)] = []
    enrichers: Annotated[list[Enricher], BeforeValidator(_parts)] = []
    validators: Annotated[list[Validator], BeforeValidator(_parts)] = []
    transformers: Annotated[list[Transformer], BeforeValidator(_parts)] = []
    sinks: Annotated[list[Sink], BeforeValidator(_parts)] = []

    def placed(self) -> Iterator[Placed]:
        """All stages in the order of the layers, then of the text."""
        for key, node_type in KINDS.items():
            for i, stage in enumerate(getattr(self, key)):
                yield Placed(f"/{key}/{i}", node_type, stage)


def parse(spec: object) -> Blueprint:
    """The blueprint of a decoded document. Raises Invalid with a JSON pointer for everything that is
    wrong.
    """
    try:
        return Blueprint.model_validate(spec)
    except ValidationError as e:
        raise not_valid("pipeline blueprint", problems_of(e, Blueprint.model_json_schema)) from e


def pointer(*parts: str | int) -> str:
    """The JSON pointer (RFC 6901) of a path of keys and indices."""
    return pointer_of(parts)
