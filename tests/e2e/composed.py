"""The system in containers, as a user starts it, and a plain NATS client beside it. No project code."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("planner", "fault-policy", "work-items", "provisioner-pipeline")


class Composed:
    """One project of Compose with its own volumes, port and data folder."""

    def __init__(self, command: list[str], data: Path, port: int) -> None:
        self.command = command
        self.data = data
        self.port = port
        self.project = f"holdfast-{uuid.uuid4().hex[:8]}"

    def run(self, *arguments: str, limit: float = 240.0) -> str:
        """One Compose command; its output is in the error when it fails."""
        done = subprocess.run(
            [*self.command, "-p", self.project, *arguments],
            cwd=ROOT,
            env={**os.environ, "HOLDFAST_DATA": str(self.data), "HOLDFAST_NATS_PORT": str(self.port)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
        )
        assert done.returncode == 0, f"compose {' '.join(arguments)}\n{done.stdout[-6000:]}"
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Ids of a service's containers."""
        return self.run("ps", "-q", service).split()

    def pull_the_plug(self, service: str) -> None:
        """SIGKILL to a service's containers, then start them again."""
        for container in self.containers(service):
            for verb in ("kill", "start"):
                subprocess.run(["docker", verb, container], capture_output=True, timeout=180, check=True)

    def remove(self) -> None:
        """Containers, networks, volumes, and what the containers' user wrote into the data folder."""
        self.run("down", "-v", "--remove-orphans", "-t", "5", limit=300)
        clean = ("run", "--rm", "-v", f"{self.data}:/d", "redis:8.2-alpine", "sh", "-c", "rm -rf /d/*")
        subprocess.run(["docker", *clean], capture_output=True, timeout=180, check=True)

    def health(self, container: str) -> str:
        """``healthy``, ``starting``, ``unhealthy`` or ``none``."""
        form = "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}"
        done = subprocess.run(
            ["docker", "inspect", "-f", form, container], capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout.strip()

    def unhealthy(self) -> list[str]:
        """Services of which a container is not healthy."""
        return [
            service
            for service in ("nats", "redis", *SERVICES)
            if not (found := self.containers(service)) or any(self.health(c) != "healthy" for c in found)
        ]

    def logs(self) -> str:
        return self.run("logs", "--no-color", "--tail", "60")


@dataclass
class Listener:
    """A subscriber who keeps what it hears."""

    client: Client
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def hear(self, *subjects: str) -> None:
        for subject in subjects:
            await self.client.subscribe(subject, cb=self._take)
        await self.client.flush()

    async def _take(self, message: Msg) -> None:
        self.heard.append((message.subject, json.loads(message.data)))

    def data(self, subject: str) -> list[dict[str, Any]]:
        """The bodies of what was heard on a subject, each event once."""
        events = {event["id"]: event["data"] for heard, event in self.heard if heard == subject}
        return list(events.values())

    async def ask(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        """A request as anybody would make it; tried again while nobody answers."""
        ends = time.monotonic() + 60
        while True:
            try:
                reply = await self.client.request(subject, json.dumps(body).encode(), timeout=5)
            except (NatsError, TimeoutError):
                if time.monotonic() > ends:
                    raise
                await asyncio.sleep(0.3)
                continue
            found: dict[str, Any] = json.loads(reply.data)
            return found


async def connect(port: int) -> Listener:
    return Listener(await nats.connect(f"nats://127.0.0.1:{port}", max_reconnect_attempts=-1))


async def until(what: str, reached: Callable[[], Awaitable[bool]], limit: float) -> None:
    """Wait for a condition; fails with ``what`` after ``limit`` seconds."""
    ends = time.monotonic() + limit
    while not await reached():
        assert time.monotonic() < ends, f"not within {limit:.0f} s: {what}"
        await asyncio.sleep(0.3)
