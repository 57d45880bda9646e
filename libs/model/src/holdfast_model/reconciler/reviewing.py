"""Reviews: built-in nodes that ask an AI or a person about their target, and what an answer does to it."""

from __future__ import annotations

import msgspec

from holdfast_model.fixes import APPLY_FIX
from holdfast_model.ladders import PENDING, RESOLVED, UNRESOLVED
from holdfast_model.messages import Decision, Observation, Status
from holdfast_model.names import AI_REVIEW, HUMAN_REVIEW

from .core import Core
from .facts import review_spec
from .mending import carry_out, proposal, weigh
from .records import Gate, GateState, Record, Unit
from .turn import ItemIntent

DEFAULT_OUTCOMES = ["retry", "give-up"]
GIVE_UP = "give-up"


def clear(core: Core, unit: Unit, **more: object) -> None:
    """End backoff, permanence, hold and quarantine of a node: the next step may come at once."""
    rec = unit.rec
    cleared: dict[str, object] = {"next_try": 0.0, "permanent": "", "hold": False, "quarantined_until": 0.0}
    cleared |= {"heals": (), "failed_at": (), "released": rec.token if rec.hold else rec.released}
    core.change(unit, **cleared | more)


def attest(core: Core, unit: Unit, gate: Gate | None, reason: str, detail: str) -> None:
    """Take a person's word (or a review's answer): PRESENT for this digest until a newer observation says otherwise."""
    core.change(
        unit, status=Status.PRESENT, reason=reason, detail=detail, digest=unit.form.digest, hold=False, gate=gate,
        failures=0, next_try=0.0, permanent="", uses=unit.form.depends_on,
    )  # fmt: skip


def review_item(core: Core, unit: Unit, intent: ItemIntent) -> ItemIntent:
    """The WorkItem of a human review: about its target, with the latest detail and the outcomes of its type."""
    assert unit.node is not None
    spec = review_spec(unit.node)
    name = str(spec.get("target", ""))
    target = core.units.get(name)
    info = core.info(target) if target is not None else None
    reason, fixable = str(spec.get("reason", "")), False
    payload: dict[str, object] = {"review": unit.id, **spec}
    if target is not None:
        rec = target.rec
        reason = rec.reason if rec.hold else rec.error_reason or reason
        payload |= {"reason": reason, "error": rec.detail if rec.hold else rec.error or spec.get("error", "")}
        payload |= {"status": rec.status.value if rec.status else None, "info": rec.info, "type": target.type}
        advice = _advice(core, target)
        if advice is not None:
            payload["advice"] = {"reason": advice.rec.reason, "detail": advice.rec.detail, **(advice.rec.info or {})}
            fixable = proposal(core, target, advice) is not None
    known = info.outcomes if info else {}
    outcomes = [*([APPLY_FIX] if fixable else []), *(known.get(reason) or known.get("*") or DEFAULT_OUTCOMES)]
    return msgspec.structs.replace(
        intent,
        title=f"review {name}: {reason or 'failed'}",
        description=str(payload.get("error") or ""),
        payload=payload,
        outcomes=outcomes,
    )


def _advice(core: Core, target: Unit) -> Unit | None:
    """The AI review of a node that has been answered for what it is now."""
    for name in core.reviews.get(target.id, ()):
        review = core.units[name]
        answered = review.type == AI_REVIEW and review.rec.status is Status.PRESENT
        if answered and _still_about(target, target_of(core, review)[1]):
            return review
    return None


def decide_target(core: Core, review: Unit, decision: Decision) -> None:
    """A review was answered: clear its target and send the decision along with the target's next step."""
    target, spec = target_of(core, review)
    if target is None or not _still_about(target, spec):
        return
    if decision.outcome == GIVE_UP:
        core.change(target, refused=target.form.digest, given_up=decision.by or "a person", decision=None)
        return
    if decision.outcome == APPLY_FIX:
        advice = _advice(core, target)
        update = proposal(core, target, advice) if advice is not None else None
        if update is None:  # what was proposed does not apply any more
            _ask_again(core, review)
        else:
            carry_out(core, update, decision.by, f"{review.id}: {APPLY_FIX}")
        return
    decision = msgspec.structs.replace(decision, reason=target.rec.reason or decision.reason)
    clear(core, target, refused="", given_up="", decision=decision, decided=target.form.digest, doubted=False)


def target_of(core: Core, review: Unit) -> tuple[Unit | None, dict[str, object]]:
    """The target of a review, if it is in the graph, and the review's spec."""
    assert review.node is not None
    spec = review_spec(review.node)
    return core.units.get(str(spec.get("target", ""))), spec


def _still_about(target: Unit, spec: dict[str, object]) -> bool:
    digest, episode = spec.get("target_digest"), spec.get("episode")
    return (not digest or digest == target.form.digest) and (not episode or episode == target.rec.episode)


def reopen_reviews(core: Core, target: Unit) -> None:
    """The step that followed an answer left its target failed or held: ask again, with the latest detail."""
    for name in tuple(core.reviews.get(target.id, ())):
        review = core.units[name]
        gate = review.rec.gate
        if review.type != HUMAN_REVIEW or gate is None or gate.state is not GateState.PASSED:
            continue
        if target.rec.refused != target.form.digest and _still_about(target, target_of(core, review)[1]):
            _ask_again(core, review)


def _ask_again(core: Core, review: Unit) -> None:
    rec = review.rec
    core.set_record(review, Record(type=rec.type, status=Status.ABSENT, round=rec.round + 1, paused=rec.paused))


def ai_reason(review: Unit, seen: Observation) -> str:
    """What an AI review says. Nothing yet is PENDING; whatever is no clear RESOLVED is UNRESOLVED, and so is one that
    is less sure than the review's ``min_confidence``."""
    assert review.node is not None
    if seen.status is not Status.PRESENT or seen.reason in ("", PENDING):
        return PENDING
    least, sure = review_spec(review.node).get("min_confidence"), (seen.info or {}).get("confidence")
    weak = isinstance(least, int | float) and isinstance(sure, int | float) and sure < least
    return RESOLVED if seen.reason == RESOLVED and not weak else UNRESOLVED


def ai_answer(core: Core, review: Unit, seen: Observation) -> tuple[Observation, bool]:
    """An answer as it counts, and whether what it is about is changed by a fix now."""
    target, spec = target_of(core, review)
    if target is None or not _still_about(target, spec):
        return seen, False
    return weigh(core, review, target, seen)


def ai_answered(core: Core, review: Unit) -> None:
    """Whatever an AI review says, its target gets one attempt at once; its failure moves the ladder."""
    target, spec = target_of(core, review)
    if target is not None and _still_about(target, spec):
        core.change(target, next_try=0.0, permanent="")


def no_reviewer(core: Core, unit: Unit) -> bool:
    """An AI review whose target's domain does not review is answered at once: UNRESOLVED."""
    target = core.target_info(unit)
    if target is not None and target.reviews:
        return False
    attest(core, unit, None, UNRESOLVED, "the domain of the target does not review")
    ai_answered(core, unit)
    return True
