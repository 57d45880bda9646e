"""The files that both sides read."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

COUNTRIES = ["DE", "FR", "IT", "ES", "PL", "NL", "BE", "AT"]


def make(base: Path, rows: int, files: int, first: int = 0) -> None:
    """``rows`` orders in ``files`` files below ``base/data/orders`` (one row in ten twice, one in a thousand with a bad
    amount), the file's number in its name, from ``first`` on; and a file of countries."""
    (base / "data/orders").mkdir(parents=True, exist_ok=True)
    regions = "".join(f"{c},{'West' if i % 2 else 'East'}\n" for i, c in enumerate(COUNTRIES))
    (base / "data/countries.csv").write_text(f"country,region\n{regions}")
    each = rows // files
    for number in range(files):
        add(base, f"{first + number:05}.csv", each, (first + number) * each)


def add(base: Path, name: str, rows: int, start: int) -> Path:
    """One more file of orders; numbers from ``start`` on."""
    at = pl.int_range(start, start + rows, eager=True)
    frame = pl.DataFrame({"at": at}).select(
        order_id=pl.when(pl.col("at") % 10 == 9).then(pl.col("at") - 1).otherwise(pl.col("at")) + 1,
        amount=pl.when(pl.col("at") % 1000 == 7).then(-1).otherwise(pl.col("at") % 100_000 / 100).round(2),
        country=pl.Series(COUNTRIES).gather(at % len(COUNTRIES)),
    )
    path = base / "data/orders" / name
    written = path.with_suffix(".tmp")
    frame.write_csv(written)
    os.replace(written, path)
    return path
