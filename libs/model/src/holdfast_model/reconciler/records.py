"""What the reconciler knows of a node: the persisted record, and the unit that holds it in memory.

A :class:`Record` is one field of the graph's ``state`` hash. It is written when an observation or outcome changes it;
a step in flight is *not* in it (the batch's intent in ``todo`` says so), so that a dispatch costs one field per batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

import msgspec

from holdfast_model.messages import Action, Decision, Status
from holdfast_model.references import filled_in
from holdfast_model.rows import Node, Tombstone, digest_of

_Form = TypeVar("_Form", bound=Node | Tombstone)


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
    WATCHED = "watched"  # not as declared, and only observed
    FORGET = "forget"  # a removed node that is gone


class GateState(StrEnum):
    OPEN = "open"
    PASSED = "passed"
    REFUSED = "refused"


class Gate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to a person: for this action on this digest, in this round. ``id`` is the item's request key;
    ``asked`` the name of the node when it was opened, if it has another one now.
    """

    id: str
    action: Action
    digest: str
    round: int
    state: GateState = GateState.OPEN
    workitem: str = ""
    by: str = ""
    asked: str = ""


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
    asked: str = ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The persisted state of a node, in the form that had this ``type``.

    ``digest``: the one that was last provisioned or adopted. ``operation``/``attempt``: the last attempt that ended;
    ``intent``: (action, digest, token) that operation was for, "" once it succeeded. ``request``: the (epoch, n) of
    the newest observation applied. ``episode`` runs from a first fault to recovery; ``raised`` are the kinds of
    fault in it that were told. ``blamed``: of which dependencies' episodes this node was told to be the victim.
    ``released``: the token at which a hold ended; until the next step has run, that very drift is not held again.
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
    refused: str = ""  # the digest a person gave up, or its provisioner rejects
    given_up: str = ""  # who gave it up
    request: tuple[int, int] = (0, 0)
    outputs: dict[str, object] | None = None
    info: dict[str, object] | None = None
    gate: Gate | None = None
    round: int = 0
    approval: ApprovalGate | None = None
    decision: Decision | None = None
    decided: str = ""  # the digest that the decision is about
    episode: str = ""
    about: str = ""  # the digest that the episode is about
    raised: tuple[str, ...] = ()
    fault: str = ""  # the newest fault told in this episode
    blamed: tuple[str, ...] = ()
    quarantined_until: float = 0.0
    heals: tuple[float, ...] = ()  # when it was healed from the drift with this token: livelock
    heal_token: str = ""
    failed_at: tuple[float, ...] = ()  # when its latest attempts failed: poison
    released: str | None = None
    paused: bool = False
    watched: bool = False  # its episode is of a time when it was only observed: no fault was raised
    doubted: bool = False  # ... and its decision went along: nobody knows whether it was used
    unanswered: str = ""  # the digest of a provision that was not answered in time
    alone: bool = False  # its batch was dead-lettered: send it by itself
    uses: tuple[str, ...] = ()  # what it was last provisioned against; kept up while it is not as declared
    users: tuple[str, ...] = ()  # of a removed node: who had been provisioned against it when it went
    refs: dict[str, object] | None = None  # values of the references in its spec, as last published
    trouble: str = ""  # the newest fault or drift told of this form, for people
    recovered: float = 0.0  # when that was over
    since: int = 0  # the graph's counter when it got its name: what was tried before that has other numbers now
    first: int = 0  # the operation as which its intention began, if that is another one
    known: str = ""  # while some have no value: the spec (JSON text) as it was when all had one


DRIFT = "drift:"
"""Kinds of told faults that an observation showed, followed by its reason."""

REPORTED = "state:"
"""Kinds of told faults that somebody outside reported, followed by the event's id."""


