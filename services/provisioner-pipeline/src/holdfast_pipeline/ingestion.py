"""Bronze: files are taken as they are, each exactly once, a bounded number per commit.

The only incremental stage. A commit adds the rows of new files and replaces those of changed and renamed ones; when
all is landed, the notes are committed with what was seen, so that observing needs no look at the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import msgspec
import polars as pl

from holdfast_model.errors import NotFound, Permanent, Temporary
from holdfast_model.messages import REASON_SPEC_CHANGED, REASON_STALE, Observation, Status, Touch

from .bundles import FEW, Bundles
from .casting import ERRORS, LINEAGE, common_schema, data_columns, dtype_of, fit_to, layout
from .contracts import SCHEMA_NODE, Notes, contract_observation, read_notes, read_rulings
from .drift import Columns, Examination, Tally, examine, heading, is_hopeless, project
from .files import Listing, SourceFile, assert_unchanged, content_sha, fetched, list_source
from .folders import FILES, StageFolder, stage_folder
from .landed import landed_files
from .ledger import Landed, Ledger, Note, Rulings, Taken, Work, plan, reading_of, seen, sort_out
from .reading import TEXT_FORMATS
from .reasons import PipelineReason
from .recomputing import STARTED, pace
from .roots import Roots
from .specs import ERRORS_COLUMN, IngestionSpec, contract_digest
from .tables import DIGEST, KEY, Table, content_key, repeated, write
from .tasks import Context, StageResult

SEEN = "holdfast_seen"
MAIN = "holdfast_main"


@dataclass(frozen=True)
class _State:
    """What is on disk of one ingestion, and what is there to be taken."""

    folder: StageFolder
    main: Table | None
    files: Table | None
    rulings: Rulings
    reading: str
    listing: Listing
    seen: str

    @cached_property
    def notes(self) -> Notes:
        """What ``files`` holds."""
        return read_notes(self.files)

    @property
    def settled(self) -> bool:
        """Whether the last provisioning saw exactly what is there now, and finished."""
        if self.main is None or self.files is None:
            return False
        return self.files.commit.get(SEEN) == self.seen and self.noted

    @property
    def noted(self) -> bool:
        """Whether the notes belong to the table's newest commit."""
        if self.main is None or self.files is None:
            return False
        return self.main.key != "" and self.files.key != "" and self.files.commit.get(MAIN) == self.main.key


def observe(context: Context, spec: IngestionSpec) -> Observation:
    """PRESENT when every settled file is landed or noted under this spec; DRIFTED stale when files are new or
    changed. Reads no rows unless something changed."""
    task = context.task
    try:
        state = _state(context, spec)
    except NotFound as e:
        main = Table.open(stage_folder(context.settings, task.tenant, task.graph, task.node, task.type).main)
        if main is None:
            return Observation(Status.ABSENT)
        return Observation(Status.PRESENT, detail=e.message, token=main.key)
    if state.main is None:
        return Observation(Status.ABSENT)
    if state.main.digest != task.digest:
        return Observation(Status.DRIFTED, REASON_SPEC_CHANGED, token=task.digest)
    if not state.settled:
        work = plan(state.listing, _ledger(state), state.rulings, state.reading)
        if work or not state.noted:
            text = f"{len(work.files)} files are new or changed" if work.files else "what is known of files changed"
            return Observation(Status.DRIFTED, REASON_STALE, text, token=state.seen)
    return _present(state)


def unsettled(context: Context, spec: IngestionSpec) -> float:
    """Seconds until the files that are there at the very beginning have settled; 0 once anything has landed.

    Landing without them would show empty tables all the way to Gold, and have people approve those.
    """
    task = context.task
    if Table.open(stage_folder(context.settings, task.tenant, task.graph, task.node, task.type).main) is not None:
        return 0.0
    roots = Roots.of(context.settings, task.tenant)
    return list_source(roots, spec.source, now=context.now(), settle=context.settings.settle).unsettled


