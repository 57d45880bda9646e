"""The composition root: the only place that makes clients, processes and threads of the pipeline service."""

from __future__ import annotations

import logging
import time

from holdfast_bus import subjects
from holdfast_bus.bus import Bus
from holdfast_bus.service import ServiceApp
from holdfast_sdk.runtime import DomainService

from . import steps
from .domain import NAME, VERSION, make_domain, make_handlers
from .engine import Engine
from .forking import MEMORY
from .objects import WARM
from .requests import Requests
from .reviewer import Reviewer, RuleReviewer
from .samples import Samples
from .settings import Settings
from .worker import Workers


def _reviewer(settings: Settings) -> Reviewer:
    rules = RuleReviewer()
    if not settings.pipeline_review_url:
        return rules
    from .model_reviewer import ModelReviewer  # its libraries take a second to load, and most have no use for them

    key = settings.pipeline_review_key.get_secret_value()
    return ModelReviewer(
        settings.pipeline_review_url, settings.pipeline_review_model, key, rules, settings.pipeline_review_timeout
    )


def build_app(settings: Settings) -> ServiceApp:
    """The service, ready to run."""
    # It reports every change of every file at INFO; what comes of a change is told by events.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    engine_settings = settings.engine()
    warm = WARM if settings.pipeline_stores or settings.pipeline_warehouse_store else ""
    limits = {MEMORY: str(settings.pipeline_step_memory)}
    workers = Workers(
        steps.TARGET, limit=settings.pipeline_processes, scratch=settings.pipeline_scratch, env=limits, warm=warm
    )
    domain = make_domain(settings, _reviewer(settings), Samples(engine_settings, settings.pipeline_review_rows))
    domain.on_startup(workers.start)
    domain.on_shutdown(workers.close)
    engine = Engine(engine_settings, time.time)
    feed = None
    if settings.pipeline_openlineage:
        from .openlineage_feed import OpenLineageFeed  # as above

        feed = OpenLineageFeed.from_environment()
        domain.on_startup(feed.start)
        domain.on_shutdown(feed.stop)
    handlers = make_handlers(engine, steps.ChildSteps(workers, engine_settings), settings, feed)
    bus = Bus(settings, NAME, VERSION)
    service = DomainService(domain, handlers, bus, settings)
    requests = Requests(engine_settings, time.time)
    for verb, answer in (("lineage", requests.lineage), ("preview", requests.preview), ("diff", requests.diff)):
        bus.rpc(subjects.rpc_domain(NAME, verb), queue=NAME)(answer)
    return bus.app(readiness=[service.announced], on_start=[service.start], on_stop=[service.stop])
