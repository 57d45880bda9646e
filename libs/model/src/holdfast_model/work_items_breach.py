"""What a missed deadline leads to: the pure form of a breach policy.

A policy is data (see ``BreachDecision``). It has no memory: which tier of a chain an item is on shows in its
candidate groups, so an escalation to the groups that already have it counts as used up.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from .errors import Invalid, Problem
from .work_items import BreachDecision, Chained, EscalateTo, Exhausted, Extend, Fail, WorkItem, WorkItemStatus

Leaf = Fail | EscalateTo | Extend | Exhausted


class Deadline(StrEnum):
    """``expiry`` bounds the whole of an item's life, ``claim`` only its time in the pool."""

    EXPIRY = "expiry"
    CLAIM = "claim"


def next_deadline(item: WorkItem) -> tuple[Deadline, datetime] | None:
    """The deadline that is running, or None. Suspended items have no running clock; expiry wins a tie."""
    if item.status.terminal or item.status is WorkItemStatus.SUSPENDED:
        return None
    claim = item.claim_deadline if item.status is WorkItemStatus.PENDING else None
    if item.expires_at is not None and (claim is None or item.expires_at <= claim):
        return Deadline.EXPIRY, item.expires_at
    return (Deadline.CLAIM, claim) if claim is not None else None


def decide(item: WorkItem, deadline: Deadline) -> Leaf:
    """The decision that can run. Raises Invalid for an escalation to nobody that stands alone."""
    policy = (item.on_expiry if deadline is Deadline.EXPIRY else item.on_claim_expiry) or Fail()
    if isinstance(policy, EscalateTo) and not policy.groups:
        text = "escalates to no groups"
        raise Invalid(text, [Problem(f"/{field_of(deadline)}/groups", text)])
    leaves = _leaves(policy)
    used = [i for i, leaf in enumerate(leaves) if _escalated_to(item, leaf)]
    for leaf in leaves[used[-1] + 1 if used else 0 :]:
        if not isinstance(leaf, EscalateTo) or leaf.groups:
            return leaf
    return Exhausted("every answer to the missed deadline was used up")


def policy_problems(policy: BreachDecision | None, at: str) -> list[Problem]:
    """What is wrong with a policy that a request declares; ``at`` is its JSON pointer."""
    if policy is None:
        return []
    if isinstance(policy, EscalateTo) and not policy.groups:
        return [Problem(f"{at}/groups", "escalates to no groups")]
    problems = []
    for leaf in _leaves(policy):
        if isinstance(leaf, Extend) and leaf.by <= 0:
            problems.append(Problem(f"{at}/by", "an extension must be longer than 0 seconds"))
        if isinstance(leaf, EscalateTo) and leaf.deadline is not None and leaf.deadline <= 0:
            problems.append(Problem(f"{at}/deadline", "a deadline must be longer than 0 seconds"))
    return problems


def field_of(deadline: Deadline) -> str:
    """The name of the item's field that holds the policy for this deadline."""
    return "onExpiry" if deadline is Deadline.EXPIRY else "onClaimExpiry"


def _leaves(policy: BreachDecision) -> list[Leaf]:
    if isinstance(policy, Chained):
        return [*_leaves(policy.primary), *_leaves(policy.fallback)]
    return [policy]


def _escalated_to(item: WorkItem, leaf: Leaf) -> bool:
    return isinstance(leaf, EscalateTo) and bool(leaf.groups) and set(leaf.groups) == set(item.candidate_groups)
