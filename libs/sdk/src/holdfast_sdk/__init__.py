"""What the author of a domain imports: declare types, compile blueprints, observe and provision nodes.

Authors see typed specs, states and errors; messages, subjects and acknowledgements stay inside. Nothing in
here plans, counts faults or touches the store: the planner decides, a domain looks and acts.
"""

from holdfast_model.errors import Invalid, Permanent, Problem, Temporary
from holdfast_model.manifest import AddNode, Backoff, Ladder, OnDrift, OnUnknown, Rung
from holdfast_model.messages import Approval, Decision, Observation, Status

from .compiling import Added, GraphBuilder
from .context import Context
from .domain import Domain
from .handlers import Changed, Found
from .nodes import Node
from .policies import PolicyRequest
from .process import run
from .refs import Ref
from .reviews import Review
from .states import (
    PENDING,
    RESOLVED,
    UNRESOLVED,
    Absent,
    Drifted,
    PendingApproval,
    Present,
    Reviewed,
    State,
    Unknown,
    Verdict,
)

__all__ = [
    "PENDING",
    "RESOLVED",
    "UNRESOLVED",
    # answers
    "Absent",
    # faults, ladders, reviews
    "AddNode",
    # a domain
    "Added",
    # handlers
    "Approval",
    "Backoff",
    "Changed",
    "Context",
    "Decision",
    "Domain",
    "Drifted",
    "Found",
    "GraphBuilder",
    # errors
    "Invalid",
    "Ladder",
    "Node",
    "Observation",
    "OnDrift",
    "OnUnknown",
    "PendingApproval",
    "Permanent",
    "PolicyRequest",
    "Present",
    "Problem",
    "Ref",
    "Review",
    "Reviewed",
    "Rung",
    # the process
    "State",
    "Status",
    "Temporary",
    "Unknown",
    "Verdict",
    "run",
]  # fmt: skip
