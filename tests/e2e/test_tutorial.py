"""The tutorial of the pipeline's README does what it says, command by command, in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "services" / "provisioner-pipeline" / "README.md"
BIN = Path(sys.executable).parent
LIMIT = 180.0
"""Seconds that one block of commands may take."""


def blocks() -> list[tuple[str, str]]:
    """(kind, text) of the tutorial's blocks, in order; kinds are ``sh``, ``sh terminal`` and ``text``."""
    text = README.read_text()
    tutorial = text[text.index("## Tutorial") : text.index("## Contracts")]
    return re.findall(r"^```(sh terminal|sh|text)\n(.*?)^```$", tutorial, re.MULTILINE | re.DOTALL)


def plain(text: str) -> str:
    """Words, each after one blank, so that neither widths of columns nor what draws a tree count."""
    return " ".join(re.sub(r"[─│└├]", " ", text).split())


@pytest.fixture
def environment() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
    return {**clean, "PATH": f"{BIN}{os.pathsep}{clean['PATH']}", "HOLDFAST_ACTOR": "ann"}


@pytest.fixture
def started(tmp_path: Path, environment: dict[str, str]) -> Iterator[Path]:
    """The folder in which the first block, in a terminal of its own, has been started."""
    [command] = [text.split() for kind, text in blocks() if kind == "sh terminal"]
    assert command == ["holdfast", "up"]
    with open(tmp_path / "up.log", "w") as log:
        process = subprocess.Popen(
            [*command, "--port", "0", "-o", "json"], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any('"ready":true' in line for line in process.stdout), (tmp_path / "up.log").read_text()
        yield tmp_path
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def test_the_tutorial_does_what_it_says(started: Path, environment: dict[str, str]) -> None:
    said = ""
    ran = checked = 0
    for kind, text in blocks():
        if kind == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text], cwd=started, env=environment, capture_output=True, text=True,
                timeout=LIMIT, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            said = plain(done.stdout)
            ran += 1
        elif kind == "text":
            for line in text.splitlines():
                assert plain(line) in said, f"{line!r} is not in what the commands said:\n{said}"
                checked += 1
    assert ran >= 9
    assert checked >= 20
