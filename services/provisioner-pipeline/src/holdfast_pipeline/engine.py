"""The data engine: what each stage of a pipeline is, does and undoes, on tables on disk.

Every function is synchronous: provisioning runs in a child process per step, observing in a thread. The
clock is injected. Errors are those of ``holdfast_model.errors``, and :class:`PendingApproval`.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast_model.messages import Observation

from .tasks import Context, EngineSettings, PendingApproval, Progress, StageResult, StageTask

__all__ = [
    "Context", "Engine", "EngineSettings", "PendingApproval", "Progress", "StageResult", "StageTask",
]  # fmt: skip


class Engine:
    """Stages over local tables. Holds no state between calls; many may run at once, in any number of
    processes."""

    def __init__(self, settings: EngineSettings, now: Callable[[], float]) -> None:
        self.settings = settings
        self.now = now

    def observe(self, task: StageTask) -> Observation:
        """What is there of the stage. Never raises for the state of the data: storage trouble is UNKNOWN."""
        raise NotImplementedError

    def provision(self, task: StageTask, progress: Progress) -> StageResult:
        """Make the stage what its spec and inputs ask for, exactly once per content key.

        Raises Temporary (an input moved or is not there, a race was lost, storage trouble), Permanent (the
        spec and the data cannot go together, a target that is not ours, a decision that makes no sense),
        PendingApproval.
        """
        raise NotImplementedError

    def deprovision(self, task: StageTask) -> None:
        """Remove the stage's own tables, and a sink's marked target where its spec says ``on_delete:
        drop``."""
        raise NotImplementedError
