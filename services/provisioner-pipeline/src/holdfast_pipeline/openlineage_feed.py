"""Steps told as OpenLineage run events (openlineage.io), to whatever backend the environment names.

An option: where to send is OpenLineage's own configuration (``OPENLINEAGE_URL``, ``OPENLINEAGE_API_KEY``,
``OPENLINEAGE_CONFIG`` and so on). Telling never delays or fails a step: events wait in a bounded queue, and what a
backend does not take within a few tries is dropped with a warning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    OutputDatasetFacet,
    RunFacet,
    dataset_version_dataset,
    error_message_run,
    output_statistics_output_dataset,
)

from holdfast_model.messages import Observation

from .specs import LAYERS, EnricherSpec, IngestionSpec, SinkSpec, StageSpec, table_inputs
from .tasks import StageTask

log = logging.getLogger(__name__)

PRODUCER = "https://openlineage.io/producers/holdfast-pipeline"
QUEUED = 1000
"""Events that may wait; more are dropped."""
TRIES, PAUSE = 3, 1.0
FAREWELL = 3.0
"""Seconds that what is queued gets when the service stops."""


class OpenLineageFeed:
    """Queues run events and sends them one by one. ``send`` blocks until the backend took an event, or raises."""

    def __init__(self, send: Callable[[RunEvent], object], pause: float = PAUSE) -> None:
        self._send = send
        self._pause = pause
        self._queue: asyncio.Queue[RunEvent] = asyncio.Queue(QUEUED)
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def from_environment(cls) -> OpenLineageFeed:
        """Sends to the backend that OpenLineage's own variables name. Raises what its client raises for wrong ones."""
        return cls(OpenLineageClient().emit)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="openlineage")

    async def stop(self) -> None:
        """Send what is queued, but not for long."""
        if self._task is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._queue.join()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def began(self, run: str, task: StageTask, spec: StageSpec) -> None:
        self._tell(_event(RunState.START, run, task, spec))

    def ended(self, run: str, task: StageTask, spec: StageSpec, seen: Observation | None, error: str = "") -> None:
        state = RunState.FAIL if error else RunState.COMPLETE
        self._tell(_event(state, run, task, spec, seen, error))

    def _tell(self, event: RunEvent) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("OpenLineage: %d events wait already; one about %s is dropped", QUEUED, event.job.name)

    async def _run(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._deliver(event)
            finally:
                self._queue.task_done()

    async def _deliver(self, event: RunEvent) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                await asyncio.to_thread(self._send, event)
            except Exception as e:  # noqa: BLE001 - any transport may be configured; none of its failures is ours
                if attempt == TRIES:
                    log.warning("OpenLineage: an event about %s is dropped: %s", event.job.name, e)
                    return
                await asyncio.sleep(self._pause * attempt)
            else:
                return


def _event(
    state: RunState, run: str, task: StageTask, spec: StageSpec, seen: Observation | None = None, error: str = ""
) -> RunEvent:
    facets: dict[str, RunFacet] = {}
    if error:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, "PYTHON", producer=PRODUCER)
    return RunEvent(
        eventTime=datetime.now(UTC).isoformat(),
        producer=PRODUCER,
        run=Run(run, facets),
        job=Job(namespace(task), task.node),
        eventType=state,
        inputs=_inputs(task, spec),
        outputs=[_output(task, spec, seen)],
    )


def namespace(task: StageTask) -> str:
    """Jobs and tables of one graph."""
    return f"holdfast://{task.tenant}/{task.graph}"


def _inputs(task: StageTask, spec: StageSpec) -> list[InputDataset]:
    found = [InputDataset(namespace(task), f"{LAYERS[i.type]}.{i.node}") for i in table_inputs(spec)]
    if isinstance(spec, IngestionSpec):
        found.append(_file(task, spec.source.uri))
    if isinstance(spec, EnricherSpec) and spec.lookup is not None:
        found.append(_file(task, spec.lookup.source.uri))
    return found


def _file(task: StageTask, uri: str) -> InputDataset:
    scheme, colon, rest = uri.partition("://")
    if colon and scheme != "file":
        bucket, _, path = rest.partition("/")
        return InputDataset(f"{scheme}://{bucket}", path)
    return InputDataset(f"file://{task.tenant}", rest if colon else uri)


def _output(task: StageTask, spec: StageSpec, seen: Observation | None) -> OutputDataset:
    facets: dict[str, DatasetFacet] = {}
    output: dict[str, OutputDatasetFacet] = {}
    if seen is not None and seen.token:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(seen.token, producer=PRODUCER)
    rows = (seen.info or {}).get("rows") if seen is not None else None
    if isinstance(rows, int):
        output["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=rows, producer=PRODUCER
        )
    if isinstance(spec, SinkSpec):
        return OutputDataset(f"file://{task.tenant}", f"{spec.destination}/{task.node}", output, facets=facets)
    return OutputDataset(namespace(task), f"{LAYERS[task.type]}.{task.node}", output, facets=facets)
