"""The schema stage: held files wait for a decision about them here, and decisions are kept per contract.

A schema has no table of its own; ``<schema>__decisions`` beside the Bronze tables holds what was decided. Held files
are found in the notes of the ingestions that name the schema.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import polars as pl

from holdfast_model.errors import Permanent
from holdfast_model.messages import REASON_STALE, Observation, Status, Touch

from .drift import mapping_of
from .folders import DECISIONS, FILES, stage_folder
from .ledger import Note, Ruling, Rulings
from .locations import names_in
from .objects import Location
from .reasons import PipelineReason
from .specs import INGESTION, SCHEMA, Contract, SchemaSpec, contract_digest
from .tables import DIGEST, KEY, Table, collected, content_key, write
from .tasks import Context, EngineSettings, StageResult

SCHEMA_NODE = "holdfast_schema"
"""Commit metadata of an ingestion's notes: the schema that judges its files."""

Notes = dict[str, Note]
_NOTE = msgspec.json.Decoder(Note)  # made once: children of a process that has them need not
_RULING = msgspec.json.Decoder(Ruling)
_SHOWN = 20


def observe(context: Context, spec: SchemaSpec) -> Observation:
    """PRESENT, or DRIFTED hold ``schema_drift`` while files of its ingestions are held and undecided."""
    return contract_observation(context.settings, context.task.tenant, context.task.graph, spec.contract)


def provision(context: Context, spec: SchemaSpec) -> StageResult:
    """Keep the decision that came along, if any, for every file that is held now. Its ingestions are touched; those
    that have accepted files to take are told to be stale, so that Silver waits for them."""
    task = context.task
    decision = task.decision
    if decision is not None and _undecided(context.settings, task.tenant, task.graph, spec.contract):
        if decision.outcome in ("accept", "reject"):
            _decide(context, spec.contract)
        elif decision.outcome != "retry":
            raise Permanent(f"{decision.outcome!r} is no decision about a schema; choose accept or reject")
    touch = tuple(Touch(n, _stale(context, spec.contract, n)) for n in spec.ingestions) if decision is not None else ()
    return StageResult(observe(context, spec), touch=touch)


def _stale(context: Context, contract: Contract, ingestion: str) -> Observation | None:
    """What an ingestion is while files of it are accepted and not yet taken."""
    task = context.task
    folder = stage_folder(context.settings, task.tenant, task.graph, ingestion, INGESTION)
    rulings = read_rulings(context.settings, task.tenant, task.graph, contract.node, ingestion)
    held = [n for n in read_notes(Table.open(folder.side(FILES))).values() if n.state == "held"]
    taken = [(n.name, n.sha) for n in held if not rulings.rejected(n.sha) and not rulings.undecided(n)]
    if not taken:
        return None
    token = content_key(accepted=taken, rulings=rulings.version)
    return Observation(Status.DRIFTED, REASON_STALE, f"{len(taken)} files were accepted", token)


def contract_observation(
    settings: EngineSettings, tenant: str, graph: str, contract: Contract, known: Mapping[Location, Notes] | None = None
) -> Observation:
    """What the held files of a contract mean for its node. The token names the contract and the held files.

    ``known``: the notes in tables that were just read or written."""
    held = _undecided(settings, tenant, graph, contract, known or {})
    token = content_key(contract=contract_digest(contract), held=[(i, n.name, n.sha) for i, n in held])
    if not held:
        return Observation(Status.PRESENT, token=token)
    first = held[0][1]
    detail = f"{len(held)} files do not fit schema {contract.node!r}; {first.name}: {first.found.text}"
    files = [
        {
            "ingestion": ingestion,
            "file": n.name,
            "sha": n.sha,
            "rows": n.found.rows,
            "missing": list(n.found.missing),
            "extra": list(n.found.extra),
            "changed": list(n.found.changed),
            "unreadable": n.found.unreadable,
            "renames": n.found.renames(),
        }
        for ingestion, n in held[:_SHOWN]
    ]
    return Observation(
        Status.DRIFTED, PipelineReason.SCHEMA_DRIFT, detail, token, hold=True, info={"files": files, "held": len(held)}
    )


