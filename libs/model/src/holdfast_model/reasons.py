"""Reason codes that Holdfast itself gives; domains give codes of their own, each in its module ``reasons``.

A code says why something is as it is: in observations, faults, events and explanations. It never changes its meaning,
so that policies and people may depend on it. A text for people, which may change, goes beside it as ``detail``.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Codes of the model, the planner and the bus."""

    STALE = "stale"
    """Drift that is ordinary work: its inputs moved on. Raises no fault."""
    SPEC_CHANGED = "spec_changed"
    """Drift that is ordinary work: its blueprint asks for something else. Raises no fault."""
    DRIFTED = "drifted"
    """NODE_DEGRADED, ``node drifted``: the observer saw a drift and gave no code."""
    ABSENT = "absent"
    """``node drifted`` of an observe-only node that is not there."""
    NOT_OBSERVED = "not_observed"
    """UNKNOWN: the observer's answer left the node out."""
    NOT_SEARCHED = "not_searched"
    """UNKNOWN, of what was adopted as a leftover: the search for leftovers of its type failed."""
    OBSERVER_FAILED = "observer_failed"
    """UNKNOWN: the observer failed, or did not answer in time."""
    NO_ANSWER = "no_answer"
    """UNKNOWN: a step was not answered in time; the node is looked at before anything else."""
    ATTESTED = "attested"
    """PRESENT or ABSENT because a person said so."""
    FAILED = "failed"
    """PROVISION_FAILED, DEPROVISION_FAILED: the provisioner gave no code."""
    DEAD_LETTERED = "dead_lettered"
    """PROVISION_FAILED, DEPROVISION_FAILED: its batch was delivered too often and never answered; it is sent again by
    itself."""
    WORKITEM_FAULTED = "workitem_faulted"
    """PROVISION_FAILED, DEPROVISION_FAILED: the WorkItem of its human gate ended as FAULTED."""
    NO_PROVISIONER = "no_provisioner"
    """PROVISION_FAILED: no domain of its type has been running for a minute; one per graph and type."""
    TIMED_OUT = "timed_out"
    """PROVISION_FAILED: the deadline of its phase or blueprint passed, and this node was in the way."""
    DEPENDENCY_FAILED = "dependency_failed"
    """DEPENDENCY_UNAVAILABLE: a node that it depends on failed; once per episode of that node."""
    REPORTED = "reported"
    """Any fault type: somebody outside reported it on ``state.<tenant>.<graph>``."""
    REJECTED = "rejected"
    """APPROVAL_REJECTED: a person rejected the WorkItem, or the provisioner the step without a code of its own."""
    REJECT = "reject"
    """APPROVAL_REJECTED: a person answered the approval with ``reject``."""
    EXPIRED = "expired"
    """HUMAN_NODE_TIMEOUT, APPROVAL_REJECTED: its WorkItem ran out of time."""
    ESCALATED = "escalated"
    """HUMAN_NODE_TIMEOUT, APPROVAL_REJECTED: every answer to a missed deadline of its WorkItem was used up."""
    CANCELLED = "cancelled"
    """APPROVAL_REJECTED: its WorkItem was cancelled. PROVISION_FAILED, DEPROVISION_FAILED: the handler was cancelled by
    something it waited for."""
    FAULTED = "faulted"
    """APPROVAL_REJECTED: its WorkItem ended as FAULTED."""
    OBSOLETE = "obsolete"
    """APPROVAL_REJECTED: somebody made its WorkItem obsolete."""
    LEFTOVER = "leftover"
    """``node leftover``: it is there, and nobody desires it."""
    POISON = "poison"
    """``node quarantined``: it failed five times in ten minutes, and no ladder looks after it."""
    LIVELOCK = "livelock"
    """``node quarantined``: it was healed five times in ten minutes from one and the same drift."""


class FailureKind(StrEnum):
    """Why no policy could act on a fault: ``kind`` of the event ``policy_failed``."""

    CONFLICT = "CONFLICT"
    """Policies ask for different things about the same node; none of it is done."""
    POLICY_ERROR = "POLICY_ERROR"
    """A policy failed, or did not answer in time."""
    FIX_INVALID = "FIX_INVALID"
    """A fix that a reviewer proposed does not apply, or makes a spec that the type's schema refuses."""
