"""One child process per job: started by a fork in about ten milliseconds, ended at its deadline, never a
zombie.

The service's side of :mod:`.forking`. A child that crashes, is killed or runs out of time is a Temporary; the
forkserver is started again when it is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

from holdfast_model.errors import Temporary

from .forking import COMMAND, ENDED, HEAD, KILL, LENGTH, RAISED, RETURNED, START
from .sharing import Slots

log = logging.getLogger(__name__)

MAX_FRAME = 64 * 1024 * 1024
CLOSE_LIMIT = 5.0
"""Seconds in which the forkserver must end after its socket is closed."""


class Workers:
    """Runs ``target`` (``module:function``, see :mod:`.forking`) in children, ``limit`` of them at a time. ``warm``: a
    function that is called once before, for what it loads."""

    def __init__(
        self,
        target: str,
        *,
        limit: int,
        scratch: Path | None = None,
        env: Mapping[str, str] | None = None,
        warm: str = "",
    ) -> None:
        self._target = [target, warm]
        self._slots = Slots(limit, time.monotonic)
        self._base = scratch
        self._env = dict(env or {})
        self._jobs = itertools.count(1)
        self._server: _Server | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Workers:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the forkserver ahead of the first job; it imports while others connect."""
        await self._alive()

    async def close(self) -> None:
        """Kill what runs, end the forkserver, remove its scratch folder."""
        self._closed = True
        if self._server is not None:
            await self._server.close()
            self._server = None

    async def run(
        self, request: bytes, seconds: float, on_sent: Callable[[bytes], None] = lambda _: None, graph: str = ""
    ) -> bytes:
        """What the job returns. ``on_sent`` gets what it sends meanwhile, in order. ``graph``: who shares with others.

        Raises Temporary when the child crashed, raised, or was still running after ``seconds`` (waiting for a
        free slot included). Cancelling kills the child.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._slots.slot(graph, deadline))
            except TimeoutError:
                raise Temporary(f"no process became free within {seconds:g} s") from None
            server = await self._alive()
            return await server.run(next(self._jobs), request, deadline - loop.time(), on_sent)

    async def _alive(self) -> _Server:
        async with self._starting:
            if self._closed:
                raise Temporary("the service is stopping")
            if self._server is None or self._server.gone:
                if self._server is not None:
                    log.warning("the forkserver ended by itself; starting another")
                    await self._server.close()
                self._server = await asyncio.to_thread(_Server.start, self._target, self._base, self._env)
                self._server.listen()
            return self._server


class _Server:
    """One forkserver process and the jobs it runs."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, scratch: Path) -> None:
        self.process = process
        self.control = control
        self.scratch = scratch
        self.gone = False
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._buffer = bytearray()

    @classmethod
    def start(cls, target: Sequence[str], base: Path | None, env: Mapping[str, str]) -> _Server:
        scratch = Path(tempfile.mkdtemp(prefix="holdfast-steps-", dir=base))
        ours, theirs = socket.socketpair()
        with theirs:
            job, warm = target
            command = [sys.executable, "-m", "holdfast_pipeline.forking", job, str(theirs.fileno()), str(scratch), warm]
            process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, **env}
            )
        ours.setblocking(False)
        return cls(process, ours, scratch)

    def listen(self) -> None:
        asyncio.get_running_loop().add_reader(self.control.fileno(), self._read)

    async def run(self, job: int, request: bytes, seconds: float, on_sent: Callable[[bytes], None]) -> bytes:
        ours, theirs = socket.socketpair()
        ended = asyncio.get_running_loop().create_future()
        self._ended[job] = ended
        try:
            with theirs:
                self._send(COMMAND.pack(START, job, seconds), theirs)
            reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_FRAME)
            try:
                writer.write(LENGTH.pack(len(request)) + request)
                answer = await _answer(reader, on_sent)
            finally:
                writer.close()
            if answer is None:
                raise Temporary(_cause(await ended, seconds))
            return answer
        finally:
            if not ended.done():
                # Whoever hears that a step is over may rely on it: no child of it is left.
                self._send(COMMAND.pack(KILL, job, 0.0), None)
                await asyncio.wait({ended}, timeout=CLOSE_LIMIT)
            self._ended.pop(job, None)

    async def close(self) -> None:
        """Closing the socket tells the forkserver to end; it is killed if it does not."""
        self._lost()
        self.control.close()
        try:
            await asyncio.to_thread(self.process.wait, CLOSE_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        await asyncio.to_thread(shutil.rmtree, self.scratch, ignore_errors=True)

    def _send(self, message: bytes, attached: socket.socket | None) -> None:
        try:
            if attached is None:
                self.control.send(message)
            else:
                socket.send_fds(self.control, [message], [attached.fileno()])
        except OSError as e:
            if attached is not None:
                raise Temporary(f"the forkserver does not answer: {e}") from e
            log.warning("a child could not be told to end; its deadline ends it", exc_info=e)

    def _read(self) -> None:
        try:
            data = self.control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._buffer += data
        while len(self._buffer) >= ENDED.size:
            job, status = ENDED.unpack_from(self._buffer)
            del self._buffer[: ENDED.size]
            self._settle(job, status)

    def _lost(self) -> None:
        if not self.gone:
            self.gone = True
            asyncio.get_running_loop().remove_reader(self.control.fileno())
        for job in list(self._ended):
            self._settle(job, -1)

    def _settle(self, job: int, status: int) -> None:
        waiting = self._ended.get(job)
        if waiting is not None and not waiting.done():
            waiting.set_result(status)


async def _answer(reader: asyncio.StreamReader, on_sent: Callable[[bytes], None]) -> bytes | None:
    """The job's result; None when the child ended without one."""
    while True:
        try:
            kind, size = HEAD.unpack(await reader.readexactly(HEAD.size))
            body = await reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        if kind == RETURNED:
            return body
        if kind == RAISED:
            raise Temporary(body.decode(errors="replace"))
        on_sent(body)


def _cause(status: int, seconds: float) -> str:
    """Why a child left without an answer, for people."""
    if status == -1:
        return "the process of this step could not be started, or the service lost it"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGALRM:
            return f"the step did not finish within {seconds:.3g} s and was ended"
        hint = " (out of memory?)" if number in (signal.SIGKILL, signal.SIGABRT) else ""
        return f"the process of this step was killed by {signal.Signals(number).name}{hint}"
    return f"the process of this step ended with exit code {os.waitstatus_to_exitcode(status)}"
