"""What one turn of the reconciler asks its host to do: commands as data, in one transaction and after it."""

from __future__ import annotations

import msgspec

from holdfast_model.events import Event, Fault
from holdfast_model.messages import ObserveItem, StepBatch

from .records import Record


class StepIntent(msgspec.Struct, frozen=True, array_like=True):
    """A batch that was or will be published: field ``b:<batch>`` of ``todo``. The payload is rebuilt from the graph.

    ``steps``: (node, action, operation, attempt, first 12 digits of the digest, dependencies it was sent with, the
    decision it carries)."""

    domain: str
    type: str
    queue: str
    domain_version: str
    epoch: int
    start_by: float
    deadline: float
    sent: float
    steps: list[tuple[str, str, int, int, str, tuple[str, ...], str]]


class ItemIntent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A WorkItem to open: field ``o:<request key>`` of ``todo`` until work-items has it."""

    request: str
    caller_ref: str
    kind: str  # human | approval
    title: str
    node: str
    type: str
    description: str = ""
    payload: dict[str, object] = {}
    outcomes: list[str] = []


class CloseIntent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A WorkItem that is no longer needed: field ``c:<request key>`` of ``todo`` until it is obsolete."""

    request: str
    caller_ref: str
    reason: str = ""


class Look(msgspec.Struct, frozen=True):
    """An observation to ask for: nodes of one type. ``number`` comes back with the answer."""

    number: int
    domain: str
    type: str
    nodes: list[ObserveItem]


class Dispatch(msgspec.Struct, frozen=True):
    """A batch to publish on ``step.<domain>.<queue>`` once the turn is committed."""

    domain: str
    queue: str
    batch: StepBatch


class Turn(msgspec.Struct):
    """The commands of one turn. ``fenced_by_version``: it must not be written if the desired graph has moved."""

    rows: dict[str, Record | None] = {}
    todo: dict[str, StepIntent | ItemIntent | CloseIntent | None] = {}
    faults: list[Fault] = []
    events: list[Event] = []
    forget: list[tuple[str, str]] = []
    dispatch: list[Dispatch] = []
    look: list[Look] = []
    meta: dict[str, str] = {}
    served: list[str] = []
    wake_at: float | None = None

    @property
    def fenced_by_version(self) -> bool:
        return bool(self.dispatch or self.forget) or any(isinstance(t, ItemIntent) for t in self.todo.values())

    @property
    def writes(self) -> bool:
        """False when there is nothing to commit."""
        return bool(self.rows or self.todo or self.faults or self.events or self.forget or self.meta)


class TypeInfo(msgspec.Struct, frozen=True):
    """What the reconciler must know of a node type, from the manifest of its domain's highest live version."""

    domain: str
    version: str
    live: bool
    resync: float
    timeout: float
    batch: int
    on_drift: str = "heal"
    on_unknown: str = "wait"
    observes: bool = True
    cascade: bool = True
    after_human: bool = False
    backoff_base: float = 1.0
    backoff_cap: float = 300.0
    reviews: bool = False
    outcomes: dict[str, list[str]] = {}
    covered: bool = True
    """Whether a ladder covers failures of this type; only types that none covers are poison-quarantined."""


class Settings(msgspec.Struct, frozen=True):
    """Times in seconds. ``start_within`` bounds how long a step may wait before it starts."""

    start_within: float = 60.0
    grace: float = 10.0
    unknown_retry: float = 2.0
    look_size: int = 500
    no_provisioner_after: float = 60.0
    livelock_heals: int = 5
    livelock_window: float = 600.0
    poison_failures: int = 5
    poison_window: float = 600.0
    quarantine: float = 1800.0
