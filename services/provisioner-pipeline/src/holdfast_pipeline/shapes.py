"""What is known of a table before there is one: its columns and their types, and what SQL makes of them.

Expressions and queries are planned by polars on empty frames, which finds missing columns and type errors
when a blueprint is compiled instead of when its stage runs. Types that cannot be known before the data is
there (a source without a schema) are None; then only names are checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import TypeAlias

import polars as pl

from holdfast_model.errors import Invalid, Permanent, Problem

from . import specs
from .casting import literal
from .expressions import Expression, Query

Type: TypeAlias = pl.DataType | None

_SIMPLE: Mapping[str, pl.DataType] = {
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "string": pl.String(),
    "bool": pl.Boolean(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
}
# polars reports a bug of its own as a panic, which is no Exception; one stage's SQL must not end the service.
_PLANNING_ERRORS = (
    pl.exceptions.PolarsError, pl.exceptions.PanicException, TypeError, ValueError, OverflowError,
)  # fmt: skip
# Errors that hold whatever the types turn out to be. With columns of unknown type planned as null, any other
# error may come from the null alone.
_CERTAIN = (
    pl.exceptions.ColumnNotFoundError, pl.exceptions.DuplicateError, pl.exceptions.SQLInterfaceError,
    pl.exceptions.SQLSyntaxError,
)  # fmt: skip
_STORABLE = (pl.Int64, pl.Float64, pl.Decimal, pl.String, pl.Boolean, pl.Date, pl.Datetime, pl.Null)


@dataclass(frozen=True)
class Shape:
    """Columns of a table in order, each with its type (None: not known yet).

    ``open``: there may be more columns than are listed, so that a missing name proves nothing.
    """

    columns: Mapping[str, Type]
    open: bool = False

    def missing(self, name: str) -> str:
        """Why ``name`` cannot be a column; "" when it can."""
        if self.open or name in self.columns:
            return ""
        near = get_close_matches(name, self.columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"no column {name!r} here{hint} (columns: {', '.join(self.columns) or 'none'})"

    def check(self, names: Iterable[str], pointer: str) -> list[Problem]:
        """A problem for each of ``names`` that cannot be a column; the pointer gets the index behind it."""
        return [Problem(f"{pointer}/{i}", why) for i, n in enumerate(names) if (why := self.missing(n))]

    def with_columns(self, columns: Mapping[str, Type]) -> Shape:
        return Shape({**self.columns, **columns}, self.open)

    def frame(self) -> pl.LazyFrame:
        """An empty frame of this shape; columns of unknown type are null."""
        return pl.LazyFrame(schema={name: kind or pl.Null() for name, kind in self.columns.items()})

    @property
    def typed(self) -> bool:
        return not self.open and None not in self.columns.values()


def type_of(name: str) -> Type:
    """The polars type of a field's type; None for ``any``."""
    decimal = specs.decimal_type(name)
    return pl.Decimal(*decimal) if decimal else _SIMPLE.get(name)


def plan_expression(expression: Expression, shape: Shape, pointer: str) -> Type:
    """The type of a row expression. Raises Invalid when a column is missing or types do not fit."""
    for name in sorted(expression.columns):
        if why := shape.missing(name):
            raise _invalid(pointer, why)
    known = {n: shape.columns.get(n) for n in expression.columns}
    frame = Shape(known).frame()
    try:
        schema = frame.select(pl.sql_expr(expression.text).alias("value")).collect_schema()
    except _PLANNING_ERRORS as e:
        if None in known.values() and not isinstance(e, _CERTAIN):
            return None
        raise _invalid(pointer, _message(e)) from e
    return None if None in known.values() else _storable(schema["value"], expression.text, pointer)


def plan_condition(expression: Expression, shape: Shape, pointer: str) -> None:
    """Like :func:`plan_expression` for an expression that must be true or false."""
    kind = plan_expression(expression, shape, pointer)
    if kind is not None and kind != pl.Boolean:
        raise _invalid(pointer, f"a condition is true or false, but {expression.text!r} is {type_name(kind)}")


def plan_aggregates(group_by: Sequence[str], aggregates: Mapping[str, tuple[Expression, str]], shape: Shape) -> Shape:
    """The shape of ``aggregates`` (column -> expression, pointer) grouped by columns that exist."""
    columns: dict[str, Type] = {name: shape.columns.get(name) for name in group_by}
    problems: list[Problem] = []
    for name, (expression, at) in aggregates.items():
        try:
            columns[name] = _plan_aggregate(expression, shape, at)
        except Invalid as e:
            problems.extend(e.problems)
    if problems:
        raise Invalid(problems[0].message, problems)
    return Shape(columns)


