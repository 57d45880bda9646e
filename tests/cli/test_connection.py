"""Where commands look for Holdfast, and what they say when it is not there."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast_cli import connection
from holdfast_cli.exits import Exit
from holdfast_cli.main import build

from .conftest import Invoke, Peer


def test_the_environment_wins(tmp_path: Path) -> None:
    connection.write(tmp_path / ".holdfast", "nats://here:1", os.getpid())

    assert connection.find({"HOLDFAST_NATS_URL": "nats://env:2"}, tmp_path).url == "nats://env:2"


def test_a_running_up_is_found_from_a_folder_below(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    connection.write(tmp_path / ".holdfast", "nats://here:1", os.getpid())

    assert connection.find({}, below).url == "nats://here:1"


def test_an_up_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    connection.write(tmp_path / ".holdfast", "nats://here:1", ended.pid)

    assert connection.find({}, tmp_path).url == connection.DEFAULT_URL


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nats_url": "x"}'])
def test_a_broken_file_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / ".holdfast").mkdir()
    (tmp_path / ".holdfast" / "connection.json").write_text(text)

    assert connection.find({}, tmp_path).url == connection.DEFAULT_URL


def test_nobody_there_is_exit_3_and_says_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:  # bound, so that it is nobody else's meanwhile, and not listening
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HOLDFAST_NATS_URL", f"nats://127.0.0.1:{held.getsockname()[1]}")

        result = CliRunner().invoke(build(), ["get", "graphs", "-o", "json"])

    error = json.loads(result.stderr)["error"]
    assert result.exit_code == Exit.UNREACHABLE
    assert "cannot reach Holdfast at nats://127.0.0.1:" in error["message"]
    assert "holdfast up" in error["hint"]


async def test_a_bus_without_a_planner_is_exit_3_too(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_NATS_URL", nats_url)

    result = await asyncio.to_thread(CliRunner().invoke, build(), ["get", "graphs"])

    assert result.exit_code == Exit.UNREACHABLE
    assert result.stderr.startswith("error: no planner service answers")
    assert "Traceback" not in result.output


async def test_the_tenant_comes_from_the_environment(
    holdfast: Invoke, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_TENANT", "acme")
    peer.answers["planner.list"] = {"graphs": []}

    await holdfast("get", "graphs")
    await holdfast("get", "graphs", "-t", "other")

    assert [body["tenant"] for body in peer.bodies("planner.list")] == ["acme", "other"]


def test_a_command_starts_without_what_only_services_need() -> None:
    # Seconds for everybody who types a command: the frameworks of services, servers, tables and games stay unloaded
    code = "import sys, holdfast_cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "holdfast_bus" in loaded
    assert not loaded & {"faststream", "uvicorn", "redis", "polars", "deltalake", "boto3", "textual", "holdfast_sdk"}
