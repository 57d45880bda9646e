"""The data engine: what each stage of a pipeline is, does and undoes, on tables on disk.

Every function is synchronous: provisioning runs in a child process per step, observing in a thread. The
clock is injected. Errors are those of ``holdfast_model.errors``, and :class:`PendingApproval`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast_model.errors import HoldfastError
from holdfast_model.messages import Approval, Decision, Observation, Touch


class StageTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stage and what is asked of it. Encodable, so that it can be sent to a child process.

    ``spec`` is the node's spec as JSON. ``deadline`` (epoch seconds, 0 = none): nothing takes effect after
    it.
    """

    tenant: str
    graph: str
    node: str
    type: str
    spec: msgspec.Raw
    digest: str
    incarnation: str = ""
    idempotency_key: str = ""
    decision: Decision | None = None
    approval: Approval | None = None
    deadline: float = 0.0


class StageResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A success: what is there now, values for other nodes, and nodes to look at again."""

    observation: Observation
    outputs: dict[str, object] | None = None
    touch: tuple[Touch, ...] = ()


class PendingApproval(HoldfastError):
    """A person must consent to ``plan`` first. ``pins`` are the inputs that the consent will be about."""

    code = "pending_approval"

    def __init__(self, plan: str, summary: dict[str, object], pins: dict[str, object]) -> None:
        super().__init__(f"{plan} waits for approval")
        self.plan = plan
        self.summary = summary
        self.pins = pins


Progress = Callable[[float, float | None, str, str], None]
"""Called with (done, total, unit, text) while a step runs; must not block."""


@dataclass(frozen=True)
class EngineSettings:
    """Where things are. Tables live in ``<warehouse>/<tenant>/<graph>/<layer>/<stage>``.

    ``roots``: tenant -> folders that its sources and sinks may use, the first that has the path wins. A
    tenant that is not named gets ``<data>/<tenant>`` when ``data`` is set, else nothing. ``settle``: seconds
    that a file's size and time must not have changed before it is taken.
    """

    warehouse: Path
    roots: Mapping[str, tuple[Path, ...]]
    data: Path | None = None
    settle: float = 2.0


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
