"""Whatever happens to the files, every table holds what a few lines of plain Python say it must."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_model.messages import Status

from .conftest import Shop, World

Rows: TypeAlias = list[tuple[str, str, str]]
Files: TypeAlias = dict[str, Rows]

NAMES = ("a", "b ü", "c'%20")
_ids = st.integers(-3, 12).map(str)
_amounts = st.sampled_from(["1.00", "0.10", "99999.99", "-5.00", ""])
_rows = st.lists(st.tuples(_ids, _amounts, st.sampled_from(["DE", "FR", " de ", ""])), max_size=6)
_step: st.SearchStrategy[tuple[str, str, Rows]] = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), _rows),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just([])),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.just([])),
)


def _naive(files: list[Rows]) -> dict[str, tuple[Decimal, int]]:
    rows = []
    for content in files:
        for order, amount, country in content:
            try:
                rows.append((int(order), Decimal(amount.strip()), country.strip()))
            except ArithmeticError:
                continue
    copies: dict[int, int] = defaultdict(int)
    for content in files:
        for order, _, _ in content:
            copies[int(order)] += 1
    regions = {"DE": "Central", "FR": "West"}
    totals: dict[str, tuple[Decimal, int]] = {}
    for number, money, country in rows:
        if money >= 0 and copies[number] == 1:
            net, count = totals.get(str(regions.get(country)), (Decimal(0), 0))
            totals[str(regions.get(country))] = (net + money * Decimal("0.8"), count + 1)
    return totals


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_step, min_size=1, max_size=5), st.integers(1, 3))
def test_gold_is_what_plain_python_computes(steps: list[tuple[str, str, Rows]], batch: int) -> None:
    base = Path(tempfile.mkdtemp())
    world = World(base / "w")
    shop = Shop(quality_threshold=0.0, batch_size=batch)
    world.put("countries.csv", "country,region\nDE,Central\nFR,West\n")
    (world.data / "orders").mkdir()
    files: Files = {}
    gone: Files = {}
    try:
        for number, (what, name, rows) in enumerate(steps):
            path = world.data / "orders" / f"{name}.csv"
            if what == "write":
                with open(path, "w", newline="") as f:
                    csv.writer(f).writerows([("order_id", "amount", "country"), *rows])
                if name not in files and name not in gone:
                    _take_over(gone, rows)
                gone.pop(name, None)
                files[name] = rows
            elif name in files and what == "remove":
                path.unlink()  # its rows stay
                gone[name] = files.pop(name)
            elif files.get(name):
                path.rename(path.with_name(f"moved{number}.csv"))
                files[f"moved{number}"] = files.pop(name)
            shop.run(world)
        found = {str(r): (n, c) for r, n, c in world.rows("gold", "by-region", "region", "net", "orders")}
        assert found == _naive([*files.values(), *gone.values()])
        assert all(world.observe(n, s).status is Status.PRESENT for n, s in shop.all())
    finally:
        shutil.rmtree(base)


def _take_over(gone: Files, rows: Rows) -> None:
    """A new file with the content of a removed one is that file under a new name."""
    same = next((name for name, content in gone.items() if content and content == rows), None)
    if same is not None:
        del gone[same]
