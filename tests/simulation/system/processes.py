"""Processes: services built by their own composition roots on a simulated bus and store; they crash and stand still."""

from __future__ import annotations

import asyncio
import contextvars
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from holdfast_fault_policy import app as fault_policy
from holdfast_fault_policy.settings import FaultPolicySettings
from holdfast_model.errors import Unavailable
from holdfast_planner import app as planner
from holdfast_planner.settings import PlannerSettings
from holdfast_store.kv import Ambiguous, Changed, Cmd
from holdfast_store.memory_kv import MOVED, MemoryKv, MemoryWatch, Stage
from holdfast_work_items import app as work_items
from holdfast_work_items.settings import WorkItemsSettings

from .loop import LIFE, Life
from .things import LADDERS_REFRESH
from .wire import SimApp, SimBus

if TYPE_CHECKING:
    from .world import World

PLANNER = PlannerSettings(
    compile_timeout=4.0, observe_timeout=4.0, start_within=10.0, grace=4.0, catalog_interval=8.0, poll_interval=12.0,
    item_poll_interval=30.0, lease_ttl=12.0, no_provisioner_after=30.0, blast_least=2, blast_share=0.3,
)  # fmt: skip
FAULT_POLICY = FaultPolicySettings(
    fault_concurrency=8, fault_sweep_interval=25.0, fault_sweep_age=8.0, fault_evaluate_timeout=3.0,
    fault_ladders_refresh=LADDERS_REFRESH,
)  # fmt: skip
WORK_ITEMS = WorkItemsSettings(work_item_expiry=0, work_item_claim=0, sweep_interval=20.0, relay_interval=8.0)
REQUESTS_PER_TURN = 3
_KIND = re.compile(r"[ ./-]")
Compose = Callable[["Process", SimBus, "SimKv"], SimApp]


