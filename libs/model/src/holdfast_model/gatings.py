"""Human gating: which actions on a node need a person first, and how two sayings about it combine."""

from __future__ import annotations

from .messages import Action
from .rows import Gating

_BY_ACTIONS = {frozenset(a for a in Action if gating.covers(a)): gating for gating in Gating}


def actions_of(gating: Gating) -> frozenset[Action]:
    """The actions that need a person."""
    return frozenset(action for action in Action if gating.covers(action))


def merged(one: Gating, other: Gating) -> Gating:
    """What either asks for: each can raise the gate, none can lower it."""
    return _BY_ACTIONS[actions_of(one) | actions_of(other)]


def needs_human(action: Action, gating: Gating, spec_gating: Gating) -> bool:
    """Whether a person has to agree first: the node's gating or the one that its spec declares covers the action."""
    return merged(gating, spec_gating).covers(action)
