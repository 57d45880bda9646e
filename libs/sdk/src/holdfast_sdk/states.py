"""What handlers answer: states of the world, requests for approval, reviews; and how they travel.

``State[T]`` is what ``observe`` returns. ``provision`` returns outputs, a state, or nothing; it asks for
consent by returning (or raising) :class:`PendingApproval`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar, Union

import msgspec

from holdfast_model.messages import Action, Observation, Outcome, Status, StepOutcome

from .specs import outputs_of

T = TypeVar("T")


class Present(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """It is there, as declared. ``outputs`` are values that other nodes may refer to (a small object).

    ``token`` identifies what was seen (a version, an ETag); ``info`` is shown to people.
    """

    outputs: T | None = None
    reason: str = ""
    detail: str = ""
    token: str = ""
    info: dict[str, object] | None = None


class Absent(msgspec.Struct, frozen=True, kw_only=True):
    """It is not there."""

    reason: str = ""
    detail: str = ""
    info: dict[str, object] | None = None


class Drifted(msgspec.Struct, frozen=True):
    """It is there, but not as declared. ``reason`` is a code (``stale`` is ordinary work, anything else a
    fault).

    ``hold=True`` leaves it alone until a person or policy decides, ``False`` has it healed, None follows the
    node type's ``on_drift``. A new ``token`` says that the world changed since.
    """

    reason: str
    hold: bool | None = None
    detail: str = ""
    token: str = ""
    outputs: object = None
    info: dict[str, object] | None = None


class Unknown(msgspec.Struct, frozen=True):
    """It could not be seen. Never read as "it is gone"."""

    reason: str = ""
    detail: str = ""


State = Union[Present[T], Absent, Drifted, Unknown]  # noqa: UP007 - a generic alias; ``X | Y`` is none before 3.12


class PendingApproval(Exception):
    """Ask a person before going on. Return it or raise it from ``provision`` or ``deprovision``.

    ``plan`` names exactly what will be done, ``pins`` fixes its inputs; an approval is valid for this plan
    and these pins only and comes back as ``ctx.approval``. ``summary`` is what the person reads.
    """

    def __init__(
        self, plan: str, summary: dict[str, object] | None = None, pins: dict[str, object] | None = None
    ) -> None:
        super().__init__(plan)
        self.plan = plan
        self.summary = summary
        self.pins = pins


class Verdict(StrEnum):
    """What a reviewer says of a failing node."""

    PENDING = "PENDING"
    """No answer yet; asked again."""
    RESOLVED = "RESOLVED"
    """It is well, or will be with the next attempt."""
    UNRESOLVED = "UNRESOLVED"
    """A person has to look at it; also when the reviewer is not sure enough, or the domain does not review."""


PENDING = Verdict.PENDING
RESOLVED = Verdict.RESOLVED
UNRESOLVED = Verdict.UNRESOLVED


class Reviewed(msgspec.Struct, frozen=True):
    """A reviewer's answer. ``confidence`` is 0 to 1.

    ``fix``: ``{"patch": [...], "note"?}``, a JSON Patch (RFC 6902) of the target's spec. A person is asked whether to
    apply it, unless the review's ladder says ``auto_apply`` and the verdict is RESOLVED.
    """

    verdict: Verdict
    text: str = ""
    confidence: float | None = None
    fix: dict[str, object] | None = None


PRESENT = Observation(Status.PRESENT)
ABSENT = Observation(Status.ABSENT)


def observation_of(answer: object) -> Observation:
    """The observation a handler's state stands for. TypeError for anything that is no state."""
    match answer:
        case Observation():
            return answer
        case Present():
            return Observation(
                Status.PRESENT, answer.reason, answer.detail, answer.token, None,
                outputs_of(answer.outputs), answer.info,
            )  # fmt: skip
        case Absent():
            return Observation(Status.ABSENT, answer.reason, answer.detail, info=answer.info)
        case Drifted():
            return Observation(
                Status.DRIFTED, answer.reason, answer.detail, answer.token, answer.hold,
                outputs_of(answer.outputs), answer.info,
            )  # fmt: skip
        case Unknown():
            return Observation(Status.UNKNOWN, answer.reason, answer.detail)
        case Status():
            return Observation(answer)
    raise TypeError(
        f"an observer returns Present, Absent, Drifted or Unknown, not {type(answer).__name__}; "
        "use Present(outputs=...) for something that is there"
    )


def success(action: Action, answer: object) -> Observation:
    """The observation that goes with a finished step: what the handler said, or what its action promises."""
    if answer is None:
        return PRESENT if action is Action.PROVISION else ABSENT
    if isinstance(answer, Observation | Present | Absent | Drifted | Unknown | Status):
        return observation_of(answer)
    if action is Action.DEPROVISION:
        raise TypeError(f"deprovision returns nothing or a state, not {type(answer).__name__}")
    return Observation(Status.PRESENT, outputs=outputs_of(answer))


def pending(asked: PendingApproval, node: str, operation: int, attempt: int) -> StepOutcome:
    """The outcome that opens an approval."""
    return StepOutcome(
        node,
        operation,
        attempt,
        Outcome.PENDING_APPROVAL,
        plan=asked.plan,
        summary=asked.summary,
        pins=asked.pins,
    )
