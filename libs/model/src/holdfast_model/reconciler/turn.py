"""What one turn of the reconciler asks its host to do: commands as data, in one transaction and after it."""

from __future__ import annotations

import msgspec

from holdfast_model.events import Event, Fault
from holdfast_model.manifest import OwnedLadder, Scope
from holdfast_model.messages import ObserveItem, StepBatch
from holdfast_model.mutations import Mutation
from holdfast_model.phases import Standing
from holdfast_model.rows import Tombstone

from .records import Record

STATUS = "status"
"""Field of ``Turn.meta``: how the graph as a whole is."""
PAUSED = "paused"
"""Field of ``Turn.meta``: "1" while the graph is paused, else "0"."""


class StepIntent(msgspec.Struct, frozen=True, array_like=True):
    """A batch that was or will be published: field ``b:<batch>`` of ``todo``. The payload is rebuilt from the graph.

    ``steps``: (node, action, operation, attempt, first 12 digits of the digest, dependencies it was sent with, the
    decision it carries). ``sent_as``: names under which steps were sent, of nodes that have others now."""

    domain: str
    type: str
    queue: str
    domain_version: str
    epoch: int
    start_by: float
    deadline: float
    sent: float
    steps: list[tuple[str, str, int, int, str, tuple[str, ...], str]]
    sent_as: dict[str, str] = {}


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
    expires_at: float | None = None


class CloseIntent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A WorkItem that is no longer needed: field ``c:<request key>`` of ``todo`` until it is obsolete."""

    request: str
    caller_ref: str
    reason: str = ""


class Look(msgspec.Struct, frozen=True):
    """An observation to ask for: nodes of one type. ``number`` comes back with the answer.

    ``discover``: what is there of this type though nobody desires it; ``nodes`` are then looked at by just that.
    """

    number: int
    domain: str
    type: str
    nodes: list[ObserveItem]
    discover: bool = False


class Dispatch(msgspec.Struct, frozen=True):
    """A batch to publish on ``step.<domain>.<queue>`` once the turn is committed."""

    domain: str
    queue: str
    batch: StepBatch


class Enter(msgspec.Struct, frozen=True):
    """A phase to enter: its nodes become what ``owner`` declares, in the commit that writes this turn."""

    owner: str
    index: int
    digest: str


class Amendment(msgspec.Struct, frozen=True):
    """A change of the desired graph, to be written in the same transaction as the turn. ``by``: who decided it."""

    owner: str
    mutation: Mutation
    by: str
    cause: str


class Turn(msgspec.Struct):
    """The commands of one turn. ``fenced_by_version``: it must not be written if the desired graph has moved.

    ``standings``: how far each owner's blueprint is from now on, if that changed. ``heralds`` are events that come
    before the turn's faults, ``events`` those that come after them. ``adopt``: leftovers that become tombstones.
    """

    rows: dict[str, Record | None] = {}
    todo: dict[str, StepIntent | ItemIntent | CloseIntent | None] = {}
    heralds: list[Event] = []
    faults: list[Fault] = []
    events: list[Event] = []
    forget: list[tuple[str, str]] = []
    adopt: list[Tombstone] = []
    amend: list[Amendment] = []
    dispatch: list[Dispatch] = []
    look: list[Look] = []
    meta: dict[str, str] = {}
    standings: dict[str, Standing] | None = None
    enter: Enter | None = None
    served: list[str] = []
    wake_at: float | None = None

    @property
    def fenced_by_version(self) -> bool:
        if self.dispatch or self.forget or self.adopt or self.amend or self.standings is not None:
            return True
        if STATUS in self.meta:  # admissions write it too: one that began a deletion must not be forgotten
            return True
        return any(isinstance(t, ItemIntent) for t in self.todo.values())

    @property
    def changes_graph(self) -> bool:
        """Whether writing this turn is a commit of the desired graph."""
        return bool(self.forget or self.adopt or self.amend) or self.enter is not None

    @property
    def reason(self) -> tuple[str, str]:
        """Who changes the desired graph, and why, for its log."""
        if self.amend:
            return self.amend[0].by, self.amend[0].cause
        if self.adopt:
            return "planner", "leftovers"
        return "planner", "removed" if self.enter is None else f"phase of {self.enter.owner!r}"

    @property
    def weight(self) -> int:
        """About how many rows of the graph it changes."""
        entered = self.standings[self.enter.owner].term.nodes if self.enter is not None and self.standings else 0
        return len(self.forget) + len(self.adopt) + len(self.amend) + 2 * entered

    @property
    def writes(self) -> bool:
        """False when there is nothing to commit."""
        told = self.heralds or self.faults or self.events
        return bool(self.rows or self.todo or told or self.changes_graph or self.meta or self.standings is not None)


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
    spec_schema: dict[str, object] | None = None
    discover: bool = False
    adopt_orphans: str = "report"
    scope: str = Scope.PLATFORM.value
    search: float = 0.0
    """Seconds between two searches for leftovers; 0: as ``resync``."""


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
    adopt_after: float = 10.0
    """How long something must have been left over before it is removed, if its type says so."""
    ladders: tuple[OwnedLadder, ...] = ()
    """Those that blueprints of this graph brought along."""
