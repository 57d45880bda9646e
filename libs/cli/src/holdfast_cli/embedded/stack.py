"""The running system: servers first, then streams, then services; stopped in the opposite order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast_cli import connection
from holdfast_cli.exits import CommandError

from .processes import Process, State, spawn
from .programs import Layout, Program, plan

SERVERS_LIMIT = 60.0
SERVICES_LIMIT = 120.0  # each loads its libraries for seconds of one core, and a machine may be busy
TAIL = 12


def _nobody(_: Process) -> None:
    """Takes no notice of a change."""


class Stack:
    """All processes of one machine. Use as an async context manager."""

    def __init__(self, layout: Layout, changed: Callable[[Process], None] = _nobody) -> None:
        self.layout = layout
        self.plan = plan(layout)
        self.servers = [Process(p, changed) for p in (self.plan.nats, self.plan.redis)]
        self.services = [Process(p, changed) for p in self.plan.services]

    @property
    def processes(self) -> list[Process]:
        return [*self.servers, *self.services]

    def named(self, name: str) -> Process:
        """The process of a program."""
        return next(p for p in self.processes if p.program.name == name)

    async def start(self) -> None:
        """Start everything, in order; returns when every service is ready. Raises CommandError with the log's end."""
        for server in self.servers:
            server.start()
        await self._until_running(self.servers, SERVERS_LIMIT)
        await self._set_up()
        for service in self.services:
            service.start()
        connection.write(self.layout.state, self.plan.nats_url, os.getpid())
        await self._until_running(self.services, SERVICES_LIMIT)

    async def _until_running(self, processes: list[Process], limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                while missing := [p for p in processes if p.state is not State.RUNNING]:
                    if hopeless := next((p for p in missing if p.starts > 4), None):
                        raise _ended(hopeless.program, hopeless.last_exit)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            late = next(p for p in processes if p.state is not State.RUNNING)
            raise CommandError(
                f"{late.program.name} was not ready within {limit:.0f} s:\n{tail(late.program.log)}",
                hint=f"the whole log is {late.program.log}",
            ) from None

    async def _set_up(self) -> None:
        job = await spawn(self.plan.setup)
        code = await asyncio.wait_for(job.wait(), SERVERS_LIMIT)
        if code:
            raise _ended(self.plan.setup, code)

    async def stop(self) -> None:
        """Services first, so that they can put down what they hold; then the servers."""
        connection.forget(self.layout.state)
        await asyncio.gather(*(p.stop() for p in self.services))
        await asyncio.gather(*(p.stop() for p in self.servers))

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _ended(program: Program, code: int | None) -> CommandError:
    return CommandError(
        f"{program.name} ended with {code}:\n{tail(program.log)}", hint=f"the whole log is {program.log}"
    )


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log, indented."""
    if not log.exists():
        return "  (no output)"
    found = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"  | {line}" for line in found) or "  (no output)"
