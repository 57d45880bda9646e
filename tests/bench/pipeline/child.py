"""Steps of both sides, each in a child of the service's own forkserver, measured from the question to the answer."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from holdfast_pipeline import steps
from holdfast_pipeline.worker import Workers

from . import plain, stages

TARGET = f"{__name__}:run"
LIMIT = 900.0


class Job(msgspec.Struct):
    """``side``: ours or plain. ``out``: folder of its tables."""

    side: str
    stage: str
    base: str
    out: str


class Cost(msgspec.Struct):
    """Seconds from asking to the answer, seconds of processors, and peak memory in MB."""

    wall: float
    processor: float
    memory: float


def run(request: bytes, send: Callable[[bytes], None]) -> bytes:
    """The child's side: do it, and say what it used."""
    job = msgspec.json.decode(request, type=Job)
    base, out = Path(job.base), Path(job.out)
    if job.side == "ours":
        answer = steps.run(stages.request(job.stage, base, out), send)
        msgspec.json.decode(answer, type=steps.Done)  # anything else raises
    else:
        plain.STEPS[job.stage](base, out)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return msgspec.json.encode(Cost(0.0, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))


async def measured(workers: Workers, side: str, stage: str, base: Path, out: Path) -> Cost:
    """One step in a child of its own."""
    began = time.perf_counter()
    answer = await workers.run(msgspec.json.encode(Job(side, stage, str(base), str(out))), LIMIT)
    return msgspec.structs.replace(msgspec.json.decode(answer, type=Cost), wall=time.perf_counter() - began)


def median(costs: Sequence[Cost]) -> Cost:
    """Each figure's median."""
    return Cost(*(statistics.median(getattr(c, f) for c in costs) for f in ("wall", "processor", "memory")))
