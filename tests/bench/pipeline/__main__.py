"""``python -m tests.bench.pipeline [ROWS]``: Bronze to Gold through the engine, beside plain polars and deltalake.

Both sides do the same work, each stage in a process of its own. Prints seconds, peak memory and the ratios.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import polars as pl
from arro3.core import RecordBatchReader
from arro3.core import Table as ArrowTable
from deltalake import write_deltalake

from holdfast_pipeline import specs
from holdfast_pipeline.engine import Engine, EngineSettings, StageTask

FILES = 10
SQL = "select region, sum(net) as net, count(*) as orders from {} group by region"
FIELDS = (
    specs.Field("order_id", "int64"),
    specs.Field("amount", "decimal(12,2)"),
    specs.Field("country", "string"),
)
STAGES: dict[str, specs.StageSpec] = {
    "raw": specs.IngestionSpec(specs.Source("orders", "orders/*.csv", "csv"), specs.Contract("s", fields=FIELDS)),
    "clean": specs.CleanserSpec(
        specs.Input("raw", specs.INGESTION),
        FIELDS,
        (specs.Rule("trim"), specs.Rule("filter", "order_id > 0")),
        deduplication=specs.Deduplication(("order_id",), "last"),
    ),
    "geo": specs.EnricherSpec(
        specs.Input("clean", specs.CLEANSER),
        specs.Lookup(specs.Source("countries", "countries.csv", "csv"), ("country",)),
        {"net": "amount * 0.8"},
    ),
    "valid": specs.ValidatorSpec(
        specs.Input("geo", specs.ENRICHER),
        (specs.Check("order_id", "not_null"), specs.Check("order_id", "unique"), specs.Check("amount", "ge", 0)),
        0.9,
    ),
    "gold": specs.TransformerSpec((specs.Input("valid", specs.VALIDATOR),), SQL.format("valid")),
    "report": specs.SinkSpec(specs.Input("gold", specs.TRANSFORMER), "out", "parquet"),
}
"""Stages by their ids, in order."""


def make(base: Path, rows: int) -> None:
    """Orders in ten files (one row in ten twice, one in a thousand bad), and a file of countries."""
    (base / "data/orders").mkdir(parents=True)
    names = ["DE", "FR", "IT", "ES", "PL", "NL", "BE", "AT"]
    regions = "".join(f"{c},{'West' if i % 2 else 'East'}\n" for i, c in enumerate(names))
    (base / "data/countries.csv").write_text(f"country,region\n{regions}")
    each = rows // FILES
    for number in range(FILES):
        at = pl.int_range(number * each, (number + 1) * each, eager=True)
        frame = pl.DataFrame({"at": at}).select(
            order_id=pl.when(pl.col("at") % 10 == 9).then(pl.col("at") - 1).otherwise(pl.col("at")) + 1,
            amount=pl.when(pl.col("at") % 1000 == 7).then(-1).otherwise(pl.col("at") % 100_000 / 100).round(2),
            country=pl.Series(names).gather(at % len(names)),
        )
        frame.write_csv(base / f"data/orders/{number}.csv")


def engine(base: Path) -> dict[str, Callable[[], object]]:
    """The stages as the service's children run them."""
    made = Engine(EngineSettings(base / "warehouse", {"t": (base / "data",)}, settle=0.0), time.time)
    types = {kind: name for name, kind in specs.SPEC_OF_TYPE.items()}

    def step(node: str, spec: specs.StageSpec) -> Callable[[], object]:
        raw = specs.encode_spec(spec)
        task = StageTask("t", "g", node, types[type(spec)], msgspec.Raw(raw), sha256(raw).hexdigest())
        return lambda: made.provision(task)

    return {node: step(node, spec) for node, spec in STAGES.items()}


