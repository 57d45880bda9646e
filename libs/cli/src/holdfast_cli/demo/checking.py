"""Comparing tables on disk with what they must hold, value by value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from .expected import TEXT, Expected, Record

ORDERS = ("order_id", "customer", "country", "amount", "placed_at")
ENRICHED = (*ORDERS, "region", "net")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tables of one graph are."""

    warehouse: Path
    out: Path

    def table(self, layer: str, stage: str) -> Path:
        return self.warehouse / layer / stage


@dataclass(frozen=True, slots=True)
class Verdict:
    """One table. ``problem`` is empty when it holds exactly the rows it must."""

    table: str
    rows: int
    problem: str = ""


def check(places: Places, expected: Expected) -> list[Verdict]:
    """A verdict for every table, in the order of the layers."""
    silver, gold = "silver", "gold"
    wanted: Sequence[tuple[str, Path, Sequence[str], list[Record]]] = (
        ("bronze orders-raw", places.table("bronze", "orders-raw"), TEXT, expected.bronze),
        ("silver orders-clean", places.table(silver, "orders-clean"), ORDERS, expected.clean),
        ("silver orders-geo", places.table(silver, "orders-geo"), ENRICHED, expected.geo),
        ("silver orders-valid", places.table(silver, "orders-valid"), ENRICHED, expected.valid),
        ("silver quarantine", places.table(silver, "orders-valid__quarantine"), ("order_id",), expected.bad),
        ("gold by-region", places.table(gold, "by-region"), ("region", "orders", "revenue", "net"), expected.by_region),
        ("gold by-country", places.table(gold, "by-country"), ("country", "orders", "revenue"), expected.by_country),
        ("sink report", places.out / "report", ("region", "orders", "revenue", "net"), expected.by_region),
        ("sink cube", places.out / "cube", ("country", "orders", "revenue"), expected.by_country),
    )
    return [_verdict(*entry) for entry in wanted]


def read(folder: Path) -> pl.DataFrame | None:
    """A table: Delta, or a folder with one parquet file; None when there is none."""
    try:
        return pl.read_delta(DeltaTable(str(folder)).table_uri)
    except TableNotFoundError:
        files = sorted(folder.glob("*.parquet"))
        return pl.read_parquet(files) if files else None


def _verdict(table: str, folder: Path, columns: Sequence[str], expected: list[Record]) -> Verdict:
    try:
        frame = read(folder)
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        return Verdict(table, 0, f"cannot be read: {error}")
    if frame is None:
        return Verdict(table, 0, "is not there")
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        return Verdict(table, frame.height, f"lacks {', '.join(missing)}")
    return Verdict(
        table, frame.height, _difference(_bag(frame.select(columns).rows()), _bag(_tuples(columns, expected)))
    )


def _tuples(columns: Sequence[str], rows: Iterable[Record]) -> Iterable[tuple[Any, ...]]:
    return (tuple(row[column] for column in columns) for row in rows)


def _bag(rows: Iterable[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(_plain(value) for value in row) for row in rows)


def _plain(value: Any) -> Any:
    """Money to the cent and computed floats to a ten-thousandth: their last bits depend on the order of adding."""
    if isinstance(value, float | Decimal):
        return f"{Decimal(value):.4f}".replace("-0.0000", "0.0000")
    return value


def _difference(found: Counter[tuple[Any, ...]], expected: Counter[tuple[Any, ...]]) -> str:
    if found == expected:
        return ""
    extra, missing = found - expected, expected - found
    examples = [f"unexpected {_row(row)}" for row in list(extra)[:2]] + [
        f"missing {_row(row)}" for row in list(missing)[:2]
    ]
    return f"{sum(extra.values())} rows too many, {sum(missing.values())} missing: {'; '.join(examples)}"


def _row(row: tuple[Any, ...]) -> str:
    return "(" + ", ".join(str(value) for value in row) + ")"
