"""Silver, last: rows are checked, bad ones set apart, and too many of them in one file hold the stage.

Two tables: the good rows in the stage's own, the others in ``<stage>__quarantine``. The quarantine is committed first
and says whether the stage is held; while it is, no new good version is published.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

import msgspec
import polars as pl

from holdfast_model.errors import Permanent, Temporary
from holdfast_model.messages import REASON_SPEC_CHANGED, REASON_STALE, Observation, Status

from .casting import layout, literal
from .duplicates import copied
from .folders import DECISIONS, QUARANTINE, StageFolder
from .quarantine import (
    ACCEPTED,
    BREACH,
    DROPPED,
    FAILED,
    STATUS,
    UNDECIDED,
    FileShare,
    Judged,
    RowRuling,
    judged,
)
from .reasons import PipelineReason
from .recomputing import Pin, compared, metadata, own_folder, pin, versions, without_inputs
from .specs import QUARANTINE_COLUMNS, Check, ValidatorSpec
from .tables import DIGEST, KEY, Table, collected, content_key, mapped, write
from .tasks import Context, StageResult

STATE = "holdfast_state"
BASE = "holdfast_base"
RETRY = "holdfast_retry"
"""Commit metadata of the quarantine: held or passed; the content key without retries; the retry that made it new."""

HELD, PASSED = "held", "passed"
_SHOWN = 20
_HELD = 200_000
"""Bad rows that are held in memory while the rest is judged."""
_DECISIONS = {"accept-rows": "accept", "drop-rows": "drop"}


@dataclass(frozen=True)
class _State:
    folder: StageFolder
    good: Table | None
    bad: Table | None
    rulings: list[RowRuling]

    @property
    def held(self) -> bool:
        return self.bad is not None and self.bad.commit.get(STATE) == HELD


def observe(context: Context, spec: ValidatorSpec) -> Observation:
    """PRESENT when the good rows are those of the input as it is now; DRIFTED hold while the quarantine says so."""
    state = _state(context)
    try:
        key = _asked(context, spec, state).key
    except Temporary as e:
        if state.held:
            return _held(context, state, context.task.digest)
        return without_inputs(context, state.good, e.message)
    return _observed(context, state, key)


def provision(context: Context, spec: ValidatorSpec) -> StageResult:
    """Check the rows of the pinned input, unless that was done already. A decision that came along is kept first."""
    state = _state(context)
    decision = context.task.decision
    retry = ""
    if decision is not None and state.held:
        if decision.outcome in _DECISIONS:
            state = _decide(context, state)
        elif decision.outcome == "retry":
            retry = context.task.idempotency_key or decision.workitem or content_key(decision=decision)
        else:
            known = ", ".join([*_DECISIONS, "retry"])
            raise Permanent(f"{decision.outcome!r} is no decision about quarantined rows; choose one of {known}")
    asked = _asked(context, spec, state, retry)
    checked: Judged | None = None
    if state.bad is None or state.bad.key != asked.key:
        state, checked = _judge(context, spec, state, asked)
    if not state.held and (state.good is None or state.good.key != asked.key):
        state = _publish(context, spec, state, asked, checked)
    return StageResult(_observed(context, state, _asked(context, spec, state).key))


def _state(context: Context) -> _State:
    folder = own_folder(context)
    rulings = _rulings(Table.open(folder.side(DECISIONS)))
    return _State(folder, Table.open(folder.main), Table.open(folder.side(QUARANTINE)), rulings)


def _rulings(decisions: Table | None) -> list[RowRuling]:
    if decisions is None:
        return []
    rows = collected(decisions.scan().select("ruling"), decisions.folder.name)
    return [msgspec.json.decode(text, type=RowRuling) for text in rows["ruling"]]


@dataclass(frozen=True)
class _Asked:
    """The content key that is asked for. A retry makes it new until input, spec or decisions change."""

    base: str
    retry: str
    pins: list[Pin]

    @property
    def rows(self) -> pl.LazyFrame:
        return self.pins[0].table.scan()

    @property
    def key(self) -> str:
        return content_key(base=self.base, retry=self.retry)


def _asked(context: Context, spec: ValidatorSpec, state: _State, retry: str = "") -> _Asked:
    pins = pin(context, [spec.input])
    decisions = sorted((r.sha, r.check, r.decision, r.step) for r in state.rulings)
    base = content_key(digest=context.task.digest, inputs=versions(pins), decisions=decisions)
    if not retry and state.bad is not None and state.bad.commit.get(BASE) == base:
        retry = state.bad.commit.get(RETRY, "")
    return _Asked(base, retry, pins)


def _observed(context: Context, state: _State, key: str) -> Observation:
    if state.held and not (state.good is not None and state.good.key == key):
        return _held(context, state, key)
    found = compared(context, state.good, key)
    if found.status is Status.PRESENT and (state.bad is None or state.bad.key != key):
        return Observation(Status.DRIFTED, REASON_STALE, "its quarantine is not that of its rows", token=key)
    return found


def _held(context: Context, state: _State, key: str) -> Observation:
    """DRIFTED hold. The token is what is asked for now, so that changed inputs have the rows judged again."""
    bad = state.bad
    if bad is None or bad.digest != context.task.digest:
        return Observation(Status.DRIFTED, REASON_SPEC_CHANGED, token=key)
    info = json.loads(bad.commit.get("holdfast_info", "{}"))
    return Observation(
        Status.DRIFTED, PipelineReason.QUARANTINED, str(info.get("text", "")), token=key, hold=True, info=info
    )


def _checked(asked: _Asked, spec: ValidatorSpec, rulings: list[RowRuling]) -> Judged:
    frame, count = asked.rows, asked.pins[0].table.rows()
    schema = frame.collect_schema()
    if taken := [c for c in QUARANTINE_COLUMNS if c in schema]:
        raise Permanent(f"columns {', '.join(taken)} are those of the quarantine; call them something else before")
    rows: dict[str, pl.Expr] = {}
    twice: dict[str, list[str]] = {}
    for check in spec.checks:
        if check.kind != "expression":
            missing = [c for c in (check.columns or (check.column,)) if c not in schema]
            if missing:
                raise Permanent(f"check {check.name}: there is no column {', '.join(missing)}")
        if check.kind == "unique":
            twice[check.name] = list(check.columns or (check.column,))
        else:
            failed = failing(check, schema.get(check.column, pl.Null()))
            rows[check.name] = rows[check.name] | failed if check.name in rows else failed
    copies = {name: copied(frame, columns, count) for name, columns in twice.items()}
    return judged(frame, rows, copies, rulings)


def failing(check: Check, dtype: pl.DataType) -> pl.Expr:
    """True where a row fails the check; null passes every kind but ``not_null``, NaN fails every comparison."""
    column, kind = pl.col(check.column), check.kind
    if kind == "expression":
        return ~pl.sql_expr(str(check.value))
    if kind == "not_null":
        return column.is_null()
    if kind in ("in", "not_in"):
        values = check.value if isinstance(check.value, list) else [check.value]
        if not values:
            return column.is_not_null() if kind == "in" else pl.lit(False)
        listed = pl.any_horizontal(column == literal(v, dtype, check.name) for v in values)
        return ~listed if kind == "in" else listed
    if kind == "pattern":
        return ~column.cast(pl.String).str.contains(str(check.value))
    if kind in ("min_length", "max_length"):
        length = column.cast(pl.String).str.len_chars()
        limit = pl.lit(int(str(check.value)))
        return length < limit if kind == "min_length" else length > limit
    value = literal(check.value, dtype, check.name) if not dtype.is_numeric() else _number(check, dtype)
    compared = {
        "ge": column < value,
        "gt": column <= value,
        "le": column > value,
        "lt": column >= value,
        "eq": column != value,
        "ne": column == value,
    }[kind]
    return compared | column.is_nan() if dtype.is_float() and kind != "ne" else compared


def _number(check: Check, dtype: pl.DataType) -> pl.Expr:
    """A limit as it is written: money is compared exactly, an int64 with 0.5 is not rounded first."""
    try:
        number = Decimal(str(check.value))
    except InvalidOperation as e:
        raise Permanent(f"{check.name}: {check.value!r} is no number") from e
    if not number.is_finite():
        raise Permanent(f"{check.name}: {check.value!r} is no limit")
    if isinstance(dtype, pl.Decimal):
        return pl.lit(number)
    return pl.lit(int(number)) if number == int(number) else pl.lit(float(number))


def _judge(context: Context, spec: ValidatorSpec, state: _State, asked: _Asked) -> tuple[_State, Judged]:
    """Compute the quarantine and commit it with the verdict. What was found out on the way is used to publish."""
    try:
        checked = _checked(asked, spec, state.rulings)
    except Exception as e:
        raise mapped(e, context.task.node) from e
    checked, files = _shares(context, checked)
    breached = [f for f in files if f.breaches(spec.quality_threshold)]
    names = [f.file for f in breached]
    text = ""
    if breached:
        worst = min(breached, key=lambda f: f.share)
        text = (
            f"{len(breached)} of {len(files)} files are below {spec.quality_threshold:g}; worst is {worst.file}: "
            f"{worst.bad} of {worst.good + worst.bad} rows fail {', '.join(sorted(worst.checks))}"
        )
    info: dict[str, object] = {
        "text": text,
        "files": [msgspec.to_builtins(f) for f in sorted(breached, key=lambda f: f.share)[:_SHOWN]],
        "good": sum(f.good for f in files),
        "undecided": sum(f.bad for f in files),
        "accepted": sum(f.accepted for f in files),
        "dropped": sum(f.dropped for f in files),
    }
    verdict = {STATE: HELD if breached else PASSED, BASE: asked.base, RETRY: asked.retry}
    meta = metadata(context, asked.key, asked.pins, info, **verdict)
    columns = layout(checked.rows.select(checked.columns)).collect_schema().names()
    bad = checked.quarantined(names).select(*columns, FAILED, STATUS, BREACH)
    state.folder.claim()
    table = write(context, state.folder.side(QUARANTINE), state.bad, bad, meta)
    return _State(state.folder, state.good, table, state.rulings), checked


def _shares(context: Context, checked: Judged) -> tuple[Judged, list[FileShare]]:
    """How good each file is. Bad rows that are few are kept: then the table is read once for all of it."""
    try:
        totals, bad = pl.collect_all([checked.totals(), checked.bad().head(_HELD + 1)], engine="streaming")
        if bad.height <= _HELD:
            checked = replace(checked, known=bad)
        del bad
        statuses, failed = pl.collect_all([checked.statuses(), checked.failures()], engine="streaming")
    except (Exception, pl.exceptions.PanicException) as e:
        raise mapped(e, context.task.node) from e
    checks: dict[str, dict[str, int]] = {}
    for file, name, rows in failed.select("_file", FAILED, "rows").iter_rows():
        checks.setdefault(file, {})[name] = rows
    found = {(file, status): rows for file, status, rows in statuses.select("_file", STATUS, "rows").iter_rows()}
    files = []
    for file, sha, rows in totals.select("_file", "_sha", "rows").sort("_file").iter_rows():
        rows_bad, accepted, dropped = (found.get((file, s), 0) for s in (UNDECIDED, ACCEPTED, DROPPED))
        good = rows - rows_bad - accepted - dropped
        files.append(FileShare(file, sha, good, rows_bad, accepted, dropped, checks.get(file, {})))
    return checked, files


def _publish(context: Context, spec: ValidatorSpec, state: _State, asked: _Asked, checked: Judged | None) -> _State:
    try:
        checked = checked if checked is not None else _checked(asked, spec, state.rulings)
        good = layout(checked.published())
    except Exception as e:
        raise mapped(e, context.task.node) from e
    info = json.loads(state.bad.commit.get("holdfast_info", "{}")) if state.bad is not None else {}
    counts = {k: v for k, v in info.items() if k in ("undecided", "accepted", "dropped")}
    table = write(context, state.folder.main, state.good, good, metadata(context, asked.key, asked.pins, counts))
    return _State(state.folder, table, state.bad, state.rulings)


def _decide(context: Context, state: _State) -> _State:
    """Keep the decision for the files that breached the threshold, and no others. Safe to run again."""
    task, decision = context.task, context.task.decision
    if decision is None or state.bad is None:
        return state
    step = task.idempotency_key or decision.workitem or content_key(decision=decision)
    folder = state.folder.side(DECISIONS)
    table = Table.open(folder)
    if any(r.step == step for r in _rulings(table)):  # of this very version: another replica may have been faster
        return _state(context)
    open_rows = state.bad.scan().filter(pl.col(BREACH) & (pl.col(STATUS) == UNDECIDED))
    pairs = collected(open_rows.select("_sha", FAILED).explode(FAILED).unique().sort("_sha", FAILED), task.node)
    rulings = [
        RowRuling(
            step,
            sha,
            check,
            "accept" if _DECISIONS[decision.outcome] == "accept" else "drop",
            decision.by,
            decision.note,
            decision.workitem,
            decision.at or context.now(),
        )
        for sha, check in pairs.iter_rows()
    ]
    columns = {
        "sha": [r.sha for r in rulings],
        "check": [r.check for r in rulings],
        "decision": [r.decision for r in rulings],
        "by": [r.by for r in rulings],
        "workitem": [r.workitem for r in rulings],
        "ruling": [msgspec.json.encode(r).decode() for r in rulings],
    }
    frame = pl.LazyFrame(columns, schema=dict.fromkeys(columns, pl.String))
    meta = {KEY: content_key(before=table.key if table else "", step=step), DIGEST: task.digest}
    write(context, folder, table, frame, meta, mode="append")
    return _state(context)
