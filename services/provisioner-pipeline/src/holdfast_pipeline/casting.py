"""Types of columns, and casts that never raise: what does not fit becomes null, and the caller can tell.

Casts are strict per value: ``1.7`` is no int64, ``12.345`` no decimal(12,2), ``NaN`` in a text no float64. Money
stays decimal from the text of a file to the last table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from unicodedata import normalize

import polars as pl

from holdfast_model.errors import Permanent

from .figures import plain
from .formats import dates, moments, tells_offset
from .specs import ERRORS_COLUMN, LINEAGE_COLUMNS, RESERVED_COLUMNS, Field, decimal_type

TIMESTAMP = pl.Datetime("us", "UTC")
ERRORS = pl.String()
"""Type of ``_errors``: names of failed casts, joined by :data:`SEPARATOR`; null for a row without any. Text, because
lists cost seconds per million rows although hardly a row has errors."""

SEPARATOR = ", "

LINEAGE: Mapping[str, pl.DataType] = {
    "_file": pl.String(),
    "_tag": pl.String(),
    "_sha": pl.String(),
    "_row": pl.Int64(),
    "_batch": pl.String(),
}
"""Types of the lineage columns, in their order."""

_SIMPLE: Mapping[str, pl.DataType] = {
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "string": pl.String(),
    "bool": pl.Boolean(),
    "date": pl.Date(),
    "timestamp": TIMESTAMP,
}
_BOOLS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}
_UTC_NAMES = frozenset({"UTC", "Etc/UTC", "Z"})
_ZONE_NAME = re.compile(r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*\Z")
_EPOCH = date(1970, 1, 1)
_ISO_DATE = r"^\d{4}-\d{2}-\d{2}$"
_ZONE = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"


def dtype_of(type_name: str) -> pl.DataType | None:
    """The polars type of a field's type; None for ``any``."""
    money = decimal_type(type_name)
    if money is not None:
        return pl.Decimal(*money)
    if type_name == "any":
        return None
    return _SIMPLE[type_name]


