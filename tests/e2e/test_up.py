"""`holdfast up` with a domain of one's own, used through the command line alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast_cli.exits import Exit

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EXAMPLE = Path(__file__).resolve().parents[1] / "sdk" / "example_domain.py"
RECORDS = """
domain: dns
spec:
  records:
    www: {name: www.example.org, address: 192.0.2.1}
    mail: {name: mail.example.org, address: 192.0.2.2}
"""


@dataclass
class Up:
    """A running ``holdfast up`` and the folder it was started in."""

    process: subprocess.Popen[str]
    folder: Path
    said: list[dict[str, Any]] = field(default_factory=list)

    def until(self, **wanted: object) -> dict[str, Any]:
        """The next thing it says that has these values."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if wanted.items() <= self.said[-1].items():
                return self.said[-1]
        raise AssertionError(f"ended without {wanted}: {self.said}")

    def holdfast(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """One command in the same folder; nothing but the folder says where Holdfast is."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        command = [str(Path(sys.executable).parent / "holdfast"), *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def pids(self) -> dict[str, int]:
        """Process name -> the pid it had last."""
        return {said["process"]: said["pid"] for said in self.said if "process" in said and said["pid"]}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    command = [str(Path(sys.executable).parent / "holdfast"), "up", "-o", "json", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--planners", "2", "--domain", f"{EXAMPLE}:dns"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    running = Up(process, tmp_path)
    try:
        running.until(ready=True)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def test_a_domain_of_ones_own_runs_beside_the_others_and_all_ends_with_ctrl_c(up: Up) -> None:
    # Given everything is up, when records are declared
    applied = up.holdfast("apply", "-f", "-", "-g", "zone", "--wait", "--timeout", "120s", text=RECORDS)

    # Then they are there, and the domain is listed beside the pipeline
    assert applied.returncode == Exit.OK, applied.stdout + applied.stderr
    assert "2 of 2 nodes present" in applied.stdout
    domains = json.loads(up.holdfast("get", "domains", "-o", "json").stdout)["domains"]
    assert {"dns", "pipeline"} <= {d["domain"] for d in domains}
    assert up.holdfast("doctor").returncode == Exit.OK

    # When a second `up` is tried in the same folder, then it says that one is running
    second = up.holdfast("up")
    assert second.returncode == Exit.FAILED
    assert "runs here already" in second.stderr

    # When a service is killed, then it is started again
    os.kill(up.pids()["work-items"], signal.SIGKILL)
    up.until(process="work-items", state="running")

    # When Ctrl-C comes, then everything is gone, and commands say how to start it
    up.process.send_signal(signal.SIGINT)
    assert up.process.stdout is not None
    up.said += [json.loads(line) for line in up.process.stdout]
    assert up.process.wait(120) == Exit.OK
    assert not [pid for pid in up.pids().values() if _runs(pid)]
    assert not (up.folder / ".holdfast" / "connection.json").exists()


def test_nothing_is_left_when_up_itself_is_killed(up: Up) -> None:
    up.process.kill()
    up.process.wait(10)

    ends = time.monotonic() + 90
    while left := [name for name, pid in up.pids().items() if _runs(pid)]:
        assert time.monotonic() < ends, left
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
