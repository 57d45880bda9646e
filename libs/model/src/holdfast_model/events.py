"""Events and faults: what Holdfast tells the world, independent of how it travels.

An :class:`Event` is a fact that was committed. The bus turns it into a CloudEvent on a subject; subscribers
de-duplicate by ``id``. CloudEvent types keep the reference's names (``io.casehub.desiredstate.*``,
``io.casehub.work.workitem.*``), so that subscribers of that system keep working.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from .names import GraphRef

DESIRED_STATE = "io.casehub.desiredstate."
WORK_ITEM = "io.casehub.work.workitem."


class Family(StrEnum):
    """The first token of an event's subject."""

    GRAPH = "graph"
    NODE = "node"
    FAULT = "fault"
    WORKITEM = "workitem"


class GraphEvent(StrEnum):
    """Names of the events about a graph, on ``graph.<tenant>.<graph>.<name>``."""

    ACCEPTED = "accepted"
    """A blueprint, or a deletion, was admitted: the answer to what was published, which it names."""
    REJECTED = "rejected"
    """A blueprint was refused, with every place that is wrong; nothing changed."""
    WAITING = "waiting"
    """A blueprint is kept until the domains it names are running, or until a person consents to what it removes."""
    CHANGED = "changed"
    """An admission changed the graph: what it added, updated and removed."""
    RECONCILED = "reconciled"
    """The end of a wave: nothing is ready or in flight any more, after steps were taken."""
    CONVERGED = "converged"
    """Everything is as declared, nothing is left to remove; once per transition and per accepted version."""
    PAUSED = "paused"
    """Somebody paused the graph: no step is sent."""
    RESUMED = "resumed"
    """Somebody resumed it."""
    PHASE_ADVANCED = "phase_advanced"
    """All of a phase was there, and the next one begins."""
    TIMED_OUT = "timed_out"
    """The deadline of a phase or blueprint passed; told before its fault."""
    SITUATION = "situation"
    """Several faults in one place within a time, as a manifest describes them; told once when it begins."""
    POLICY_FAILED = "policy_failed"
    """Policies contradicted each other, one of them failed, or a proposed fix cannot be carried out (``kind``)."""
    DELETED = "deleted"
    """The graph was deleted, and nothing of it is left."""


class NodeEvent(StrEnum):
    """Names of the events about a node, on ``node.<tenant>.<graph>.<name>``."""

    DRIFTED = "drifted"
    """It is there, but not as declared (or, where its blueprint only observes, not there); once per episode."""
    RECOVERED = "recovered"
    """The episode that began with a fault or drift is over."""
    BLOCKED = "blocked"
    """A node that it depends on failed, is held, or waits for a person; once per episode of that node."""
    WAITING = "waiting"
    """A person is asked: to act on it, or to approve its provisioner's plan."""
    QUARANTINED = "quarantined"
    """No step is sent for a while, because it failed, or was healed in vain, time and again."""
    LEFTOVER = "leftover"
    """Something of a type that can be searched for is there, and nobody desires it; once per find."""
    PROGRESS = "progress"
    """How far a running step is. On core NATS only: it may be lost, and nothing depends on it."""


