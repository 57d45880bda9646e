"""Columns through the stages: what each stage's table will look like, and what is wrong on the way.

One walk in the order of the data. Every problem is collected with its JSON pointer; a stage whose input
is wrong goes on with an open shape, so that one mistake is reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import polars as pl

from holdfast_model.errors import Invalid, Problem

from . import specs
from .blueprint import (
    Check,
    Cleanser,
    DataStage,
    Enricher,
    FieldSpec,
    Ingestion,
    Limits,
    Rule,
    Schema,
    Sink,
    Source,
    Transformer,
    Validator,
    pointer,
)
from .expressions import Expression, expression, query
from .shapes import (
    Shape,
    Type,
    comparable,
    fits,
    plan_aggregates,
    plan_condition,
    plan_expression,
    plan_query,
    type_name,
    type_of,
)
from .wiring import Wired, Wiring, source_of

TEXT_FORMATS = frozenset({"csv", "ndjson", "json"})
"""Formats whose values stay text until a cleanser casts them."""
OPEN = Shape({}, open=True)

_LIMITS = ("ge", "gt", "le", "lt", "eq", "ne")


def column_problems(wiring: Wiring) -> list[Problem]:
    """Everything about columns, types and SQL that cannot work. Edges and references are checked before."""
    flow = _Flow(wiring)
    for id in wiring:
        flow.shape(id)
    return flow.problems


def limit_problems(limits: Limits, kind: Type, at: str) -> list[Problem]:
    """Limits that a column of this type cannot be compared with."""
    problems: list[Problem] = []
    for name in _LIMITS:
        value = getattr(limits, name)
        if value is not None and not comparable(value, kind):
            problems.append(Problem(f"{at}/{name}", _incomparable(value, kind)))
    for name, values in (("in", limits.one_of), ("not_in", limits.none_of)):
        for i, value in enumerate(values or ()):
            if not fits(value, kind):
                problems.append(Problem(f"{at}/{name}/{i}", _incomparable(value, kind)))
    texts = [n for n in ("pattern", "min_length", "max_length") if getattr(limits, n) is not None]
    if kind is not None and kind != pl.String:
        problems += [Problem(f"{at}/{n}", f"{n} is for text, but this is {type_name(kind)}") for n in texts]
    if limits.pattern is not None:
        try:
            pl.Series([""]).str.contains(limits.pattern)
        except pl.exceptions.PolarsError as e:
            text = f"not a regular expression: {' '.join(str(e).split())[:200]}"
            problems.append(Problem(f"{at}/pattern", text))
    return problems


def _incomparable(value: object, kind: Type) -> str:
    return f"{value!r} cannot be compared with {type_name(kind)}{_like(kind)}"


def _like(kind: Type) -> str:
    if isinstance(kind, pl.Datetime):
        return "; write it like 2024-01-31 or 2024-01-31T12:00:00Z"
    return "; write it like 2024-01-31" if kind == pl.Date else ""


class _Flow:
    """Shapes by stage, made on demand: an input's before the stage that reads it. Wiring has no cycles."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.problems: list[Problem] = []
        self._shapes: dict[str, Shape] = {}

    def shape(self, id: str) -> Shape:
        """The shape of a stage's table. Walks with its own stack: chains may be longer than Python's."""
        stack = [id]
        while stack:
            top = stack[-1]
            waits = [i for i in self.wiring[top].inputs if i not in self._shapes]
            if waits:
                stack.extend(waits)
                continue
            if top not in self._shapes:
                self._shapes[top] = self._make(self.wiring[top])
            stack.pop()
        return self._shapes[id]

    def _make(self, node: Wired) -> Shape:
        match node.stage:
            case Ingestion() as stage:
                return self._ingestion(stage)
            case Cleanser() as stage:
                return self._cleanser(node, stage)
            case Enricher() as stage:
                return self._enricher(node, stage)
            case Validator() as stage:
                return self._validator(node, stage)
            case Transformer() as stage:
                return self._transformer(node, stage)
            case Sink() as stage:
                shape = self._input(node)
                self.problems += shape.check(stage.keys, f"{node.pointer}/keys")
                return shape
            case DataStage():
                return self._input(node)
            case _:
                return OPEN

    def _input(self, node: Wired) -> Shape:
        return self._shapes[node.inputs[0]] if len(node.inputs) == 1 else OPEN

    def _contract(self, source: Source | None) -> Schema | None:
        found = self.wiring.get(source.contract) if source is not None and source.contract else None
        return found.stage if found is not None and isinstance(found.stage, Schema) else None

    def _ingestion(self, stage: Ingestion) -> Shape:
        source = source_of(stage, self.wiring)
        contract = self._contract(source)
        if source is None or contract is None:
            return OPEN
        return Shape(dict.fromkeys(contract.fields, pl.String() if source.format == "csv" else None))

    def _casts(self, node: Wired) -> Mapping[str, Type]:
        """What a cleanser behind an ingestion casts to."""
        before = self.wiring[node.inputs[0]].stage if len(node.inputs) == 1 else None
        if not isinstance(before, Ingestion):
            return {}
        source = source_of(before, self.wiring)
        contract = self._contract(source)
        return field_types(contract, source) if contract is not None and source is not None else {}

    def _cleanser(self, node: Wired, stage: Cleanser) -> Shape:
        shape, at = self._input(node).with_columns(self._casts(node)), node.pointer
        for i, rule in enumerate(stage.rules):
            self._rule(rule, shape, f"{at}/rules/{i}")
        if isinstance(stage.null_handling, dict):
            self._fill(stage.null_handling, shape, f"{at}/null_handling")
        if stage.deduplication is not None:
            self.problems += shape.check(stage.deduplication.keys, f"{at}/deduplication/keys")
            self.problems += shape.check(stage.deduplication.order_by, f"{at}/deduplication/order_by")
        return shape

    def _rule(self, rule: Rule, shape: Shape, at: str) -> None:
        if rule.filter is not None:
            self._condition(rule.filter, shape, f"{at}/filter")
        for name in ("trim", "lower", "upper", "drop_nulls", "drop_duplicates"):
            columns: tuple[str, ...] = getattr(rule, name) or ()
            self.problems += shape.check(columns, f"{at}/{name}")
            if name in ("lower", "upper"):
                for i, column in enumerate(columns):
                    kind = shape.columns.get(column)
                    if kind is not None and kind != pl.String:
                        text = f"{name} is for text, but {column!r} is {type_name(kind)}"
                        self.problems.append(Problem(f"{at}/{name}/{i}", text))
        if isinstance(rule.fill_null, dict):
            self._fill(rule.fill_null, shape, f"{at}/fill_null")

    def _fill(self, values: Mapping[str, object], shape: Shape, at: str) -> None:
        for column, value in values.items():
            where = at + pointer(column)
            if why := shape.missing(column):
                self.problems.append(Problem(where, why))
            elif not fits(value, kind := shape.columns.get(column)):
                self.problems.append(Problem(where, f"{value!r} does not fit into {type_name(kind)}{_like(kind)}"))

    def _enricher(self, node: Wired, stage: Enricher) -> Shape:
        shape, at = self._input(node), node.pointer
        self.problems += shape.check(stage.join_keys, f"{at}/join_keys")
        found = self.wiring.get(stage.lookup) if stage.lookup else None
        if found is not None and isinstance(found.stage, Source):
            shape = self._joined(stage, found.stage, shape, at)
        for name, text in stage.derive.items():
            where = f"{at}/derive{pointer(name)}"
            if why := _bad_name(name) or _taken(name, shape):
                self.problems.append(Problem(where, why))
            kind: Type = None
            try:
                kind = plan_expression(expression(text, where), shape, where)
            except Invalid as e:
                self.problems.extend(e.problems)
            shape = shape.with_columns({name: kind})
        return shape

    def _joined(self, stage: Enricher, source: Source, shape: Shape, at: str) -> Shape:
        contract = self._contract(source)
        text: Type = pl.String() if source.format in TEXT_FORMATS else None
        lookup = OPEN if contract is None else Shape(field_types(contract, source))
        for i, key in enumerate(stage.join_keys):
            if why := lookup.missing(key):
                self.problems.append(Problem(f"{at}/join_keys/{i}", f"source {source.id!r} has {why}"))
        for i, name in enumerate(stage.fields):
            if why := lookup.missing(name):
                self.problems.append(Problem(f"{at}/fields/{i}", f"source {source.id!r} has {why}"))
            elif name not in stage.join_keys and (why := _taken(name, shape)):
                self.problems.append(Problem(f"{at}/fields/{i}", why))
        taken = stage.fields or [c for c in lookup.columns if c not in stage.join_keys]
        if not stage.fields:
            for name in taken:
                if why := _taken(name, shape):
                    self.problems.append(Problem(f"{at}/fields", f"source {source.id!r}: {why}; name the fields"))
        default = text if contract is None else None
        joined = shape.with_columns({name: lookup.columns.get(name, default) for name in taken})
        return joined if stage.fields or contract is not None else Shape(joined.columns, open=True)

    def _validator(self, node: Wired, stage: Validator) -> Shape:
        shape, at = self._input(node), node.pointer
        for name in specs.QUARANTINE_COLUMNS:
            if name in shape.columns:
                text = f"{name!r} is a column of the quarantine; call it something else before the rows are checked"
                self.problems.append(Problem(at, text))
        found = self.wiring.get(stage.contract) if stage.contract else None
        if found is not None and isinstance(found.stage, Schema):
            for name, field in found.stage.fields.items():
                self._declared(name, field, found.id, shape, f"{at}/schema")
        for column, check in stage.checks.items():
            self._check(column, check, shape, f"{at}/checks{pointer(column)}")
        return shape

    def _declared(self, name: str, field: FieldSpec, schema: str, shape: Shape, at: str) -> None:
        if why := shape.missing(name):
            self.problems.append(Problem(at, f"schema {schema!r} declares {name!r}: {why}"))
            return
        here, declared = shape.columns.get(name), type_of(field.type or "any")
        if here is not None and declared is not None and type(here) is not type(declared):
            text = f"schema {schema!r} says {name!r} is {field.type}, but here it is {type_name(here)}"
            self.problems.append(Problem(at, f"{text}; a cleanser casts, put one before"))

    def _check(self, column: str, check: Check, shape: Shape, at: str) -> None:
        if check.expression is not None:
            self._condition(check.expression, shape, at)
            others = check.model_fields_set - {"expression"}
            if others:
                text = f"a check is a condition or limits of a column, not both ({', '.join(sorted(others))})"
                self.problems.append(Problem(at, text))
            return
        if why := shape.missing(column):
            self.problems.append(Problem(at, why))
            return
        if not check.model_fields_set:
            self.problems.append(Problem(at, "this check says nothing; give it a limit such as {ge: 0}"))
        self.problems += limit_problems(check, shape.columns.get(column), at)
        self.problems += shape.check(check.unique or (), f"{at}/unique")

    def _transformer(self, node: Wired, stage: Transformer) -> Shape:
        at = node.pointer
        try:
            if stage.sql is not None:
                tables = {specs.table_name(i): self._shapes[i] for i in node.inputs}
                checked = query(stage.sql, tables, f"{at}/sql")
                return plan_query(checked, tables, f"{at}/sql")
        except Invalid as e:
            self.problems.extend(e.problems)
            return OPEN
        shape = self._input(node)
        if isinstance(stage.aggregations, list) or not (stage.group_by or stage.aggregations):
            return shape
        return self._aggregated(stage.group_by, stage.aggregations, shape, at)

    def _aggregated(self, by: list[str], aggregations: Mapping[str, str], shape: Shape, at: str) -> Shape:
        self.problems += shape.check(by, f"{at}/group_by")
        checked: dict[str, tuple[Expression, str]] = {}
        for name, text in aggregations.items():
            where = f"{at}/aggregations{pointer(name)}"
            if why := _bad_name(name) or _taken(name, Shape(dict.fromkeys(by))):
                self.problems.append(Problem(where, why))
            try:
                checked[name] = (expression(text, where, aggregate=True), where)
            except Invalid as e:
                self.problems.extend(e.problems)
        try:
            return plan_aggregates(by, checked, shape)
        except Invalid as e:
            self.problems.extend(e.problems)
            return OPEN

    def _condition(self, text: str, shape: Shape, at: str) -> None:
        try:
            plan_condition(expression(text, at), shape, at)
        except Invalid as e:
            self.problems.extend(e.problems)


def field_types(contract: Schema, source: Source) -> dict[str, Type]:
    """Column -> type after the casts. A field without a type is text where the format is."""
    plain: Type = pl.String() if source.format in TEXT_FORMATS else None
    return {n: plain if f.type is None else type_of(f.type) for n, f in contract.fields.items()}


def name_problems(names: Iterable[str], at: Callable[[str], str]) -> list[Problem]:
    """Names that no column may have."""
    return [Problem(at(name), why) for name in names if (why := _bad_name(name))]


def _bad_name(name: str) -> str:
    if not name or len(name) > 255 or any(ord(c) < 32 or ord(c) == 127 for c in name):
        return f"{name!r} cannot be the name of a column"
    if specs.stands_for_others(name):
        return f"{name!r} cannot be the name of a column: it stands for several"
    return f"{name!r} is a column that Holdfast adds itself" if name in specs.RESERVED_COLUMNS else ""


def _taken(name: str, shape: Shape) -> str:
    return f"there is a column {name!r} already" if name in shape.columns else ""
