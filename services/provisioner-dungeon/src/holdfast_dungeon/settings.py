"""Settings of the dungeon service (environment, prefix ``HOLDFAST_``). Durations are seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from holdfast_sdk.runtime import RuntimeSettings


class Settings(RuntimeSettings):
    """``dungeon_*`` beside what every domain has."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    dungeon_redis_url: str = ""
    """Where the world is kept; without it in the same Redis as everything else, under keys of its own."""
    dungeon_pace: float = Field(default=0.4, ge=0, le=30)
    """How long it takes to build one thing."""
    dungeon_resync: float = Field(default=5.0, ge=1)
    """Between two looks at everything; raids only hasten the next one."""
    dungeon_alarm: float = Field(default=60.0, ge=1)
    """How long a location stays fortified after the last loss there."""
    dungeon_leftovers: Literal["report", "remove"] = "report"
    """What becomes of things that nobody declares, in graphs that have a dungeon: they are told, or removed."""

    @property
    def world_url(self) -> str:
        """The Redis that keeps the world."""
        return self.dungeon_redis_url or self.redis_url
