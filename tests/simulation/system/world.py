"""The whole system under one seeded scheduler, in virtual time.

Two planners, fault-policy, work-items and a domain, each built by its own composition root, over a simulated bus and
the store's in-memory twin. Messages are lost, doubled, delayed and reordered; processes crash between any two
effects, stand still and stop; compare-and-sets are lost and replies to EXEC, too; users publish, people decide, things
break. Then all goes well for a while, and everything must be as declared or say why it is not.
"""

from __future__ import annotations

import contextlib
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from holdfast_fault_policy import sweeping
from holdfast_model.errors import Fenced, Temporary
from holdfast_model.names import PARTITIONS, GraphRef
from holdfast_planner import owning
from holdfast_store import leases
from holdfast_store.kv import Cmd
from holdfast_store.memory_kv import MemoryServer, Stage

from .domain import compose_domain
from .loop import Life, VirtualLoop
from .people import People
from .processes import Process, Trouble, compose_fault_policy, compose_planner, compose_work_items
from .server import Network, Server
from .settled import Settled
from .things import Luck, Things
from .watcher import Watcher

START = 1_700_000_000.0
SHOWN = 250
OWNED = 2
"""Partitions that exist here: to renew 64 leases again and again would be most of what is simulated."""
TENANT = "t"
STORMS = (0.3, 1.0, 1.0, 1.0, 3.0)
"""How much more, or less, than usual goes wrong in one seed: what goes wrong at times meets what goes wrong often."""


def _graph(partition: int) -> GraphRef:
    return next(r for r in (GraphRef(TENANT, f"g{n}") for n in range(10_000)) if r.partition == partition)


REFS = tuple(_graph(p) for p in range(OWNED))


class Broken(AssertionError):
    """An invariant does not hold; the message carries the trace."""


class Complaints(logging.Handler):
    """An error in the log of a service means that something happened which nobody foresaw."""

    def __init__(self, fail: Callable[[str], None], happened: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._fail = fail
        self._happened = happened

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR:
            args = record.args if isinstance(record.args, tuple) else ()
            self._happened["a fenced owner wanted to write"] += any(isinstance(arg, Fenced) for arg in args)
            return
        error = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
        self._fail(f"an error was logged: {record.getMessage()}\n{error}")


class World:
    """See the module. ``run`` plays a seed to its end and checks every invariant on the way."""

    def __init__(self, seed: int, size: int = 4) -> None:
        self.seed = seed
        self.size = size
        self.dice = random.Random(seed)
        self.loop = VirtualLoop(START)
        self.trace: list[str] = []
        storm = self.dice.choice(STORMS)
        self.trouble = Trouble().times(storm)
        self.calm = False
        self.interrupt: Callable[[Process, Stage, Sequence[Cmd]], None] = lambda process, stage, cmds: None
        """Called at every effect on the store: it may raise what the store would."""
        self.store = MemoryServer(lambda: self.loop.now)
        self.server = Server(self.loop, random.Random(f"{seed} server"))
        self.server.network = Network().times(self.dice.choice(STORMS))
        self.happened = self.server.happened
        self.effects: Counter[str] = Counter()
        """What processes did while things go wrong, by kind: each of them may be the last before a crash."""
        self.things = Things(random.Random(f"{seed} things"), self.say, self.fail)
        self.things.luck = Luck().times(self.dice.choice(STORMS))
        self.watcher = Watcher(self)
        self.things.items = lambda: self.watcher.items
        self.things.names, self.things.keys = self.watcher.called, self.watcher.keys
        self._buried: list[Life] = []
        self.processes = [
            Process(self, "plannera", compose_planner),
            Process(self, "plannerb", compose_planner),
            Process(self, "faultpolicy", compose_fault_policy),
            Process(self, "workitems", compose_work_items),
            Process(self, "domain", compose_domain),
        ]
        self.people = People(self)

    # ---- for everybody

    def say(self, who: str, what: str) -> None:
        self.trace.append(f"{self.loop.now - START:9.3f} {who:14} {what}")

    def fail(self, text: str) -> None:
        """End the run: an invariant does not hold."""
        broken = Broken(self.told(text))
        self.loop.failure = self.loop.failure or broken
        raise broken

    def told(self, text: str) -> str:
        """What happened last, and then ``text``."""
        return "\n".join([*self.trace[-SHOWN:], text])

    def after(self, delay: float, what: Callable[[], Any]) -> None:
        """Have something done outside of all processes."""
        self.server.later(delay, what)

    def bury(self, life: Life) -> None:
        """Keep what a crashed process left, so that none of it is cleaned up while the world lasts."""
        self._buried.append(life)

    # ---- the run

    def run(self, chaos: float = 80.0) -> None:
        with self.going():
            self._run(chaos)

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """What is played meanwhile is watched; in the end everything is swept up."""
        owning.PARTITIONS = leases.PARTITIONS = sweeping.PARTITIONS = OWNED
        complaints, log = Complaints(self.fail, self.happened), logging.getLogger("holdfast")
        before = log.level, log.propagate
        log.addHandler(complaints)
        log.setLevel(logging.WARNING)
        log.propagate = False
        try:
            yield
            self._no_task_failed()
        finally:
            log.removeHandler(complaints)
            log.level, log.propagate = before
            owning.PARTITIONS = leases.PARTITIONS = sweeping.PARTITIONS = PARTITIONS
            self._sweep_up()

    def _run(self, chaos: float) -> None:
        dice = self.dice
        for process in self.processes:
            self.after(dice.uniform(0.0, 1.5), process.start)
        self.people.begin(chaos)
        for process in self.processes:
            for _ in range(dice.choice((0, 0, 1))):
                self.after(dice.uniform(5.0, chaos), lambda p=process: p.freeze(dice.uniform(2.0, 40.0)))
            if dice.random() < 0.15:
                self.after(dice.uniform(5.0, chaos), process.stop)
        self.loop.play(START + chaos)
        self.calm_down()
        Settled(self).check()

    def calm_down(self) -> None:
        """Nothing goes wrong any more."""
        self.say("world", "calm")
        self.trouble, self.calm = Trouble.none(), True
        self.server.network = Network.perfect()
        self.things.luck = Luck.good()
        self.things.republish()

    def _lives(self) -> list[Life]:
        return [*self._buried, *(p.life for p in self.processes if p.life is not None)]

    def _no_task_failed(self) -> None:
        for life in self._lives():
            for task in life.tasks:
                if task.done() and not task.cancelled() and task._log_traceback:
                    error = task.exception()
                    assert error is not None
                    if not life.alive and isinstance(error, Temporary):
                        continue  # whoever waited for it crashed before it could look
                    self.fail(f"{task.get_name()} of {life.name} failed: {''.join(traceback.format_exception(error))}")

    def _sweep_up(self) -> None:
        """Close what is left, quietly: coroutines of crashed processes must not run on when they are collected."""
        for life in self._lives():
            life.alive = False
            for task in life.tasks:
                task._log_destroy_pending = task._log_traceback = False
                coro = task.get_coro()
                if not task.done() and coro is not None:
                    with contextlib.suppress(BaseException):  # code that was never to run again
                        coro.close()
