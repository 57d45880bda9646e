"""What the engine is asked and what it answers; also where its data is and what time it is.

Every stage's module takes a :class:`Context`. Nothing here touches a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from holdfast_model.errors import HoldfastError, Temporary
from holdfast_model.messages import Approval, Decision, Observation, Touch

from .objects import Location
from .stores import StoreRef


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
    depends_on: tuple[str, ...] = ()


class StageResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A success: what is there now, values for other nodes, and nodes to look at again."""

    observation: Observation
    outputs: dict[str, object] | None = None
    touch: tuple[Touch, ...] = ()


class PendingApproval(HoldfastError):  # an answer, not a failure
    """A person must consent to ``plan`` first. ``pins`` are the inputs that the consent will be about."""

    code = "pending_approval"

    def __init__(self, plan: str, summary: dict[str, object], pins: dict[str, object]) -> None:
        super().__init__(f"{plan} waits for approval")
        self.plan = plan
        self.summary = summary
        self.pins = pins


Progress = Callable[[float, float | None, str, str], None]
"""Called with (done, total, unit, text) while a step runs; must not block."""


def no_progress(done: float, total: float | None, unit: str, text: str) -> None:
    """A :data:`Progress` that tells nobody."""


@dataclass(frozen=True)
class EngineSettings:
    """Where things are. Tables live in ``<warehouse>/<tenant>/<graph>/<layer>/<stage>``.

    ``roots``: tenant -> folders that its sources and sinks may use, the first that has the path wins. A
    tenant that is not named gets ``<data>/<tenant>`` when ``data`` is set, else nothing. ``settle``: seconds
    that a file's size and time must not have changed before it is taken. ``stores``: tenant -> object stores that it
    may use.
    """

    warehouse: Location
    roots: Mapping[str, tuple[Path, ...]]
    data: Path | None = None
    settle: float = 2.0
    stores: Mapping[str, tuple[StoreRef, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """One task with its surroundings."""

    settings: EngineSettings
    task: StageTask
    now: Callable[[], float]
    progress: Progress = no_progress
    started: float = 0.0
    """When the work on it began, in seconds since the epoch."""

    @property
    def mark(self) -> str:
        """What tables and targets of this stage are labelled with."""
        return f"holdfast:{self.task.tenant}/{self.task.graph}/{self.task.node}"

    def in_time(self) -> None:
        """Raise Temporary when the deadline is over; called right before anything takes effect."""
        deadline = self.task.deadline
        if deadline and self.now() >= deadline:
            raise Temporary(f"{self.task.node}: the time for this step is over, nothing was published")
