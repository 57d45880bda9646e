"""The pipeline domain as the SDK knows it: types and how they are treated, the compiler, handlers, the
reviewer.

Handlers only translate: a node becomes a task of the engine, its answer an observation. Provisioning runs
in child processes, observing in threads of this one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec

from holdfast_model.errors import HoldfastError, Temporary
from holdfast_model.messages import Observation, Status
from holdfast_sdk import Changed, Context, Domain, Found, GraphBuilder, Node, PendingApproval, Review, Reviewed
from holdfast_sdk.reasons import SdkReason

from . import specs
from .blueprint import Blueprint
from .checks import Refusal
from .compiler import compile_blueprint
from .engine import Engine
from .feeds import Silent, StepFeed, run_id
from .ladders import LADDERS, OUTCOMES
from .looks import Looks
from .reviewer import Case, Reviewer, verdict
from .roots import Roots
from .samples import Samples
from .settings import Settings
from .sharing import lanes
from .steps import Steps
from .stores import ObjectPlace
from .tasks import EngineSettings, StageTask
from .tasks import PendingApproval as EngineAsks
from .watcher import Watched, Watcher, watched_folder

NAME = "pipeline"
VERSION = "1"

READS_FILES = frozenset({specs.DATA_SOURCE, specs.INGESTION, specs.ENRICHER})
"""Types whose world changes without anybody telling: files come and change."""
SLOW_LOOK = 60.0
SEARCH = 600.0
"""Seconds between two searches for tables that no stage declares: each lists a layer, and reads a file per table."""
BACKOFF = (1.0, 60.0)
KILL_MARGIN = 0.5
"""Seconds before the SDK's deadline at which a child is ended, so that its own reason is what is reported."""


