"""What the user has: a Docker engine (or not), Compose in one of its forms, and a plain NATS client."""

from __future__ import annotations

import shutil
import subprocess

import pytest

BASES = ("python:3.11-slim-bookworm", "nats:2.15-alpine", "redis:8.2-alpine")


def _ends_well(*command: str, limit: float = 30.0) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=limit, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="session")
def compose_command() -> list[str]:
    """``docker compose`` or ``docker-compose``; skips, with the reason, where containers cannot run."""
    if shutil.which("docker") is None or not _ends_well("docker", "info"):
        pytest.skip("no Docker engine answers here")
    for image in BASES:
        if not _ends_well("docker", "image", "inspect", image) and not _ends_well(
            "docker", "pull", "-q", image, limit=180
        ):
            pytest.skip(f"the image {image} is not here and cannot be pulled")
    if _ends_well("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose") is not None:
        return ["docker-compose"]
    pytest.skip("neither docker compose nor docker-compose is installed")
