"""Bad rows and what was decided about them. The rules; :mod:`.validating` is the stage that uses them.

A row is good, *undecided*, *accepted* (published although it fails), or *dropped*. Decisions name the content of a
file and a check, so a file that was decided about is not asked about again, renamed or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import msgspec
import polars as pl

from .casting import SEPARATOR
from .duplicates import Copies
from .specs import ERRORS_COLUMN, QUARANTINE_COLUMNS

FAILED, STATUS, BREACH = QUARANTINE_COLUMNS
"""Columns of the quarantine table beside those of the rows: failed checks; undecided or dropped; whether the row's
file was below the threshold when the stage was held."""

GOOD, UNDECIDED, ACCEPTED, DROPPED = "good", "undecided", "accepted", "dropped"
FAILED_TYPE = pl.List(pl.String)
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


@dataclass(frozen=True)
class Judged:
    """Rows of a frame and what the checks say of each. Only bad rows pay for the names of what they fail.

    ``rows``: all, with one column per check that is true where the row fails. ``failing``: check -> that column.
    """

    rows: pl.LazyFrame
    columns: list[str]
    failing: dict[str, str]
    rulings: list[RowRuling]
    known: pl.DataFrame | None = None
    """The bad rows as :meth:`bad` finds them, where they are few enough to be held."""

    @property
    def _bad(self) -> pl.Expr:
        flags = [pl.col(flag).fill_null(False) for flag in self.failing.values()]
        if ERRORS_COLUMN in self.columns:
            flags.append(pl.col(ERRORS_COLUMN).is_not_null())
        return pl.any_horizontal(flags) if flags else pl.lit(False)

    def bad(self) -> pl.LazyFrame:
        """The bad rows with ``_failed`` and ``_status``.

        A row one of whose failures was dropped is dropped; one with a failure nobody decided about is undecided.
        """
        if self.known is not None:
            return self.known.lazy()
        names: list[pl.Expr] = [pl.when(pl.col(flag)).then(pl.lit(name)) for name, flag in self.failing.items()]
        found = pl.concat_list(names).list.drop_nulls() if names else pl.lit([], dtype=FAILED_TYPE)
        if ERRORS_COLUMN in self.columns:
            found = pl.concat_list(pl.col(ERRORS_COLUMN).fill_null("").str.split(SEPARATOR), found)
            found = found.list.set_difference(pl.lit([""], dtype=FAILED_TYPE))
        bad = self.rows.filter(self._bad).select(*self.columns, found.list.sort().alias(FAILED))
        if not self.rulings:
            return bad.with_columns(pl.lit(UNDECIDED).alias(STATUS))
        return bad.join(self._decided(bad), on=_ROW, how="left")

    def _decided(self, bad: pl.LazyFrame) -> pl.LazyFrame:
        newest = {(r.sha, r.check): r.decision for r in sorted(self.rulings, key=lambda r: r.at)}
        decided = pl.LazyFrame(
            {"_sha": [k[0] for k in newest], FAILED: [k[1] for k in newest], "decision": list(newest.values())},
            schema={"_sha": pl.String, FAILED: pl.String, "decision": pl.String},
        )
        return (
            bad.select(*_ROW, "_sha", FAILED)
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

    def totals(self) -> pl.LazyFrame:
        """Per file, with its content: all rows. A file's rows are all of one content."""
        return self.rows.group_by("_file").agg(pl.col("_sha").first(), pl.len().alias("rows"))

    def statuses(self) -> pl.LazyFrame:
        """Per file: bad rows of each status."""
        return self.bad().group_by("_file", STATUS).len("rows")

    def failures(self) -> pl.LazyFrame:
        """Per file: how many undecided rows fail each check."""
        undecided = self.bad().filter(pl.col(STATUS) == UNDECIDED)
        return undecided.select("_file", FAILED).explode(FAILED).group_by("_file", FAILED).len("rows")

    def quarantined(self, breached: list[str]) -> pl.LazyFrame:
        """The rows that go to the quarantine table: undecided and dropped ones."""
        return (
            self.bad()
            .filter(pl.col(STATUS).is_in([UNDECIDED, DROPPED]))
            .with_columns(pl.col("_file").is_in(breached).alias(BREACH))
        )

    def published(self) -> pl.LazyFrame:
        """The rows that go on: good and accepted ones."""
        good = self.rows.filter(~self._bad).select(self.columns)
        if not self.rulings:
            return good
        return pl.concat([good, self.bad().filter(pl.col(STATUS) == ACCEPTED).select(self.columns)])


def judged(
    frame: pl.LazyFrame, checks: dict[str, pl.Expr], copies: dict[str, Copies | None], rulings: list[RowRuling]
) -> Judged:
    """Judge the rows of ``frame``. ``checks``: name -> true where a row fails; null is no failure. ``copies``: name
    -> the rows that fail because another one has their keys. What ``_errors`` names counts as failed."""
    columns = frame.collect_schema().names()
    checks = checks | {name: found.copy for name, found in copies.items() if found is not None}
    failing = {name: f"\x00fails{i}" for i, name in enumerate(checks)}  # names that no column can have
    frame = frame.with_columns(failed.alias(failing[name]) for name, failed in checks.items())
    return Judged(frame, columns, failing, rulings)