class _Handler:
    """What all stages share. ``seconds`` bounds one observation."""

    def __init__(self, engine: Engine, steps: Steps, seconds: float, feed: StepFeed) -> None:
        self._engine = engine
        self._steps = steps
        self._seconds = seconds
        self._feed = feed
        self._searches = Looks(seconds)

    async def observe(self, node: Node[object], ctx: Context) -> Observation:
        """What is there; UNKNOWN when that takes too long (a dead network folder must not look like
        ABSENT).
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.to_thread(self._engine.observe, _task(node, ctx))
        except TimeoutError:
            text = f"could not be seen within {self._seconds:g} s"
            return Observation(Status.UNKNOWN, SdkReason.TIMEOUT, text)

    async def provision(self, node: Node[object], ctx: Context) -> Observation:
        """One step in a child process; raises what the engine raised, asks for approval as it does.

        Files that were put there a moment ago are waited for: they are no reason to fail.
        """
        task = _task(node, ctx)
        if node.type in READS_FILES:
            await asyncio.sleep(await self._unsettled(task))
        spec = specs.decode_spec(task.type, task.spec)
        run = run_id(ctx.idempotency_key, ctx.attempt)
        self._feed.began(run, task, spec)
        try:
            result = await self._steps.provision(task, _seconds_left(ctx), ctx.progress)
        except EngineAsks as asked:
            self._feed.ended(run, task, spec, None, asked.message)
            raise PendingApproval(asked.plan, asked.summary, asked.pins) from asked
        except HoldfastError as error:
            self._feed.ended(run, task, spec, None, error.message)
            raise
        self._feed.ended(run, task, spec, result.observation)
        for touch in result.touch:
            ctx.touch(touch.node, touch.observation)
        if result.outputs is None:
            return result.observation
        return msgspec.structs.replace(result.observation, outputs=result.outputs)

    async def _unsettled(self, task: StageTask) -> float:
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.to_thread(self._engine.unsettled, task)
        except TimeoutError:
            raise Temporary(f"the files of {task.node} could not be seen within {self._seconds:g} s") from None

    async def deprovision(self, node: Node[object], ctx: Context) -> None:
        try:
            await self._steps.deprovision(_task(node, ctx), _seconds_left(ctx))
        except EngineAsks as asked:
            raise PendingApproval(asked.plan, asked.summary, asked.pins) from asked

    async def discover(self, ctx: Context) -> list[Found]:
        """Stages of a type that have tables here, whoever declares them."""
        left = await self._searches.run(lambda: self._engine.search(ctx.tenant, ctx.graph, ctx.type))
        return [Found(one.id, one.spec, one.depends_on, one.gating.value) for one in left]


class StageHandler(_Handler):
    """Every stage but sources."""


class SourceHandler(_Handler):
    """Sources, whose folders are watched while somebody observes them."""

    def __init__(
        self, engine: Engine, steps: Steps, seconds: float, feed: StepFeed, watcher: Watcher, settings: EngineSettings
    ) -> None:
        super().__init__(engine, steps, seconds, feed)
        self._watcher = watcher
        self._settings = settings

    async def observe(self, node: Node[object], ctx: Context) -> Observation:
        seen = await super().observe(node, ctx)
        if node.desired and seen.status is not Status.UNKNOWN:
            watched = await asyncio.to_thread(self._watched, node)
            if watched is not None:
                self._watcher.know(watched)
        return seen

    async def deprovision(self, node: Node[object], ctx: Context) -> None:
        self._watcher.forget(node.tenant, node.graph, node.id)
        await super().deprovision(node, ctx)

    async def watch(self) -> AsyncIterator[Changed]:
        """Files changed: the source and everything that reads it are to be looked at."""
        async for watched in self._watcher.changes():
            for node in (watched.node, *watched.readers):
                yield Changed(watched.tenant, watched.graph, node, detail="files changed")

    def _watched(self, node: Node[object]) -> Watched | None:
        spec = specs.decode_spec(specs.DATA_SOURCE, node.raw_spec)
        if not isinstance(spec, specs.DataSourceSpec):
            return None
        try:
            place = Roots.of(self._settings, node.tenant).place(spec.source.uri)
        except HoldfastError:
            return None  # the observation says so; there is nothing to watch
        if isinstance(place, ObjectPlace):
            return None  # stores tell nobody; the regular look finds what changed
        folder, deep = watched_folder(place)
        return Watched(node.tenant, node.graph, node.id, spec.dependents, folder, deep)


def make_domain(settings: Settings, reviewer: Reviewer, samples: Samples | None = None) -> Domain:
    """The domain without its handlers; :func:`make_handlers` makes those."""
    domain = Domain(NAME, blueprint=Blueprint, version=VERSION)
    for node_type, spec in specs.SPEC_OF_TYPE.items():
        handler = SourceHandler if node_type == specs.DATA_SOURCE else StageHandler
        domain.node_type(
            node_type,
            spec=spec,
            resync=settings.pipeline_resync if node_type in READS_FILES else SLOW_LOOK,
            timeout=settings.pipeline_step_timeout,
            concurrency=lanes(settings.pipeline_processes),
            batch=1,
            after_human=node_type in specs.GOLD,  # the step that removes comes after a person agreed
            outcomes=OUTCOMES[node_type],
            backoff=BACKOFF,
            adopt_orphans=settings.pipeline_leftovers if node_type != specs.DATA_SOURCE else "report",
            scope="graph",
            search=SEARCH,
        )(handler)
    for ladder in LADDERS:
        domain.ladder(ladder)
    engine_settings = settings.engine()

    @domain.compiler
    def compile(blueprint: Blueprint, graph: GraphBuilder) -> None:
        for node in compile_blueprint(blueprint, refusal(engine_settings, graph.tenant)):
            graph.add(
                node.id,
                node.type,
                node.spec,
                node.depends_on,
                spec_gating=node.spec_gating,
                at=node.pointer,
            )

    @domain.reviewer
    async def review(asked: Review, ctx: Context) -> Reviewed:
        context = dict(asked.context)
        if samples is not None:
            rows = await asyncio.to_thread(samples.of, ctx.tenant, ctx.graph, context.get("spec"))
            context |= {"sample": rows} if rows else {}
        case = Case(asked.target, asked.reason, asked.error, context)
        reply = await reviewer.review(case)
        fix: dict[str, object] | None = {"patch": reply.fix} if reply.fix else None
        return Reviewed(verdict(reply.text), reply.text, reply.confidence, fix)

    return domain


def make_handlers(
    engine: Engine, steps: Steps, settings: Settings, feed: StepFeed | None = None
) -> tuple[StageHandler, SourceHandler]:
    """The handlers of all types. ``feed`` is told when steps begin and end."""
    feed = feed or Silent()
    engine_settings, seconds = settings.engine(), settings.pipeline_observe_timeout
    watcher = Watcher(settings.pipeline_settle, time.monotonic, engine_settings.warehouse)
    return (
        StageHandler(engine, steps, seconds, feed),
        SourceHandler(engine, steps, seconds, feed, watcher, engine_settings),
    )


def refusal(settings: EngineSettings, tenant: str) -> Refusal:
    """Why a URI cannot be used by this tenant, asked while a blueprint is compiled."""
    roots = Roots.of(settings, tenant)

    def refuse(uri: str) -> str:
        try:
            roots.place(uri)
        except HoldfastError as e:
            return e.message
        return ""

    return refuse


def _task(node: Node[object], ctx: Context) -> StageTask:
    return StageTask(
        node.tenant,
        node.graph,
        node.id,
        node.type,
        msgspec.Raw(node.raw_spec),
        node.digest,
        node.incarnation,
        ctx.idempotency_key if ctx.operation else "",
        ctx.decision,
        ctx.approval,
        ctx.deadline,
        node.depends_on,
    )


def _seconds_left(ctx: Context) -> float:
    return max(0.1, ctx.deadline - time.time() - KILL_MARGIN)
