"""Files with random damage: rows, row errors or a file that is held; never a crash, and never a good file lost with it.

``HOLDFAST_PIPELINE_MUTATIONS`` says how many are tried (default 80), ``HOLDFAST_PIPELINE_START`` with which they begin.
"""

from __future__ import annotations

import gzip
import io
import os
import random
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from holdfast_model.messages import Status
from holdfast_pipeline import specs

from .conftest import World

_START = int(os.environ.get("HOLDFAST_PIPELINE_START", "0"))
_MUTATIONS = int(os.environ.get("HOLDFAST_PIPELINE_MUTATIONS", "80"))
GROUP = 20
CSV = b'id,name,v\n1,"a ""b"" c",2.5\n2,"x\ny",3\n3,2024-03-31T02:30:00,\n' * 5
NDJSON = b'{"id":1,"v":[1,{"c":null}]}\n{"id":"x\\u00e9","name":1.5e3}\n' * 5
BITS = (
    b'"', b"\n", b"\r", b"\x00", b"\xff", b",", b'""', b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"}", b"[", b"\\u0000",
    b"1e999", b"9" * 400, b"\x1a", b"\xf0\x9f\x98\x80", b"sep=;\n", b"_row", b"\x1f\x8b", b"-0001-01-01", b"NaN",
)  # fmt: skip


def _parquet(compression: str) -> bytes:
    made = io.BytesIO()
    frame = pl.DataFrame({"id": [1, 2, 3] * 20, "name": ["x", "y", None] * 20, "v": [1.5] * 60})
    frame = frame.with_columns(at=pl.lit(datetime(2024, 1, 1)), many=pl.concat_list("id", "id"))
    frame.write_parquet(made, compression=compression)  # type: ignore[arg-type]
    return made.getvalue()


WHOLE: list[tuple[str, bytes, dict[str, object]]] = [
    ("csv", CSV, {}),
    ("csv", gzip.compress(CSV, mtime=0), {}),
    ("csv", CSV.decode().encode("utf-16"), {"encoding": "utf-16"}),
    ("csv", CSV, {"has_header": False}),
    ("csv", CSV.replace(b",", b";"), {"separator": ";", "quote_char": "'"}),
    ("ndjson", NDJSON, {}),
    ("ndjson", gzip.compress(NDJSON, mtime=0), {}),
    ("json", b'[{"id":1},{"name":"x","v":{"a":[1]}}]', {}),
    ("parquet", _parquet("zstd"), {}),
    ("parquet", _parquet("snappy"), {}),
    ("parquet", _parquet("uncompressed"), {}),
]


def _mutated(rng: random.Random, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        at, other = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
        match rng.choice(["byte", "bit", "put", "cut", "again", "end"]):
            case "byte" if content:
                content[at - 1] = rng.randrange(256)
            case "bit" if content:
                content[at - 1] ^= 1 << rng.randrange(8)
            case "put":
                content[at:at] = rng.choice(BITS)
            case "cut":
                del content[at : at + rng.randrange(1, 20)]
            case "again":
                content[at:at] = content[min(at, other) : max(at, other)]
            case "end":
                del content[at:]
    return bytes(content)


@pytest.mark.parametrize("first", range(_START, _START + _MUTATIONS, GROUP))
def test_damage_is_taken_as_it_is_or_held_and_good_files_land(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + GROUP):
        rng = random.Random(seed)
        kind, whole, options = rng.choice(WHOLE)
        world = World(tmp_path / str(seed))
        world.put("in/a", whole)
        world.put("in/b", _mutated(rng, whole))
        spec = specs.IngestionSpec(specs.Source("in", "in/*", kind, options))  # type: ignore[arg-type]

        found = world.provision("raw", spec).observation

        said = f"{seed} {kind} {options}: {found}"
        held = found.status is Status.DRIFTED and found.reason == "unreadable" and "in/b: " in found.detail
        assert held or found.status is Status.PRESENT, said
        rows = world.frame("bronze", "raw")
        assert rows.filter(pl.col("_file") == "in/a").height > 0, said
        assert rows.filter(pl.col("_file") == "in/b").is_empty() or not held, said
        assert world.observe("raw", spec).status is found.status, said
        names = [n for n in ("id", "v", "name") if n in rows.columns]
        kinds = dict(zip(("id", "v", "name"), ("int64", "decimal(12,2)", "timestamp"), strict=True))
        fields = tuple(specs.Field(n, kinds[n], tz="Europe/Berlin" if n == "name" else "") for n in names)
        world.provision("clean", specs.CleanserSpec(specs.Input("raw", specs.INGESTION), fields, (specs.Rule("trim"),)))
        assert world.table("silver", "clean").rows() == rows.height, said
