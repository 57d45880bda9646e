"""The forkserver: a process that has everything imported and forks one child per job.

``python -m holdfast_pipeline.forking MODULE:FUNCTION FD SCRATCH [WARM]`` is started by :mod:`.worker`. A fresh
interpreter needs a second to import polars and deltalake; a fork of one that has needs about ten
milliseconds. It stays single-threaded and computes nothing itself (a fork copies only the thread that
calls it, so locks held by other threads would never be released).

Protocol, all integers big-endian. On socket FD it reads ``START job seconds`` with the job's own socket
attached, or ``KILL job 0``, and writes ``job wait-status`` when a child has ended. On its own socket a
child reads one frame (length, bytes), calls ``FUNCTION(request, send)`` and writes frames: what it sends
while it runs, and last what it returned. When FD is closed, the service is gone: children are killed,
scratch is removed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

Job = Callable[[bytes, Callable[[bytes], None]], bytes]

COMMAND = struct.Struct("!cId")
ENDED = struct.Struct("!Ii")
HEAD = struct.Struct("!cI")
LENGTH = struct.Struct("!I")
START, KILL = b"S", b"K"
SENT, RETURNED, RAISED = b"s", b"r", b"x"
MEMORY = "HOLDFAST_PIPELINE_STEP_MEMORY"
"""Environment: megabytes that a child may take; 0 or nothing: no limit."""
_PR_SET_PDEATHSIG = 1


class Forkserver:
    """Forks, kills and reaps children until the control socket is closed."""

    def __init__(self, job: Job, control: socket.socket, scratch: Path) -> None:
        self.job = job
        self.control = control
        self.scratch = scratch
        self.children: dict[int, int] = {}  # pid -> job
        self.wake, waker = socket.socketpair()
        self.wake.setblocking(False)
        waker.setblocking(False)
        self._waker = waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Ctrl-C reaches the whole process group; the service decides when running steps end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> None:
        """Run until the service closes its end. Then nothing of it may go on."""
        try:
            while True:
                ready, _, _ = select.select([self.control, self.wake], [], [])
                if self.wake in ready:
                    self.wake.recv(4096)
                    self._reap()
                if self.control in ready and not self._command():
                    return
        finally:
            for pid in self.children:
                os.kill(pid, signal.SIGKILL)
            for pid in self.children:
                os.waitpid(pid, 0)
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _command(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.control, COMMAND.size, 1)
        while data and len(data) < COMMAND.size:
            more = self.control.recv(COMMAND.size - len(data))
            data = data + more if more else b""
        if not data:
            return False
        what, job, seconds = COMMAND.unpack(data)
        if what == KILL:
            for pid, known in self.children.items():
                if known == job:
                    os.kill(pid, signal.SIGKILL)
        elif fds:
            self._fork(job, seconds, fds[0])
        return True

    def _fork(self, job: int, seconds: float, fd: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            # No memory or too many processes: the service sees the closed socket and a status of its own.
            os.close(fd)
            self.control.sendall(ENDED.pack(job, -1))
            return
        if pid == 0:
            self._child(job, seconds, fd, parent)
        os.close(fd)
        self.children[pid] = job

    def _child(self, job: int, seconds: float, fd: int, parent: int) -> None:
        """The child's whole life. Never returns: it must not run the parent's loop or clean-up."""
        code = 1
        try:
            _die_with(parent)
            _bounded()
            # The kernel ends the process at the deadline, whatever native code it is in by then.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self.control, self.wake, self._waker):
                inherited.close()
            scratch = self._scratch(job)
            scratch.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = os.environ["POLARS_OOC_SPILL_DIR"] = str(scratch)
            _run(self.job, socket.socket(fileno=fd))
            code = 0
        except BaseException:  # noqa: BLE001 - the process ends here; polars' panics are no Exception
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _scratch(self, job: int) -> Path:
        return self.scratch / str(job)

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            job = self.children.pop(pid)
            # polars leaves its spilled data behind when a process is killed.
            shutil.rmtree(self._scratch(job), ignore_errors=True)
            self.control.sendall(ENDED.pack(job, status))


def _run(job: Job, channel: socket.socket) -> None:
    """Read the request, do the job, write what comes of it."""

    def frame(kind: bytes, body: bytes) -> None:
        channel.sendall(HEAD.pack(kind, len(body)) + body)

    request = _exactly(channel, LENGTH.unpack(_exactly(channel, LENGTH.size))[0])
    try:
        answer = job(request, lambda body: frame(SENT, body))
    except BaseException as e:  # noqa: BLE001 - told to the service, which decides; panics are no Exception
        traceback.print_exc()
        frame(RAISED, f"{type(e).__name__}: {e}".encode(errors="replace"))
    else:
        frame(RETURNED, answer)


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = channel.recv(min(size - len(data), 1 << 20))
        if not more:
            raise EOFError("the service closed the job's socket")
        data += more
    return bytes(data)


def _die_with(parent: int) -> None:
    """Linux: end with the forkserver, should it be killed. Elsewhere the deadline ends what is left."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ChildProcessError("the forkserver ended before its child had begun")  # the kernel has no signal for that


def _bounded() -> None:
    """A step that takes all memory there is ends alone: it is the first that the kernel kills, before the service or
    anything else on the machine, and with a limit of its own it gets no further than that."""
    limit = int(os.environ.get(MEMORY) or 0) << 20
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(OSError):  # not on Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def main(target: str, fd: str, scratch: str, warm: str = "") -> None:
    """Import the job, call ``warm`` (a function named like the job) for what it loads, then serve."""
    # Importing polars starts a thread that only removes spilled files, which is done here by removing the
    # folder; Python 3.12 warns of any thread.
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    job: Job = _named(target)
    if warm:
        _named(warm)()
    gc.collect()
    gc.freeze()  # children share the imported objects' pages as long as nobody counts references on them
    Forkserver(job, socket.socket(fileno=int(fd)), Path(scratch)).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
