"""Fixes that reviews propose: whether one counts, whether it may be offered, and carrying it out with the turn."""

from __future__ import annotations

import msgspec

from holdfast_model.errors import Invalid
from holdfast_model.events import Family, GraphEvent
from holdfast_model.fixes import FIX_INVALID, FIXER, check_spec, mended, read_fix
from holdfast_model.ladders import RESOLVED, UNRESOLVED
from holdfast_model.messages import Observation, Status
from holdfast_model.mutations import UpdateNode
from holdfast_model.names import AI_REVIEW
from holdfast_model.rows import Node

from .core import Core
from .facts import review_spec
from .records import Unit
from .turn import Amendment


def weigh(core: Core, review: Unit, target: Unit, seen: Observation) -> tuple[Observation, bool]:
    """The answer of a review as it counts, and whether the fix it proposes is carried out now.

    That is done where the review's spec says ``auto_apply`` and the review says RESOLVED; once, until a blueprint
    changes the node. A fix that waits for a person's consent has resolved nothing yet; one that cannot be carried out
    is told of, and resolves nothing either.
    """
    try:
        update = _update(core, target, seen.info)
    except Invalid as error:
        data: dict[str, object] = {
            "node": target.id, "kind": FIX_INVALID, "message": error.message, "policies": [AI_REVIEW],
            "problems": [{"path": p.path, "message": p.message} for p in error.problems],
        }  # fmt: skip
        core.emit(Family.GRAPH, GraphEvent.POLICY_FAILED, data, target.id)
        info = {**(seen.info or {}), "fix_error": error.message}
        return msgspec.structs.replace(seen, reason=UNRESOLVED, info=info), False
    if update is None or seen.reason != RESOLVED:
        return seen, False
    assert review.node is not None
    if review_spec(review.node).get("auto_apply") is True and _declared(target).owner != FIXER:
        carry_out(core, update, AI_REVIEW, f"{review.id} applies its fix: {seen.detail}")
        return seen, True
    return msgspec.structs.replace(seen, reason=UNRESOLVED), False


def proposal(core: Core, target: Unit, advice: Unit) -> UpdateNode | None:
    """The fix of an answered review, if it can still be carried out."""
    if advice.type != AI_REVIEW or advice.rec.status is not Status.PRESENT:
        return None
    try:
        return _update(core, target, advice.rec.info)
    except Invalid:
        return None


def carry_out(core: Core, update: UpdateNode, by: str, cause: str) -> None:
    """Have the turn change the desired graph: the new digest ends all that was about the old one."""
    core.turn.amend.append(Amendment(FIXER, update, by, cause))


def _update(core: Core, target: Unit, info: dict[str, object] | None) -> UpdateNode | None:
    fix = read_fix(info)
    if fix is None:
        return None
    update = mended(_declared(target), fix)
    known = core.info(target)
    check_spec(update.node.spec, known.spec_schema if known is not None else None)
    return update


def _declared(target: Unit) -> Node:
    """The target as its blueprint has it: what its references stand for now is no part of it."""
    assert isinstance(target.declared, Node)
    return target.declared
