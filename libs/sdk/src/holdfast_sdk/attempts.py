"""One attempt: call the author's method, and turn whatever happens into an outcome. No bus in here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from holdfast_model.errors import HoldfastError, Permanent, Temporary
from holdfast_model.messages import Action, Outcome, Step, StepBatch, StepOutcome

from .context import Context, Report
from .handlers import Bound
from .limiting import Limit
from .nodes import Node
from .reasons import SdkReason
from .states import PendingApproval, pending, success

log = logging.getLogger("holdfast.sdk")


Now = Callable[[], float]


async def attempt(bound: Bound, batch: StepBatch, step: Step, now: Now, report: Report | None) -> StepOutcome:
    """Run one step and say how it ended. Raises CancelledError only if the caller was cancelled.

    The handler is cancelled after the type's ``timeout``; a step whose ``start_by`` has passed is not
    started.
    """
    started = now()
    if started >= batch.start_by:
        return StepOutcome(step.node, step.operation, step.attempt, Outcome.EXPIRED, SdkReason.LATE)
    provisions = step.action is Action.PROVISION
    act = bound.provision if provisions else bound.deprovision
    if act is None:
        return _no_handler(step)
    timeout = bound.type.timeout
    node = Node(
        step.node, step.type, step.spec, bound.codec, step.digest, step.depends_on,
        batch.tenant, batch.graph, batch.incarnation, provisions,
    )  # fmt: skip
    ctx = Context(
        batch.tenant, batch.graph, batch.incarnation, step.node, step.operation, step.attempt,
        started + timeout, step.approval, step.decision, step.refs, report, step.deadline, step.type, step.first,
    )  # fmt: skip
    limit = Limit(timeout)
    try:
        answer = await limit.run(act(node, ctx))
        if isinstance(answer, PendingApproval):
            return pending(answer, step.node, step.operation, step.attempt)
        if answer is None and ctx.published is not None:
            answer = ctx.published
        observation = success(step.action, answer)
    except PendingApproval as asked:
        return pending(asked, step.node, step.operation, step.attempt)
    except TimeoutError as e:
        if limit.expired:
            return _failed(step, ctx, SdkReason.TIMEOUT, f"took longer than {timeout:g} s and was cancelled")
        return _exception(step, ctx, e)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _failed(step, ctx, SdkReason.CANCELLED, "the handler was cancelled by something it waited for")
    except Exception as e:  # noqa: BLE001 - the author's code; its failure is this step's outcome
        return _exception(step, ctx, e)
    return StepOutcome(
        step.node, step.operation, step.attempt, Outcome.SUCCEEDED,
        observation=observation, touch=ctx.touched,
    )  # fmt: skip


def _exception(step: Step, ctx: Context, error: Exception) -> StepOutcome:
    """Temporary and Permanent say what they mean; anything else is temporary and logged with its
    traceback.
    """
    if isinstance(error, Permanent):
        return _failed(step, ctx, error.reason or error.code, error.message, permanent=True)
    if isinstance(error, Temporary):
        return _failed(step, ctx, error.reason or error.code, error.message, retry_after=error.retry_after)
    if isinstance(error, HoldfastError):
        return _failed(step, ctx, error.reason or error.code, error.message)
    log.warning("%s of %s failed", step.action.lower(), step.node, exc_info=error)
    return _failed(step, ctx, SdkReason.EXCEPTION, f"{type(error).__name__}: {error}")


def _failed(
    step: Step,
    ctx: Context,
    reason: str,
    detail: str,
    *,
    permanent: bool = False,
    retry_after: float | None = None,
) -> StepOutcome:
    return StepOutcome(
        step.node, step.operation, step.attempt, Outcome.FAILED, reason, detail, retry_after, permanent,
        touch=ctx.touched,
    )  # fmt: skip


def _no_handler(step: Step) -> StepOutcome:
    """A type without the method: nothing to do on removal, but provisioning it is a mistake."""
    if step.action is Action.DEPROVISION:
        return StepOutcome(
            step.node, step.operation, step.attempt, Outcome.SUCCEEDED, observation=success(step.action, None)
        )
    return StepOutcome(
        step.node, step.operation, step.attempt, Outcome.FAILED, SdkReason.NO_HANDLER,
        f"type {step.type!r} has no provision", permanent=True,
    )  # fmt: skip
