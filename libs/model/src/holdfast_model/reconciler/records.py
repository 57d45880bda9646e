"""What the reconciler knows of a node: the persisted record, and the unit that holds it in memory.

A :class:`Record` is one field of the graph's ``state`` hash. It is written when an observation or outcome changes it;
a step in flight is *not* in it (the batch's intent in ``todo`` says so), so that a dispatch costs one field per batch.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from holdfast_model.messages import Action, Decision, Status
from holdfast_model.rows import Node, Tombstone


class Phase(StrEnum):
    """Where a node stands, as people see it. Only READY is ever sent."""

    PRESENT = "present"  # as declared
    OBSERVING = "observing"  # to be looked at first
    READY = "ready"  # may be sent as soon as there is room
    RUNNING = "running"  # one step in flight
    BLOCKED = "blocked"  # a dependency (or, for a removal, a dependent) comes first
    BACKOFF = "backoff"  # failed; the next attempt waits
    HELD = "held"  # drifted, and a person or policy decides
    WAITING = "waiting"  # for a WorkItem
    FAILED = "failed"  # permanently, until something changes
    REFUSED = "refused"  # a person said no
    QUARANTINED = "quarantined"
    PAUSED = "paused"
    NO_PROVISIONER = "no_provisioner"
    FORGET = "forget"  # a removed node that is gone


class GateState(StrEnum):
    OPEN = "open"
    PASSED = "passed"
    REFUSED = "refused"


class Gate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to a person: for this action on this digest, in this round. ``id`` is the item's request key."""

    id: str
    action: Action
    digest: str
    round: int
    state: GateState = GateState.OPEN
    workitem: str = ""
    by: str = ""


class ApprovalGate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A provisioner's plan that needs consent. ``binding`` = sha256(incarnation, node, action, digest, plan, pins)."""

    id: str
    action: Action
    digest: str
    plan: str
    binding: str
    pins: dict[str, object] | None = None
    state: GateState = GateState.OPEN
    workitem: str = ""
    by: str = ""
    at: float = 0.0


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The persisted state of a node, in the form that had this ``type``.

    ``digest``: the one that was last provisioned or adopted. ``operation``/``attempt``: the last attempt that ended;
    ``intent``: (action, digest, token) that operation was for, "" once it succeeded. ``request``: the (epoch, n) of
    the newest observation applied. ``episode`` runs from a first fault to recovery; ``raised`` are the kinds of
    fault in it that were told. ``blamed``: episodes of dependencies for which unavailability was told.
    """

    type: str = ""
    status: Status | None = None
    reason: str = ""
    detail: str = ""
    token: str = ""
    digest: str = ""
    hold: bool = False
    hold_digest: str = ""
    operation: int = 0
    attempt: int = 0
    intent: str = ""
    failures: int = 0
    next_try: float = 0.0
    permanent: str = ""  # the digest that failed for ever
    error_reason: str = ""
    error: str = ""
    refused: str = ""  # the digest a person refused
    request: tuple[int, int] = (0, 0)
    outputs: dict[str, object] | None = None
    info: dict[str, object] | None = None
    gate: Gate | None = None
    round: int = 0
    approval: ApprovalGate | None = None
    decision: Decision | None = None
    episode: str = ""
    raised: tuple[str, ...] = ()
    blamed: tuple[str, ...] = ()
    quarantined_until: float = 0.0
    heals: tuple[float, ...] = ()
    paused: bool = False
    alone: bool = False  # its batch was dead-lettered: send it by itself
    uses: tuple[str, ...] = ()  # the dependencies it was last provisioned against


class Flight(msgspec.Struct, frozen=True):
    """The one step of a node that has been sent and not yet answered."""

    batch: str
    action: Action
    operation: int
    attempt: int
    type: str
    digest: str
    token: str
    deadline: float
    since: float
    uses: tuple[str, ...] = ()


class Unit:
    """A node (or a removed one) with its record and what is derived from it. Mutable, private to the reconciler."""

    __slots__ = ("again", "asked", "blocker", "below", "id", "min_request", "node", "phase", "rec", "tomb", "type", "unmet", "urgent")  # fmt: skip  # noqa: E501, RUF023

    def __init__(self, id: str, type: str, rec: Record) -> None:
        self.id = id
        self.type = type
        self.rec = rec
        self.node: Node | None = None
        self.tomb: Tombstone | None = None
        self.below: dict[str, None] = {}  # desired dependents
        self.unmet = 0
        self.phase: Phase | None = None
        self.asked = 0  # number of the observation under way; 0 = none
        self.min_request = 0  # observations numbered up to this began before or during a step
        self.again = False  # look once more when the step in flight has ended
        self.urgent = False
        self.blocker = ""

    @property
    def form(self) -> Node | Tombstone:
        """What a step would act on."""
        form = self.node or self.tomb
        assert form is not None
        return form

    @property
    def action(self) -> Action:
        return Action.PROVISION if self.node is not None else Action.DEPROVISION

    @property
    def field(self) -> str:
        """The unit's field in the ``state`` hash. Node ids hold no control characters, so graves cannot clash."""
        return self.id if self.node is not None else grave_field(self.id, self.type)

    @property
    def current(self) -> bool:
        """Really there, in the form that is declared now."""
        node = self.node
        return node is not None and self.rec.status is Status.PRESENT and self.rec.digest == node.digest


def grave_field(node: str, type: str) -> str:
    """The field of a removed node's record."""
    return f"\x00{type}\x00{node}"


def grave_of(field: str) -> tuple[str, str] | None:
    """The (id, type) of a removed node's field, or None for the field of a desired node."""
    if not field.startswith("\x00"):
        return None
    _, type, node = field.split("\x00", 2)
    return node, type