def read_rulings(settings: EngineSettings, tenant: str, graph: str, schema: str, ingestion: str) -> Rulings:
    """The decisions about files of one ingestion."""
    table = Table.open(_decisions(settings, tenant, graph, schema))
    if table is None:
        return Rulings(ingestion)
    rows = collected(table.scan().filter(pl.col("ingestion") == ingestion).select("ruling"), table.folder.name)
    entries = tuple(_RULING.decode(text) for text in rows["ruling"])
    return Rulings(ingestion, entries, content_key(entries=entries) if entries else "")


def read_notes(table: Table | None) -> Notes:
    """The notes of an ingestion, by file name."""
    if table is None or not table.paths():
        return {}
    rows = collected(table.scan().select("name", "note"), table.folder.name)
    return {n: _NOTE.decode(text) for n, text in rows.iter_rows()}


def _decisions(settings: EngineSettings, tenant: str, graph: str, schema: str) -> Location:
    return stage_folder(settings, tenant, graph, schema, SCHEMA).side(DECISIONS)


def _undecided(
    settings: EngineSettings, tenant: str, graph: str, contract: Contract, known: Mapping[Location, Notes] | None = None
) -> list[tuple[str, Note]]:
    """(ingestion, note) of every held file that nobody has decided about, judged by this very contract."""
    layer = stage_folder(settings, tenant, graph, contract.node, SCHEMA).layer
    digest = contract_digest(contract)
    found: list[tuple[str, Note]] = []
    for folder in (layer / name for name in names_in(layer) if name.endswith(f"__{FILES}")):
        notes = known.get(folder) if known else None
        if notes is None:
            table = Table.open(folder)
            if table is None or table.commit.get(SCHEMA_NODE) != contract.node:
                continue
            notes = read_notes(table)
        ingestion = folder.name.removesuffix(f"__{FILES}").partition(".")[0]
        held = [n for n in notes.values() if n.state == "held" and n.contract == digest]
        if held:
            rulings = read_rulings(settings, tenant, graph, contract.node, ingestion)
            found.extend((ingestion, n) for n in held if rulings.undecided(n))
    return sorted(found, key=lambda f: (f[0], f[1].name))


def _decide(context: Context, contract: Contract) -> None:
    task, decision = context.task, context.task.decision
    if decision is None:
        return
    table = Table.open(_decisions(context.settings, task.tenant, task.graph, contract.node))
    step = task.idempotency_key or decision.workitem or content_key(decision=decision)
    if table is not None:
        known = collected(table.scan().select("step").unique(), table.folder.name)["step"].to_list()
        if step in known:
            return
    mapping = mapping_of(decision.data, contract) if decision.outcome == "accept" else mapping_of(None, contract)
    rulings = [
        Ruling(
            step=step,
            outcome="accept" if decision.outcome == "accept" else "reject",
            ingestion=ingestion,
            contract=contract_digest(contract),
            signature=note.found.signature,
            sha=note.sha,
            file=note.name,
            mapping=mapping,
            by=decision.by,
            note=decision.note,
            workitem=decision.workitem,
            at=decision.at or context.now(),
        )
        for ingestion, note in _undecided(context.settings, task.tenant, task.graph, contract)
    ]
    frame = pl.LazyFrame(
        {
            "step": [r.step for r in rulings],
            "ingestion": [r.ingestion for r in rulings],
            "file": [r.file for r in rulings],
            "outcome": [r.outcome for r in rulings],
            "by": [r.by for r in rulings],
            "ruling": [msgspec.json.encode(r).decode() for r in rulings],
        },
        schema=dict.fromkeys(("step", "ingestion", "file", "outcome", "by", "ruling"), pl.String),
    )
    before = table.key if table is not None else ""
    metadata = {KEY: content_key(before=before, step=step), DIGEST: task.digest}
    folder = _decisions(context.settings, task.tenant, task.graph, contract.node)
    write(context, folder, table, frame, metadata, mode="append")