def plan_query(query: Query, tables: Mapping[str, Shape], pointer: str) -> Shape:
    """The shape of a query's result. Raises Invalid when a column is missing or types do not fit."""
    shapes = {name: tables[name] for name in query.tables}
    if any(s.open for s in shapes.values()):
        return Shape({}, open=True)
    typed = all(s.typed for s in shapes.values())
    try:
        context = pl.SQLContext({name: s.frame() for name, s in shapes.items()}, register_globals=False)
        schema = context.execute(query.text, eager=False).collect_schema()
    except _PLANNING_ERRORS as e:
        if not typed and not isinstance(e, _CERTAIN):
            return Shape({}, open=True)
        raise _invalid(pointer, _message(e)) from e
    reserved = sorted(specs.RESERVED_COLUMNS.intersection(schema))
    if reserved:
        raise _invalid(pointer, f"a result column cannot be called {reserved[0]!r}; the name is taken")
    odd = next((n for n in schema if specs.stands_for_others(n)), None)
    if odd is not None:
        raise _invalid(pointer, f"a result column cannot be called {odd!r}: it stands for several")
    if typed:
        for name, kind in schema.items():
            _storable(kind, f"column {name!r}", pointer)
    return Shape({name: kind if typed else None for name, kind in schema.items()})


def fits(value: object, kind: Type) -> bool:
    """Whether a value can be put into a column of this type, or be looked for in it."""
    if kind is None:
        return True
    if isinstance(value, bool) or kind == pl.Boolean:
        return isinstance(value, bool) and kind == pl.Boolean
    if kind == pl.String:
        return isinstance(value, str)
    if kind.is_float():
        return isinstance(value, int | float)
    try:
        literal(value, kind, "value")
    except (Permanent, *_PLANNING_ERRORS):
        return False
    return True


def comparable(value: object, kind: Type) -> bool:
    """Whether a column of this type can have this limit. Money is compared exactly, also with more digits than it
    has."""
    if isinstance(kind, pl.Decimal) and not isinstance(value, bool):
        try:
            return Decimal(str(value)).is_finite()
        except InvalidOperation:
            return False
    if kind is not None and kind.is_integer() and isinstance(value, int) and not isinstance(value, bool):
        return True  # also one that no value can reach
    return fits(value, kind)


def _plan_aggregate(expression: Expression, shape: Shape, pointer: str) -> Type:
    for name in sorted(expression.columns):
        if why := shape.missing(name):
            raise _invalid(pointer, why)
    if not expression.aggregates:
        raise _invalid(pointer, f"{expression.text!r} gives one value per row; use an aggregate such as sum(...)")
    known = {n: shape.columns.get(n) for n in expression.columns}
    group = "".join(known) + "_"  # a name that no column has
    frame = Shape({**known, group: pl.Int64()}).frame()
    try:
        schema = frame.group_by(group).agg(pl.sql_expr(expression.text).alias("value")).collect_schema()
    except _PLANNING_ERRORS as e:
        if None in known.values() and not isinstance(e, _CERTAIN):
            return None
        raise _invalid(pointer, _message(e)) from e
    if isinstance(schema["value"], pl.List) and "array_agg" not in expression.text.lower():
        text = f"{expression.text!r} mixes columns of single rows with aggregates"
        raise _invalid(pointer, text)
    return None if None in known.values() else _storable(schema["value"], expression.text, pointer)


def _storable(kind: pl.DataType, what: str, pointer: str) -> pl.DataType:
    """Tables hold the types of a field; narrower numbers are widened when they are written."""
    if isinstance(kind, _STORABLE) or kind.is_numeric():
        return pl.Int64() if kind.is_integer() else pl.Float64() if kind.is_float() else kind
    text = f"{what} is {type_name(kind)}; tables hold int64, float64, decimal, string, bool, date and timestamp"
    raise _invalid(pointer, text)


def _message(error: BaseException) -> str:
    """What polars says, without the plan it prints below."""
    text = str(error).split("\n\nResolved plan")[0].split("\n\nThis error")[0]
    return " ".join(text.split())[:500] or type(error).__name__


def type_name(kind: Type) -> str:
    """What people call a type."""
    if kind is None:
        return "a value"
    if isinstance(kind, pl.Decimal):
        return f"decimal({kind.precision},{kind.scale})"
    if isinstance(kind, pl.Datetime):
        return "timestamp"
    return "bool" if kind == pl.Boolean else str(kind).lower()


def _invalid(pointer: str, message: str) -> Invalid:
    return Invalid(message, [Problem(pointer, message)])
