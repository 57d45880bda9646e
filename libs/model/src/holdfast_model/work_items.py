"""The contract of work-items: the item, its commands and replies, its events, and references to it.

JSON names are camelCase, times are RFC 3339 with a zone (Python: aware ``datetime``). Requests go to
``rpc.workitems.<verb>`` and are strict: an unknown key is refused, so that a misspelt ``outcome`` never
decides. Queries and bulk commands are in work_items_queries.py.

==================  ====================  ==========================================================
verb                request               reply
==================  ====================  ==========================================================
``create``          CreateWorkItem        CreateReply ``{item, created}``
``get``             WorkItemQuery         WorkItem (of a ``callerRef``: its newest), or not_found
``find_active``     WorkItemQuery         WorkItem of an active callerRef, or ``null``
``list``            ListWorkItems         ItemPage, every status; active items first, by priority and deadline
``inbox``           ListWorkItems         ItemPage, what ``actor`` may work on or holds
``summary``         ListWorkItems         Summary (of ``actor``'s inbox, if given)
``audit``           AuditQuery            AuditPage, oldest first
``bulk``            BulkCommand           BulkReply, one result per id
``obsolete``        WorkItemCommand       WorkItem or ``null``; also by ``callerRef`` and ``request``
all other verbs     WorkItemCommand       WorkItem
==================  ====================  ==========================================================

An error is ``{"error": {code, message, hint?, paths?, current?}}`` with the code ``not_found``, ``invalid``,
``forbidden``, ``conflict`` (the item's status does not allow it; ``current`` is the item) or ``stale``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from .messages import Action
from .names import GraphRef

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment with a zone; RFC 3339 in JSON."""

NO_GRAPH = "_"
"""Stands for the graph in subjects and indexes of an item that belongs to none."""

SYSTEM = "system"
"""The actor of what the service does by itself (deadlines)."""


class WorkItemStatus(StrEnum):
    """Five active and seven terminal ones.

    REJECTED is a person's decision, FAULTED infrastructure, CANCELLED a deliberate stop, OBSOLETE means that
    the context moved on, ESCALATED that every answer to a missed deadline was used up.
    """

    PENDING = "PENDING"
    ASSIGNED = "ASSIGNED"
    IN_PROGRESS = "IN_PROGRESS"
    SUSPENDED = "SUSPENDED"
    DELEGATED = "DELEGATED"
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    FAULTED = "FAULTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    ESCALATED = "ESCALATED"
    OBSOLETE = "OBSOLETE"

    @property
    def active(self) -> bool:
        return self in ACTIVE

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


ACTIVE = frozenset(
    {
        WorkItemStatus.PENDING,
        WorkItemStatus.ASSIGNED,
        WorkItemStatus.IN_PROGRESS,
        WorkItemStatus.SUSPENDED,
        WorkItemStatus.DELEGATED,
    }
)
TERMINAL = frozenset(
    {
        WorkItemStatus.COMPLETED,
        WorkItemStatus.REJECTED,
        WorkItemStatus.FAULTED,
        WorkItemStatus.CANCELLED,
        WorkItemStatus.EXPIRED,
        WorkItemStatus.ESCALATED,
        WorkItemStatus.OBSOLETE,
    }
)


class Priority(StrEnum):
    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    URGENT = "URGENT"

    @property
    def rank(self) -> int:
        """0 for URGENT to 3 for LOW: the order in which people should look."""
        return _RANKS[self]


_RANKS = {Priority.URGENT: 0, Priority.HIGH: 1, Priority.MEDIUM: 2, Priority.LOW: 3}


class DeclineTarget(StrEnum):
    """Where a declined delegation goes: back to the pool, or to the last in the chain of delegators."""

    POOL = "POOL"
    DELEGATOR = "DELEGATOR"


