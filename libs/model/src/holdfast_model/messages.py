"""What planner and provisioners send each other: batches of steps, results and observations.

These are msgspec structs because they are hot (100,000 nodes decode in 0.23 s; pydantic needs 1.7 s). Specs travel
as raw JSON (`msgspec.Raw`) and are decoded only where they are used. Times are seconds since the epoch (UTC). What
comes by the thousand in one message is hidden from the garbage collector: it cannot be part of a cycle.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import msgspec
from msgspec import Raw

from .reasons import Reason


class Action(StrEnum):
    PROVISION = "PROVISION"
    DEPROVISION = "DEPROVISION"


class Status(StrEnum):
    """What an observer says of a node."""

    PRESENT = "PRESENT"
    ABSENT = "ABSENT"
    DRIFTED = "DRIFTED"
    UNKNOWN = "UNKNOWN"


class Outcome(StrEnum):
    """How one attempt ended. ``expired``: it did not start before ``start_by``; costs no attempt, is no failure."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PENDING_APPROVAL = "pending_approval"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    EXPIRED = "expired"


REASON_STALE = Reason.STALE
REASON_SPEC_CHANGED = Reason.SPEC_CHANGED
WORK_REASONS = frozenset({REASON_STALE, REASON_SPEC_CHANGED})
"""Reasons of drift that are ordinary work and no fault."""


class Observation(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is really there. ``reason`` is a code, ``detail`` text for people, ``token`` identifies what was seen.

    ``hold`` (only with DRIFTED) asks that nothing is undone until a person or policy decides; None leaves it to the
    node type's ``on_drift``. ``outputs`` are values that other nodes may refer to; ``info`` is shown to people.
    """

    status: Status
    reason: str = ""
    detail: str = ""
    token: str = ""
    hold: bool | None = None
    outputs: dict[str, object] | None = None
    info: dict[str, object] | None = None


MAX_DETAIL = 65_536
MAX_REASON = 256

_Said = TypeVar("_Said", "Observation", "StepOutcome")


def concise(said: _Said) -> _Said:
    """With texts as long as events, questions and explanations can carry them; the very same object if they are."""
    if len(said.detail) <= MAX_DETAIL and len(said.reason) <= MAX_REASON:
        return said
    return msgspec.structs.replace(said, detail=brief(said.detail), reason=said.reason[:MAX_REASON])


def brief(detail: str) -> str:
    """A text for people, cut where it is so long that nobody reads it and no message carries it."""
    return detail if len(detail) <= MAX_DETAIL else f"{detail[:MAX_DETAIL]}… ({len(detail):,} characters)"


class Approval(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person's consent to exactly this plan with these pinned inputs."""

    plan: str
    by: str
    at: float
    workitem: str = ""
    pins: dict[str, object] | None = None


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person or reviewer chose for a node; travels with its next step and is used up by its success."""

    outcome: str
    by: str = ""
    note: str = ""
    data: dict[str, object] | None = None
    reason: str = ""
    workitem: str = ""
    at: float = 0.0


class Touch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Another node whose backoff and quarantine a result clears, and which is then observed (or has been)."""

    node: str
    observation: Observation | None = None


class Step(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One attempt at one node. (operation, attempt) is unique per node within an incarnation.

    ``deadline``: by when it is to be done, the earliest of its own limit and those of its phase and blueprint; absent
    where these set none. What runs is not killed by it. ``first``: the operation as which its intention began, where
    that has another number by now (its node was renamed); 0 = this one.
    """

    node: str
    action: Action
    operation: int
    attempt: int
    type: str
    spec: Raw
    digest: str
    depends_on: tuple[str, ...] = ()
    approval: Approval | None = None
    decision: Decision | None = None
    refs: dict[str, object] | None = None
    deadline: float | None = None
    first: int = 0


class StepBatch(msgspec.Struct, frozen=True):
    """Steps of one type of one graph. ``start_by``: a step that starts later answers ``expired``."""

    batch: str
    tenant: str
    graph: str
    incarnation: str
    partition: int
    epoch: int
    domain_version: str
    start_by: float
    steps: list[Step]
    traceparent: str = ""


class StepOutcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The end of one attempt. A success carries the observation, so that no second read is needed.

    ``plan``, ``summary`` and ``pins`` belong to ``pending_approval``; ``retry_after`` (seconds) and ``permanent`` to
    ``failed``; ``decision_unused`` says that a decision sent along was not consumed.
    """

    node: str
    operation: int
    attempt: int
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    retry_after: float | None = None
    permanent: bool = False
    plan: str = ""
    summary: dict[str, object] | None = None
    pins: dict[str, object] | None = None
    observation: Observation | None = None
    outputs: dict[str, object] | None = None
    touch: tuple[Touch, ...] = ()


class ResultBatch(msgspec.Struct, frozen=True):
    """Outcomes of one batch. A batch may be answered in several parts, as its steps end."""

    batch: str
    tenant: str
    graph: str
    incarnation: str
    epoch: int
    outcomes: list[StepOutcome]


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a running step is; sent on core NATS (may be lost), shown to people, never decided upon."""

    tenant: str
    graph: str
    node: str
    operation: int
    done: float | None = None
    total: float | None = None
    unit: str = ""
    text: str = ""


class ObserveItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One node to look at. ``present``: it is desired (False for the form of a removed node)."""

    node: str
    spec: Raw
    digest: str
    depends_on: tuple[str, ...] = ()
    present: bool = True


class ObserveRequest(msgspec.Struct, frozen=True):
    """Body of ``rpc.domain.<domain>.observe``: nodes of one type of one graph.

    ``domain_version``: the version that should answer; an older one leaves the request to it.
    """

    tenant: str
    graph: str
    incarnation: str
    type: str
    nodes: list[ObserveItem]
    discover: bool = False
    domain_version: str = ""


class ObserveReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One observation per node asked for, by id. A node that is missing here is UNKNOWN.

    ``leftovers``: ids of things of this type that are there though nobody desires them (only for ``discover``);
    ``specs``: of those, as far as they are known, and so ``edges`` (what they depend on) and ``gates`` (their gating);
    ``undiscovered``: why nothing can be said of leftovers ("": it can).
    """

    observations: dict[str, Observation]
    leftovers: list[str] = []
    specs: dict[str, Raw] = {}
    undiscovered: str = ""
    edges: dict[str, tuple[str, ...]] = {}
    gates: dict[str, str] = {}


class NodeDeclaration(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A node as a blueprint or a compiler declares it."""

    id: str
    type: str
    spec: Raw = Raw(b"{}")
    gating: str = "NONE"
    spec_gating: str = "NONE"
    depends_on: tuple[str, ...] = ()


class CompileRequest(msgspec.Struct, frozen=True):
    """Body of ``rpc.domain.<domain>.compile``. ``domain_version`` as in :class:`ObserveRequest`."""

    tenant: str
    graph: str
    spec: Raw
    domain_version: str = ""


class CompiledPhase(msgspec.Struct, frozen=True, omit_defaults=True):
    """One phase of a blueprint. ``complete_when``: ``all_present`` or ``never``; ``deadline`` as people write it:
    a duration from the phase's start, or an instant (RFC 3339).
    """

    id: str
    nodes: list[NodeDeclaration]
    complete_when: str = "all_present"
    deadline: str | float | None = None


class CompileReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The nodes a blueprint stands for, or (as an RPC error ``invalid``) what is wrong with it.

    With ``phases``, ``nodes`` are those that every phase has: no phase waits for them.
    """

    nodes: list[NodeDeclaration]
    warnings: list[str] = []
    phases: list[CompiledPhase] = []
