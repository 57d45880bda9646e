"""Silver, second: join a lookup by its unique keys and derive columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from holdfast_model.errors import NotFound, Permanent, Temporary
from holdfast_model.messages import Observation

from .casting import cast, dtype_of, layout, normalised, type_name, with_casts
from .drift import examine, project
from .files import SourceFile, assert_unchanged, content_sha, fetched, list_source
from .reasons import PipelineReason
from .recomputing import compared, metadata, own_folder, pin, versions, without_inputs
from .roots import Roots
from .specs import ERRORS_COLUMN, Contract, EnricherSpec, Field, Lookup
from .tables import Table, collected, content_key, mapped, write
from .tasks import Context, StageResult

_SHOWN = 3
_GIVEN = "\x00given"  # a name no column can have
LOOKUP = "holdfast_lookup"
"""Commit metadata: the lookup's files as [[name, tag, sha], ...]."""


@dataclass(frozen=True)
class _LookupFile:
    file: SourceFile
    sha: str


def observe(context: Context, spec: EnricherSpec) -> Observation:
    """PRESENT when the table was made from the input and the lookup as they are now."""
    table = Table.open(own_folder(context).main)
    try:
        pins = pin(context, [spec.input])
        files = _lookup_files(context, spec.lookup, table, observing=True)
    except (Temporary, NotFound) as e:
        return without_inputs(context, table, e.message)
    key = content_key(digest=context.task.digest, inputs=versions(pins), lookup=[(f.file.name, f.sha) for f in files])
    return compared(context, table, key)


def unsettled(context: Context, spec: EnricherSpec) -> float:
    """Seconds until the lookup's files have settled."""
    if spec.lookup is None:
        return 0.0
    roots = Roots.of(context.settings, context.task.tenant)
    return list_source(roots, spec.lookup.source, now=context.now(), settle=context.settings.settle).unsettled


def provision(context: Context, spec: EnricherSpec) -> StageResult:
    """Recompute the table from its pinned input and lookup, unless that was done already."""
    folder = own_folder(context)
    table = Table.open(folder.main)
    [pinned] = pins = pin(context, [spec.input])
    try:
        files = _lookup_files(context, spec.lookup, table, observing=False)
    except NotFound as e:
        raise Temporary(f"the lookup is not there: {e.message}", reason=PipelineReason.SOURCE_MISSING) from e
    key = content_key(digest=context.task.digest, inputs=versions(pins), lookup=[(f.file.name, f.sha) for f in files])
    known = json.dumps([[f.file.name, f.file.tag, f.sha] for f in files])
    if table is None or table.key != key or table.commit.get(LOOKUP, "[]") != known:
        try:
            frame = pinned.table.scan()
            if spec.lookup is not None:
                frame = joined(frame, _lookup_frame(spec.lookup, files, frame.collect_schema()), spec.lookup)
            frame = layout(normalised(derived(frame, spec.derive)))
        except Exception as e:
            raise mapped(e, context.task.node) from e

        def unchanged() -> None:
            if spec.lookup is not None:
                for f in files:
                    assert_unchanged(f.file, spec.lookup.source)

        folder.claim()
        meta = metadata(context, key, pins, None, **{LOOKUP: known})
        write(context, folder.main, table, frame, meta, before=unchanged)
    return StageResult(observe(context, spec))


def _lookup_files(
    context: Context, lookup: Lookup | None, table: Table | None, *, observing: bool
) -> list[_LookupFile]:
    """The lookup's files with their content; files whose tag is known are not read again.

    One that has not settled counts as it was when observing, and is Temporary when provisioning."""
    if lookup is None:
        return []
    roots = Roots.of(context.settings, context.task.tenant)
    listing = list_source(roots, lookup.source, now=context.now(), settle=context.settings.settle)
    known: dict[str, tuple[str, str]] = {}
    if table is not None:
        known = {name: (tag, sha) for name, tag, sha in json.loads(table.commit.get(LOOKUP, "[]"))}
    shas: dict[str, str] = {}
    for name, file in listing.files.items():
        tag, sha = known.get(name, ("", ""))
        if tag == file.tag or (observing and not file.settled and sha):
            shas[name] = sha
        elif not file.settled:
            raise Temporary(f"lookup file {name!r} is still being written", retry_after=context.settings.settle)
    files = [file for _, file in sorted(listing.files.items())]
    fresh = fetched([file for file in files if file.name not in shas], lookup.source)
    shas |= {file.name: content_sha(file, lookup.source) for file in fresh}
    return [_LookupFile(file, shas[file.name]) for file in files]


def _lookup_frame(lookup: Lookup, files: list[_LookupFile], there: pl.Schema) -> pl.LazyFrame:
    """The rows of the lookup: its declared fields in their types, its keys in those of the input (``there``)."""
    if not files:
        raise Temporary(f"lookup {lookup.source.node!r} has no files yet")
    empty = all(f.file.size == 0 for f in files)
    keys = [Field(k, type_name(there[k]), tz="UTC") for k in lookup.join_keys if k in there]
    frames = []
    for file in fetched([f.file for f in files], lookup.source):
        if file.size or empty:
            _assert_fits(file, lookup)
        rows = project(file, lookup.source, None, None)
        columns = rows.collect_schema()
        declared = [f for f in lookup.fields if file.size or empty or f.name in columns]
        rows = _typed(rows, declared, lookup, file.name)
        rows = _typed(rows, [k for k in keys if k.name in rows.collect_schema()], lookup, file.name)
        frames.append(rows.drop("_row", ERRORS_COLUMN))
    return pl.concat(frames, how="diagonal_relaxed")


