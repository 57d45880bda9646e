"""A water board's files, the blueprint over them, and what its tables must hold, computed in plain Python.

Two chains that touch in one transformer: readings (NDJSON, placed by a lookup) and visits (CSV with semicolons).
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

WELLS = {"W-01": "north", "W-02": "north", "W-03": "harbour", "W-04": "hills"}
READING_FIELDS: dict[str, Any] = {
    "seq": {"type": "int64", "unique": True},
    "well": {"type": "string", "pattern": r"^W-\d\d$"},
    "litres": {"type": "decimal(12,3)", "ge": 0},
}
VISIT_FIELDS: dict[str, Any] = {
    "visit": {"type": "int64", "unique": True},
    "well": {"type": "string"},
    "minutes": {"type": "int64", "ge": 0},
}
THRESHOLD = 0.9
Reading = dict[str, Any]
Bag = Counter[tuple[str, ...]]


def readings(first: int, count: int = 40, *, bad: int = 0) -> list[Reading]:
    """``count`` rows numbered from ``first``; the last ``bad`` of them have an impossible amount."""
    names = list(WELLS)
    return [
        {"seq": n, "well": names[n % len(names)], "litres": -1 if n >= first + count - bad else n % 97 + 0.125}
        for n in range(first, first + count)
    ]


def visits(first: int, count: int = 20) -> list[tuple[int, str, int]]:
    names = list(WELLS)
    return [(n, names[n % len(names)], n % 50) for n in range(first, first + count)]


def put(path: Path, text: str) -> None:
    """Write beside and rename, as a careful exporter does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def put_readings(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    put(folder / "readings" / f"{name}.ndjson", "".join(json.dumps(row) + "\n" for row in rows))


def put_visits(folder: Path, name: str, rows: Iterable[tuple[int, str, int]]) -> None:
    put(folder / "visits" / f"{name}.csv", "visit;well;minutes\n" + "".join(f"{a};{b};{c}\n" for a, b, c in rows))


def put_wells(folder: Path) -> None:
    put(folder / "wells.csv", "well,district\n" + "".join(f"{w},{d}\n" for w, d in WELLS.items()))


def put_all(folder: Path) -> None:
    """Two files of readings, one of visits, the wells."""
    put_wells(folder)
    put_readings(folder, "a", readings(100))
    put_readings(folder, "b", readings(200))
    put_visits(folder, "first", visits(1))


def board() -> dict[str, Any]:
    """The whole blueprint: 18 stages."""
    return {
        "domain": "pipeline",
        "spec": {
            "sources": [
                {"id": "readings", "uri": "readings/*.ndjson", "format": "ndjson", "schema": "reading-fields"},
                {"id": "visits", "uri": "visits/*.csv", "format": "csv", "schema": "visit-fields",
                 "options": {"separator": ";"}},
                {"id": "wells", "uri": "wells.csv", "format": "csv"},
            ],
            "schemas": [
                {"id": "reading-fields", "fields": dict(READING_FIELDS)},
                {"id": "visit-fields", "fields": dict(VISIT_FIELDS)},
            ],
            "ingestions": [
                {"id": "readings-raw", "source": "readings"},
                {"id": "visits-raw", "source": "visits"},
            ],
            "cleansers": [
                {"id": "readings-tidy", "inputs": ["readings-raw"], "rules": ["trim", {"filter": "seq > 0"}],
                 "deduplication": {"keys": ["seq"], "keep": "first"}},
                {"id": "visits-tidy", "inputs": ["visits-raw"]},
            ],
            "enrichers": [
                {"id": "readings-placed", "inputs": ["readings-tidy"], "lookup": "wells", "join_keys": ["well"],
                 "fields": ["district"]},
            ],
            "validators": [
                {"id": "readings-good", "inputs": ["readings-placed"], "schema": "reading-fields",
                 "quality_threshold": THRESHOLD},
                {"id": "visits-good", "inputs": ["visits-tidy"], "schema": "visit-fields"},
            ],
            "transformers": [
                {"id": "by-district", "inputs": ["readings-good"],
                 "sql": "select district, count(*) as n, sum(litres) as litres from readings_good group by district"},
                {"id": "time-spent", "inputs": ["visits-good"], "group_by": ["well"],
                 "aggregations": {"minutes": "sum(minutes)"}},
                {"id": "both", "inputs": ["readings-good", "visits-good"],
                 "sql": "select v.well, count(r.seq) as n from visits_good v join readings_good r on r.well = v.well "
                        "group by v.well"},
            ],
            "sinks": [
                {"id": "district-report", "inputs": ["by-district"], "destination": "out", "format": "parquet"},
                {"id": "time-cube", "inputs": ["time-spent"], "destination": "out", "format": "delta"},
                {"id": "overview", "inputs": ["both"], "destination": "out", "format": "csv"},
            ],
        },
    }  # fmt: skip


def chain(**sink: Any) -> dict[str, Any]:
    """The readings alone: 10 stages. ``sink``: more keys of the one sink."""
    blueprint = board()
    spec = blueprint["spec"]
    keep = {
        "readings", "wells", "reading-fields", "readings-raw", "readings-tidy", "readings-placed", "readings-good",
        "by-district", "district-report",
    }  # fmt: skip
    for kind, entries in spec.items():
        spec[kind] = [entry for entry in entries if entry["id"] in keep]
    spec["sinks"][0] |= sink
    return blueprint


def stage(blueprint: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of a stage, to be changed in place."""
    return next(entry for entries in blueprint["spec"].values() for entry in entries if entry["id"] == name)


def without(blueprint: dict[str, Any], *names: str) -> dict[str, Any]:
    for kind, entries in blueprint["spec"].items():
        blueprint["spec"][kind] = [entry for entry in entries if entry["id"] not in names]
    return blueprint


# ---- what must be there


def bronze_readings(folder: Path, renames: Mapping[str, str] | None = None) -> list[Reading]:
    """Every row of every file, in the order of files and lines."""
    found = []
    for file in sorted((folder / "readings").glob("*.ndjson")):
        rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        found += [{(renames or {}).get(k, k): v for k, v in row.items()} for row in rows]
    return found


def good_readings(rows: Iterable[Reading]) -> list[Reading]:
    newest: dict[int, Reading] = {}
    for row in rows:
        if row["seq"] > 0:
            newest.setdefault(row["seq"], row)
    return [row for row in newest.values() if row["litres"] >= 0]


def by_district(rows: Iterable[Reading]) -> Bag:
    """(district, n, litres)."""
    n: Counter[str] = Counter()
    litres: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        n[WELLS[row["well"]]] += 1
        litres[WELLS[row["well"]]] += Decimal(str(row["litres"]))
    return Counter(_texts((district, n[district], litres[district])) for district in n)


def all_visits(folder: Path) -> list[tuple[int, str, int]]:
    found = []
    for file in sorted((folder / "visits").glob("*.csv")):
        with file.open(newline="", encoding="utf-8") as source:
            found += [(int(r["visit"]), r["well"], int(r["minutes"])) for r in csv.DictReader(source, delimiter=";")]
    return found


def time_spent(rows: Iterable[tuple[int, str, int]]) -> Bag:
    """(well, minutes)."""
    minutes: Counter[str] = Counter()
    for _, well, spent in rows:
        minutes[well] += spent
    return Counter(_texts(pair) for pair in minutes.items())


def overview(good: Iterable[Reading], seen: Iterable[tuple[int, str, int]]) -> Bag:
    """(well, n): readings times visits."""
    read, been = Counter(r["well"] for r in good), Counter(well for _, well, _ in seen)
    return Counter(_texts((well, read[well] * been[well])) for well in been if read[well])


# ---- what is there


class Tables:
    """The tables of one graph. ``warehouse``: ``<warehouse>/<tenant>/<graph>``; ``out``: where sinks publish."""

    def __init__(self, warehouse: Path, out: Path) -> None:
        self.warehouse = warehouse
        self.out = out

    def commits(self) -> dict[str, int]:
        """Table (``silver/visits-tidy``) -> Delta commits so far."""
        return {
            str(log.parent.relative_to(self.warehouse)): len(list(log.glob("*.json")))
            for log in sorted(self.warehouse.glob("*/*/_delta_log"))
        }

    def there(self) -> set[str]:
        """Ids of the stages that have a table, with the ``__`` tables beside them."""
        return {name.partition("/")[2] for name in self.commits()}

    def frame(self, layer: str, stage: str) -> pl.DataFrame | None:
        return read(self.warehouse / layer / stage)

    def bag(self, layer: str, stage: str, *columns: str) -> Bag:
        """The rows of a table, counted; empty when it is not there."""
        return _bag(self.frame(layer, stage), columns)

    def published(self, sink: str, *columns: str) -> Bag:
        """The rows a sink published, counted."""
        return _bag(read(self.out / sink), columns)

    def history(self, sink: str, *columns: str) -> list[Bag]:
        """What a Delta sink has published, from the first to the newest; versions without a change of rows left out."""
        folder = str(self.out / sink)
        bags = [_bag(pl.read_delta(folder, version=v), columns) for v in range(DeltaTable(folder).version() + 1)]
        return [bag for bag, before in zip(bags, [Counter(), *bags], strict=False) if bag != before]

    def seqs(self, layer: str, stage: str) -> list[int]:
        """The numbers of the readings in a table, ascending, repeats included."""
        return sorted(int(row[0]) for row in self.bag(layer, stage, "seq").elements())

    def report_is(self, wanted: Bag) -> bool:
        """Whether the district report holds exactly ``wanted``; AssertionError with both when not."""
        found = self.published("district-report", "district", "n", "litres")
        assert found == wanted, f"{found} is published, {wanted} wanted"
        return True


def read(folder: Path) -> pl.DataFrame | None:
    """A Delta table, or a folder with parquet or CSV files; None when there is nothing."""
    try:
        return pl.read_delta(DeltaTable(str(folder)).table_uri)
    except TableNotFoundError:
        if parquet := sorted(folder.glob("*.parquet")):
            return pl.read_parquet(parquet)
        texts = sorted(folder.glob("*.csv"))
        return pl.read_csv(texts, infer_schema=False) if texts else None


def _bag(frame: pl.DataFrame | None, columns: tuple[str, ...]) -> Bag:
    if frame is None:
        return Counter()
    return Counter(_texts(row) for row in frame.select(columns or frame.columns).rows())


def _texts(row: Iterable[object]) -> tuple[str, ...]:
    return tuple(f"{v:.3f}" if isinstance(v, Decimal | float) else str(v) for v in row)
