"""``ai-review`` steps: a handler of the domain looks at a failing node before a person has to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from holdfast_model.manifest import NodeType
from holdfast_model.messages import Observation, Status
from holdfast_model.names import AI_REVIEW

from .context import Context
from .handlers import Bound
from .nodes import Node
from .specs import SpecCodec
from .states import Reviewed, Verdict


class Review(msgspec.Struct, frozen=True):
    """What is to be reviewed: the failing node, why, and the fault's context.

    ``reason`` is the fault's code, ``error`` its text; ``target_digest`` and ``episode`` say which form of
    the node and which run of failures it is about. ``context["spec"]`` is the node's spec, unless it is very large.
    """

    target: str
    target_digest: str = ""
    episode: str = ""
    reason: str = ""
    error: str = ""
    context: dict[str, Any] = {}


Reviewer = Callable[[Review, Context], Awaitable[Reviewed]]


def bind_reviewer(review: Reviewer, timeout: float, concurrency: int) -> Bound:
    """The built-in ``ai-review`` type, served by an author's reviewer."""

    async def provision(node: Node[Review], ctx: Context) -> object:
        return answer_of(await review(node.spec, ctx))

    async def deprovision(node: Node[Review], ctx: Context) -> None:
        return None  # nothing was made: a review is an answer

    node_type = NodeType(AI_REVIEW, timeout=timeout, concurrency=concurrency, batch=1, observes=False)
    return Bound(node_type, SpecCodec(Review), provision=provision, deprovision=deprovision)


def answer_of(reviewed: Reviewed) -> Observation:
    """A review as an observation: answered is PRESENT, PENDING is ABSENT (ask again later); the code is the
    reason.
    """
    if not isinstance(reviewed, Reviewed):
        raise TypeError(f"a reviewer returns Reviewed(...), not {type(reviewed).__name__}")
    info: dict[str, object] = {}
    if reviewed.confidence is not None:
        info["confidence"] = reviewed.confidence
    if reviewed.fix is not None:
        info["fix"] = reviewed.fix
    status = Status.ABSENT if reviewed.verdict is Verdict.PENDING else Status.PRESENT
    return Observation(status, reviewed.verdict.value, reviewed.text, info=info or None)