@dataclass
class Trouble:
    """Probabilities of what goes wrong between any two effects of a process."""

    crash: float = 0.002
    unavailable: float = 0.004
    conflict: float = 0.01
    ambiguous: float = 0.004
    wait: float = 0.25
    slow: float = 0.01
    stall: float = 0.004
    """To stand still between what a transaction read and its EXEC, for longer than a lease lasts, and then to go on."""

    def times(self, factor: float) -> Trouble:
        return Trouble(**{f.name: min(0.5, factor * getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def none(cls) -> Trouble:
        return cls(**dict.fromkeys((f.name for f in fields(cls)), 0.0))


class SimKv(MemoryKv):
    """The store's twin as one process reaches it."""

    def __init__(self, process: Process, life: Life) -> None:
        super().__init__(process.world.store, self._meddle)
        self._process = process
        self._life = life
        self._dice = process.dice
        self._world = process.world

    @asynccontextmanager
    async def watching(self, *keys: str) -> AsyncIterator[MemoryWatch]:
        try:
            async with super().watching(*keys) as watch:
                yield watch
        except Changed as error:
            self._world.happened["compare-and-set lost to somebody"] += error.message == MOVED
            raise

    async def _meddle(self, stage: Stage, cmds: Sequence[Cmd]) -> None:
        world, dice = self._world, self._dice
        world.effects[f"{self._process.kind} at {stage}"] += not world.calm
        if stage == "read":
            world.watcher.reading(self._life, cmds)
        if stage == "committed":
            world.watcher.committed(self._life, cmds)
        world.interrupt(self._process, stage, cmds)
        trouble = world.trouble
        roll = dice.random()
        if roll < trouble.crash:
            await self._process.crash(f"at {stage} {_names(cmds)}")
        roll -= trouble.crash
        if roll < trouble.unavailable and stage != "committed":
            world.happened["store away"] += 1
            raise Unavailable("the store does not answer", retry_after=0.5)
        if stage == "commit" and dice.random() < trouble.stall:
            self._process.freeze(dice.uniform(3.2, 4.5) * PLANNER.lease_ttl)
            await asyncio.sleep(0.0)
        roll -= trouble.unavailable
        if stage == "commit":
            if roll < trouble.conflict:
                world.happened["compare-and-set lost"] += 1
                raise Changed("somebody touched a watched key")
            if roll < trouble.conflict + trouble.ambiguous:
                world.happened["lost before EXEC"] += 1
                raise Ambiguous("the connection broke before EXEC")
        elif stage == "committed" and roll < trouble.ambiguous:
            world.happened["lost after EXEC"] += 1
            world.say(self._life.name, f"does not learn that it wrote {_names(cmds)}")
            raise Ambiguous("the connection broke after EXEC")
        roll = dice.random()
        if roll < trouble.slow:
            await asyncio.sleep(dice.uniform(0.1, 4.0))
        elif roll < trouble.wait:
            await asyncio.sleep(dice.uniform(0.0005, 0.01))


class Process:
    """One service instance. It is started anew after every end, until the world is over."""

    def __init__(self, world: World, name: str, compose: Compose) -> None:
        self.world = world
        self.name = name
        self.compose = compose
        self.dice = random.Random(f"{world.seed} {name}")
        self.lives = 0
        self.ids = 0
        self.life: Life | None = None
        self.bus: SimBus | None = None
        self.app: SimApp | None = None
        self.context = contextvars.Context()

    @property
    def kind(self) -> str:
        """Its service: both planners are one kind."""
        return self.name.removesuffix("a").removesuffix("b") if self.name.startswith("planner") else self.name

    @property
    def running(self) -> bool:
        return self.life is not None and self.life.alive

    def clock(self) -> float:
        return self.world.loop.now

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.world.loop.now, UTC)

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.name}i{self.ids}"

    def start(self) -> None:
        self.lives += 1
        life = self.life = Life(f"{self.name}.{self.lives}")
        self.world.say(life.name, "starts")
        self.context = contextvars.Context()
        self.context.run(LIFE.set, life)
        bus = self.bus = SimBus(self.world.server, life, self.context, self.name, self.dice, self._between)
        self.app = self.compose(self, bus, SimKv(self, life))
        bus.spawn(self._begin(self.app, bus))

    async def _begin(self, app: SimApp, bus: SimBus) -> None:
        for hook in app.on_start:
            while True:
                try:
                    await hook()
                except Unavailable:  # the process would end, and be started again
                    await asyncio.sleep(1.0)
                else:
                    break
        bus.open()

    async def _between(self, what: str) -> None:
        """Between two effects on the bus."""
        self.world.effects[f"{self.kind} {point(what)}"] += not self.world.calm
        roll = self.dice.random()
        if roll < self.world.trouble.crash:
            await self.crash(what)
        elif roll < self.world.trouble.wait:
            await asyncio.sleep(self.dice.uniform(0.0005, 0.01))

    async def crash(self, what: str) -> None:
        """End at once. Whoever calls this does not run any further."""
        self.kill(what)
        await self.world.loop.create_future()

    def kill(self, what: str) -> None:
        life = self.life
        if life is None or not life.alive:
            return
        self.world.say(life.name, f"crashes: {what}")
        self.world.happened[f"{self.kind} crashes {point(what)}"] += 1
        self._end(life)
        self.world.after(self.dice.uniform(0.2, 15.0), self.start)

    def _end(self, life: Life) -> None:
        life.alive = False
        self.world.bury(life)
        self.world.server.gone(life)

    def stop(self) -> None:
        """End in good order, and come back."""
        life, app, bus = self.life, self.app, self.bus
        if life is None or not life.alive or app is None or bus is None:
            return
        self.world.say(life.name, "stops")
        self.world.happened["stopped"] += 1

        async def farewell() -> None:
            self.world.server._drop(life)
            for hook in app.on_stop:
                try:
                    async with asyncio.timeout(5.0):
                        await hook()
                except (TimeoutError, Unavailable):
                    self.world.say(life.name, "a stop hook failed")
            self.world.after(0.0, lambda: self._stopped(life))

        bus.spawn(farewell())

    def _stopped(self, life: Life) -> None:
        if self.life is life and life.alive:
            self._end(life)
            self.world.after(self.dice.uniform(0.1, 5.0), self.start)

    def freeze(self, seconds: float) -> None:
        """Stand still, as in a long collection of garbage; others go on."""
        life = self.life
        if life is None or not life.alive or life.frozen:
            return
        self.world.say(life.name, f"stands still for {seconds:.1f} s")
        self.world.happened["stood still"] += 1
        life.frozen = True
        self.world.after(seconds, lambda: self._go_on(life))

    def _go_on(self, life: Life) -> None:
        if life.alive:
            self.world.say(life.name, "goes on")
        self.world.loop.thaw(life)


def point(what: str) -> str:
    """Between which kinds of effects something happens: the verb, and the kind of subject or stage."""
    verb, _, subject = what.partition(" ")
    return f"{verb} {_KIND.split(subject)[0]}"


def _names(cmds: Sequence[Cmd]) -> str:
    return " ".join(dict.fromkeys(str(c[1]).rpartition("}:")[2] for c in cmds if len(c) > 1))[:100]


# ---- the services


def compose_planner(process: Process, bus: SimBus, kv: SimKv) -> Any:
    return planner.compose(PLANNER, bus, kv, process.clock, process.new_id, process.dice)  # type: ignore[arg-type]


def compose_fault_policy(process: Process, bus: SimBus, kv: SimKv) -> Any:
    return fault_policy.compose(
        FAULT_POLICY,
        bus,
        kv,
        process.clock,
        process.new_id,
        process.dice,
        process.clock,  # type: ignore[arg-type]
    )


def compose_work_items(process: Process, bus: SimBus, kv: SimKv) -> Any:
    def new_id(_: datetime) -> str:
        process.ids += 1
        return f"{process.name}{process.ids:06d}"

    return work_items.compose(
        WORK_ITEMS,
        bus,
        kv,
        process.now,
        new_id,
        process.new_id(),
        process.dice,  # type: ignore[arg-type]
    )
