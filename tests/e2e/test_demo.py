"""The demo, as a newcomer runs it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = 60.0


@pytest.mark.e2e
@pytest.mark.timeout(150)
def test_the_demo_ends_with_every_table_exactly_right_within_a_minute(tmp_path: Path) -> None:
    began = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-m", "holdfast_cli.demo"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=140, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
    assert "every table is exactly right" in done.stdout
    assert len(re.findall(r"^   exact ", done.stdout, re.MULTILINE)) == 3 * 9
    assert len(re.findall(r"^   decided: ", done.stdout, re.MULTILINE)) == 3
    assert "fault.node_degraded" in done.stdout
    assert time.monotonic() - began < LIMIT
