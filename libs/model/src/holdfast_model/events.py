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


class FaultType(StrEnum):
    NODE_DESTROYED = "NODE_DESTROYED"
    NODE_DEGRADED = "NODE_DEGRADED"
    PROVISION_FAILED = "PROVISION_FAILED"
    DEPROVISION_FAILED = "DEPROVISION_FAILED"
    HUMAN_NODE_TIMEOUT = "HUMAN_NODE_TIMEOUT"
    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    APPROVAL_REJECTED = "APPROVAL_REJECTED"


_TYPES = {
    (Family.GRAPH, "reconciled"): DESIRED_STATE + "reconciliation.completed",
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
