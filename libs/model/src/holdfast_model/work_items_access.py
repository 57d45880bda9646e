"""Who may do what to a WorkItem.

A person may *claim* what they are a candidate for, and *holds* what is assigned to them. Operators may do
either
for anybody, excluded or not, and the history says so. Automated callers are not checked.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Forbidden
from .work_items import WorkItem


@dataclass(frozen=True)
class Actor:
    """Somebody who sends a command. ``groups`` come from the directory and the caller; ``operator`` is a
    role."""

    name: str
    groups: frozenset[str] = frozenset()
    operator: bool = False
    system: bool = False


def candidate(item: WorkItem, actor: Actor) -> bool:
    """Whether the item is offered to the actor: by name, by a group, or to the whole tenant; never if
    excluded."""
    if actor.name in item.excluded_users:
        return False
    if not item.candidate_users and not item.candidate_groups:
        return True
    return actor.name in item.candidate_users or not actor.groups.isdisjoint(item.candidate_groups)


def check_claim(item: WorkItem, actor: Actor) -> str:
    """Refuse (Forbidden) who may not claim the item; the text to audit if an operator overrides, else ""."""
    if actor.system or candidate(item, actor):
        return ""
    if actor.name in item.excluded_users:
        why = f"{actor.name} is excluded from it"
    else:
        why = f"{actor.name} is not a candidate for it"
    return _override(item, actor, why, "ask an operator, or let a candidate do it")


def check_holder(item: WorkItem, actor: Actor) -> str:
    """Refuse (Forbidden) who does not hold the item; the text to audit if an operator overrides, else ""."""
    if actor.system or (actor.name == item.assignee_id and actor.name not in item.excluded_users):
        return ""
    why = f"it is assigned to {item.assignee_id or 'nobody'}, not to {actor.name}"
    return _override(item, actor, why, f"ask {item.assignee_id or 'an operator'} to release or delegate it")


def _override(item: WorkItem, actor: Actor, why: str, hint: str) -> str:
    if actor.operator:
        return f"operator override: {why}"
    error = Forbidden(f"WorkItem {item.id}: {why}", hint=hint)
    error.current = item
    raise error