def reported(raised: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the told faults that were reported. They outlive episodes: an event that comes again says nothing."""
    return tuple([kind for kind in raised if kind.startswith(REPORTED)]) if raised else raised


class Flight(msgspec.Struct, frozen=True, gc=False):
    """The one step of a node that has been sent and not yet answered.

    ``carries``: the decision that went along; ``order``: when it was sent, in the order of things (0 = by an earlier
    owner); ``first``: as which operation its intention began, if as another one.
    """

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
    carries: str = ""
    order: int = 0
    first: int = 0


def resolved(declared: _Form, values: Mapping[str, object] | None, known: str) -> tuple[_Form, str]:
    """A form with its references replaced by their values, and the first one that has none ("" = all have).

    What is to be removed is what was ``known`` last, if there is no better knowledge.
    """
    if not declared.refs:
        return declared, ""
    missing = next((text for text in declared.refs if values is None or text not in values), "")
    if not missing:
        assert values is not None
        spec = filled_in(declared.spec, values)
    elif isinstance(declared, Tombstone) and known:
        spec, missing = msgspec.Raw(known.encode()), ""
    else:
        return declared, missing
    return msgspec.structs.replace(declared, spec=spec, digest=digest_of(declared.type, spec)), missing


_PROVISION, _DEPROVISION = Action.PROVISION, Action.DEPROVISION
NO_NAMES: Mapping[str, None] = MappingProxyType({})


class Unit:
    """A node (or a removed one) with its record and what is derived from it. Mutable, private to the reconciler."""

    __slots__ = (
        "action", "again", "asked", "below", "blocker", "current", "declared", "field", "flying", "form", "former",
        "id", "lane", "min_request", "missing", "node", "phase", "rec", "suspect", "tick", "timer_at", "tomb", "type",
        "unmet", "urgent",
    )  # fmt: skip

    def __init__(self, rec: Record, *, node: Node | None = None, tomb: Tombstone | None = None) -> None:
        form = node or tomb
        assert form is not None
        self.id = form.id
        self.type = form.type
        self.rec = rec
        self.node = node
        self.tomb = tomb
        self.declared: Node | Tombstone = form
        self.form: Node | Tombstone = form
        """What a step would act on: what is declared, with references resolved. Of a desired one also ``node``."""
        self.missing = ""
        """A reference that has no value: until it has one, nobody knows what is wanted."""
        if form.refs:
            self.resolve()
        self.action = _PROVISION if node is not None else _DEPROVISION
        self.field = form.id if node is not None else grave_field(form.id, form.type)
        """The unit's field in the ``state`` hash. Node ids hold no control characters, so graves cannot clash."""
        self.below: Mapping[str, None] = NO_NAMES
        """Names of the desired dependents; of a grave, of those that were made with what is to be removed."""
        self.former: tuple[str, ...] = ()
        """What it was made with and names no longer, as indexed."""
        self.unmet = 0
        self.current = False
        """Really there, in the form that is declared now, and no step under way."""
        self.flying = False
        self.phase: Phase | None = None
        self.lane: dict[Unit, None] | None = None
        self.asked = 0  # number of the observation under way; 0 = none
        self.min_request = 0  # observations numbered up to this are out of date
        self.again = False  # look once more when the step in flight has ended
        self.suspect = False  # somebody reported a fault: not recovered before it has been looked at
        self.urgent = False
        self.tick = 0
        """When this form of it came to be: in the order of things, not in time. 0 = before this owner's time."""
        self.timer_at = 0.0
        self.blocker = ""

    def resolve(self) -> None:
        """Bring the form up to date with the values of references that the record holds."""
        self.assume(self.declared, *resolved(self.declared, self.rec.refs, self.rec.known))

    def assume(self, declared: Node | Tombstone, form: Node | Tombstone, missing: str) -> None:
        """Stand for something else: as declared, and with references resolved as far as they have values."""
        self.declared, self.form, self.missing = declared, form, missing
        if isinstance(form, Node):
            self.node = form

    @property
    def hidden(self) -> bool:
        """Nobody can look for it: what it should be is not known. What was there once is removed as far as it goes."""
        rec = self.rec
        return self.missing != "" and (self.tomb is None or (rec.status is None and not rec.operation))

    @property
    def watched(self) -> bool:
        """It is desired, but only observed."""
        return self.node is not None and self.node.observe

    def stands_below(self, name: str) -> None:
        """Enter a dependent."""
        if self.below is NO_NAMES:
            self.below = {}
        self.below[name] = None  # type: ignore[index]

    def leaves(self, name: str) -> None:
        """A dependent is one no longer."""
        if name in self.below:
            del self.below[name]  # type: ignore[attr-defined]


def grave_field(node: str, type: str) -> str:
    """The field of a removed node's record."""
    return f"\x00{type}\x00{node}"


def grave_of(field: str) -> tuple[str, str] | None:
    """The (id, type) of a removed node's field, or None for the field of a desired node."""
    if not field.startswith("\x00"):
        return None
    _, type, node = field.split("\x00", 2)
    return node, type