class ItemEvent(StrEnum):
    """Names of the events about a WorkItem, on ``workitem.<tenant>.<graph or _>.<name>``."""

    CREATED = "created"
    """It was asked for."""
    ASSIGNED = "assigned"
    """Somebody claimed it, or it was given to somebody from the start."""
    STARTED = "started"
    """Its assignee began, or decided it without having begun."""
    COMPLETED = "completed"
    """It was decided, with this outcome."""
    REJECTED = "rejected"
    """A person said no."""
    RELEASED = "released"
    """Its assignee gave it back to the pool."""
    SUSPENDED = "suspended"
    """It rests, and so do its deadlines."""
    RESUMED = "resumed"
    """It goes on where it was suspended."""
    DELEGATED = "delegated"
    """Its assignee passed it on to somebody, who has not accepted yet."""
    DELEGATION_ACCEPTED = "delegation_accepted"
    """That person took it."""
    DELEGATION_DECLINED = "delegation_declined"
    """That person did not: it goes to the pool, or back."""
    MANUALLY_ESCALATED = "manually_escalated"
    """Somebody passed it on to other groups."""
    DEADLINE_EXTENDED = "deadline_extended"
    """Somebody moved its expiry."""
    SIGNAL_RECEIVED = "signal_received"
    """A signal for whoever works on it came in; its status stays."""
    CLAIM_EXPIRED = "claim_expired"
    """Nobody claimed it in time; ``expired`` follows."""
    EXPIRED = "expired"
    """A deadline passed, and its policy ends it with that."""
    SLA_REASSIGNED = "sla_reassigned"
    """A deadline passed: other groups are asked."""
    SLA_EXTENDED = "sla_extended"
    """A deadline passed: it was moved."""
    ESCALATED = "escalated"
    """A deadline passed, and every answer to that was used up."""
    FAULTED = "faulted"
    """Whoever had it in hand cannot go on, for technical reasons."""
    CANCELLED = "cancelled"
    """It was stopped on purpose."""
    OBSOLETE = "obsolete"
    """Nobody needs the answer any more."""


class FaultType(StrEnum):
    """What went wrong with a node, on ``fault.<tenant>.<graph>.<type in lower case>``."""

    NODE_DESTROYED = "NODE_DESTROYED"
    """Somebody outside reported that it is gone. Being absent alone raises none: it is provisioned again."""
    NODE_DEGRADED = "NODE_DEGRADED"
    """It drifted, for a reason other than ordinary work, or was reported so; once per episode."""
    PROVISION_FAILED = "PROVISION_FAILED"
    """An attempt to make it failed; or nobody can make it; or it was not there in time."""
    DEPROVISION_FAILED = "DEPROVISION_FAILED"
    """An attempt to remove it failed."""
    HUMAN_NODE_TIMEOUT = "HUMAN_NODE_TIMEOUT"
    """Nobody did or decided in time what a person has to; a new WorkItem follows."""
    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    """It needs a step, and a node that it depends on failed; once per episode of that node."""
    APPROVAL_REJECTED = "APPROVAL_REJECTED"
    """A person, or its provisioner, said no."""


_TYPES: dict[tuple[Family, str], str] = {
    (Family.GRAPH, GraphEvent.RECONCILED): DESIRED_STATE + "reconciliation.completed",
}


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One committed fact. ``name`` is the last subject token; ``node`` the CloudEvent subject; ``time`` epoch s."""

    id: str
    family: Family
    name: str
    tenant: str
    graph: str
    time: float
    data: dict[str, Any]
    node: str = ""
    faulttype: str = ""
    traceparent: str = ""

    @property
    def type(self) -> str:
        """The CloudEvent type."""
        if self.family is Family.FAULT:
            return DESIRED_STATE + "node.faulted"
        if self.family is Family.WORKITEM:
            return WORK_ITEM + self.name
        return _TYPES.get((self.family, self.name), f"{DESIRED_STATE}{self.family}.{self.name}")


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something went wrong with one node. Written in the transaction of the change that caused it.

    ``episode`` runs from the first fault of a kind to recovery; ``digest`` is the node's when it happened;
    ``parents`` are the ids of faults that led to this one; ``parent`` is the first node that the node depends on ("" =
    none); ``context`` is what reviewers get to see.
    """

    id: str
    incarnation: str
    tenant: str
    graph: str
    node: str
    type: FaultType
    node_type: str
    time: float
    reason: str = ""
    detail: str = ""
    permanent: bool = False
    attempt: int = 0
    operation: int = 0
    digest: str = ""
    episode: str = ""
    parents: tuple[str, ...] = ()
    parent: str = ""
    context: dict[str, Any] = {}

    @property
    def ref(self) -> GraphRef:
        return GraphRef(self.tenant, self.graph)

    def event(self) -> Event:
        """The event that announces this fault; its id is the fault's."""
        data = msgspec.to_builtins(self)
        data |= {"nodeType": self.node_type, "parentNodeId": self.parent or None}
        return Event(
            self.id, Family.FAULT, self.type.lower(), self.tenant, self.graph, self.time, data,
            node=self.node, faulttype=self.type.value,
        )  # fmt: skip
