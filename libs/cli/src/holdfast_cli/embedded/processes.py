"""Keeping processes running: start, readiness, restart with growing pauses, orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum

from .programs import Program

STOP_LIMIT = 12.0
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
STEADY = 30.0
PROBE = 0.05
_PR_SET_PDEATHSIG = 1


class State(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class Process:
    """One program that is started again whenever it ends, until :meth:`stop`."""

    def __init__(self, program: Program, changed: Callable[[Process], None]) -> None:
        self.program = program
        self.state = State.WAITING
        self.starts = 0
        self.last_exit: int | None = None
        self._changed = changed
        self._child: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._child.pid if self._child is not None else 0

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.program.name}")

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        quick = 0
        while True:
            began = loop.time()
            self._child = await spawn(self.program)
            self.starts += 1
            self._set(State.STARTING)
            ready = asyncio.create_task(self._ready())
            try:
                self.last_exit = await self._child.wait()
            finally:
                ready.cancel()
            self._set(State.RESTARTING)
            quick = 0 if loop.time() - began > STEADY else quick + 1
            await asyncio.sleep(PAUSES[min(quick, len(PAUSES) - 1)])

    async def _ready(self) -> None:
        await until_it_answers(self.program)
        self._set(State.RUNNING)

    def _set(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._changed(self)

    def kill(self) -> None:
        """End the process as a crash would; it is started again."""
        if self._child is not None and self._child.returncode is None:
            self._child.kill()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if it takes too long."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        child = self._child
        if child is not None and child.returncode is None:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), STOP_LIMIT)
            except TimeoutError:
                child.kill()
                await child.wait()
        self._set(State.STOPPED)


async def spawn(program: Program) -> asyncio.subprocess.Process:
    """Start a program in its own process group (Ctrl-C is for us alone); its output goes to its log."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with program.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *program.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **program.environment},
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Linux: have the kernel end the child when its parent is killed, so that nothing is left behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def until_it_answers(program: Program) -> None:
    """Ask the program's health address until it answers 200; the caller sets the limit."""
    while True:
        if await answers(program):
            return
        await asyncio.sleep(PROBE)


async def answers(program: Program) -> bool:
    """True when the program's health address answers 200 (or it has none)."""
    if not program.health_port:
        return True
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", program.health_port)
            try:
                writer.write(
                    f"GET {program.health_path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
                )
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in line
