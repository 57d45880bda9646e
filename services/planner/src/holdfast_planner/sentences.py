"""What is said of each condition of a node, and what comes next. Pure.

Every sentence stands beside the fields that it is made of, so that programs need not read it; every one that does not
pass by itself names what ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from holdfast_model.names import AI_REVIEW
from holdfast_model.reconciler.conditions import Condition
from holdfast_model.reconciler.core import Core
from holdfast_model.reconciler.gating import DONE, REJECT
from holdfast_model.reconciler.records import ApprovalGate, Gate, GateState, Record, Unit
from holdfast_model.reconciler.referring import why_missing
from holdfast_model.reconciler.reviewing import GIVE_UP
from holdfast_model.resync import interval_for
from holdfast_model.work_items import WorkItem

from .pending import Pending

Wait = dict[str, Any]
_DEEP = 64
"""How far a chain of blocked nodes is followed."""


class Known(msgspec.Struct, frozen=True):
    """What the reconciler does not know: WorkItems by id (a missing one could not be asked after), the blueprints that
    wait, by owner, since when domains are not running, and of when the faults are that nobody has handled (s since the
    epoch)."""

    items: Mapping[str, WorkItem] = {}
    pending: Mapping[str, Pending] = {}
    gone: Mapping[str, float] = {}
    unhandled: Mapping[str, float] = {}


_SHOWN = 200
"""Characters of a plan that are shown."""
_SOON = 30.0
"""Seconds within which a fault should have been handled."""
_UNTAKEN = "the fault-policy service has not taken up its fault"


def instant(when: float) -> str:
    """RFC 3339 in UTC, to the second."""
    try:
        return datetime.fromtimestamp(int(when), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "a time that no calendar has"


def shortened(plan: str) -> str:
    """The name of a plan as a sentence has it."""
    return plan if len(plan) <= _SHOWN else f"{plan[:_SHOWN]}…"


def wait(kind: str, text: str, **more: Any) -> Wait:
    """One thing that a node waits for, or that is to be said of it."""
    return {"kind": str(kind), "text": text, **more}


def as_declared(unit: Unit, condition: Condition) -> Wait:
    """What is said of a node that waits for nothing."""
    rec = unit.rec
    match condition:
        case Condition.ATTESTED:
            return wait(condition, f"{rec.detail}, whose word counts until somebody sees otherwise")
        case Condition.RECOVERED:
            text = f"as declared again since {instant(rec.recovered)}, after {rec.trouble}"
            return wait(condition, text, since=rec.recovered, after=rec.trouble)
        case Condition.ANSWERED if unit.type == AI_REVIEW:
            text = f"answered {rec.reason}" + (f": {rec.detail}" if rec.detail else "")
            return wait(condition, text, answer=rec.reason)
        case Condition.ANSWERED:
            return wait(condition, f"answered: {rec.detail}", answer=rec.reason)
    return wait(condition, "as declared")


def because(core: Core, unit: Unit, condition: Condition, known: Known) -> Wait:
    """Why a node is not as declared, or cannot be said to be."""
    rec, info = unit.rec, core.info(unit)
    domain = repr(info.domain) if info is not None else "''"
    match condition:
        case Condition.DOUBTED:
            why = "somebody reported a fault of it" if unit.suspect else "what it is made from was made anew"
            return wait(condition, f"{why}, so domain {domain} is asked how it is")
        case Condition.UNSEEN:
            return wait(condition, f"nobody has seen it yet; domain {domain} is asked how it is")
        case Condition.UNKNOWN:
            text = f"cannot be seen ({rec.reason}): {rec.detail}; domain {domain} is asked again and again"
            return wait(condition, text, reason=rec.reason)
        case Condition.UNANSWERED:
            text = (
                f"operation {rec.operation}, attempt {rec.attempt}, was not answered in time, so nobody knows what it"
            )
            text += f" did; domain {domain} is asked how it is"
            return wait(condition, text, operation=rec.operation, attempt=rec.attempt)
        case Condition.READY:
            holder, queue = core.queue_of(unit)
            return wait(condition, f"ready; waits until a provisioner of domain {holder!r} has room", queue=queue)
        case Condition.PROVISIONING | Condition.DEPROVISIONING | Condition.FORMER_STEP:
            return _flight(core, unit, condition)
        case Condition.BACKOFF:
            text = f"backing off until {instant(rec.next_try)}, then attempt {rec.failures + 1}; {_error(unit)}"
            return wait(condition, text, until=rec.next_try, attempt=rec.failures + 1, reason=rec.error_reason)
        case Condition.PUT_OFF:
            why = _said(rec)
            text = f"its provisioner put the step off until {instant(rec.next_try)}" + (f" ({why})" if why else "")
            return wait(condition, text, until=rec.next_try, reason=rec.error_reason)
        case Condition.REVIEW_PENDING:
            text = f"its reviewer has no answer yet, and is asked again at {instant(rec.next_try)}"
            return wait(condition, text, until=rec.next_try)
        case Condition.POISONED:
            text = f"in quarantine until {instant(rec.quarantined_until)}, because it failed time and again"
            return wait(condition, f"{text}; {_error(unit)}", until=rec.quarantined_until, reason=rec.error_reason)
        case Condition.LIVELOCKED:
            text = f"in quarantine until {instant(rec.quarantined_until)}, because it was healed {len(rec.heals)} times"
            text += f" from the same drift ({rec.reason})"
            return wait(condition, text, until=rec.quarantined_until, reason=rec.reason)
        case Condition.FORGETTING:
            return wait(condition, "it is gone, and about to be forgotten")
        case _:
            return _stuck(core, unit, condition, known)


def _stuck(core: Core, unit: Unit, condition: Condition, known: Known) -> Wait:
    """What other nodes, people or domains have to end."""
    rec = unit.rec
    match condition:
        case Condition.BLOCKED:
            return _blocked(core, unit)
        case Condition.REFERENCE_MISSING:
            return wait(condition, why_missing(core, unit), by=unit.blocker, ref=unit.missing)
        case Condition.REMOVAL_BLOCKED:
            text = f"what was made with it comes first: {_named(core, unit.blocker)}"
            return wait(condition, text, by=unit.blocker)
        case Condition.SUCCESSOR_FIRST:
            other = core.units[unit.id]
            text = f"its new form (type {other.type!r}) has to be there first, and is {other.phase}"
            return wait(condition, text, by=unit.id)
        case Condition.REMOVAL_ASKED:
            return wait(condition, "people are being asked about the removal of another form of it", by=unit.id)
        case Condition.FAILED:
            asked, facts = asked_about(core, unit, known)
            untaken = f"; {_UNTAKEN}" if core.now - known.unhandled.get(rec.fault, core.now) > _SOON else ""
            text = f"failed for good; {_error(unit)}" + (f"; {asked}" if asked else untaken)
            return wait(condition, text, reason=rec.error_reason, **facts)
        case Condition.HELD:
            asked, facts = asked_about(core, unit, known)
            text = f"held because of {rec.reason}" + (f": {rec.detail}" if rec.detail else "")
            nobody = f"yet: {_UNTAKEN}" if rec.fault in known.unhandled else ": no policy has added a review of it"
            text += f"; {asked}" if asked else f"; nobody is asked{' ' * (nobody[0] != ':')}{nobody}"
            return wait(condition, text, reason=rec.reason, **facts)
        case Condition.HUMAN_GATE | Condition.APPROVAL:
            gate = open_gate(unit)
            what = f"approval of {shortened(gate.plan)!r}" if isinstance(gate, ApprovalGate) else "a person"
            text, facts = _question(gate, known)
            return wait(condition, f"waits for {what}: {text}", **facts)
        case Condition.REJECTED | Condition.APPROVAL_REJECTED:
            no = rec.gate if condition is Condition.REJECTED else rec.approval
            assert no is not None
            text = f"refused by {no.by or 'a person'}: WorkItem {no.workitem}"
            if isinstance(no, ApprovalGate):
                text += f" about {shortened(no.plan)!r}"
            return wait(condition, text, workitem=no.workitem, by=no.by)
        case Condition.PROVISIONER_REJECTED:
            text = f"refused by its provisioner ({rec.error_reason}): {rec.error}"
            return wait(condition, text, reason=rec.error_reason)
        case Condition.GIVEN_UP:
            return wait(condition, f"given up by {rec.given_up} (outcome {GIVE_UP})", by=rec.given_up)
        case Condition.GRAPH_PAUSED:
            return wait(condition, "needs a step, but the graph is paused")
        case Condition.NODE_PAUSED:
            return wait(condition, "needs a step, but the node is paused")
        case Condition.WATCHED:
            seen = f"{rec.status.lower()}{rec.reason and f' ({rec.reason})'}" if rec.status else "not observable"
            return wait(
                condition, f"is {seen}, and its blueprint only observes (mode: observe)", reason=rec.reason
            )  # fmt: skip
        case _:
            return _nobody(core, unit, condition, known)


def _nobody(core: Core, unit: Unit, condition: Condition, known: Known) -> Wait:
    if condition is Condition.UNCLAIMED:
        text = f"no provisioner for type {unit.type!r}: no domain has ever announced it"
        return wait(condition, text, type=unit.type, domain="")
    info = core.target_info(unit) if unit.type == AI_REVIEW else core.info(unit)
    domain = info.domain if info is not None else ""
    text = f"no provisioner for type {unit.type!r}: {not_running(domain, known)}"
    return wait(condition, text, type=unit.type, domain=domain, since=known.gone.get(domain))


def not_running(domain: str, known: Known) -> str:
    """That a domain is gone, and since when if that is known."""
    since = known.gone.get(domain)
    return f"domain {domain!r} is not running" + (f" since {instant(since)}" if since is not None else "")


def _flight(core: Core, unit: Unit, condition: Condition) -> Wait:
    flown, flight = core.flights[unit.id]
    what = f"{flight.action.lower()}, operation {flight.operation}, attempt {flight.attempt}"
    of = f" of its other form (type {flown.type!r})" if condition is Condition.FORMER_STEP else ""
    text = f"one step{of} ({what}) is in flight since {instant(flight.since)}"
    text += f"; unless answered by {instant(flight.deadline)} it is looked at"
    return wait(condition, text, since=flight.since, deadline=flight.deadline, operation=flight.operation,
                attempt=flight.attempt)  # fmt: skip


def _blocked(core: Core, unit: Unit) -> Wait:
    """By whom, and behind whom that one stands, down to where somebody may do something about it."""
    root, steps = unit.blocker, 0
    while steps < _DEEP and (other := core.units.get(root)) is not None and other.blocker and other.blocker != root:
        root, steps = other.blocker, steps + 1
    text = f"blocked by {_named(core, unit.blocker)}"
    if root != unit.blocker:
        text += f", and in the end by {_named(core, root)}"
    return wait(Condition.BLOCKED, text, by=unit.blocker, root=root)


def _named(core: Core, node: str) -> str:
    unit = core.units.get(node) or next(iter(core.forms_removed(node)), None)
    if unit is None:
        return node
    return f"{node} ({'removing: ' if unit.tomb is not None else ''}{unit.phase})"


def _error(unit: Unit) -> str:
    rec = unit.rec
    if not rec.error and not rec.error_reason:
        made = "made" if unit.tomb is None else "removed"
        return f"its provisioner says that it is {made}, but it is {str(rec.status).lower()}"
    return f"last error: {_said(rec)}"


def _said(rec: Record) -> str:
    """What was said of the last attempt: a code, a text, or both."""
    return ": ".join(text for text in (rec.error_reason, rec.error) if text)


# ---- people


def open_gate(unit: Unit) -> Gate | ApprovalGate | None:
    """The question that is open about a node, if any."""
    for gate in (unit.rec.gate, unit.rec.approval):
        if gate is not None and gate.state is GateState.OPEN:
            return gate
    return None


def reviews_of(core: Core, unit: Unit) -> list[Unit]:
    """The reviews of a node."""
    return [core.units[name] for name in core.reviews.get(unit.id, ())] if unit.tomb is None else []


def asked_about(core: Core, unit: Unit, known: Known) -> tuple[str, dict[str, Any]]:
    """Who is asked about a node by one of its reviews: text and fields, empty if nobody is."""
    for review in reviews_of(core, unit):
        gate = open_gate(review)
        if gate is not None:
            text, facts = _question(gate, known)
            return f"{review.id} asks a person: {text}", {"review": review.id, **facts}
    return "", {}


def _question(gate: Gate | ApprovalGate | None, known: Known) -> tuple[str, dict[str, Any]]:
    if gate is None:
        return "about to be asked", {"workitem": ""}
    facts: dict[str, Any] = {"workitem": gate.workitem, "request": gate.id}
    if not gate.workitem:
        return f"work-items has not taken the question yet (request {gate.id})", facts
    item = known.items.get(gate.workitem)
    if item is None:
        return f"WorkItem {gate.workitem}; work-items does not say who has it", facts
    due = item.expires_at.timestamp() if item.expires_at is not None else None
    facts |= {"assignee": item.assignee_id, "due": due, "outcomes": [o.name for o in item.permitted_outcomes]}
    held = f"assigned to {item.assignee_id}" if item.assignee_id else "nobody has claimed it"
    return f"WorkItem {item.id}, {held}, {'no due date' if due is None else f'due {instant(due)}'}", facts


# ---- next


def next_of(core: Core, unit: Unit, condition: Condition, facts: Mapping[str, Any]) -> str:
    """What comes next, and what a person can do about it. ``facts``: what :func:`because` said."""
    graph, rec = core.ref.graph, unit.rec
    step = "a step that removes it" if unit.tomb is not None else "a step that provisions it"
    unblock, see = f"holdfast unblock {graph} {unit.id}", f"see: holdfast explain {graph}"
    match condition:
        case Condition.PRESENT | Condition.RECOVERED | Condition.ATTESTED | Condition.ANSWERED:
            return _nothing(core, unit)
        case Condition.DOUBTED | Condition.UNSEEN | Condition.UNKNOWN | Condition.UNANSWERED:
            return f"an observation, then {step} if that is needed"
        case Condition.READY:
            return f"{step}; holdfast get domains shows who is running"
        case Condition.PROVISIONING | Condition.DEPROVISIONING:
            return "the outcome of the step"
        case Condition.FORMER_STEP:
            return f"{step}, once that one has ended"
        case Condition.BLOCKED:
            return f"{step}, once {unit.blocker} is as declared; {see} {facts['root']}"
        case Condition.REFERENCE_MISSING:
            return f"{step}, once there is a value; {see} {unit.blocker}"
        case Condition.REMOVAL_BLOCKED:
            return f"{step}, once {unit.blocker} does not need it; {see} {unit.blocker}"
        case Condition.SUCCESSOR_FIRST:
            return f"{step}, once the new form is as declared"
        case Condition.REMOVAL_ASKED:
            return "the same question about this form; see: holdfast workitem list"
        case Condition.BACKOFF | Condition.PUT_OFF:
            return f"{step} at {instant(rec.next_try)}; {unblock} does it at once"
        case Condition.REVIEW_PENDING:
            return f"the reviewer is asked again at {instant(rec.next_try)}"
        case Condition.POISONED:
            ends = "or once its spec changes or a ladder looks after its type"
            return f"{step} at {instant(rec.quarantined_until)}, {ends}; {unblock} does it at once"
        case Condition.LIVELOCKED:
            return f"{step} at {instant(rec.quarantined_until)}, or once its spec changes; {unblock} does it at once"
        case Condition.FAILED if not facts.get("request"):
            return f"nothing, until its spec or the world changes or a decision comes; {unblock} tries again"
        case Condition.FAILED | Condition.HELD | Condition.HUMAN_GATE | Condition.APPROVAL:
            return _decide(unit, facts, unblock)
        case Condition.REJECTED | Condition.APPROVAL_REJECTED:
            return f"nothing, until its spec changes; {unblock} asks again"
        case Condition.PROVISIONER_REJECTED | Condition.GIVEN_UP:
            return f"nothing, until its spec changes; {unblock} tries again"
        case Condition.GRAPH_PAUSED:
            return f"{step}, after holdfast resume {graph}"
        case Condition.NODE_PAUSED:
            return f"{step}, after holdfast resume {graph} {unit.id}"
        case Condition.UNCLAIMED:
            return f"{step}, once a domain announces its type; holdfast get domains shows those that are known"
        case Condition.DOMAIN_DOWN:
            return f"{step}, once domain {facts['domain']!r} is running again"
        case Condition.WATCHED:
            return "nothing, until its blueprint enforces it"
        case _:
            return "it is forgotten"


def _decide(unit: Unit, facts: Mapping[str, Any], unblock: str) -> str:
    if not facts.get("workitem"):
        if facts.get("request"):
            return "the question is asked once work-items is running"
        return f"nothing, until it is well again or its spec changes; {unblock} has it mended"
    choices = facts.get("outcomes") or [DONE, REJECT]
    return f"a person decides: holdfast decide {facts['workitem']} {'|'.join(choices)}"


def _nothing(core: Core, unit: Unit) -> str:
    info = core.info(unit)
    if info is None or not info.observes:
        return "nothing; nodes of its type are not looked at"
    seconds = interval_for(unit.type, {unit.type: info.resync}, *core.preferences)
    return f"nothing; it is looked at every {seconds:g} s"


# ---- blueprints that wait


def waiting_blueprint(owner: str, pending: Pending) -> str:
    """What a blueprint waits for."""
    if pending.request:
        count = f"{len(pending.removes)} of {pending.size} nodes"
        return f"a version of blueprint {owner!r} waits for consent to removing {count}"
    names = ", ".join(repr(d) for d in pending.domains or (pending.domain,))
    many = len(pending.domains) > 1
    return f"a version of blueprint {owner!r} waits for {'domains' if many else 'domain'} {names}, not running"
