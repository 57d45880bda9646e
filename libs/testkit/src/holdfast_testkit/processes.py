"""Services as processes: started, watched, killed and started again, as an orchestrator would."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from .waiting import LIMIT, STARTING

_LISTENING = re.compile(r"listening on (http://\S+?:\d+)[\s\"]")  # the whole of it: a line may be half written


class ServiceProcess:
    """``python -m <module>`` with its own environment. Restarting keeps the log in one file."""

    def __init__(self, module: str, env: Mapping[str, str] | None = None, *, name: str = "") -> None:
        self.module = module
        self.name = name or module
        self.env = dict(env or {})
        self.returncode: int | None = None
        file, path = tempfile.mkstemp(prefix=f"{self.name}-", suffix=".log")
        os.close(file)
        self._log = Path(path)
        self._from = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def logs(self) -> str:
        """Everything it has written, over all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def url(self) -> str:
        """Where this life serves /healthz; "" until it says so."""
        found = _LISTENING.search(self.logs[self._from :])
        return found[1] if found else ""

    async def start(self, *, within: float | None = STARTING) -> None:
        """Start and wait until it is ready (``within`` None: do not wait)."""
        if self.running:
            return
        self._from = len(self.logs)
        env = os.environ | {"PYTHONUNBUFFERED": "1", "HOLDFAST_HEALTH_PORT": "0"} | self.env
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self.module, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=env
            )
        if within is not None:
            await self.ready(within=within)

    async def ready(self, within: float = STARTING) -> None:
        """Wait until /readyz says so. Raises AssertionError with the log if it does not, or if the process ends."""
        deadline = asyncio.get_running_loop().time() + within
        answer = "no answer"
        while True:
            if self.url:
                status, answer = await asyncio.to_thread(get, self.url + "/readyz")
                if status == 200:
                    return
            if not self.running:
                await self._ended()
                raise AssertionError(f"{self.name} ended with {self.returncode}:\n{self.tail()}")
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"{self.name} not ready within {within} s: {answer}\n{self.tail()}")
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """End it as a crash or the kernel would (SIGKILL)."""
        await self._signal(signal.SIGKILL, 5.0)

    async def stop(self, within: float = LIMIT) -> int:
        """SIGTERM, then SIGKILL after ``within`` seconds; the exit code."""
        await self._signal(signal.SIGTERM, within)
        return self.returncode if self.returncode is not None else -1

    async def restart(self, *, kill: bool = False, within: float = STARTING) -> None:
        """End it and start it again."""
        await (self.kill() if kill else self.stop())
        await self.start(within=within)

    def pause(self) -> None:
        """Freeze it (SIGSTOP), as a long pause of its machine would."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def ended(self, within: float = LIMIT) -> int:
        """Wait until it ends by itself; the exit code."""
        async with asyncio.timeout(within):
            await self._ended()
        return self.returncode if self.returncode is not None else -1

    def tail(self, lines: int = 60) -> str:
        """The last lines of its log."""
        return "\n".join(self.logs.splitlines()[-lines:])

    def discard(self) -> None:
        """Remove the log."""
        self._log.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is not None:
            print(f"--- {self.name}\n{self.tail()}")
        self.discard()

    async def _signal(self, number: signal.Signals, within: float) -> None:
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(number)
        try:
            async with asyncio.timeout(within):
                await self._ended()
        except TimeoutError:
            self._process.kill()
            await self._ended()

    async def _ended(self) -> None:
        if self._process is not None:
            self.returncode = await self._process.wait()


def get(url: str, timeout: float = 3.0) -> tuple[int, str]:
    """GET; status (0 when nobody answers) and body."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as reply:
            return reply.status, reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:  # the latter: it ended while it answered
        return 0, str(error)
