"""Fault policies that are code: what an author's policy is asked and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from holdfast_model.errors import Temporary
from holdfast_model.fault_engine import EvaluateReply, EvaluateRequest
from holdfast_model.mutations import Mutation

PolicyRequest = EvaluateRequest
"""One fault of a node of this domain: ``fault``, ``node`` (as declared), ``count`` and ``reviews``."""

Policy = Callable[[PolicyRequest], Awaitable[Sequence[Mutation]]]


async def evaluate(policy: Policy, request: EvaluateRequest) -> EvaluateReply:
    """Ask the policy; what it raises goes to the caller, who drops this fault's mutations only."""
    try:
        return EvaluateReply(list(await policy(request)))
    except Temporary as error:
        error.retry_after = None  # that is said by a version which leaves the request to another one
        raise
