"""The shop's files: orders of five months, some rows dirty, and a list of countries. The same seed, the same bytes."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

COUNTRIES = {
    "DE": "Central", "AT": "Central", "CH": "Central", "PL": "Central", "FR": "West", "NL": "West", "BE": "West",
    "GB": "West", "ES": "South", "IT": "South", "PT": "South", "SE": "North", "DK": "North", "NO": "North",
    "ZZ": "Unknown",
}  # fmt: skip
COLUMNS = ("order_id", "customer", "country", "amount", "placed_at")
RENAMED = ("order_id", "customer", "country", "amount_eur", "placed_at")
ROWS = 2000
DIRTY = 0.03
LATE_ROWS = 500
BROKEN = 0.3

Row = tuple[str, ...]
Spoil = Callable[[Row, random.Random], Row]


def write_first(root: Path, seed: int = 7) -> None:
    """The countries and the first three months."""
    (root / "orders").mkdir(parents=True, exist_ok=True)
    _write(root / "countries.csv", ("country", "region"), COUNTRIES.items())
    for month in (1, 2, 3):
        _write(_month(root, month), COLUMNS, _orders(month, ROWS, random.Random(seed + month), _soil))


def write_renamed(root: Path, seed: int = 7) -> None:
    """April: somebody renamed a column of the export."""
    _write(_month(root, 4), RENAMED, _orders(4, LATE_ROWS, random.Random(seed + 4), _keep))


def write_broken(root: Path, seed: int = 7) -> None:
    """May: nearly a third of the rows cannot be right."""
    _write(_month(root, 5), COLUMNS, _orders(5, LATE_ROWS, random.Random(seed + 5), _break))


def _month(root: Path, month: int) -> Path:
    return root / "orders" / f"2026-{month:02}.csv"


def _write(file: Path, header: Sequence[str], rows: Iterable[Row]) -> None:
    """Write beside and rename, as a careful exporter would."""
    beside = file.with_name(f".{file.name}.part")
    with beside.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    os.replace(beside, file)


def _orders(month: int, count: int, dice: random.Random, spoil: Spoil) -> Iterator[Row]:
    start = datetime(2026, month, 1, tzinfo=UTC)
    known = [c for c in COUNTRIES if c != "ZZ"]
    for i in range(count):
        placed = start + timedelta(seconds=dice.randrange(27 * 86_400))
        row = (
            str(month * 100_000 + i), f"customer-{dice.randrange(400)}", dice.choice(known),
            f"{dice.randrange(100, 50_000) / 100:.2f}", placed.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )  # fmt: skip
        yield spoil(row, dice)


def _keep(row: Row, dice: random.Random) -> Row:
    return row


def _soil(row: Row, dice: random.Random) -> Row:
    """One row in thirty has something that happens every day."""
    if dice.random() >= DIRTY:
        return row
    number, customer, country, amount, placed = row
    return dice.choice(
        (
            (number, customer, f"  {country} ", amount, placed),  # blanks: trimmed
            (number, customer, "", amount, placed),  # unknown country: becomes ZZ
            (str(int(number) - 1), customer, country, amount, placed),  # sent twice: the last one counts
            (f"-{number}", customer, country, amount, placed),  # a test order: dropped
            (f"#{number}", customer, country, amount, placed),  # no number: dropped
            (number, customer, country, "n/a", placed),  # no amount: quarantined
            (number, customer, country, f"-{amount}", placed),  # negative: quarantined
        )
    )


def _break(row: Row, dice: random.Random) -> Row:
    if dice.random() >= BROKEN:
        return row
    number, customer, country, amount, placed = row
    return dice.choice(
        ((number, customer, country, f"-{amount}", placed), (number, customer, "Germany", amount, placed))
    )
