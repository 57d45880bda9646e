"""Where Holdfast is: ``HOLDFAST_NATS_URL``, else what ``holdfast up`` wrote near here, else this machine's 4222."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

DEFAULT_URL = "nats://127.0.0.1:4222"
STATE_FOLDER = ".holdfast"
CONNECTION_FILE = "connection.json"


class Found(NamedTuple):
    """The URL to use and where it came from."""

    url: str
    source: str


def find(environment: Mapping[str, str], folder: Path) -> Found:
    """Look in the environment, then for ``.holdfast/connection.json`` in ``folder`` and above it.

    A file whose writer is gone (its process does not run any more) is passed over.
    """
    if url := environment.get("HOLDFAST_NATS_URL", ""):
        return Found(url, "HOLDFAST_NATS_URL")
    for place in (folder, *folder.parents):
        file = place / STATE_FOLDER / CONNECTION_FILE
        if url := _read(file):
            return Found(url, str(file))
    return Found(DEFAULT_URL, "the default; neither HOLDFAST_NATS_URL nor a running `holdfast up` was found")


def write(state: Path, url: str, pid: int) -> None:
    """Leave the connection where the other commands look for it."""
    state.mkdir(parents=True, exist_ok=True)
    (state / CONNECTION_FILE).write_text(json.dumps({"nats_url": url, "pid": pid}) + "\n")


def forget(state: Path) -> None:
    (state / CONNECTION_FILE).unlink(missing_ok=True)


def _read(file: Path) -> str:
    try:
        found = json.loads(file.read_text())
        url, pid = str(found["nats_url"]), int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return url if _alive(pid) else ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
