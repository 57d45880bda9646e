"""Every condition a node can be in, as fine as people can act upon it; what ``explain`` names and says.

A :class:`Phase` says what the reconciler does with a node; a condition says why, and so what ends it. This is the only
list of them: texts, the generated reference and the tests on real servers go through it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from holdfast_model.ladders import PENDING
from holdfast_model.messages import Action, Status
from holdfast_model.names import AI_REVIEW, BUILT_IN_TYPES
from holdfast_model.reasons import Reason

from .deciding import needs_person
from .failing import livelocked
from .records import GateState, Phase, Unit

if TYPE_CHECKING:
    from .core import Core


class Condition(StrEnum):
    """Why a node stands where it stands. Each may hold for a desired node, a removed one, or both."""

    PRESENT = "present"
    """There, as declared."""
    RECOVERED = "recovered"
    """As declared again, after a fault or drift; until its spec changes."""
    ATTESTED = "attested"
    """A person said that it is done; nobody has seen otherwise."""
    ANSWERED = "answered"
    """A review that has its answer."""
    DOUBTED = "doubted"
    """As declared when last seen, but what it is made from was made anew, or somebody reported a fault of it: it is
    being looked at."""
    UNSEEN = "unseen"
    """Nobody has seen it yet; its domain has been asked."""
    UNKNOWN = "unknown"
    """Its observer fails or does not know; asked again every two seconds."""
    UNANSWERED = "unanswered"
    """Its last step was not answered in time: looked at before anything else."""
    READY = "ready"
    """Its step goes out as soon as a provisioner has room."""
    PROVISIONING = "provisioning"
    """One step that makes it is in flight."""
    DEPROVISIONING = "deprovisioning"
    """One step that removes it is in flight."""
    BLOCKED = "blocked"
    """A dependency is not there, or not as declared."""
    REFERENCE_MISSING = "reference_missing"
    """Its spec refers to an output that has no value."""
    FORMER_STEP = "former_step"
    """A step on a former form of it is still in flight."""
    BACKOFF = "backoff"
    """Its step failed and is tried again after a pause."""
    PUT_OFF = "put_off"
    """Its provisioner put the step off."""
    REVIEW_PENDING = "review_pending"
    """An AI review whose reviewer has no answer yet."""
    FAILED = "failed"
    """Its step failed for good."""
    HELD = "held"
    """It drifted, and is left to policies and people."""
    HUMAN_GATE = "human_gate"
    """A person has to act or answer first."""
    APPROVAL = "approval"
    """Its provisioner's plan waits for approval."""
    REJECTED = "rejected"
    """A person said no."""
    APPROVAL_REJECTED = "approval_rejected"
    """A person said no to its provisioner's plan."""
    PROVISIONER_REJECTED = "provisioner_rejected"
    """Its provisioner said no."""
    GIVEN_UP = "given_up"
    """A person answered its review with give-up."""
    POISONED = "poisoned"
    """In quarantine, because it failed time and again."""
    LIVELOCKED = "livelocked"
    """In quarantine, because it was healed time and again from the same drift."""
    GRAPH_PAUSED = "graph_paused"
    """It needs a step, and its graph is paused."""
    NODE_PAUSED = "node_paused"
    """It needs a step, and is paused itself."""
    UNCLAIMED = "unclaimed"
    """No domain has ever announced its type."""
    DOMAIN_DOWN = "domain_down"
    """No instance of its type's domain is running."""
    WATCHED = "watched"
    """Not as declared, and its blueprint only observes."""
    REMOVAL_BLOCKED = "removal_blocked"
    """A removal for which something that was made with it has to be removed or renewed first."""
    SUCCESSOR_FIRST = "successor_first"
    """The removal of a former type, for which the new form has to be there first."""
    REMOVAL_ASKED = "removal_asked"
    """A removal about whose other form people are being asked."""
    FORGETTING = "forgetting"
    """Removed and gone; it is forgotten by the transaction under way."""
    LATER_PHASE = "later_phase"
    """Declared for a phase that has not begun."""
    LEFTOVER = "leftover"
    """There, though nobody desires it."""


