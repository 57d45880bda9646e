"""The composition root: the only place that makes clients, processes and threads of the pipeline service."""

from __future__ import annotations

import logging
import time

from holdfast_bus.service import ServiceApp
from holdfast_sdk.runtime import build

from . import steps
from .domain import make_domain, make_handlers
from .engine import Engine
from .reviewer import RuleReviewer
from .settings import Settings
from .worker import Workers


def build_app(settings: Settings) -> ServiceApp:
    """The service, ready to run."""
    # It reports every change of every file at INFO; what comes of a change is told by events.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    engine_settings = settings.engine()
    workers = Workers(steps.TARGET, limit=settings.pipeline_processes, scratch=settings.pipeline_scratch)
    domain = make_domain(settings, RuleReviewer())
    domain.on_startup(workers.start)
    domain.on_shutdown(workers.close)
    engine = Engine(engine_settings, time.time)
    handlers = make_handlers(engine, steps.ChildSteps(workers, engine_settings), settings)
    return build(domain, *handlers, settings=settings)
