"""Which stage observes, provisions and is removed how; and what an observer says when it cannot look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from holdfast_model.errors import HoldfastError, NotFound, Permanent, Temporary
from holdfast_model.messages import REASON_STALE, Observation, Status, Touch

from . import cleansing, contracts, enriching, ingestion, sinks, specs, transforming, validating
from .files import list_source
from .reasons import PipelineReason
from .recomputing import own_folder
from .roots import Roots
from .tables import content_key, mapped
from .tasks import Context, StageResult


@dataclass(frozen=True)
class Stage:
    """What can be done with one type of stage. Each function takes the context and the decoded spec.

    ``unsettled``: seconds that a provisioning should wait for files that are just being put there.
    """

    observe: Callable[[Context, Any], Observation]
    provision: Callable[[Context, Any], StageResult]
    deprovision: Callable[[Context, Any], None]
    unsettled: Callable[[Context, Any], float] = lambda context, spec: 0.0


def observe(context: Context, stage: Stage, spec: specs.StageSpec) -> Observation:
    """What the stage's observer says; UNKNOWN when it cannot look, whatever the cause.

    What can never be right (a path outside the roots, a target of somebody else) is work: the step that does it
    fails for good and says why, where UNKNOWN would wait in silence.
    """
    try:
        return stage.observe(context, spec)
    except Permanent as e:
        return Observation(Status.DRIFTED, REASON_STALE, e.message, token=content_key(error=e.message))
    except HoldfastError as e:
        return Observation(Status.UNKNOWN, e.code, e.message)
    except (Exception, pl.exceptions.PanicException) as e:  # noqa: BLE001
        # An observer that fails must never look like "everything is gone".
        found = mapped(e, context.task.node)
        return Observation(Status.UNKNOWN, PipelineReason.UNAVAILABLE, str(found))


def _observe_source(context: Context, spec: specs.DataSourceSpec) -> Observation:
    roots = Roots.of(context.settings, context.task.tenant)
    try:
        found = list_source(roots, spec.source, now=context.now(), settle=context.settings.settle)
    except NotFound as e:
        return Observation(Status.ABSENT, detail=e.message)
    token = content_key(uri=spec.source.uri, format=spec.source.format)
    return Observation(Status.PRESENT, token=token, info={"files": len(found.files)})


def _provision_source(context: Context, spec: specs.DataSourceSpec) -> StageResult:
    """Nothing can be made here: the source is listable, or Temporary. Its dependents are touched when it is."""
    found = _observe_source(context, spec)
    if found.status is not Status.PRESENT:
        raise Temporary(found.detail, reason=PipelineReason.SOURCE_MISSING)
    return StageResult(found, touch=tuple(Touch(n) for n in spec.dependents))


def _nothing(context: Context, spec: specs.StageSpec) -> None:
    """A source is not ours to remove."""


def _remove(context: Context, spec: specs.StageSpec) -> None:
    own_folder(context).remove()


STAGES: Mapping[str, Stage] = {
    specs.DATA_SOURCE: Stage(_observe_source, _provision_source, _nothing),
    specs.SCHEMA: Stage(contracts.observe, contracts.provision, _remove),
    specs.INGESTION: Stage(ingestion.observe, ingestion.provision, _remove, ingestion.unsettled),
    specs.CLEANSER: Stage(cleansing.observe, cleansing.provision, _remove),
    specs.ENRICHER: Stage(enriching.observe, enriching.provision, _remove, enriching.unsettled),
    specs.VALIDATOR: Stage(validating.observe, validating.provision, _remove),
    specs.TRANSFORMER: Stage(transforming.observe, transforming.provision, _remove),
    specs.SINK: Stage(sinks.observe, sinks.provision, sinks.deprovision),
}
