"""The data engine: what each stage of a pipeline is, does and undoes, on tables on disk.

Every function is synchronous: provisioning runs in a child process per step, observing in a thread. The clock is
injected. Errors are those of ``holdfast_model.errors``, and :class:`PendingApproval`.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from holdfast_model.errors import HoldfastError, Invalid
from holdfast_model.messages import Observation, Status

from .forms import keep_form
from .leftovers import Leftover, search
from .maintenance import maintain
from .observing import STAGES, Stage, observe
from .recomputing import keep_as_of, own_folder
from .specs import StageSpec, decode_spec, table_inputs
from .tables import mapped
from .tasks import (
    Context,
    EngineSettings,
    PendingApproval,
    Progress,
    StageResult,
    StageTask,
    no_progress,
)

__all__ = ["Engine", "EngineSettings", "PendingApproval", "Progress", "StageResult", "StageTask"]


class Engine:
    """Stages over local tables. Holds no state between calls; many may run at once, in any number of processes."""

    def __init__(self, settings: EngineSettings, now: Callable[[], float]) -> None:
        self.settings = settings
        self.now = now

    def observe(self, task: StageTask) -> Observation:
        """What is there of the stage. Never raises for the state of the data: storage trouble is UNKNOWN."""
        try:
            context, stage, spec = self._opened(task)
        except Invalid as e:
            return Observation(Status.UNKNOWN, e.code, e.message)
        return observe(context, stage, spec)

    def unsettled(self, task: StageTask) -> float:
        """Seconds to wait before provisioning, because files are just being put there; at most ``settle``.

        Never raises: what is wrong with the files is for :meth:`provision` to say.
        """
        try:
            context, stage, spec = self._opened(task)
            return min(self.settings.settle, stage.unsettled(context, spec))
        except (HoldfastError, OSError):
            return 0.0

    def provision(self, task: StageTask, progress: Progress = no_progress) -> StageResult:
        """Make the stage what its spec and inputs ask for, exactly once per content key.

        Raises Temporary (an input moved or is not there, a race was lost, storage trouble), Permanent (the spec and
        the data cannot go together, a target that is not ours, a decision that makes no sense), PendingApproval.
        """
        context, stage, spec = self._opened(task, progress)
        try:
            keep_as_of(context, table_inputs(spec))
            result = stage.provision(context, spec)
            keep_form(context)
            maintain(context)
        except HoldfastError:
            raise
        except (Exception, pl.exceptions.PanicException) as e:
            raise mapped(e, task.node) from e
        return result

    def deprovision(self, task: StageTask) -> None:
        """Remove the stage's own tables, and a sink's marked target where its spec says ``on_delete: drop``."""
        context = Context(self.settings, task, self.now)
        context.in_time()
        try:
            try:
                _, stage, spec = self._opened(task)
            except Invalid:
                # An older version's spec that this one cannot read must not keep its tables for ever.
                own_folder(context).remove()
            else:
                stage.deprovision(context, spec)
        except HoldfastError:
            raise
        except (Exception, pl.exceptions.PanicException) as e:
            raise mapped(e, task.node) from e

    def search(self, tenant: str, graph: str, node_type: str) -> list[Leftover]:
        """What is there of a type, whoever declares it. Raises Temporary, or Forbidden, when that cannot be said."""
        return search(self.settings, tenant, graph, node_type)

    def _opened(self, task: StageTask, progress: Progress = no_progress) -> tuple[Context, Stage, StageSpec]:
        spec = decode_spec(task.type, task.spec)
        return Context(self.settings, task, self.now, progress, self.now()), STAGES[task.type], spec