def provision(context: Context, spec: IngestionSpec) -> StageResult:
    """Land what is there to be taken. The schema's node is touched with what its held files mean for it."""
    task = context.task
    try:
        state = _state(context, spec)
    except NotFound as e:
        raise Temporary(f"the source is not there: {e.message}", reason=PipelineReason.SOURCE_MISSING) from e
    if not (state.settled and state.main is not None and state.main.digest == task.digest):
        state = _land(context, spec, state)
    touch: tuple[Touch, ...] = ()
    if spec.contract is not None:
        known = {state.folder.side(FILES): state.notes}
        held = contract_observation(context.settings, task.tenant, task.graph, spec.contract, known)
        touch = (Touch(spec.contract.node, held),)
    return StageResult(_present(state), touch=touch)


def _present(state: _State) -> Observation:
    if state.main is None or state.files is None:
        raise Temporary("the tables went away")
    notes = state.notes.values()
    broken = [n for n in notes if n.state == "unreadable"]
    info: dict[str, object] = {
        "files": len(state.listing.files),
        "held": sum(state.rulings.undecided(n) for n in notes),
        "rows": state.main.rows(),
        **pace(state.main.commit),
    }
    if broken:
        text = "; ".join(n.found.text for n in broken[:5])
        return Observation(
            Status.DRIFTED, PipelineReason.UNREADABLE, f"{len(broken)} files cannot be read: {text}",
            token=state.files.key, hold=True, info=info,
        )  # fmt: skip
    return Observation(Status.PRESENT, token=state.files.key, info=info)


def _state(context: Context, spec: IngestionSpec) -> _State:
    task, settings = context.task, context.settings
    listing = list_source(Roots.of(settings, task.tenant), spec.source, now=context.now(), settle=settings.settle)
    folder = stage_folder(settings, task.tenant, task.graph, task.node, task.type)
    rulings = Rulings(task.node)
    if spec.contract is not None:
        rulings = read_rulings(settings, task.tenant, task.graph, spec.contract.node, task.node)
    reading = reading_of(spec)
    return _State(
        folder, Table.open(folder.main), Table.open(folder.side(FILES)), rulings, reading, listing,
        seen(listing, reading, rulings),
    )  # fmt: skip


def _ledger(state: _State) -> Ledger:
    return Ledger(landed_files(state.main), state.notes)


class _Trusted(dict[str, Tally]):
    """Files that are only looked at while they are written, by name; small ones among them are read together."""

    def __init__(self, spec: IngestionSpec) -> None:
        super().__init__()
        self.bundles = Bundles(spec.source, spec.contract)


class _Misjudged(Permanent):
    """Files that were taken for granted by their columns, and are not what these promised."""

    def __init__(self, why: str, names: set[str]) -> None:
        super().__init__(why)
        self.names = names


def _land(context: Context, spec: IngestionSpec, state: _State) -> _State:
    """Take what is there to be taken. Files whose columns fit are read once: their values are looked at while they
    are written, and nothing is committed unless they fit, too. Those that may not are looked at first the next time, so
    that one odd file among thousands does not have all of them read twice."""
    doubted: set[str] = set()
    while True:
        try:
            return _landed(context, spec, state, _Trusted(spec), doubted)
        except _Misjudged as e:
            doubted |= e.names
        state = _state(context, spec)


