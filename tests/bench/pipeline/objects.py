"""Many small objects of a store that is some way off, fetched a few at a time, beside one after another."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from tests.bench.quick import Figure

from holdfast_pipeline import abreast, specs, steps
from holdfast_pipeline.engine import EngineSettings, StageTask
from holdfast_pipeline.objects import WARM
from holdfast_pipeline.stores import StoreRef
from holdfast_pipeline.tables import Table
from holdfast_pipeline.worker import Workers
from holdfast_testkit.objects import KEY, SECRET, Bucket, S3Server
from holdfast_testkit.proxy import TcpProxy

TARGET = f"{__name__}:run"
WAY = 0.02
"""Seconds that an answer of the store is under way."""
ROWS = 100
LIMIT = 900.0
MARK = 0.5


class Job(msgspec.Struct):
    """``step``: as the service sends it. ``at_once``: objects under way at a time."""

    step: msgspec.Raw
    at_once: int


def run(request: bytes, send: Callable[[bytes], None]) -> bytes:
    """The child's side."""
    job = msgspec.json.decode(request, type=Job)
    abreast.AT_ONCE = job.at_once
    answer = steps.run(bytes(job.step), send)
    msgspec.json.decode(answer, type=steps.Done)  # anything else raises
    return answer


async def measure(base: Path, objects: int, runs: int) -> list[Figure]:
    """The same objects to Bronze, ``runs`` times each way, in turn."""
    server = S3Server()
    try:
        bucket = _filled(server, objects)
        async with TcpProxy(server.url) as way:
            way.delay = WAY
            return await _both_ways(base, bucket.store() | {"endpoint": way.url}, objects, runs)
    finally:
        server.stop()


def _filled(server: S3Server, objects: int) -> Bucket:
    bucket = server.bucket("bench")
    for number in range(objects):
        rows = "".join(f"{number * ROWS + i},{i}.50,DE\n" for i in range(ROWS))
        bucket.put(f"orders/{number:05}.csv", f"order_id,amount,country\n{rows}")
    return bucket


def _with_credentials(base: Path, store: dict[str, Any]) -> dict[str, Any]:
    """The setting of a store whose credentials are in files: what is in variables now, the forkserver's are older."""
    base.mkdir(parents=True)
    for name, secret in (("key", KEY), ("secret", SECRET)):
        (base / name).write_text(secret)
    return store | {name: f"file:{base / name}" for name in ("key", "secret")}


async def _both_ways(base: Path, store: dict[str, Any], objects: int, runs: int) -> list[Figure]:
    store = _with_credentials(base, store)
    settings = EngineSettings(base / "tables", {}, settle=0.0, stores={"t": (msgspec.convert(store, StoreRef),)})
    times: dict[int, list[float]] = {abreast.AT_ONCE: [], 1: []}
    async with Workers(TARGET, limit=1, scratch=base, warm=WARM) as workers:
        for _ in range(runs):
            for at_once, taken in times.items():
                shutil.rmtree(base / "tables", ignore_errors=True)
                body = msgspec.json.encode(Job(msgspec.Raw(_step(settings)), at_once))
                began = time.perf_counter()
                await workers.run(body, LIMIT)
                taken.append(time.perf_counter() - began)
                _assert_whole(base, objects)
    several, alone = (statistics.median(taken) for taken in times.values())
    return [
        Figure(f"{objects:,} objects {WAY * 1000:.0f} ms away, beside one by one", several / alone, "x", MARK),
        Figure(f"  {abreast.AT_ONCE} at a time", several * 1000, "ms"),
        Figure("  one by one", alone * 1000, "ms"),
    ]


def _step(settings: EngineSettings) -> bytes:
    raw = specs.encode_spec(specs.IngestionSpec(specs.Source("orders", "s3://bench/orders/*.csv", "csv")))
    task = StageTask("t", "g", "raw", specs.INGESTION, msgspec.Raw(raw), sha256(raw).hexdigest())
    return msgspec.json.encode(steps.Request(steps.Places.of(settings), task, True))


def _assert_whole(base: Path, objects: int) -> None:
    table = Table.open(base / "tables/t/g/bronze/raw")
    if table is None or table.rows() != objects * ROWS:
        raise AssertionError(f"rows are missing or double: {table.rows() if table else 'no table'}")