class Strict(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What people and other services write: camelCase names, and an unknown key is an error."""


class PermittedOutcome(Strict, frozen=True):
    """A choice. ``condition``: CEL over ``item``, ``payload``, ``data``, ``actor``, ``groups``; "" holds."""

    name: str
    display_name: str = ""
    condition: str = ""


# What happens when a deadline passes, as data; the rules are in work_items_breach.py. Durations are seconds.


class Fail(Strict, frozen=True, tag_field="kind", tag="fail"):
    """EXPIRED, with this reason."""

    reason: str = ""


class EscalateTo(Strict, frozen=True, tag_field="kind", tag="escalateTo"):
    """Back to PENDING for these groups, without assignee; ``deadline`` seconds to go (None: the default)."""

    groups: tuple[str, ...]
    deadline: float | None = None


class Extend(Strict, frozen=True, tag_field="kind", tag="extend"):
    """Pushes the missed deadline ``by`` seconds from now."""

    by: float


class Exhausted(Strict, frozen=True, tag_field="kind", tag="exhausted"):
    """ESCALATED: nothing more can be done here."""

    reason: str = ""


class Chained(Strict, frozen=True, tag_field="kind", tag="chained"):
    """``fallback`` when ``primary`` cannot run; when neither can, ESCALATED."""

    primary: Fail | EscalateTo | Extend | Exhausted | Chained
    fallback: Fail | EscalateTo | Extend | Exhausted | Chained


BreachDecision = Fail | EscalateTo | Extend | Exhausted | Chained


class CreateWorkItem(Strict, frozen=True, kw_only=True):
    """Asks for an item.

    ``request``: key of this request; the same key returns its item in any status with ``created: false``
    ("" = no key). ``caller_ref``: opaque, echoed on every event; at most one active item per callerRef (""
    = no reference). An active item of it is returned, or with ``replace`` made OBSOLETE in the same
    transaction. ``claim_deadline``, ``expires_at``: absent = the service's defaults (4 h, 24 h), null = no
    such deadline. ``assignee_id``: starts ASSIGNED to that person. Empty candidate lists mean the whole
    tenant. ``payload`` is JSON text (or any text).
    """

    tenant: str
    title: str
    graph: str = ""
    request: str = ""
    caller_ref: str = ""
    description: str = ""
    types: tuple[str, ...] = ()
    payload: str = ""
    plan_ref: str = ""
    priority: Priority = Priority.MEDIUM
    assignee_id: str = ""
    candidate_users: tuple[str, ...] = ()
    candidate_groups: tuple[str, ...] = ()
    excluded_users: tuple[str, ...] = ()
    permitted_outcomes: tuple[PermittedOutcome, ...] = ()
    input_data_schema: dict[str, Any] | None = None
    output_data_schema: dict[str, Any] | None = None
    claim_deadline: Instant | UnsetType | None = UNSET
    expires_at: Instant | UnsetType | None = UNSET
    on_expiry: BreachDecision | None = None
    on_claim_expiry: BreachDecision | None = None
    created_by: str = ""
    replace: bool = False


class WorkItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=False):
    """Slow work that waits for a person or an agent; the assignee is any string. ``version`` counts commits.

    ``claim_deadline`` is set only while PENDING. ``data`` is what the decision brought along, ``resolution``
    its note or the reason of another ending. ``prior_status`` is where ``resume`` returns to.
    """

    id: str
    tenancy_id: str
    graph: str = ""
    request: str = ""
    version: int = 1
    caller_ref: str = ""
    created_by: str = ""
    created_at: Instant
    updated_at: Instant
    title: str
    description: str = ""
    types: tuple[str, ...] = ()
    payload: str = ""
    plan_ref: str = ""
    priority: Priority = Priority.MEDIUM
    status: WorkItemStatus = WorkItemStatus.PENDING
    prior_status: WorkItemStatus | None = None
    assignee_id: str = ""
    candidate_users: tuple[str, ...] = ()
    candidate_groups: tuple[str, ...] = ()
    excluded_users: tuple[str, ...] = ()
    owner: str = ""
    delegation_chain: tuple[str, ...] = ()
    delegation_decline_target: DeclineTarget = DeclineTarget.POOL
    permitted_outcomes: tuple[PermittedOutcome, ...] = ()
    input_data_schema: dict[str, Any] | None = None
    output_data_schema: dict[str, Any] | None = None
    outcome: str = ""
    resolution: str = ""
    data: dict[str, Any] | None = None
    decided_by: str = ""
    assigned_at: Instant | None = None
    started_at: Instant | None = None
    completed_at: Instant | None = None
    suspended_at: Instant | None = None
    claim_deadline: Instant | None = None
    expires_at: Instant | None = None
    on_expiry: BreachDecision | None = None
    on_claim_expiry: BreachDecision | None = None
    claim_budget_seconds: float | None = None
    accumulated_unclaimed_seconds: float = 0.0
    last_returned_to_pool_at: Instant | None = None

    @property
    def subject_graph(self) -> str:
        """The graph as subjects and indexes name it."""
        return self.graph or NO_GRAPH


class CreateReply(msgspec.Struct, frozen=True):
    """``created`` is False when the item was there already (by request key or active callerRef)."""

    item: WorkItem
    created: bool


class Verb(StrEnum):
    """The verbs of :class:`WorkItemCommand`."""

    CLAIM = "claim"
    START = "start"
    COMPLETE = "complete"
    REJECT = "reject"
    RELEASE = "release"
    SUSPEND = "suspend"
    RESUME = "resume"
    DELEGATE = "delegate"
    ACCEPT = "accept"
    DECLINE = "decline"
    ESCALATE = "escalate"
    EXTEND = "extend"
    CANCEL = "cancel"
    OBSOLETE = "obsolete"
    FAULT = "fault"
    SIGNAL = "signal"
    NOTE = "note"


class WorkItemCommand(Strict, frozen=True, kw_only=True):
    """A transition, note or signal. The verb is the subject's last token.

    ``version``: refuse as ``stale`` unless the item still has it. ``groups``: groups the caller vouches
    for, added to the directory's. ``system``: an automated caller; no membership check, and an ended item
    is returned as it is (always so for obsolete and fault). ``note`` is the reason or comment. ``outcome``,
    ``data`` belong to complete and reject (``data`` also to signal); ``to``, ``decline_target`` to
    delegate; ``target_groups`` to escalate; ``expires_at`` to extend. ``caller_ref`` and ``request`` name
    the item for obsolete without ``id``; a ``request`` that has not arrived yet is refused from then on.
    """

    tenant: str
    id: str = ""
    actor: str = ""
    groups: tuple[str, ...] = ()
    version: int | None = None
    system: bool = False
    outcome: str = ""
    note: str = ""
    data: dict[str, Any] | None = None
    to: str = ""
    decline_target: DeclineTarget = DeclineTarget.POOL
    target_groups: tuple[str, ...] = ()
    expires_at: Instant | None = None
    caller_ref: str = ""
    request: str = ""


class WorkItemEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``data`` of every CloudEvent on ``workitem.<tenant>.<graph or _>.<name>``.

    ``status`` is the one after the event. ``detail`` says why in words; ``note``, ``outcome`` and ``data``
    are the decision's. ``breach`` is what a missed deadline led to. ``decide`` is the command that decides
    the item, in ``created`` only. Reaching a terminal status always emits the event of its name in lower
    case. The CloudEvent's subject is the item's id.
    """

    id: str
    status: WorkItemStatus
    version: int
    tenant: str
    graph: str
    caller_ref: str
    request: str
    actor: str
    title: str
    priority: Priority
    types: tuple[str, ...]
    assignee_id: str
    candidate_users: tuple[str, ...]
    candidate_groups: tuple[str, ...]
    outcome: str = ""
    note: str = ""
    detail: str = ""
    plan_ref: str = ""
    resolution: str = ""
    data: dict[str, Any] | None = None
    permitted_outcomes: tuple[str, ...] = ()
    claim_deadline: Instant | None = None
    expires_at: Instant | None = None
    breach: BreachDecision | None = None
    decide: str = ""


def gate_ref(ref: GraphRef, node: str, action: Action) -> str:
    """callerRef of a human gate: ``desiredstate:<tenant part>:<node>:<provision|deprovision>``."""
    return f"desiredstate:{ref.caller_part}:{quote(node, safe='')}:{action.value.lower()}"


def approval_ref(ref: GraphRef, node: str, action: Action) -> str:
    """callerRef of an approval: ``desiredstate-approval:<tenant part>:<node>:<PROVISION|DEPROVISION>``."""
    return f"desiredstate-approval:{ref.caller_part}:{quote(node, safe='')}:{action.value}"


def decide_command(item: WorkItem) -> str:
    """What a person types to decide the item."""
    outcome = "|".join(o.name for o in item.permitted_outcomes) or "OUTCOME"
    return f"holdfast decide {item.id} {outcome}"