def _typed(rows: pl.LazyFrame, fields: Sequence[Field], lookup: Lookup, name: str) -> pl.LazyFrame:
    """``rows`` with ``fields`` in their types. Raises Permanent, with the places, for values that do not fit: a lookup
    has no quarantine, and nulls in their stead would be joined without a word."""
    schema = rows.collect_schema()
    there = [f for f in fields if f.name in schema]
    given = {f"{_GIVEN}{i}": f for i, f in enumerate(there)}
    text = [f.name for f in there if schema[f.name] == pl.String and dtype_of(f.type) not in (None, pl.String)]
    trimmed = {c: pl.col(c).str.strip_chars() for c in text}  # blanks are no part of a number or a date
    prepared = rows.with_columns(
        *(pl.col(f.name).alias(at) for at, f in given.items()),
        *(pl.when(value != "").then(value).alias(c) for c, value in trimmed.items()),
    )
    typed = with_casts(prepared, fields)
    found = collected(typed.filter(pl.col(ERRORS_COLUMN).is_not_null()).head(_SHOWN + 1), lookup.source.node)
    if not found.height:
        return typed.drop(given)
    places = []
    for row in found.head(_SHOWN).iter_rows(named=True):
        lost = [(f, str(row[at])[:40]) for at, f in given.items() if row[f.name] is None and row[at] is not None]
        words = [f"column {f.name!r} has {value!r}, which is no {f.type}" for f, value in lost if value.strip()]
        places.append(f"{name}: row {row['_row'] + 1}: {', '.join(words) or row[ERRORS_COLUMN]}")
    more = "; and more" if found.height > _SHOWN else ""
    raise Permanent(f"lookup {lookup.source.node!r} has values that do not fit: {'; '.join(places)}{more}")


def _assert_fits(file: SourceFile, lookup: Lookup) -> None:
    """Raise Permanent, with the place, for a file that cannot be read or lacks what its schema declares: all rows would
    have nulls in its stead. Columns that are not declared are not taken, and do no harm."""
    contract = Contract(lookup.source.node, extra="ignore", fields=lookup.fields) if lookup.fields else None
    found = examine(file, lookup.source, contract)
    if found.unreadable:
        raise Permanent(f"lookup {lookup.source.node!r} cannot be read: {found.unreadable}")
    if not found.fits:
        raise Permanent(f"lookup {lookup.source.node!r} does not fit its schema: {file.name}: {found.text}")


def joined(left: pl.LazyFrame, lookup: pl.LazyFrame, how: Lookup) -> pl.LazyFrame:
    """Left join. Raises Permanent when keys are not unique in the lookup, columns are missing or names clash."""
    name = how.source.node
    there, given = left.collect_schema(), lookup.collect_schema()
    keys = list(how.join_keys)
    for side, schema in (("the input", there), (f"lookup {name!r}", given)):
        missing = [k for k in keys if k not in schema]
        if missing:
            raise Permanent(f"{side} has no join key {', '.join(missing)}")
    take = list(how.take) or [c for c in given.names() if c not in keys]
    missing = [c for c in take if c not in given]
    if missing:
        raise Permanent(f"lookup {name!r} has no column {', '.join(missing)}")
    clash = [c for c in take if c in there]
    if clash:
        raise Permanent(f"columns {', '.join(clash)} are in the input and in lookup {name!r}")
    right = lookup.select(
        *(cast(pl.col(k), given[k], Field(k, type_name(there[k]), tz="UTC")).alias(k) for k in keys), *take
    ).drop_nulls(keys)
    twice = collected(right.group_by(keys).len().filter(pl.col("len") > 1).sort(keys).head(3), name)
    if twice.height:
        examples = ", ".join(repr(tuple(map(str, row[:-1]))) for row in twice.iter_rows())
        raise Permanent(f"keys {', '.join(keys)} are not unique in lookup {name!r}, for example {examples}")
    return left.join(right, on=keys, how="left", maintain_order="left")


def derived(frame: pl.LazyFrame, derive: dict[str, str]) -> pl.LazyFrame:
    """``frame`` with new columns, each computed over the row with those that it names.

    Whoever wrote them did so in an order in which that can be done; a spec, which is canonical, does not keep it."""
    left = {name: pl.sql_expr(text).alias(name) for name, text in derive.items()}
    while left:
        ready = [n for n, e in left.items() if not any(c in left for c in e.meta.root_names())]
        if not ready:
            raise Permanent(f"columns {', '.join(left)} are derived from each other")
        for name in ready:
            if name in frame.collect_schema():
                raise Permanent(f"column {name!r} cannot be derived: it is there already")
            frame = frame.with_columns(left.pop(name))
    return frame
