"""``python -m holdfast_dungeon``: the dungeon service."""

from __future__ import annotations

from holdfast_bus.service import run

from .app import build_app
from .settings import Settings

if __name__ == "__main__":
    run(build_app(Settings()))