def plain(base: Path) -> dict[str, Callable[[], object]]:
    """The same work as a person writes it: no lineage to speak of, no content keys, no quarantine of its own."""
    out = base / "plain"

    def write(name: str, frame: pl.LazyFrame) -> None:
        schema = ArrowTable.from_arrow(pl.DataFrame(schema=frame.collect_schema())).schema
        batches = (b for f in frame.collect_batches(chunk_size=131_072) for b in ArrowTable.from_arrow(f).to_batches())
        write_deltalake(str(out / name), RecordBatchReader.from_batches(schema, batches), mode="overwrite")

    def read(name: str) -> pl.LazyFrame:
        return pl.scan_delta(str(out / name))

    def raw() -> None:
        files = sorted((base / "data/orders").glob("*.csv"))
        write("raw", pl.scan_csv(files, infer_schema=False, include_file_paths="_file").with_row_index("_row"))

    def clean() -> None:
        typed = read("raw").with_columns(
            pl.col("order_id").str.strip_chars().cast(pl.Int64, strict=False),
            pl.col("amount").str.strip_chars().cast(pl.Decimal(12, 2), strict=False),
            pl.col("country").str.strip_chars(),
        )
        kept = typed.filter(pl.col("order_id") > 0).sort("_file", "_row")
        write("clean", kept.unique("order_id", keep="last", maintain_order=True))

    def geo() -> None:
        countries = pl.scan_csv(base / "data/countries.csv")
        write(
            "geo", read("clean").join(countries, on="country", how="left").with_columns(net=pl.sql_expr("amount * 0.8"))
        )

    def valid() -> None:
        rows = read("geo")
        twice = rows.group_by("order_id").len("copies").filter(pl.col("copies") > 1).collect(engine="streaming")
        ok = pl.col("order_id").is_not_null() & (pl.col("amount") >= 0).fill_null(True)
        judged = rows.join(twice.lazy(), on="order_id", how="left").with_columns(ok=ok & pl.col("copies").is_null())
        judged.group_by("_file").agg(pl.col("ok").mean()).collect(engine="streaming")
        write("bad", judged.filter(~pl.col("ok")))
        write("valid", judged.filter("ok"))

    def gold() -> None:
        with pl.SQLContext({"valid": read("valid")}, eager=False) as sql:
            write("gold", sql.execute(SQL.format("valid")))

    def report() -> None:
        read("gold").sink_parquet(out / "report.parquet")

    return {"raw": raw, "clean": clean, "geo": geo, "valid": valid, "gold": gold, "report": report}


def run(side: str, stage: str, base: Path) -> None:
    """One stage in this process; prints its seconds and peak memory."""
    step = {"engine": engine, "plain": plain}[side](base)[stage]
    started = time.perf_counter()
    step()
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps([took, peak]) + "\n")


def _measured(side: str, stage: str, base: Path) -> tuple[float, float]:
    argv = [sys.executable, "-m", "tests.bench.pipeline", side, stage, str(base)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=1800)
    took, peak = json.loads(done.stdout.splitlines()[-1])
    return float(took), float(peak)


def main(rows: int) -> None:
    """Measure both sides stage by stage and print the table."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        base = Path(folder)
        make(base, rows)
        sys.stdout.write(f"{rows:,} rows in {FILES} files, Bronze to Gold\n")
        sys.stdout.write(
            f"{'stage':8}{'engine s':>10}{'plain s':>10}{'ratio':>8}{'engine MB':>12}{'plain MB':>10}{'ratio':>8}\n"
        )
        totals, peaks = [0.0, 0.0], [0.0, 0.0]
        for stage in STAGES:
            (ours, memory), (theirs, least) = _measured("engine", stage, base), _measured("plain", stage, base)
            totals, peaks = [totals[0] + ours, totals[1] + theirs], [max(peaks[0], memory), max(peaks[1], least)]
            _line(stage, ours, theirs, memory, least)
        _line("all", *totals, *peaks)


def _line(name: str, ours: float, theirs: float, memory: float, least: float) -> None:
    times = f"{name:8}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}"
    sys.stdout.write(f"{times}{memory:12.0f}{least:10.0f}{memory / least:8.2f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) == 4:
        run(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
