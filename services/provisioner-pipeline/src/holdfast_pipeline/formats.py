"""Formats of dates and times, as strptime has them: which make sense, and how values are read by them.

They are those of chrono, which differ from Python's where nobody would look: ``%f`` counts nanoseconds, so that
``.123456`` would be read as 123 microseconds, ``%Z`` takes any name of a zone and forgets it, and a year ``69`` of two
digits is 2069. What would be misread is read as people mean it, or refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import polars as pl

_SAMPLE = datetime(2001, 2, 3, 16, 5, 6, 789000, tzinfo=UTC)
_OFFSETS = ("%z", "%:z", "%::z", "%#z", "%+", "%s")
_SHORT_YEARS = ("%y", "%D", "%x")
_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError)


def dates(column: pl.Expr, given: str) -> pl.Expr:
    """Text as dates; null where it is none."""
    return _in_century(column.str.to_date(_chrono(given), strict=False), given)


def moments(column: pl.Expr, given: str) -> pl.Expr:
    """Text as times: in UTC where the format tells the offset (:func:`tells_offset`), else naive."""
    zone = "UTC" if tells_offset(given) and "%s" not in given else None
    found = column.str.to_datetime(_chrono(given), strict=False, time_unit="us", time_zone=zone)
    if zone is None and tells_offset(given):
        found = found.dt.replace_time_zone("UTC")  # seconds since the epoch
    return _in_century(found, given)


def tells_offset(given: str) -> bool:
    """Whether values say themselves which instant they are."""
    return any(part in given for part in _OFFSETS)


def format_problem(given: str, kind: str) -> str:
    """Why values of a ``kind`` (``date`` or ``timestamp``) cannot be read by a format; "" when they can.

    A day that is written by it must be read again as one of the same year."""
    plain = given.replace("%%", "")
    if "%Z" in plain:
        return "%Z is the name of a zone, which is not read; give the field a tz, or read the offset by %z"
    if re.search(r"(?<!\.)%f", plain):
        return "%f counts nanoseconds; write .%f (or %.f) behind the seconds, or how many digits there are, like %6f"
    if kind == "date" and "%s" in plain:
        return "%s is an instant; make the field a timestamp"
    example = "write it like %d.%m.%Y" if kind == "date" else "write it like %Y-%m-%d %H:%M:%S"
    try:
        sample = pl.Series([_SAMPLE])
        text = sample.dt.strftime(_chrono(given).replace("%#z", "%z"))
        read = dates(pl.col("s"), given) if kind == "date" else moments(pl.col("s"), given)
        found = pl.DataFrame({"s": text}).select(read).item()
    except _ERRORS as e:
        said = str(e).split("\n")[0]
        return f"{given!r} is no format of a {kind} ({said}); {example}"
    if found is None or found.year != _SAMPLE.year:
        return f"no {kind} can be read by {given!r}; {example}"
    return ""


def _chrono(given: str) -> str:
    return given.replace(".%f", "%.f")


def _in_century(found: pl.Expr, given: str) -> pl.Expr:
    """POSIX, and Python with it, takes 69 to 99 for the last century; chrono 70 to 99."""
    if not any(part in given for part in _SHORT_YEARS):
        return found
    return pl.when(found.dt.year() == 2069).then(found.dt.offset_by("-100y")).otherwise(found)