def _landed(
    context: Context, spec: IngestionSpec, state: _State, trusted: _Trusted, doubted: Collection[str]
) -> _State:
    """``trusted``: filled with the files that are only looked at while they are written; never with ``doubted``."""
    task = context.task
    ledger = _ledger(state)
    work = plan(state.listing, ledger, state.rulings, state.reading)
    contract = contract_digest(spec.contract) if spec.contract else ""
    found = _looked_at(context, spec, state, ledger, work, trusted, doubted)
    result = sort_out(work, found, ledger, state.rulings, state.reading, contract)
    state.folder.claim()

    landed = dict(ledger.landed)
    main = state.main
    emptied = sorted(result.emptied)
    chunks = [result.taken[i : i + spec.batch_size] for i in range(0, len(result.taken), spec.batch_size)]
    done = 0
    for chunk in chunks or [()]:
        gone = {*emptied, *(t.renamed_from for t in chunk if t.renamed_from)}
        gone |= {t.file.name for t in chunk if t.file.name in landed}
        emptied = []
        for name in gone:
            landed.pop(name, None)
        stays = bool(landed)
        landed |= {t.file.name: Landed(t.file.name, f"{t.file.tag}~{state.reading}", t.sha) for t in chunk}
        key = content_key(digest=task.digest, files=sorted((x.name, x.sha, x.tag[-16:]) for x in landed.values()))
        done += len(chunk)
        context.progress(done, len(result.taken), "files", task.node)
        if main is None or main.key != key:
            try:
                main = _commit(context, spec, state, main, chunk, sorted(gone), key, trusted, stays=stays)
            except _Misjudged:
                raise
            except Permanent as e:  # which of them cannot be read as it promised is not known
                if names := {t.file.name for t in chunk if t.file.name in trusted}:
                    raise _Misjudged(e.message, names) from e
                raise
    if main is None:
        raise Temporary("the table went away")
    landed_files(main, written=landed, appended=_appended(state, main, chunks))
    files = _commit_notes(context, spec, state, result.notes, main.key)
    return _State(state.folder, main, files, state.rulings, state.reading, state.listing, state.seen)


def _appended(state: _State, main: Table, chunks: list[tuple[Taken, ...]]) -> dict[str, list[str]]:
    """Which files are in the one data file that came to the others, if that is how rows came."""
    before = {p.name for p in state.main.paths()} if state.main is not None else set()
    after = {p.name for p in main.paths()}
    if len(chunks) != 1 or not before < after or len(after) != len(before) + 1:
        return {}
    return {name: [t.file.name for t in chunks[0]] for name in after - before}


def _looked_at(
    context: Context,
    spec: IngestionSpec,
    state: _State,
    ledger: Ledger,
    work: Work,
    trusted: _Trusted,
    doubted: Collection[str],
) -> Iterator[tuple[SourceFile, str, Examination | None]]:
    contract = contract_digest(spec.contract) if spec.contract else ""
    there = dict(state.main.schema()) if state.main is not None else {}
    known = {c: there[c] for c in data_columns(there)}
    for count, file in enumerate(fetched(work.files, spec.source)):
        context.progress(count, len(work.files), "files", f"looking at {file.name}")
        doubtful = file.name in doubted
        content = trusted.bundles.content(file) if not doubtful and len(work.files) >= FEW else None
        sha = content_sha(file, spec.source) if content is None else sha256(content).hexdigest()
        landed = ledger.landed.get(file.name)
        if landed is not None and landed.sha == sha and landed.tag.endswith(f"~{state.reading}"):
            assert_unchanged(file, spec.source)
            yield file, sha, None
            continue
        if (
            not doubtful
            and not state.rulings.rejected(sha)
            and (tally := _heading(spec, file, content, known, trusted))
        ):
            trusted[file.name] = tally
            yield file, sha, msgspec.structs.replace(tally.heading, rows=1)
            continue
        found = examine(file, spec.source, spec.contract, known)
        if found.unreadable and state.rulings.accepted(contract, found, sha) is not None:
            found = msgspec.structs.replace(found, hopeless=is_hopeless(file, spec.source))
        assert_unchanged(file, spec.source)
        yield file, sha, found


def _heading(
    spec: IngestionSpec, file: SourceFile, content: bytes | None, known: Columns, trusted: _Trusted
) -> Tally | None:
    together = trusted.bundles.heading(file, content, known) if content is not None else None
    return together or heading(file, spec.source, spec.contract, known)