def normal_type(dtype: pl.DataType) -> pl.DataType:
    """The type that a table keeps for ``dtype``: 64-bit numbers, plain text, UTC microseconds."""
    if dtype == pl.UInt64:
        return pl.Decimal(20, 0)  # Delta would store the upper half as negative numbers
    if dtype in (pl.Int128, pl.UInt128):
        return pl.Decimal(38, 0)
    if dtype.is_integer():
        return pl.Int64()
    if dtype.is_float():
        return pl.Float64()
    if isinstance(dtype, pl.Datetime):
        return TIMESTAMP
    if isinstance(dtype, pl.List):
        return pl.List(normal_type(_instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({f.name: normal_type(_instance(f.dtype)) for f in dtype.fields})
    if isinstance(dtype, pl.Decimal | pl.Boolean | pl.Date | pl.Binary):
        return dtype
    return pl.String()


def _instance(dtype: object) -> pl.DataType:
    made = dtype() if isinstance(dtype, type) else dtype
    return made if isinstance(made, pl.DataType) else pl.String()


def normalised(frame: pl.LazyFrame) -> pl.LazyFrame:
    """``frame`` with every column in its normal type; naive timestamps are taken as UTC."""
    changes = []
    for name, dtype in frame.collect_schema().items():
        wanted = normal_type(dtype)
        if wanted == dtype:
            continue
        column = pl.col(name)
        if isinstance(dtype, pl.Datetime):
            zoned = column.dt.replace_time_zone("UTC") if dtype.time_zone is None else column
            changes.append(zoned.dt.convert_time_zone("UTC").cast(TIMESTAMP))
        else:
            changes.append(column.cast(wanted))
    return frame.with_columns(changes) if changes else frame


def in_calendar(frame: pl.LazyFrame) -> pl.LazyFrame:
    """``frame`` with dates and times outside of the years 1 to 9999 null and named in ``_errors``: Delta's library
    fails on the statistics of a file that holds them."""
    moments = {n: t for n, t in frame.collect_schema().items() if _may_leave_calendar(t)}
    if not moments:
        return frame
    fits = {n: _in_calendar(pl.col(n), t) for n, t in moments.items()}
    failed = [pl.when(~fits[n]).then(pl.lit(f"{n}:range")) for n in moments]
    found = pl.concat_str([pl.col(ERRORS_COLUMN), *failed], separator=SEPARATOR, ignore_nulls=True)
    kept = [pl.when(fits[n]).then(pl.col(n)).alias(n) for n in moments]
    return frame.with_columns(*kept, pl.when(found != "").then(found).alias(ERRORS_COLUMN))


def _may_leave_calendar(dtype: pl.DataType) -> bool:
    """Nanoseconds reach from 1677 to 2262 only; compared with the calendar's ends, which they cannot hold, they would
    all be null."""
    return isinstance(dtype, pl.Date) or (isinstance(dtype, pl.Datetime) and dtype.time_unit != "ns")


def _in_calendar(moment: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Whether a date or time is in the years 1 to 9999 (UTC)."""
    first, last = (date(1, 1, 1) - _EPOCH).days, (date(9999, 12, 31) - _EPOCH).days
    if isinstance(dtype, pl.Datetime):
        day = 86_400 * {"ms": 1000, "us": 1_000_000}[dtype.time_unit or "us"]
        return moment.to_physical().is_between(first * day, (last + 1) * day - 1)
    return moment.to_physical().is_between(first, last)


def data_columns(names: Iterable[str]) -> list[str]:
    """The columns that belong to the data, in their order."""
    return [n for n in names if n not in RESERVED_COLUMNS]


def layout(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Data columns first, then lineage and ``_errors``, each in its fixed type."""
    names = frame.collect_schema().names()
    tail = [pl.col(c).cast(t) for c, t in LINEAGE.items() if c in names]
    if ERRORS_COLUMN in names:
        tail.append(pl.col(ERRORS_COLUMN).cast(ERRORS))
    return frame.select(*data_columns(names), *tail)


def cast(column: pl.Expr, given: pl.DataType, field: Field) -> pl.Expr:
    """``column`` (of type ``given``) as the field's type; null where a value does not fit."""
    wanted = dtype_of(field.type)
    if wanted is None or (given == wanted and not isinstance(given, pl.Datetime)):
        return column
    if given == pl.Null:
        return column.cast(wanted)
    if given == pl.String:
        value = _from_text(column, wanted, field)
        if not _may_leave_calendar(wanted):
            return value
        fits = _in_calendar(value, wanted)
        if "%Y" in field.format:
            fits &= value.dt.year() >= 1000  # "31.12.24" would be read as the year 24
        return pl.when(fits).then(value)
    return _from_typed(column, given, wanted, field)


def _from_text(column: pl.Expr, wanted: pl.DataType, field: Field) -> pl.Expr:
    if field.decimal or field.thousands:
        column = plain(column, field.decimal, field.thousands)
    if isinstance(wanted, pl.Float64):
        value = column.cast(pl.Float64, strict=False)
        return pl.when(value.is_finite()).then(value)
    if isinstance(wanted, pl.Decimal):
        scale = wanted.scale
        exact = rf"^[+-]?(?:\d+(?:\.\d{{0,{scale}}}0*)?|\.\d{{1,{scale}}}0*)$" if scale else r"^[+-]?\d+(?:\.0*)?$"
        return pl.when(column.str.contains(exact)).then(column).cast(wanted, strict=False)
    if isinstance(wanted, pl.Boolean):
        return column.str.to_lowercase().replace_strict(_BOOLS, default=None, return_dtype=pl.Boolean)
    if isinstance(wanted, pl.Date):
        if field.format:
            return dates(column, field.format)
        return pl.when(column.str.contains(_ISO_DATE)).then(column).str.to_date("%Y-%m-%d", strict=False)
    if isinstance(wanted, pl.Datetime):
        return _timestamp(column, field)
    return column.cast(wanted, strict=False)


def _timestamp(column: pl.Expr, field: Field) -> pl.Expr:
    if field.format:
        found = moments(column, field.format)
        if tells_offset(field.format):
            return found
        return in_zone(found, field.tz) if field.tz else pl.lit(None, dtype=TIMESTAMP)
    iso = column.str.replace(r"^(\d{4}-\d{2}-\d{2})[ t]", "${1}T")
    iso = iso.str.replace(r"T(\d{2}:\d{2})([Zz]|[+-]\d{2}:?\d{2})?$", "T${1}:00${2}")  # without seconds
    zoned = pl.when(iso.str.contains(_ZONE))
    text = zoned.then(iso).otherwise(iso + "Z") if field.tz else zoned.then(iso)
    read = text.str.to_datetime("%+", strict=False, time_unit="us", time_zone="UTC")
    if field.tz in ("", "UTC"):
        return read
    local = in_zone(read.dt.replace_time_zone(None), field.tz)
    return pl.when(iso.str.contains(_ZONE)).then(read).otherwise(local)


def in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    """Naive local times as UTC. A time that a change of clocks skips becomes null; one that comes twice is taken as
    the first of the two, so that every run reads the same."""
    if zone == "UTC":
        return naive.dt.replace_time_zone("UTC").cast(TIMESTAMP)
    local = naive.cast(pl.Datetime("us")).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def zone_of(name: str) -> str | None:
    """The time zone's name as fields bear it; None for one that the time zone database does not know."""
    if name in _UTC_NAMES:
        return "UTC"
    if not _ZONE_NAME.match(name):
        return None
    try:
        pl.select(in_zone(pl.lit(datetime(2000, 1, 1)), name))
    except pl.exceptions.PolarsError:
        return None
    return name


def _from_typed(column: pl.Expr, given: pl.DataType, wanted: pl.DataType, field: Field) -> pl.Expr:
    if isinstance(wanted, pl.Datetime):
        if isinstance(given, pl.Datetime):
            if given.time_zone is None:
                if not field.tz:
                    return pl.lit(None, dtype=TIMESTAMP)
                return in_zone(column, field.tz)
            return column.dt.convert_time_zone("UTC").cast(TIMESTAMP)
        if given == pl.Date and field.tz:
            return in_zone(column.cast(pl.Datetime("us")), field.tz)
        return pl.lit(None, dtype=TIMESTAMP)
    if given.is_nested() or isinstance(given, pl.Binary | pl.Object | pl.Duration):
        return pl.lit(None, dtype=wanted)
    if wanted == pl.String:
        return column.cast(pl.String)
    if isinstance(wanted, pl.Boolean) or given == pl.Boolean or given.is_temporal() != wanted.is_temporal():
        return pl.lit(None, dtype=wanted)
    if isinstance(given, pl.Datetime):
        value = column.dt.date()
        return pl.when(value.cast(given) == column).then(value) if given.time_zone is None else (
            pl.when(column.dt.convert_time_zone("UTC").dt.time() == pl.time(0)).then(
                column.dt.convert_time_zone("UTC").dt.date()
            )
        )  # fmt: skip
    value = column.cast(wanted, strict=False)
    if given.is_float() and isinstance(wanted, pl.Decimal):
        return pl.when(value.cast(pl.Float64) == column).then(value)
    if wanted.is_float():
        return value
    return pl.when(value.cast(given, strict=False) == column).then(value)


def keeps_values(given: pl.DataType, field: Field) -> bool:
    """Whether every value of type ``given`` can be kept in the field's type, judged by the types alone."""
    wanted = dtype_of(field.type)
    if wanted is None or given == pl.Null or given == wanted:
        return True
    if isinstance(wanted, pl.Decimal):
        if isinstance(given, pl.Decimal):
            return given.scale <= wanted.scale and given.precision - given.scale <= wanted.precision - wanted.scale
        return given.is_integer()
    if isinstance(wanted, pl.Int64):
        return given.is_integer() and given not in (pl.UInt64, pl.Int128, pl.UInt128)
    if isinstance(wanted, pl.Float64):
        return given.is_float() or given.is_integer()
    if isinstance(wanted, pl.Datetime):
        return isinstance(given, pl.Datetime) and (given.time_zone is not None or bool(field.tz))
    if isinstance(wanted, pl.String):
        return given in (pl.Categorical, pl.Enum)
    return False


def with_casts(frame: pl.LazyFrame, fields: Iterable[Field]) -> pl.LazyFrame:
    """Cast the fields that are in ``frame``; a value that does not fit becomes null and is named in ``_errors``.

    Fields that are missing are added as null; columns that are no fields are left as they are.
    """
    schema = frame.collect_schema()
    casts: list[pl.Expr] = []
    failures: list[pl.Expr] = []
    for field in fields:
        wanted = dtype_of(field.type)
        if field.name not in schema:
            casts.append(pl.lit(None, dtype=wanted or pl.String()).alias(field.name))
            continue
        given = schema[field.name]
        if wanted is None or given == wanted:
            continue
        column = pl.col(field.name)
        value = cast(column, given, field)
        casts.append(value.alias(field.name))
        failed = column.is_not_null() & value.is_null()
        failures.append(pl.when(failed).then(pl.lit(f"{field.name}:cast")))
    if ERRORS_COLUMN in schema:
        failures.insert(0, pl.col(ERRORS_COLUMN))
    found = pl.concat_str(failures, separator=SEPARATOR, ignore_nulls=True) if failures else pl.lit("")
    found = pl.when(found != "").then(found).cast(ERRORS)
    return frame.with_columns(*casts, found.alias(ERRORS_COLUMN))


def literal(value: object, dtype: pl.DataType, what: str) -> pl.Expr:
    """A value of a blueprint as a constant of a column's type. Raises Permanent when it does not fit."""
    if dtype in (pl.Null,):
        return pl.lit(value)
    if isinstance(value, bool) and dtype == pl.Boolean:
        return pl.lit(value)
    field = Field(what, type_name(dtype), tz="UTC")
    text = _written(value, dtype)
    made = text if dtype == pl.String else None
    if dtype != pl.String and field.type != "any":
        made = pl.select(cast(pl.lit(text), pl.String(), field)).item()
    if made is None:
        raise Permanent(f"{what}: {value!r} is no {field.type if field.type != 'any' else dtype}")
    return pl.lit(made, dtype=dtype)


def _written(value: object, dtype: pl.DataType) -> str:
    """A value as a file would have it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and (dtype.is_integer() or isinstance(dtype, pl.Decimal)) and isfinite(value):
        return format(Decimal(str(value)).normalize(), "f")  # 1e-07 is 0.0000001, and 5.0 is 5
    text = str(value)
    if isinstance(dtype, pl.Datetime) and re.match(_ISO_DATE, text):
        return f"{text}T00:00:00"
    return text


def type_name(dtype: pl.DataType) -> str:
    """The field type that stands for a table's column type; ``any`` for those that fields cannot have."""
    if isinstance(dtype, pl.Decimal):
        return f"decimal({dtype.precision},{dtype.scale})"
    return next((n for n, t in _SIMPLE.items() if t == dtype), "any")


def common_schema(schemas: Iterable[pl.Schema]) -> pl.Schema:
    """The columns of all, in order of appearance (data first), each in a type that holds the values of all."""
    found: dict[str, pl.DataType] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            found[name] = _common_type(found[name], dtype) if name in found else dtype
    ordered = [*data_columns(found), *(n for n in found if n in RESERVED_COLUMNS)]
    return pl.Schema({n: found[n] for n in ordered})


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that Delta takes for one (they differ in case only), or that nobody can tell apart on a screen."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(normalize("NFC", name).casefold(), name)
        if other != name:
            return other, name
    return None


def kept_type(dtype: pl.DataType) -> bool:
    """Whether tables can keep values of a file's type without bending them."""
    if isinstance(dtype, pl.List):
        return kept_type(_instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return bool(dtype.fields) and all(kept_type(_instance(f.dtype)) for f in dtype.fields)
    return not isinstance(dtype, pl.Duration | pl.Object | pl.Array)


def unjoinable(there: Mapping[str, pl.DataType], given: Mapping[str, pl.DataType]) -> str:
    """Why a file's columns cannot stand beside those of a table in one table; "" when they can."""
    odd = next((n for n, t in given.items() if not kept_type(t)), None)
    if odd is not None:
        return f"column {odd!r} is of type {given[odd]}, which tables do not keep"
    pair = alike({**there, **given})
    if pair is not None:
        return f"columns {pair[0]!a} and {pair[1]!a} differ in spelling only"
    for name, dtype in given.items():
        new = normal_type(dtype)
        old = there.get(name, new)
        if old != new and (_bulky(old) or _bulky(new) or _too_long(old, new)) and pl.Null not in (old, new):
            return f"column {name!r} is {new} here and {old} in the table"
    return ""


def _bulky(dtype: pl.DataType) -> bool:
    return dtype.is_nested() or dtype == pl.Binary


def _too_long(one: pl.DataType, other: pl.DataType) -> bool:
    if not (isinstance(one, pl.Decimal) and isinstance(other, pl.Decimal)):
        return False
    return max(one.precision - one.scale, other.precision - other.scale) + max(one.scale, other.scale) > 38


def _common_type(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if isinstance(one, pl.Decimal) and isinstance(other, pl.Decimal):
        scale = max(one.scale, other.scale)
        whole = max(one.precision - one.scale, other.precision - other.scale)
        return pl.Decimal(min(38, whole + scale), scale)
    return pl.String()  # also of int64 and float64, which cannot hold 2**53 + 1


def fit_to(frame: pl.LazyFrame, schema: pl.Schema) -> pl.LazyFrame:
    """``frame`` with exactly the columns of ``schema``, by name; those it lacks are null."""
    there = frame.collect_schema()
    columns = []
    for name, dtype in schema.items():
        if name in there:
            columns.append(pl.col(name) if there[name] == dtype else pl.col(name).cast(dtype))
        else:
            columns.append(pl.lit(None, dtype=dtype).alias(name))
    return frame.select(columns)


assert tuple(LINEAGE) == LINEAGE_COLUMNS
