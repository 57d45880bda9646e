"""What every table must hold, computed from the files in plain Python.

This is a second, deliberately naive statement of the blueprint: trim, cast, drop what has no positive number, fill
the country, keep the last of each order, join the region, set bad rows aside, add up.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

Record = dict[str, Any]
TEXT = ("order_id", "customer", "country", "amount", "placed_at")
_COUNTRY = re.compile(r"[A-Z]{2}\Z")
_NET = Decimal("0.8")


@dataclass(slots=True)
class Expected:
    """Table -> the rows it must hold, in any order. ``bad``: rows set aside by the validator."""

    bronze: list[Record] = field(default_factory=list)
    clean: list[Record] = field(default_factory=list)
    geo: list[Record] = field(default_factory=list)
    valid: list[Record] = field(default_factory=list)
    bad: list[Record] = field(default_factory=list)
    by_region: list[Record] = field(default_factory=list)
    by_country: list[Record] = field(default_factory=list)


def compute(root: Path, renames: Mapping[str, str]) -> Expected:
    """Every table for the files under ``root``. ``renames``: what a person accepted (file column -> field)."""
    found = Expected()
    regions = {row["country"]: row["region"] for row in _rows(root / "countries.csv")}
    newest: dict[int, Record] = {}
    for file in sorted((root / "orders").glob("*.csv")):
        for raw in _rows(file):
            named = {renames.get(column, column): value for column, value in raw.items()}
            found.bronze.append({column: named[column] or None for column in TEXT})
            row = _cast({column: value.strip() for column, value in named.items()})
            if row["order_id"] is not None and row["order_id"] > 0:
                row["country"] = row["country"] or "ZZ"
                newest[row["order_id"]] = row
    found.clean = list(newest.values())
    found.geo = [_enrich(row, regions) for row in found.clean]
    for row in found.geo:
        (found.valid if _is_good(row) else found.bad).append(row)
    found.by_region = _add_up(found.valid, "region", ("orders", "revenue", "net"))
    found.by_country = _add_up(found.valid, "country", ("orders", "revenue"))
    return found


def _rows(file: Path) -> Iterable[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as source:
        yield from csv.DictReader(source)


def _cast(row: Mapping[str, str]) -> Record:
    return {
        "order_id": _integer(row["order_id"]),
        "customer": row["customer"],
        "country": row["country"],
        "amount": _money(row["amount"]),
        "placed_at": datetime.fromisoformat(row["placed_at"]),
    }


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _money(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _enrich(row: Record, regions: Mapping[str, str]) -> Record:
    amount = row["amount"]
    return {**row, "region": regions.get(row["country"]), "net": None if amount is None else amount * _NET}


def _is_good(row: Record) -> bool:
    amount = row["amount"]
    return amount is not None and amount >= 0 and bool(_COUNTRY.match(row["country"]))


def _add_up(rows: Iterable[Record], key: str, columns: tuple[str, ...]) -> list[Record]:
    groups: dict[Any, list[Record]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    summed = []
    for value, members in groups.items():
        totals = {
            "orders": len(members),
            "revenue": sum((m["amount"] for m in members), Decimal(0)),
            "net": sum((m["net"] for m in members), Decimal(0)),
        }
        summed.append({key: value, **{column: totals[column] for column in columns}})
    return summed
