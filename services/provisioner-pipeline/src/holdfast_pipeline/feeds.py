"""Who is told when steps begin and end, beside the planner."""

from __future__ import annotations

import uuid
from typing import Protocol

from holdfast_model.messages import Observation

from .specs import StageSpec
from .tasks import StageTask


class StepFeed(Protocol):
    """Who is told about steps. Must not block or raise."""

    def began(self, run: str, task: StageTask, spec: StageSpec) -> None: ...
    def ended(self, run: str, task: StageTask, spec: StageSpec, seen: Observation | None, error: str = "") -> None: ...


class Silent:
    """A feed that tells nobody."""

    def began(self, run: str, task: StageTask, spec: StageSpec) -> None:
        pass

    def ended(self, run: str, task: StageTask, spec: StageSpec, seen: Observation | None, error: str = "") -> None:
        pass


def run_id(key: str, attempt: int) -> str:
    """The run of one attempt at a step: the same in every process that makes it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"holdfast:{key}:{attempt}"))
