"""Steps in child processes: what the service sends, what the child does with it, what comes back.

The child's side is :func:`run`, called by :mod:`.forking` in a process of its own; the service's side is
:class:`ChildSteps`. Errors keep their family, reason and places on the way.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from holdfast_model.errors import ErrorBody, HoldfastError, Temporary, from_body, to_body

from .engine import Engine
from .objects import ObjectPath
from .reasons import PipelineReason
from .stores import StoreRef
from .tasks import EngineSettings, PendingApproval, Progress, StageResult, StageTask

TARGET = f"{__name__}:run"
"""What the forkserver imports and calls."""

PROGRESS_EVERY = 0.2
"""Least seconds between two reports of progress from one step."""

log = logging.getLogger(__name__)


class Places(msgspec.Struct, frozen=True):
    """:class:`~.tasks.EngineSettings` as it travels."""

    warehouse: str
    roots: dict[str, list[str]]
    data: str | None
    settle: float
    stores: dict[str, tuple[StoreRef, ...]] = {}
    warehouse_store: StoreRef | None = None

    @classmethod
    def of(cls, settings: EngineSettings) -> Places:
        roots = {tenant: [str(f) for f in folders] for tenant, folders in settings.roots.items()}
        data = None if settings.data is None else str(settings.data)
        store = settings.warehouse.store if isinstance(settings.warehouse, ObjectPath) else None
        return cls(str(settings.warehouse), roots, data, settings.settle, dict(settings.stores), store)

    def settings(self) -> EngineSettings:
        roots: Mapping[str, tuple[Path, ...]] = {t: tuple(map(Path, f)) for t, f in self.roots.items()}
        data = None if self.data is None else Path(self.data)
        store = self.warehouse_store
        warehouse = Path(self.warehouse) if store is None else ObjectPath(store, store.prefix)
        return EngineSettings(warehouse, roots, data, self.settle, self.stores)


class Request(msgspec.Struct, frozen=True):
    places: Places
    task: StageTask
    provision: bool


_REQUEST = msgspec.json.Decoder(Request)


class Report(msgspec.Struct, frozen=True):
    """Progress of a running step."""

    done: float
    total: float | None
    unit: str
    text: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """``result`` is None for a deprovision."""

    result: StageResult | None = None


class Asked(msgspec.Struct, frozen=True, tag="asked"):
    plan: str
    summary: dict[str, object]
    pins: dict[str, object]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    error: ErrorBody
    reason: str = ""


class Steps(Protocol):
    """How the domain has its steps run."""

    async def provision(self, task: StageTask, seconds: float, progress: Progress) -> StageResult: ...

    async def deprovision(self, task: StageTask, seconds: float) -> None: ...


class Runs(Protocol):
    """Runs a request in a process of its own; see :meth:`.worker.Workers.run`."""

    async def run(
        self, request: bytes, seconds: float, on_sent: Callable[[bytes], None] = ..., graph: str = ...
    ) -> bytes: ...


class ChildSteps:
    """Each step in a child of its own. Raises what the engine raised; a child that is lost is a Temporary."""

    def __init__(self, workers: Runs, settings: EngineSettings) -> None:
        self._workers = workers
        self._places = Places.of(settings)
        self._decoder = msgspec.json.Decoder(Done | Asked | Failed)
        self._reports = msgspec.json.Decoder(Report)

    async def provision(self, task: StageTask, seconds: float, progress: Progress) -> StageResult:
        def on_sent(body: bytes) -> None:
            report = self._reports.decode(body)
            progress(report.done, report.total, report.unit, report.text)

        done = await self._run(Request(self._places, task, True), seconds, on_sent)
        if done.result is None:
            raise Temporary(f"the child of {task.node} answered without a result")
        return done.result

    async def deprovision(self, task: StageTask, seconds: float) -> None:
        await self._run(Request(self._places, task, False), seconds, lambda _: None)

    async def _run(self, request: Request, seconds: float, on_sent: Callable[[bytes], None]) -> Done:
        graph = f"{request.task.tenant}/{request.task.graph}"
        body = await self._workers.run(msgspec.json.encode(request), seconds, on_sent, graph)
        answer: Done | Asked | Failed = self._decoder.decode(body)
        if isinstance(answer, Asked):
            raise PendingApproval(answer.plan, answer.summary, answer.pins)
        if isinstance(answer, Failed):
            error = from_body(answer.error)
            error.reason = answer.reason
            raise error
        return answer


def run(request: bytes, send: Callable[[bytes], None]) -> bytes:
    """The child's side: one step, from a :class:`Request` to Done, Asked or Failed."""
    asked = _REQUEST.decode(request)
    engine = Engine(asked.places.settings(), time.time)
    try:
        if asked.provision:
            result = engine.provision(asked.task, _reporting(send))
            return msgspec.json.encode(Done(result))
        engine.deprovision(asked.task)
        return msgspec.json.encode(Done())
    except PendingApproval as e:
        return msgspec.json.encode(Asked(e.plan, e.summary, e.pins))
    except HoldfastError as e:
        return msgspec.json.encode(Failed(to_body(e), e.reason))
    except Exception as e:  # noqa: BLE001 - a bug of ours or of a library: logged here, told as an error
        traceback.print_exc()
        return msgspec.json.encode(Failed(to_body(Temporary(f"{type(e).__name__}: {e}")), PipelineReason.EXCEPTION))


def _reporting(send: Callable[[bytes], None]) -> Progress:
    """Progress that is sent at most every :data:`PROGRESS_EVERY` seconds; the first report at once."""
    last = -PROGRESS_EVERY

    def report(done: float, total: float | None, unit: str, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_EVERY or done == total:
            last = now
            send(msgspec.json.encode(Report(done, total, unit, text)))

    return report
