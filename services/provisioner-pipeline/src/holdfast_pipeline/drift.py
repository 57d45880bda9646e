"""Does a file fit its contract, and if not, in which way: missing, extra and changed columns.

A misfit has a *signature* (the way it does not fit). A person's ``accept`` with a mapping counts for every file of
that signature under the same contract; a ``reject`` counts for the content of one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import msgspec
import polars as pl

from holdfast_model.errors import HoldfastError, Permanent

from .casting import ERRORS, cast, dtype_of, keeps_values, normalised, with_casts
from .files import SourceFile
from .reading import ROW, TEXT_FORMATS, Unreadable, read, unreadable
from .specs import ERRORS_COLUMN, RESERVED_COLUMNS, Contract, Field, Source
from .tables import collected, content_key


class Examination(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found in a file. ``unreadable``: why its content cannot be read at all ("" = it can); ``hopeless``:
    not even leniently, although that was decided."""

    rows: int = 0
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unreadable: str = ""
    hopeless: bool = False

    @property
    def fits(self) -> bool:
        return not (self.missing or self.extra or self.changed or self.unreadable)

    @property
    def signature(self) -> str:
        """Equal for files that do not fit in the same way; an unreadable file is like no other."""
        return content_key(missing=self.missing, extra=self.extra, changed=self.changed, unreadable=self.unreadable)

    @property
    def text(self) -> str:
        """What is wrong, for people."""
        parts = [f"{word} {', '.join(names)}" for word, names in self._kinds() if names]
        return "; ".join([*parts, self.unreadable] if self.unreadable else parts)

    def _kinds(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (("missing", self.missing), ("not declared", self.extra), ("of another type", self.changed))

    def renames(self) -> dict[str, str]:
        """Extra columns that look like missing ones: {file column: field}. A proposal, nothing more."""
        if len(self.missing) == len(self.extra) == 1:
            return {self.extra[0]: self.missing[0]}
        free, found = list(self.missing), {}
        for name in self.extra:
            if near := get_close_matches(name, free, n=1):
                found[name] = near[0]
                free.remove(near[0])
        return found


class ColumnMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an accepted misfit is read: ``rename`` {file column: field}, ``default`` {missing field: value},
    ``ignore``: columns to leave out (all that are not declared are left out anyway)."""

    rename: dict[str, str] = {}
    default: dict[str, str | int | float | bool | None] = {}
    ignore: list[str] | bool = []


def mapping_of(data: dict[str, object] | None, contract: Contract) -> ColumnMapping:
    """The mapping in a decision's data. Raises Permanent when it names fields that are not declared."""
    try:
        found = msgspec.convert(data or {}, ColumnMapping)
    except msgspec.ValidationError as e:
        raise Permanent(f"the decision's data must be {{rename, default, ignore}}: {e}") from e
    declared = {f.name for f in contract.fields}
    unknown = sorted({*found.rename.values(), *found.default} - declared)
    if unknown:
        raise Permanent(f"the decision names fields that schema {contract.node!r} does not declare: {unknown}")
    if len(set(found.rename.values())) != len(found.rename):
        raise Permanent("the decision renames two columns to one field")
    return found


def examine(file: SourceFile, source: Source, contract: Contract | None) -> Examination:
    """How the file compares with the contract (None: it only has to be readable). Raises Temporary for storage."""
    try:
        frame = read(file, source)
        names = [n for n in frame.collect_schema().names() if n != ROW]
        if contract is None:
            reserved = sorted(set(names) & RESERVED_COLUMNS)
            if reserved:
                return Examination(unreadable=f"{file.name}: columns {reserved} have reserved names")
            return Examination(rows=_counts(frame, [], file.name)[0])
        fields = {f.name: f for f in contract.fields}
        missing = tuple(n for n, f in fields.items() if n not in names and not f.optional)
        extra = tuple(n for n in names if n not in fields) if contract.extra == "refuse" else ()
        present = [fields[n] for n in names if n in fields]
        if source.format in TEXT_FORMATS:
            typed = [f for f in present if dtype_of(f.type) not in (None, pl.String)]
            rows, counts = _counts(frame, typed, file.name)
            changed = tuple(f.name for f, (given, fit) in zip(typed, counts, strict=True) if fit * 2 < given)
        else:
            rows, _ = _counts(frame, [], file.name)
            schema = frame.collect_schema()
            changed = tuple(f.name for f in present if not keeps_values(schema[f.name], f))
        return Examination(rows, missing, extra, changed)
    except Unreadable as e:
        return Examination(unreadable=str(e))
    except HoldfastError as e:
        found = unreadable(e, file.name)
        if isinstance(found, Unreadable):
            return Examination(unreadable=str(found))
        raise


def is_hopeless(file: SourceFile, source: Source) -> bool:
    """Whether the file cannot be read leniently either."""
    try:
        _counts(read(file, source, lenient=True), [], file.name)
    except HoldfastError as e:
        if isinstance(unreadable(e, file.name), Unreadable):
            return True
        raise
    return False


def _counts(frame: pl.LazyFrame, fields: Iterable[Field], name: str) -> tuple[int, list[tuple[int, int]]]:
    """(rows, per field: values that are there, values that fit)."""
    asked = [pl.len().alias("rows")]
    fields = list(fields)
    for i, field in enumerate(fields):
        text = pl.col(field.name).str.strip_chars()
        there = text.is_not_null() & (text != "")
        asked.append(there.sum().alias(f"there{i}"))
        asked.append((there & cast(text, pl.String(), field).is_not_null()).sum().alias(f"fit{i}"))
    row = collected(frame.select(asked), name).row(0, named=True)
    return int(row["rows"]), [(int(row[f"there{i}"]), int(row[f"fit{i}"])) for i in range(len(fields))]


def project(file: SourceFile, source: Source, contract: Contract | None, mapping: ColumnMapping | None) -> pl.LazyFrame:
    """The file's rows as they go into the table: its data columns, ``_row`` and ``_errors``.

    Text formats stay text. With a contract the columns are its fields; what does not fit a typed format's field is
    null and named in ``_errors``.
    """
    frame = read(file, source, lenient=mapping is not None)
    no_errors = pl.lit(None, dtype=ERRORS).alias(ERRORS_COLUMN)
    if contract is None:
        return normalised(frame).with_columns(no_errors)
    mapping = mapping or ColumnMapping()
    schema = frame.collect_schema()
    ignored = set(mapping.ignore) if isinstance(mapping.ignore, list) else set()
    source_of = {f.name: f.name for f in contract.fields if f.name in schema and f.name not in ignored}
    source_of |= {field: column for column, field in mapping.rename.items() if column in schema}
    text = source.format in TEXT_FORMATS
    columns: list[pl.Expr] = []
    for field in contract.fields:
        wanted = pl.String() if text else dtype_of(field.type)
        if field.name in source_of:
            columns.append(pl.col(source_of[field.name]).alias(field.name))
        else:
            value = mapping.default.get(field.name)
            shown = str(value).lower() if isinstance(value, bool) else value
            plain = pl.lit(None if shown is None else str(shown), dtype=pl.String)
            columns.append(
                (plain if wanted is None else cast(plain, pl.String(), _as(field, wanted))).alias(field.name)
            )
    taken = frame.select(ROW, *columns)
    return taken.with_columns(no_errors) if text else normalised(with_casts(taken, contract.fields))


def _as(field: Field, wanted: pl.DataType) -> Field:
    return msgspec.structs.replace(field, type="string") if wanted == pl.String else field