def _commit(
    context: Context,
    spec: IngestionSpec,
    state: _State,
    main: Table | None,
    chunk: Iterable[Taken],
    gone: list[str],
    key: str,
    trusted: _Trusted,
    *,
    stays: bool,
) -> Table:
    """Put the rows of ``chunk`` in and take those of ``gone`` out, in one commit. ``stays``: whether any row does."""
    chunk = list(chunk)
    bundles = trusted.bundles
    frames = [_rows(spec, state, t, key, trusted.get(t.file.name)) for t in chunk if t.file.name not in bundles]
    frames += bundles.rows([t for t in chunk if t.file.name in bundles], state.reading, key[:16])
    if not frames:
        frames = [_no_rows(spec, main)]
    there = main.schema() if main is not None else None
    given = [f.collect_schema() for f in frames]
    before = there or pl.Schema()
    if not stays:  # The types are those of the rows that come, whatever the table was begun with.
        new = common_schema(given)
        before = pl.Schema({c: new.get(c, t) for c, t in before.items()})
    schema = common_schema([before, *given])
    metadata = {KEY: key, DIGEST: context.task.digest, STARTED: str(context.started)}

    def unchanged() -> None:
        for t in chunk:
            assert_unchanged(t.file, spec.source)
        found = {t.file.name: trusted[t.file.name].examination for t in chunk if t.file.name in trusted}
        if odd := {name for name, seen in found.items() if not (seen.fits and seen.rows)}:
            raise _Misjudged(f"{len(odd)} files are not what their columns promised", odd)

    if main is None or there is None or dict(schema) != dict(there):
        # Columns came or changed their type: one commit rewrites the table, with the rows it keeps.
        kept = [main.scan().filter(~pl.col("_file").is_in(gone))] if main is not None and stays else []
        whole = pl.concat([fit_to(f, schema) for f in [*kept, *frames]])
        return write(context, state.folder.main, main, whole, metadata, before=unchanged)
    rows = pl.concat([fit_to(f, schema) for f in frames])
    if not gone:
        return write(context, state.folder.main, main, rows, metadata, mode="append", before=unchanged)
    replaced = pl.col("_file").is_in(sorted({*gone, *(t.file.name for t in chunk)}))
    return write(context, state.folder.main, main, rows, metadata, replace=replaced, before=unchanged)


def _rows(spec: IngestionSpec, state: _State, taken: Taken, key: str, tally: Tally | None) -> pl.LazyFrame:
    frame = project(taken.file, spec.source, spec.contract, taken.mapping, tally, seen=True)
    lineage = {
        "_file": taken.file.name,
        "_tag": f"{taken.file.tag}~{state.reading}",
        "_sha": taken.sha,
        "_batch": key[:16],
    }
    return layout(frame.with_columns(**{c: pl.lit(v, dtype=pl.String) for c, v in lineage.items()}))


def _no_rows(spec: IngestionSpec, main: Table | None) -> pl.LazyFrame:
    if main is not None:
        return pl.LazyFrame(schema=main.schema())
    fields = spec.contract.fields if spec.contract else ()
    text = spec.source.format in TEXT_FORMATS
    data = {f.name: (None if text else dtype_of(f.type)) or pl.String() for f in fields}
    return pl.LazyFrame(schema={**data, **LINEAGE, ERRORS_COLUMN: ERRORS})


def _commit_notes(context: Context, spec: IngestionSpec, state: _State, notes: dict[str, Note], main_key: str) -> Table:
    rows = {n: msgspec.json.encode(note, order="sorted").decode() for n, note in sorted(notes.items())}
    key = content_key(seen=state.seen, main=main_key, notes=rows)
    folder = state.folder.side(FILES)
    table = state.files
    if table is not None and table.key == key:
        return table
    metadata = {KEY: key, DIGEST: context.task.digest, SEEN: state.seen, MAIN: main_key}
    if spec.contract is not None:
        metadata[SCHEMA_NODE] = spec.contract.node
    if table is not None and not table.foreign and state.notes == notes:
        return repeated(context, table, metadata)
    schema = {"name": pl.String, "note": pl.String}
    frame = pl.LazyFrame({"name": list(rows), "note": list(rows.values())}, schema=schema)
    return write(context, folder, table, frame, metadata)
