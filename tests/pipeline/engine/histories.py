"""Random histories of files, decisions and crashes: a world and an oracle, side by side.

Children are killed with SIGKILL at a counted call, so between any two effects of ours, or after some milliseconds, so
also within a write of the libraries.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from holdfast_model.errors import HoldfastError, Temporary
from holdfast_model.messages import Decision, Status
from holdfast_pipeline import specs
from holdfast_pipeline.maintenance import maintain
from holdfast_pipeline.objects import Location, ObjectPath
from holdfast_pipeline.tables import Table
from holdfast_pipeline.tasks import Context
from holdfast_testkit.objects import Bucket

from .conftest import World, ref, use
from .mortal import DONE, KILLED, LATER, Mortals
from .oracle import DECLARED, STYLES, Content, Gold, Oracle, Row

NAMES = ("a.csv", "b ü.csv", "c'%20#.csv", "d.csv", "e.csv", "f.csv")
FIELDS = tuple(specs.Field(n, t) for n, t in zip(DECLARED, ("int64", "decimal(12,2)", "string"), strict=True))
REGIONS = [{"DE": "Central", "FR": "West"}, {"DE": "Middle", "FR": "West", "ZZ": "Nowhere"}, {"\ufffdE": "Odd"}]
QUERY = "select region, sum(amount) as total, count(*) as orders from orders_valid group by region"
CHECKS = (
    specs.Check("order_id", "not_null"), specs.Check("amount", "not_null"), specs.Check("amount", "ge", 0),
)  # fmt: skip


class History:
    """One seed's world and oracle, side by side. ``lake``: where tables and targets are, in place of folders."""

    def __init__(self, seed: int, base: Path, mortals: Mortals, lake: Bucket | None = None) -> None:
        self.mortals = mortals
        self.rng = random.Random(seed)
        self.world = World(base / "w")
        self.lake = lake
        destination, self.longest = "out", 0.12
        if lake is not None:
            home, destination, self.longest = ref(lake, "ware ä #1"), f"s3://{lake.name}/acme/out", 0.5
            use(self.world, ref(lake, "acme"))
            self.world.settings = replace(self.world.settings, warehouse=ObjectPath(home, home.prefix))
        self.trace: list[str] = [f"HOLDFAST_PIPELINE_SEED={seed}"]
        keep = self.rng.choice(["first", "last"])
        self.oracle = Oracle(keep, Decimal(self.rng.choice(["0", "0.5", "0.9"])))
        contract = specs.Contract("orders-schema", fields=FIELDS)
        source = specs.Source("orders", "orders/*.csv", "csv")
        lookup = specs.Lookup(specs.Source("countries", "countries.csv", "csv"), ("country",))
        self.schema = specs.SchemaSpec(contract, ("orders-raw",))
        self.ingestion = specs.IngestionSpec(source, contract, self.rng.choice([1, 2, 1000]))
        self.validator = specs.ValidatorSpec(
            specs.Input("orders-geo", specs.ENRICHER), CHECKS, float(self.oracle.threshold)
        )
        kind = self.rng.choice(["csv", "parquet", "delta", "upsert"])
        self.oracle.upsert = kind == "upsert"
        totals = specs.Input("totals", specs.TRANSFORMER)
        self.sink = specs.SinkSpec(totals, destination, kind)  # type: ignore[arg-type]
        if self.oracle.upsert:
            self.sink = specs.SinkSpec(totals, destination, "delta", "upsert", keys=("region",))
        rules = (specs.Rule("trim"), specs.Rule("filter", "order_id > 0 or order_id is null"))
        once = specs.Deduplication(("order_id",), keep)  # type: ignore[arg-type]
        self.stages: list[tuple[str, specs.StageSpec]] = [
            ("orders-raw", self.ingestion),
            ("orders-clean", specs.CleanserSpec(
                specs.Input("orders-raw", specs.INGESTION), FIELDS, rules, {"country": "ZZ"}, deduplication=once)),
            ("orders-geo", specs.EnricherSpec(
                specs.Input("orders-clean", specs.CLEANSER), lookup, {"twice": "amount + amount"})),
            ("orders-valid", self.validator),
            ("totals", specs.TransformerSpec((specs.Input("orders-valid", specs.VALIDATOR),), QUERY)),
            ("report", self.sink),
        ]  # fmt: skip
        (self.world.data / "orders").mkdir()
        self.serial = 0
        self._regions()

    # What may happen

    def content(self) -> Content:
        """A file's content; each bears a number that no other has."""
        rng = self.rng
        self.serial += 1
        shape = rng.choice([*["good"] * 12, "empty", "renamed", "missing", "extra", "changed", "latin"])
        amounts = ("1.00", "0.10", "99999.99", " 7", "-5.00", "abc", "", "1.005")
        rows = [
            (
                rng.choice([str(rng.randint(-2, 30)), str(rng.randint(1, 30)), str(1000 + self.serial), "x", ""]),
                "n/a" if shape == "changed" else rng.choice(amounts),
                "ÖE" if shape == "latin" else rng.choice(["DE", "FR", "DE", " de ", "", "ü", "A,B", 'q"x', "2\nlines"]),
            )
            for _ in range(0 if shape == "empty" else rng.randint(1, 6))
        ]  # fmt: skip
        if rows:
            rows[0] = (str(1000 + self.serial), rows[0][1] if shape == "changed" else "2.50", rows[0][2])
        order = rng.sample(range(3), 3)
        header = tuple(DECLARED[i] for i in order)
        cells = [tuple(row[i] for i in order) for row in rows]
        if shape == "renamed":
            header = tuple("betrag" if n == "amount" else n for n in header)
        if shape == "missing":
            header, cells = header[:2], [row[:2] for row in cells]
        if shape == "extra":
            header, cells = (*header, "note"), [(*row, "z") for row in cells]
        style = rng.choice(STYLES) if shape != "latin" and rng.random() < 0.4 else "plain"
        return Content(header, tuple(cells), shape == "latin", style)

    def put(self, *, only_new: bool = False) -> None:
        names = [n for n in NAMES if not only_new or (n not in self.oracle.files and n not in self.oracle.landed)]
        if not names:
            return
        name, content = self.rng.choice(names), self.content()
        self.trace.append(f"put {name} {content}")
        self._write(name, content)

    def copy(self) -> None:
        if self.oracle.files:
            name = self.rng.choice(NAMES)
            content = self.rng.choice(list(self.oracle.files.values()))
            self.trace.append(f"copy to {name} {content}")
            self._write(name, content)

    def _write(self, name: str, content: Content) -> None:
        path = self.world.data / "orders" / name
        if self.rng.random() < 0.5:
            path.write_bytes(content.encoded())
        else:
            path.with_suffix(".part").write_bytes(content.encoded())
            path.with_suffix(".part").rename(path)
        self.oracle.files[name] = content

    def remove(self) -> None:
        if self.oracle.files:
            name = self.rng.choice(sorted(self.oracle.files))
            self.trace.append(f"remove {name}")
            (self.world.data / "orders" / name).unlink()
            del self.oracle.files[name]

    def rename(self) -> None:
        """Also over another file."""
        if self.oracle.files:
            old, new = self.rng.choice(sorted(self.oracle.files)), self.rng.choice(NAMES)
            if old != new:
                self.trace.append(f"rename {old} -> {new}")
                (self.world.data / "orders" / old).rename(self.world.data / "orders" / new)
                self.oracle.files[new] = self.oracle.files.pop(old)

    def touch(self) -> None:
        for name in sorted(self.oracle.files):
            self.trace.append(f"touch {name}")
            os.utime(self.world.data / "orders" / name)

    def _regions(self) -> None:
        self.oracle.regions = self.rng.choice(REGIONS)
        self.trace.append(f"countries {self.oracle.regions}")
        lines = [
            f"{c},{r}\n" for c, r in self.rng.sample(sorted(self.oracle.regions.items()), len(self.oracle.regions))
        ]
        self.world.put("countries.csv", "country,region\n" + "".join(lines))

    def burst(self) -> None:
        """Many files at once."""
        for _ in range(self.rng.randint(3, 8)):
            self.put()

    def disorder(self) -> None:
        """Steps come in any order, some more than once; what cannot be done yet is Temporary."""
        order = self.rng.choices(self.stages, k=self.rng.randint(2, 8))
        self.trace.append(f"disorder {[node for node, _ in order]}")
        for node, spec in order:
            self._step(node, spec)
        self.compare_tables()

    def shed(self) -> None:
        self.trace.append("maintenance")
        for node, spec in self.stages:
            maintain(
                Context(self.world.settings, self.world.task(node, spec), lambda: self.world.time), compact_every=1
            )

    # How it goes on

    def run(self) -> None:
        """Every stage in its order."""
        for node, spec in self.stages:
            self._step(node, spec)
        self.world.time += 60

    def _step(self, node: str, spec: specs.StageSpec) -> None:
        """One stage's step; it may be killed any number of times, and is then tried again."""
        task, ready = self.world.task(node, spec), self.oracle.can(node)
        while self.rng.random() < 0.25:
            calls = self.rng.choice([0, self.rng.randint(1, 60), self.rng.randint(1, 400)])
            seconds = 0.0 if calls else self.rng.uniform(0.001, self.longest)
            code = self.mortals.provision(self.world.settings, task, self.world.time, calls=calls, seconds=seconds)
            self.trace.append(f"{node} in a child, calls={calls} seconds={seconds:.3f}: {code}")
            assert code in (DONE, KILLED) or (code == LATER and not ready), self.told(f"{node}: {code}")
            if node == "orders-raw" and code == KILLED and self.rng.random() < 0.5:
                self.put(only_new=True)
        if not ready:
            with pytest.raises(Temporary):
                self.world.engine.provision(task)
            return
        for _ in range(self.rng.choice([1, 1, 1, 1, 2])):
            self.world.engine.provision(task)
        self.oracle.step(node)

    def decide(self) -> None:
        if self.oracle.held and self.rng.random() < 0.7:
            outcome = self.rng.choice(["accept", "reject"])
            data: dict[str, object] = {"rename": {"betrag": "amount"}} if outcome == "accept" else {}
            self.trace.append(f"files: {outcome}")
            self._decide("orders-schema", self.schema, Decision(outcome, "ann", data=data, at=self.world.time))
            self.oracle.decide_files(outcome)
        if self.oracle.judgement[2] and self.rng.random() < 0.7:
            outcome = self.rng.choice(["accept-rows", "drop-rows", "retry"])
            self.trace.append(f"rows: {outcome}")
            self._decide("orders-valid", self.validator, Decision(outcome, "ann", at=self.world.time))
            if outcome != "retry":
                self.oracle.decide_rows({"accept-rows": "accept", "drop-rows": "drop"}[outcome])
            self.oracle.publish()
        self.world.time += 60

    def _decide(self, node: str, spec: specs.StageSpec, decision: Decision) -> None:
        """Delivered in a child that may be killed, and again; and once more when it was done."""
        task = self.world.task(node, spec, decision=decision)
        if self.rng.random() < 0.5:
            calls = self.rng.randint(1, 300)
            code = self.mortals.provision(self.world.settings, task, self.world.time, calls=calls)
            self.trace.append(f"  decided in a child, calls={calls}: {code}")
            assert code in (DONE, KILLED), self.told(f"{node} failed with {code}")
        self.world.engine.provision(task)
        self.world.engine.provision(task)

    # Comparison

    def told(self, what: str) -> str:
        return "\n".join([what, *self.trace])

    def compare(self) -> None:
        """Every table, and what is observed of every stage, when all that can be done is done."""
        self.compare_tables()
        oracle, world = self.oracle, self.world
        seen = world.observe("orders-schema", self.schema)
        assert bool(seen.hold) == bool(oracle.held), self.told(f"the schema is {seen}")
        for node, spec in self.stages:
            status = world.observe(node, spec).status
            waits = node in ("orders-valid", "totals", "report") and oracle.judgement[2]
            assert status is Status.PRESENT or waits, self.told(f"{node} is {status}")

    def compare_tables(self) -> None:
        oracle = self.oracle
        shown = ("order_id", "amount", "country", "region", "twice", "_file", "_row")
        few = ("order_id", "amount", "country", "_file", "_row")
        self.same("bronze", "orders-raw", oracle.bronze if oracle.taken else None, few)
        self.same("silver", "orders-clean", oracle.tidy, few)
        self.same("silver", "orders-geo", oracle.wide, shown)
        self.same("silver", "orders-valid", oracle.published, shown)
        self.same("silver", "orders-valid__quarantine", oracle.judgement[1], (*shown, "_failed"))
        gold = self.frame("gold", "totals")
        found = {r: (t, n) for r, t, n in gold.select("region", "total", "orders").rows()} if gold is not None else None
        assert found == oracle.totals, self.told("gold")
        assert self.report() == oracle.target, self.told("report")

    def report(self) -> Gold | None:
        if Table.open(self.world.folder("gold", "report")) is None:
            return None
        if self.sink.format == "delta":
            table = Table.open(self._target())
            assert table is not None
            frame = table.scan().collect()
        else:
            content = (self._target() / f"report.{self.sink.format}").read_bytes()
            types = {"region": pl.String, "total": pl.Decimal(38, 2), "orders": pl.Int64}
            csv = self.sink.format == "csv"
            frame = pl.read_csv(content, schema=types) if csv else pl.read_parquet(content)
        return {r: (t, n) for r, t, n in frame.select("region", "total", "orders").rows()}

    def _target(self) -> Location:
        if self.lake is None:
            return self.world.data / "out" / "report"
        return ObjectPath(ref(self.lake, "acme"), ("acme", "out", "report"))

    def frame(self, layer: str, name: str) -> pl.DataFrame | None:
        table = Table.open(self.world.folder(layer, name))
        return None if table is None else table.scan().collect()

    def same(self, layer: str, name: str, rows: list[Row] | None, columns: tuple[str, ...]) -> None:
        def plain(value: object) -> object:
            if isinstance(value, set | list | pl.Series):
                return sorted(str(v) for v in value)
            return value

        def named(row: Row) -> Row:
            return {**row, "_file": f"orders/{row['_file']}"}

        frame = self.frame(layer, name)
        assert not (rows and frame is None), self.told(f"{layer}/{name} is not there")
        found = [tuple(plain(v) for v in row) for row in frame.select(columns).iter_rows()] if frame is not None else []
        wanted = [tuple(plain(named(row)[c]) for c in columns) for row in rows or []]
        assert sorted(found, key=str) == sorted(wanted, key=str), self.told(f"{layer}/{name}")

    def live(self, rounds: int) -> None:
        """Let things happen, decide what is asked, and compare everything, several times."""
        happens: list[tuple[Callable[[], None], int]] = [
            (self.put, 7), (self.burst, 1), (self.copy, 1), (self.remove, 2), (self.rename, 3), (self.touch, 1),
            (self._regions, 1), (self.disorder, 2), (self.shed, 1),
        ]  # fmt: skip
        try:
            for _ in range(rounds):
                for happening in self.rng.choices([h for h, _ in happens], [w for _, w in happens], k=2):
                    happening()
                    if happening in (self.remove, self.rename, self.copy):
                        self.run()
                self.run()
                self.compare()
                self.decide()
                self.run()
                self.compare()
        except HoldfastError as e:
            raise AssertionError(self.told(f"{type(e).__name__}: {e}")) from e
