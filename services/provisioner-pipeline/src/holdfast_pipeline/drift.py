"""Does a file fit its contract, and if not, in which way: missing, extra and changed columns.

A misfit has a *signature* (the way it does not fit). A person's ``accept`` with a mapping counts for every file of
that signature under the same contract; a ``reject`` counts for the content of one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from threading import Lock

import msgspec
import polars as pl

from holdfast_model.errors import HoldfastError, Permanent

from .casting import (
    ERRORS,
    alike,
    cast,
    dtype_of,
    in_calendar,
    keeps_values,
    normal_type,
    normalised,
    unjoinable,
    with_casts,
)
from .files import SourceFile
from .reading import ROW, TEXT_FORMATS, read, unreadable
from .specs import ERRORS_COLUMN, RESERVED_COLUMNS, Contract, Field, Source
from .tables import collected, content_key, mapped
from .texts import Unreadable


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
        parts = [f"{word} {', '.join(map(self._shown, names))}" for word, names in self._kinds() if names]
        return "; ".join([*parts, self.unreadable] if self.unreadable else parts)

    def _kinds(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (("missing", self.missing), ("not declared", self.extra), ("of another type", self.changed))

    def _shown(self, name: str) -> str:
        """The name, escaped where it would look like nothing or like another one."""
        others = [n for n in (*self.missing, *self.extra) if n != name]
        plain = name.isprintable() and name.strip() == name != "" and alike([name, *others]) is None
        return name if plain else ascii(name)

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


Columns = dict[str, pl.DataType]


class Tally:
    """Counts what :func:`examine` asks of a file's values while they stream past: rows, and how many fit.

    ``heading`` is what the columns alone say, ``names`` which there are; ``columns`` are those of a file without a
    contract. While rows pass only
    as much is looked at as tells for certain that at least half of the values fit; so what is said then can be too
    severe, never too lenient, and whoever refuses a file must have it examined."""

    def __init__(
        self,
        name: str,
        heading: Examination,
        fields: Sequence[Field],
        columns: Columns | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.heading = heading
        self.columns = columns or {}
        self.names = tuple(names)
        self.fields = tuple(fields)
        self._rows = 0
        self._there = [0] * len(self.fields)
        self._fit = [0] * len(self.fields)
        self._lock = Lock()

    def another(self, name: str) -> Tally:
        """Of another file with the same columns, whose values are still to be counted."""
        return Tally(name, self.heading, self.fields, None, self.names)

    def passing(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """``frame`` unchanged; its rows are counted when it is computed. For frames that are computed once."""
        return frame.map_batches(
            self._add, predicate_pushdown=False, slice_pushdown=False, streamable=True, validate_output_schema=False
        )

    def collected(self, frame: pl.LazyFrame) -> Examination:
        """Count the rows of ``frame`` now, exactly."""
        asked = [pl.len()]
        for i, field in enumerate(self.fields):
            asked += [e.alias(f"{n}{i}") for n, e in zip(("there", "fit"), fitting(field), strict=True)]
        rows, *counts = collected(frame.select(asked), self.name).row(0)
        self.count(rows, list(zip(counts[::2], counts[1::2], strict=True)))
        return self.examination

    def count(self, rows: int, fields: Sequence[tuple[int, int]]) -> None:
        """Add rows, and for each field how many values are there and how many of them fit."""
        with self._lock:
            self._rows += rows
            for i, (there, fit) in enumerate(fields):
                self._there[i] += there
                self._fit[i] += fit

    @property
    def examination(self) -> Examination:
        """What was found, when all rows have passed."""
        counts = zip(self.fields, self._there, self._fit, strict=True)
        changed = tuple(f.name for f, there, fit in counts if fit * 2 < there)
        return msgspec.structs.replace(self.heading, rows=self._rows, changed=(*self.heading.changed, *changed))

    def _add(self, batch: pl.DataFrame) -> pl.DataFrame:
        self.count(batch.height, [self._counted(i, batch.get_column(f.name)) for i, f in enumerate(self.fields)])
        return batch

    def _counted(self, i: int, values: pl.Series) -> tuple[int, int]:
        field, there = self.fields[i], values.len() - values.null_count()
        if self._fit[i] * 2 >= self._there[i] + there:
            return there, 0  # enough fit already, whatever these are
        frame = values.to_frame()
        fit = int(frame.select(cast(pl.col(field.name), pl.String(), field).count()).item())
        return (there, fit) if fit * 2 >= there else frame.select(fitting(field)).row(0)


def fitting(field: Field) -> tuple[pl.Expr, pl.Expr]:
    """How many values of a column of text are there, and how many of them fit."""
    text = pl.col(field.name).str.strip_chars()
    there = text.is_not_null() & (text != "")
    fit = there & cast(text, pl.String(), field).is_not_null()
    return there.sum().alias("there"), fit.sum().alias("fit")


def examine(file: SourceFile, source: Source, contract: Contract | None, known: Columns | None = None) -> Examination:
    """How the file compares with the contract. Raises Temporary for storage.

    Without a contract it only has to be readable and to fit beside ``known``, the columns of the table; those of a
    file that does are added."""
    known = {} if known is None else known
    try:
        frame = read(file, source)
        tally = _tally(frame, file, source, contract, known)
        if tally.heading.unreadable:
            return tally.heading
        if tally.heading.fits:
            _assert_whole(frame, file, source)
        found = tally.collected(frame)
    except HoldfastError as e:
        return _unreadable(e, file, source)
    if found.rows:
        known |= tally.columns
    return found


def heading(file: SourceFile, source: Source, contract: Contract | None, known: Columns) -> Tally | None:
    """A tally for a file whose columns fit, so that its values can be counted while its rows are taken; None for one
    that is to be examined first. Looks at its bytes, and reads its beginning only. ``known`` as for examining."""
    try:
        tally = _tally(read(file, source), file, source, contract, known)
    except HoldfastError:
        return None  # examining it says why
    if not tally.heading.fits:
        return None
    known |= tally.columns
    return tally


def _unreadable(error: HoldfastError, file: SourceFile, source: Source) -> Examination:
    found = error if isinstance(error, Unreadable) else unreadable(error, file, source)
    if isinstance(found, Unreadable):
        return Examination(unreadable=str(found))
    raise error


def _tally(frame: pl.LazyFrame, file: SourceFile, source: Source, contract: Contract | None, known: Columns) -> Tally:
    schema = frame.collect_schema()
    names = [n for n in schema.names() if n != ROW]
    if contract is None:
        reserved = sorted(set(names) & RESERVED_COLUMNS)
        why = f"{file.name}: columns {reserved} have reserved names" if reserved else ""
        given = {n: t for n, t in schema.items() if n != ROW}
        if not why and (clash := unjoinable(known, given)):
            why = f"{file.name}: {clash}"
        new = {n: normal_type(t) for n, t in given.items() if known.get(n, pl.Null()) == pl.Null}
        return Tally(file.name, Examination(unreadable=why), (), new, names)
    fields = {f.name: f for f in contract.fields}
    missing = tuple(n for n, f in fields.items() if n not in names and not f.optional)
    extra = tuple(n for n in names if n not in fields) if contract.extra == "refuse" else ()
    present = [fields[n] for n in names if n in fields]
    if source.format in TEXT_FORMATS:
        typed = [f for f in present if dtype_of(f.type) not in (None, pl.String)]
        return Tally(file.name, Examination(0, missing, extra), typed, None, names)
    changed = tuple(f.name for f in present if not keeps_values(schema[f.name], f))
    return Tally(file.name, Examination(0, missing, extra, changed), ())


def _assert_whole(frame: pl.LazyFrame, file: SourceFile, source: Source) -> None:
    """Read every value of a parquet file or table: its end, which tells its columns and rows, tells nothing of what is
    between. Text is looked at when it is read."""
    if source.format in TEXT_FORMATS:
        return
    try:
        frame.sink_batches(lambda _: None)
    except (Exception, pl.exceptions.PanicException) as e:
        raise mapped(e, file.name) from e


def is_hopeless(file: SourceFile, source: Source) -> bool:
    """Whether the file cannot be read leniently either."""
    try:
        frame = read(file, source, lenient=True)
        _assert_whole(frame, file, source)
        collected(frame.select(pl.len()), file.name)
    except HoldfastError as e:
        if isinstance(unreadable(e, file, source), Unreadable):
            return True
        raise
    return False


def project(
    file: SourceFile,
    source: Source,
    contract: Contract | None,
    mapping: ColumnMapping | None,
    tally: Tally | None = None,
    *,
    seen: bool = False,
) -> pl.LazyFrame:
    """The file's rows as they go into the table: its data columns, ``_row`` and ``_errors``.

    Text formats stay text. With a contract the columns are its fields; what does not fit a typed format's field is
    null and named in ``_errors``. ``tally`` counts the values as they are in the file. ``seen``: its bytes
    were looked at.
    """
    frame = read(file, source, lenient=mapping is not None, seen=seen)
    return fitted(frame if tally is None else tally.passing(frame), source, contract, mapping)


def fitted(
    frame: pl.LazyFrame, source: Source, contract: Contract | None, mapping: ColumnMapping | None
) -> pl.LazyFrame:
    """The rows of files as :func:`.reading.read` gives them, as :func:`project` does."""
    no_errors = pl.lit(None, dtype=ERRORS).alias(ERRORS_COLUMN)
    if contract is None:
        return normalised(in_calendar(frame.with_columns(no_errors)))
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
    taken = frame.select(ROW, *columns).with_columns(no_errors)
    return taken if text else normalised(with_casts(in_calendar(taken), contract.fields))


def _as(field: Field, wanted: pl.DataType) -> Field:
    return msgspec.structs.replace(field, type="string") if wanted == pl.String else field