class Remark(StrEnum):
    """What ``explain`` says besides, whatever the condition."""

    DEADLINE = "deadline"
    """Its phase or blueprint is to be complete by then."""
    TIMED_OUT = "timed_out"
    """The deadline of its phase or blueprint has passed."""
    DRIFTED = "drifted"
    """It is held besides, or was when somebody said no."""
    DECIDED = "decided"
    """A decision goes along with its next step."""
    FORMER_FORM = "former_form"
    """A form of it with another type is still to be removed; its condition stands beside."""
    PAUSED = "paused"
    """Its graph, or the node itself, is paused; a step would wait."""
    UNATTENDED = "unattended"
    """No instance of its type's domain is running: how it is was seen before."""
    REMOVAL_CONSENT = "removal_consent"
    """A newer version of its blueprint would remove it, and waits for a person's consent."""
    NEWER_VERSION = "newer_version"
    """A newer version of its blueprint waits for a domain."""


def condition_of(core: Core, unit: Unit) -> Condition:
    """The condition of a unit whose phase has been decided; costs O(1)."""
    rec, phase = unit.rec, unit.phase
    match phase:
        case Phase.PRESENT:
            return _present(core, unit)
        case Phase.RUNNING:
            provisions = core.flights[unit.id][1].action is Action.PROVISION
            return Condition.PROVISIONING if provisions else Condition.DEPROVISIONING
        case Phase.BLOCKED:
            return _blocked(core, unit)
        case Phase.BACKOFF:
            if unit.type == AI_REVIEW and rec.reason == PENDING:
                return Condition.REVIEW_PENDING
            return Condition.BACKOFF if rec.failures else Condition.PUT_OFF
        case Phase.WAITING:
            gate = rec.gate
            asked = needs_person(unit) and (gate is None or gate.state is not GateState.PASSED)
            return Condition.HUMAN_GATE if asked else Condition.APPROVAL
        case Phase.REFUSED:
            return _refused(unit)
        case Phase.QUARANTINED:
            return Condition.LIVELOCKED if livelocked(core, unit) else Condition.POISONED
        case Phase.PAUSED:
            return Condition.GRAPH_PAUSED if core.paused else Condition.NODE_PAUSED
        case Phase.NO_PROVISIONER:
            return Condition.UNCLAIMED if core.info(unit) is None else Condition.DOMAIN_DOWN
        case None | Phase.OBSERVING:
            if rec.status is not Status.UNKNOWN:
                return Condition.UNSEEN
            return Condition.UNANSWERED if rec.reason == Reason.NO_ANSWER else Condition.UNKNOWN
        case _:
            return _PLAIN[phase]


_PLAIN = {
    Phase.READY: Condition.READY,
    Phase.FAILED: Condition.FAILED,
    Phase.HELD: Condition.HELD,
    Phase.WATCHED: Condition.WATCHED,
    Phase.FORGET: Condition.FORGETTING,
}


def _present(core: Core, unit: Unit) -> Condition:
    if unit.suspect or unit in core.doubtful:
        return Condition.DOUBTED
    if unit.type in BUILT_IN_TYPES:
        return Condition.ANSWERED
    if unit.rec.reason == Reason.ATTESTED:
        return Condition.ATTESTED
    return Condition.RECOVERED if unit.rec.recovered and unit.rec.trouble else Condition.PRESENT


def _blocked(core: Core, unit: Unit) -> Condition:
    if unit.id in core.flights:
        return Condition.FORMER_STEP
    if unit.tomb is None:
        return Condition.REFERENCE_MISSING if unit.missing else Condition.BLOCKED
    if unit.blocker != unit.id:
        return Condition.REMOVAL_BLOCKED
    successor = core.units.get(unit.id)
    waits = successor is not None and not successor.current
    return Condition.SUCCESSOR_FIRST if waits else Condition.REMOVAL_ASKED


def _refused(unit: Unit) -> Condition:
    rec = unit.rec
    if rec.refused and rec.refused == unit.form.digest:
        return Condition.GIVEN_UP if rec.given_up else Condition.PROVISIONER_REJECTED
    gate = rec.gate
    if gate is not None and gate.state is GateState.REFUSED:
        return Condition.REJECTED
    return Condition.APPROVAL_REJECTED
