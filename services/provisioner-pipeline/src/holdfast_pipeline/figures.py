"""Numbers as people of other countries and programs write them: ``1.234,50``, ``1 234,50``, ``1,234.50``, ``1'234.50``.

A field says by which marks its numbers are written. Values are read by exactly these: what is not written that way is
no number, for ``1.234`` is a thousand here and little more than one there.
"""

from __future__ import annotations

import re

import polars as pl

DECIMAL_MARKS = (".", ",", "·", "٫")
THOUSANDS_MARKS = (",", ".", " ", "'", "’", "_", "٬")
_SPACES = " \u00a0\u2009\u202f"
"""What stands for a space between groups: programs write narrow and unbreakable ones."""


def marks_problem(decimal: str, thousands: str) -> tuple[str, str] | None:
    """Which of both (``decimal`` or ``thousands``) cannot be used, and why; None when both can. "" is the usual one: a
    point, and nothing between thousands."""
    if decimal and decimal not in DECIMAL_MARKS:
        return "decimal", f"{decimal!r} is no decimal mark; write one of {_listed(DECIMAL_MARKS)}"
    if thousands and thousands not in THOUSANDS_MARKS:
        return "thousands", f"{thousands!r} is no mark between thousands; write one of {_listed(THOUSANDS_MARKS)}"
    if thousands and thousands == (decimal or "."):
        return "thousands", f"{thousands!r} cannot mark both decimals and thousands; give the other one, too"
    return None


def plain(column: pl.Expr, decimal: str, thousands: str) -> pl.Expr:
    """Text as it would be written with a point and no groups; null where it is not written by these marks."""
    point = re.escape(decimal or ".")
    group = f"[{_SPACES}]" if thousands == " " else re.escape(thousands)
    whole = rf"(?:\d+|\d{{1,3}}(?:{group}\d{{2,3}})*{group}\d{{3}})" if thousands else r"\d+"
    written = rf"^[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?$"
    value: pl.Expr = pl.when(column.str.contains(written)).then(column)
    if thousands:
        value = value.str.replace_all(group, "")
    return value.str.replace(decimal, ".", literal=True) if decimal and decimal != "." else value


def _listed(marks: tuple[str, ...]) -> str:
    return " ".join(repr(mark) for mark in marks)
