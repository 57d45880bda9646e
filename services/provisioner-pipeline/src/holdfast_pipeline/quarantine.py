"""Bad rows and what was decided about them. The rules; :mod:`.validating` is the stage that uses them.

A row is good, *undecided*, *accepted* (published although it fails), or *dropped*. Decisions name the content of a
file and a check, so a file that was decided about is not asked about again, renamed or not.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec
import polars as pl

from .casting import ERRORS
from .specs import ERRORS_COLUMN

FAILED = "_failed"
STATUS = "_status"
BREACH = "_breach"
"""Columns of the quarantine table beside those of the rows: failed checks; undecided or dropped; whether the row's
file was below the threshold when the stage was held."""

GOOD, UNDECIDED, ACCEPTED, DROPPED = "good", "undecided", "accepted", "dropped"
_ROW = ["_file", "_row"]


class RowRuling(msgspec.Struct, frozen=True):
    """One decision: rows of the file with this content that fail ``check`` are accepted or dropped."""

    step: str
    sha: str
    check: str
    decision: Literal["accept", "drop"]
    by: str = ""
    note: str = ""
    workitem: str = ""
    at: float = 0.0


class FileShare(msgspec.Struct, frozen=True):
    """How good one file is. ``checks``: failed check -> rows, over its undecided rows."""

    file: str
    sha: str
    good: int
    bad: int
    accepted: int = 0
    dropped: int = 0
    checks: dict[str, int] = {}

    @property
    def share(self) -> float:
        total = self.good + self.bad
        return self.good / total if total else 1.0

    def breaches(self, threshold: float) -> bool:
        """Whether fewer of its undecided rows are good than asked; exact, without rounding."""
        return self.good < Decimal(str(threshold)) * (self.good + self.bad)


def with_status(frame: pl.LazyFrame, rulings: list[RowRuling]) -> pl.LazyFrame:
    """``frame`` (rows with ``_failed``) with ``_status``.

    A row one of whose failures was dropped is dropped; one with a failure nobody decided about is undecided.
    """
    failed = pl.col(FAILED).list.len() > 0
    if not rulings:
        return frame.with_columns(pl.when(failed).then(pl.lit(UNDECIDED)).otherwise(pl.lit(GOOD)).alias(STATUS))
    newest = {(r.sha, r.check): r.decision for r in sorted(rulings, key=lambda r: r.at)}
    decided = pl.LazyFrame(
        {"_sha": [k[0] for k in newest], FAILED: [k[1] for k in newest], "decision": list(newest.values())},
        schema={"_sha": pl.String, FAILED: pl.String, "decision": pl.String},
    )
    judged = (
        frame.filter(failed)
        .select(*_ROW, "_sha", FAILED)
        .explode(FAILED)
        .join(decided, on=["_sha", FAILED], how="left")
        .group_by(_ROW)
        .agg(
            (pl.col("decision") == "drop").any().alias("drop"),
            pl.col("decision").is_null().any().alias("open"),
        )
        .select(
            *_ROW,
            pl.when("drop")
            .then(pl.lit(DROPPED))
            .when("open")
            .then(pl.lit(UNDECIDED))
            .otherwise(pl.lit(ACCEPTED))
            .alias(STATUS),
        )
    )
    return frame.join(judged, on=_ROW, how="left", maintain_order="left").with_columns(
        pl.col(STATUS).fill_null(pl.lit(GOOD))
    )


def shares(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Per file and content: rows of each status."""
    return frame.group_by("_file", "_sha").agg(
        (pl.col(STATUS) == status).sum().alias(status) for status in (GOOD, UNDECIDED, ACCEPTED, DROPPED)
    )


def failures(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Per file: how many undecided rows fail each check."""
    return (
        frame.filter(pl.col(STATUS) == UNDECIDED)
        .select("_file", FAILED)
        .explode(FAILED)
        .group_by("_file", FAILED)
        .len("rows")
    )


def quarantined(frame: pl.LazyFrame, breached: list[str]) -> pl.LazyFrame:
    """The rows that go to the quarantine table: undecided and dropped ones."""
    return frame.filter(pl.col(STATUS).is_in([UNDECIDED, DROPPED])).with_columns(
        pl.col("_file").is_in(breached).alias(BREACH)
    )


def published(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The rows that go on: good and accepted ones."""
    return frame.filter(pl.col(STATUS).is_in([GOOD, ACCEPTED])).drop(FAILED, STATUS)


def with_failures(frame: pl.LazyFrame, checks: dict[str, pl.Expr], twice: dict[str, list[str]]) -> pl.LazyFrame:
    """``frame`` with ``_failed``: names of the checks that the row fails.

    ``checks``: name -> true where a row fails. ``twice``: name -> columns that must be unique together; every copy
    fails, nulls are never copies. What ``_errors`` names counts as failed.
    """
    marks: list[pl.Expr] = [pl.when(failed).then(pl.lit(name)) for name, failed in checks.items()]
    flags: list[str] = []
    for number, (name, columns) in enumerate(twice.items()):
        flag = f"_twice{number}"
        copies = (
            frame.select(columns)
            .drop_nulls()
            .group_by(columns)
            .len("_copies")
            .filter(pl.col("_copies") > 1)
            .select(*columns, pl.lit(True).alias(flag))
        )
        frame = frame.join(copies, on=columns, how="left", maintain_order="left")
        flags.append(flag)
        marks.append(pl.when(pl.col(flag)).then(pl.lit(name)))
    own = pl.concat_list(marks).list.drop_nulls() if marks else pl.lit([], dtype=ERRORS)
    names = frame.collect_schema().names()
    found = pl.concat_list(pl.col(ERRORS_COLUMN), own) if ERRORS_COLUMN in names else own
    return frame.with_columns(found.list.unique(maintain_order=True).alias(FAILED)).drop(flags)
