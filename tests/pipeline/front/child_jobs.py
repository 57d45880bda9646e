"""Jobs that the worker's tests run in children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import deltalake
import polars as pl


def run(request: bytes, send: Callable[[bytes], None]) -> bytes:
    task = json.loads(request)
    match task["do"]:
        case "echo":
            return json.dumps({"said": task.get("say"), "pid": os.getpid(), "parent": os.getppid()}).encode()
        case "warm":
            return os.environ.get("CHILD_JOBS_WARM", "").encode()
        case "count":
            for i in range(task["to"]):
                send(str(i).encode())
            return b"counted"
        case "raise":
            raise ValueError(task["text"])
        case "exit":
            os._exit(task["code"])
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "spend":
            return str(len(bytearray(task["bytes"]))).encode()
        case "pad":
            frame = pl.LazyFrame({"a": ["a"] * task["times"]}).select(pl.col("a").str.pad_start(task["length"], "x"))
            return str(frame.collect(engine="streaming").height).encode()
        case "first":
            return Path("/proc/self/oom_score_adj").read_bytes()
        case "hang":
            send(str(os.getpid()).encode())
            time.sleep(600)
        case "hang-in-native-code":
            send(str(os.getpid()).encode())
            pl.select(pl.int_range(0, 10**12).sum())
        case "scratch":
            folder = Path(tempfile.mkdtemp())
            send(str(folder).encode())
            return os.environ["POLARS_OOC_SPILL_DIR"].encode()
        case "polars":
            frame = pl.LazyFrame({"a": range(200_000)}).with_columns(b=pl.col("a") % 7)
            done = frame.group_by("b").agg(pl.col("a").sum()).sort("b").collect(engine="streaming")
            deltalake.write_deltalake(task["table"], done, mode="append")
            return str(done.height).encode()
        case "threads":
            return json.dumps([p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]).encode()
        case "grandparent":
            return subprocess.check_output([sys.executable, "-c", "print(1)"])
    return b""


def warm() -> None:
    """What is called once, before any child: leaves a trace that children see."""
    os.environ["CHILD_JOBS_WARM"] = str(os.getpid())
