"""The whole system as processes on given servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import nats

from holdfast_bus import StreamSettings
from holdfast_bus.setup import ensure

from .processes import ServiceProcess
from .waiting import LIMIT, STARTING

SERVICES: Mapping[str, str] = {
    "fault-policy": "holdfast_fault_policy",
    "work-items": "holdfast_work_items",
    "pipeline": "holdfast_pipeline",
}
MIB = 1024 * 1024


class System:
    """Set-up job, planners and the named services. ``env`` goes to all of them, ``env_of`` to one by name.

    As an async context manager it starts everything, stops it in the end, and prints the logs if the test failed.
    """

    def __init__(
        self,
        nats_url: str,
        redis_url: str,
        *,
        planners: int = 1,
        services: Iterable[str] = tuple(SERVICES),
        modules: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        env_of: Mapping[str, Mapping[str, str]] | None = None,
        streams: StreamSettings | None = None,
    ) -> None:
        known = dict(SERVICES) | dict(modules or {})
        self.nats_url = nats_url
        self.redis_url = redis_url
        self._streams = streams or StreamSettings(max_bytes=128 * MIB)
        common = {
            "HOLDFAST_NATS_URL": nats_url,
            "HOLDFAST_REDIS_URL": redis_url,
            "HOLDFAST_STREAM_MAX_BYTES": str(self._streams.max_bytes),
            **(env or {}),
        }
        self.processes: dict[str, ServiceProcess] = {}
        for number in range(planners):
            name = f"planner-{number}"
            self.processes[name] = ServiceProcess(
                "holdfast_planner", common | dict((env_of or {}).get(name, {})), name=name
            )
        for name in services:
            self.processes[name] = ServiceProcess(known[name], common | dict((env_of or {}).get(name, {})), name=name)

    def __getitem__(self, name: str) -> ServiceProcess:
        return self.processes[name]

    @property
    def planners(self) -> Sequence[ServiceProcess]:
        return [process for name, process in self.processes.items() if name.startswith("planner-")]

    async def start(self, within: float = STARTING) -> None:
        """Run the set-up job and start everything; returns when all are ready."""
        client = await nats.connect(self.nats_url)
        try:
            await ensure(client.jetstream(timeout=LIMIT), self._streams)
        finally:
            await client.close()
        await asyncio.gather(*(p.start(within=within) for p in self.processes.values()))

    async def stop(self) -> None:
        """End everything in order."""
        await asyncio.gather(*(p.stop() for p in self.processes.values()))

    def report(self, lines: int = 80) -> str:
        """The last lines of every log."""
        return "\n".join(f"--- {name}\n{p.tail(lines)}" for name, p in self.processes.items())

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            print(self.report())
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is not None:
            print(self.report())
        for process in self.processes.values():
            process.discard()
