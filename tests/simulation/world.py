"""One graph, its planner, a provisioner and a hostile network under one seeded scheduler, in virtual time.

Messages are lost, doubled, delayed and reordered; planner and provisioner crash between any two effects and come
back with what was persisted; blueprints change and the world drifts meanwhile. The reconciler and the desired graph
are the real ones; only their host is written here, as small as it can be.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.messages import (
    Action,
    NodeDeclaration,
    Observation,
    Outcome,
    ResultBatch,
    Status,
    StepBatch,
    StepOutcome,
)
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import Look, Reconciler, Record, Settings, Turn, TypeInfo
from holdfast_model.rows import declare

REF = GraphRef("t", "g")
TIMEOUT = 20.0
INFO = TypeInfo("sim", "1", True, resync=60.0, timeout=TIMEOUT, batch=4)


class Broken(AssertionError):
    """An invariant does not hold; the message carries the trace."""


@dataclass
class Chances:
    """Probabilities of what goes wrong, per message or step."""

    lose: float = 0.1
    double: float = 0.1
    fail: float = 0.15
    crash_planner: float = 0.01
    crash_provisioner: float = 0.03
    drift: float = 0.05


@dataclass
class Disk:
    """What the planner has persisted."""

    graph: DesiredGraph = field(default_factory=lambda: DesiredGraph(REF))
    records: dict[str, Record] = field(default_factory=dict)
    todo: dict[str, Any] = field(default_factory=dict)
    counter: int = 0
    epoch: int = 0
    converged: bool = False


class World:
    """See the module. ``run`` plays a seed to its end and checks every invariant on the way."""

    def __init__(self, seed: int, size: int = 8) -> None:
        self.dice = random.Random(seed)
        self.size = size
        self.now = 0.0
        self.chances = Chances()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = 0
        self.ids = 0
        self.disk = Disk()
        self.there: dict[tuple[str, str], str] = {}  # what really exists: (node, type) -> digest
        self.uses: dict[tuple[str, str], tuple[str, ...]] = {}  # what it was made with
        self.effects: dict[tuple[str, int], int] = {}  # idempotency key -> effects
        self.running: dict[str, tuple[int, int]] = {}  # steps that take effect: node -> (operation, attempt)
        self.highest: dict[str, tuple[int, int]] = {}
        self.provisioner_life = 0
        self.trace: list[str] = []
        self.faults: list[str] = []
        self.steps = 0
        self.disk.graph.tracking = True
        self.reconciler = self.boot()

    # ---- the scheduler

    def at(self, delay: float, what: Callable[[], None]) -> None:
        self.sequence += 1
        heapq.heappush(self.events, (self.now + delay, self.sequence, what))

    def send(self, what: Callable[[], None]) -> None:
        """Over the network: late, twice, or never."""
        if self.dice.random() < self.chances.lose:
            return
        for _ in range(2 if self.dice.random() < self.chances.double else 1):
            self.at(self.dice.expovariate(5.0), what)

    def say(self, text: str) -> None:
        self.trace.append(f"{self.now:9.3f} {text}")

    def fail(self, text: str) -> None:
        raise Broken("\n".join([*self.trace[-60:], text]))

    def run(self, until: float = 120.0) -> None:
        for _ in range(self.dice.randint(2, 6)):
            self.at(self.dice.uniform(0, until * 0.8), self.publish)
        for _ in range(self.dice.randint(0, 6)):
            self.at(self.dice.uniform(0, until), self.drift)
        self.at(0.0, self.publish)
        self.tick()
        self.play(until)
        self.chances = Chances(0, 0, 0, 0, 0, 0)
        self.play(until + 1500.0)
        self.check_converged()

    def play(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
        self.now = until

    # ---- the planner's host

    def new_id(self) -> str:
        self.ids += 1
        return f"i{self.ids}"

    def boot(self) -> Reconciler:
        self.disk.epoch += 1
        self.outbox: list[Callable[[], None]] = []
        rec = Reconciler(REF, "inc", self.disk.epoch, self.new_id, Settings(start_within=10.0, grace=5.0))
        rec.on_catalog(self.now, {"a": INFO, "b": INFO})
        graph = self.disk.graph
        rec.load(
            self.now, graph.nodes, graph.gone.values(), self.disk.records, self.disk.todo,
            counter=self.disk.counter, converged=self.disk.converged,
        )  # fmt: skip
        graph.drain()
        for name, intent in self.disk.todo.items():
            self.republish(rec, name, intent)
        return rec

    def republish(self, rec: Reconciler, name: str, intent: Any) -> None:
        batch = rec.rebuild(name.removeprefix("b:"), intent)
        if batch is not None:
            self.send(lambda: self.provision(batch))

    def turn(self, feed: Callable[[Reconciler], object]) -> None:
        if self.dice.random() < self.chances.crash_planner:
            self.say("planner crashes before its turn")
            self.reconciler = self.boot()
            return
        rec = self.reconciler
        feed(rec)
        done = rec.finish(self.now, {("sim", "a"): 2, ("sim", "b"): 2})
        if done.fenced_by_version and self.dice.random() < 0.05:
            self.say("the turn loses its compare-and-set")
            rec.rollback(done)
            feed(rec)
            done = rec.finish(self.now, {("sim", "a"): 2, ("sim", "b"): 2})
        self.commit(rec, done)

    def commit(self, rec: Reconciler, done: Turn) -> None:
        disk = self.disk
        for name, record in done.rows.items():
            if record is None:
                disk.records.pop(name, None)
            else:
                disk.records[name] = msgspec.json.decode(msgspec.json.encode(record), type=Record)
        for name, intent in done.todo.items():
            if intent is None:
                disk.todo.pop(name, None)
            else:
                disk.todo[name] = intent
        disk.counter = int(done.meta.get("counter", disk.counter))
        disk.converged = rec.core.converged
        self.faults += [f"{f.node}:{f.type}" for f in done.faults]
        if done.forget:
            disk.graph.forget(done.forget)
            disk.graph.take_delta()
        if self.dice.random() < self.chances.crash_planner:
            self.say("planner crashes after its commit")
            self.reconciler = self.boot()
            return
        for sent in done.dispatch:
            self.check_dispatch(sent.batch)
            self.send(lambda b=sent.batch: self.provision(b))
        for look in done.look:
            self.observe(look)
        if done.wake_at is not None:
            self.at(max(0.0, done.wake_at - self.now) + 0.001, self.tick)
        if done.forget:
            self.graph_changed()

    def tick(self) -> None:
        self.turn(lambda r: r.on_time(self.now))

    def graph_changed(self) -> None:
        rec = self.reconciler
        nodes, gone = self.disk.graph.drain()
        rec.on_graph(self.now, nodes, gone)
        self.turn(lambda r: r.on_time(self.now))

    def check_dispatch(self, batch: StepBatch) -> None:
        for step in batch.steps:
            self.steps += 1
            self.say(f"send {step.action} {step.node} op{step.operation}.{step.attempt} {step.digest[:4]}")
            node = self.disk.graph.nodes.get(step.node)
            if step.action is Action.PROVISION:
                if node is None:
                    self.fail(f"{step.node} is sent although it is not desired")
                for target in node.depends_on:
                    if not self.reconciler.core.units[target].current:
                        self.fail(f"{step.node} is sent before its dependency {target}")
            elif node is not None and node.type == step.type:
                self.fail(f"{step.node} is removed although it is desired")
            else:
                for (name, kind), digest in self.there.items():
                    if step.node in self.uses.get((name, kind), ()) and name != step.node:
                        wanted = self.disk.graph.nodes.get(name)
                        if wanted is None or (wanted.type, wanted.digest) != (kind, digest):
                            self.fail(f"{step.node} is removed before its dependent {name}")

    # ---- the world outside

    def observe(self, look: Look) -> None:
        life = self.disk.epoch
        answered = False

        def answer() -> None:
            nonlocal answered
            seen = {i.node: self.see((i.node, look.type), i.digest) for i in look.nodes}

            def reply() -> None:
                nonlocal answered
                if self.disk.epoch == life and not answered:
                    answered = True
                    self.turn(lambda r: r.on_observed(self.now, look, seen))

            self.send(reply)

        def give_up() -> None:
            nonlocal answered
            if self.disk.epoch == life and not answered:
                answered = True
                self.turn(lambda r: r.on_observed(self.now, look, {}))

        self.send(answer)
        self.at(5.0, give_up)

    def see(self, node: tuple[str, str], digest: str) -> Observation:
        found = self.there.get(node)
        if found is None:
            return Observation(Status.ABSENT)
        if found == digest:
            return Observation(Status.PRESENT, token=found)
        return Observation(Status.DRIFTED, reason="spec_changed", token=found)

    def provision(self, batch: StepBatch) -> None:
        life = self.provisioner_life
        if self.dice.random() < self.chances.crash_provisioner:
            self.provisioner_life += 1
            self.running.clear()
            self.at(1.0, lambda: self.provision(batch))  # redelivered
            return
        for step in batch.steps:
            self.at(self.dice.uniform(0.01, 2.0), lambda s=step: self.run_step(batch, s, life))

    def run_step(self, batch: StepBatch, step: Any, life: int) -> None:
        if life != self.provisioner_life:
            return
        if self.now > batch.start_by:
            self.answer(batch, StepOutcome(step.node, step.operation, step.attempt, Outcome.EXPIRED))
            return
        mine = (step.operation, step.attempt)
        if mine < self.highest.get(step.node, mine):
            return  # a newer attempt has been seen: this one is an echo
        self.highest[step.node] = mine
        busy = self.running.get(step.node)
        if busy is not None:
            if busy[0] != step.operation:
                self.fail(f"two operations of {step.node} run at once: {busy} and {mine}")
            if busy != mine:
                self.at(0.5, lambda: self.run_step(batch, step, life))
            return
        self.running[step.node] = mine
        self.at(self.dice.uniform(0.0, 3.0), lambda: self.end_step(batch, step, life))

    def end_step(self, batch: StepBatch, step: Any, life: int) -> None:
        if life != self.provisioner_life:
            return
        if self.running.get(step.node) == (step.operation, step.attempt):
            del self.running[step.node]
        if self.dice.random() < self.chances.fail:
            self.say(f"failed {step.node} op{step.operation}.{step.attempt}")
            self.answer(
                batch, StepOutcome(step.node, step.operation, step.attempt, Outcome.FAILED, reason="no luck")
            )
            return
        key = (step.node, step.operation)
        if key not in self.effects:
            self.effects[key] = 1
            self.say(f"effect {step.action} {step.node} op{step.operation}.{step.attempt} {step.digest[:4]}")
            if step.action is Action.PROVISION:
                self.there[(step.node, step.type)] = step.digest
                self.uses[(step.node, step.type)] = step.depends_on
            else:
                self.there.pop((step.node, step.type), None)
        found = self.there.get((step.node, step.type))
        seen = Observation(Status.PRESENT, token=found) if found else Observation(Status.ABSENT)
        self.answer(
            batch, StepOutcome(step.node, step.operation, step.attempt, Outcome.SUCCEEDED, observation=seen)
        )

    def answer(self, batch: StepBatch, outcome: StepOutcome) -> None:
        result = ResultBatch(batch.batch, REF.tenant, REF.graph, batch.incarnation, batch.epoch, [outcome])
        self.send(lambda: self.turn(lambda r: r.on_outcomes(self.now, result.outcomes)))

    # ---- users and accidents

    def publish(self) -> None:
        """A new version of the blueprint: nodes come, go, change their spec, their type or their dependencies."""
        graph = self.disk.graph
        chosen = [i for i in range(self.size) if self.dice.random() < 0.7]
        nodes = []
        for i in chosen:
            below = [f"n{j}" for j in chosen if j < i and self.dice.random() < 0.35]
            spec = msgspec.json.encode({"v": self.dice.randint(0, 2)})
            kind = "a" if self.dice.random() < 0.85 else "b"
            nodes.append(NodeDeclaration(f"n{i}", kind, msgspec.Raw(spec), depends_on=tuple(below)))
        self.say(f"publish {[(n.id, n.type, n.depends_on) for n in nodes]}")
        graph.declare("main", [(n.id, declare(n)) for n in nodes])
        graph.take_delta()
        self.graph_changed()

    def drift(self) -> None:
        if not self.there:
            return
        node, kind = self.dice.choice(sorted(self.there))
        if node in self.running:
            return
        self.say(f"drift {node}")
        del self.there[(node, kind)]
        self.effects = {k: v for k, v in self.effects.items() if k[0] != node}
        self.turn(lambda r: r.on_wake(self.now, [node]))

    # ---- what must hold at the end

    def check_converged(self) -> None:
        graph, core = self.disk.graph, self.reconciler.core
        wanted = {(n.id, n.type): n.digest for n in graph.nodes.values()}
        if self.there != wanted:
            self.fail(f"not converged: there {self.there}, wanted {wanted}, phases {self.phases()}")
        if graph.gone or core.flights or self.disk.todo or not core.converged:
            self.fail(
                f"left over: gone {list(graph.gone)} flights {list(core.flights)} todo {list(self.disk.todo)} "
                f"converged {core.converged} {self.phases()}"
            )
        if set(self.disk.records) != set(graph.nodes):
            self.fail(f"records {sorted(self.disk.records)} for nodes {sorted(graph.nodes)}")
        for unit in core.units.values():
            if unit.unmet != 0:
                self.fail(f"{unit.id} counts {unit.unmet} unmet dependencies though all are met")

    def phases(self) -> dict[str, str]:
        units = (*self.reconciler.core.units.values(), *self.reconciler.core.graves.values())
        return {u.field: f"{u.phase} {u.rec}" for u in units}
