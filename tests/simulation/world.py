"""One graph, its planner, its peers and a hostile network under one seeded scheduler, in virtual time.

Messages are lost, doubled, delayed and reordered; planner and provisioner crash between any two effects and come
back with what was persisted; turns lose their compare-and-set; blueprints change, domains go and come, the world
drifts, people decide anything. The reconciler and the desired graph are the real ones; only their host is written
here, as small as it can be.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.messages import NodeDeclaration, Observation, ResultBatch, StepBatch, StepOutcome
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import (
    CloseIntent,
    ItemIntent,
    Look,
    Phase,
    Reconciler,
    Record,
    Settings,
    StepIntent,
    Turn,
    TypeInfo,
)
from holdfast_model.rows import Declaration, Node, Tombstone, declare

from .audit import audit
from .invariants import Invariants
from .outside import APPROVED, FOREIGN, HEAL, HOLD, OTHER, PERSONAL, UNSEEN, Outside
from .people import FaultPolicy, People
from .phased import Phased
from .renames import Renames

REF = GraphRef("t", "g")
TIMEOUT = 20.0
INFO = TypeInfo("sim", "1", True, resync=60.0, timeout=TIMEOUT, batch=4, backoff_cap=20.0, reviews=True)
_with = msgspec.structs.replace
CATALOG = {
    HEAL: INFO,
    OTHER: _with(INFO, reviews=False, covered=False),
    HOLD: _with(INFO, on_drift="hold", outcomes={"*": ["fix", "retry", "give-up"]}),
    APPROVED: _with(INFO, batch=2),
    PERSONAL: _with(INFO, after_human=True),
    UNSEEN: _with(INFO, observes=False),
    FOREIGN: _with(INFO, domain="ext", on_unknown="provision"),
}
KINDS = [HEAL] * 8 + [OTHER] * 3 + [HOLD] * 2 + [APPROVED, APPROVED, PERSONAL, UNSEEN, FOREIGN]
BUDGET = {("sim", t): 2 for t in (*CATALOG, "ai-review")} | {("ext", FOREIGN): 1, ("ext", "ai-review"): 1}
SETTINGS = Settings(start_within=10.0, grace=5.0, quarantine=90.0, no_provisioner_after=30.0, poison_failures=3)
HEALTHY = frozenset({Phase.PRESENT})


class Broken(AssertionError):
    """An invariant does not hold; the message carries the trace."""


@dataclass
class Chances:
    """Probabilities of what goes wrong, per message or step."""

    lose: float = 0.1
    double: float = 0.1
    fail: float = 0.15
    permanent: float = 0.15
    expire: float = 0.03
    dead_letter: float = 0.02
    touch: float = 0.05
    crash_planner: float = 0.01
    crash_provisioner: float = 0.03
    lose_turn: float = 0.05

    @classmethod
    def none(cls) -> Chances:
        return cls(**dict.fromkeys((f.name for f in fields(cls)), 0.0))


@dataclass
class Disk:
    """What the planner has persisted."""

    graph: DesiredGraph = field(default_factory=lambda: DesiredGraph(REF))
    records: dict[str, Record] = field(default_factory=dict)
    todo: dict[str, StepIntent | ItemIntent | CloseIntent] = field(default_factory=dict)
    inbox: dict[str, list[str]] = field(default_factory=dict)
    counter: int = 0
    epoch: int = 0
    converged: bool = False
    paused: bool = False


class World:
    """See the module. ``run`` plays a seed to its end and checks every invariant on the way."""

    def __init__(self, seed: int, size: int = 8, *, renames: bool = False) -> None:
        self.dice = random.Random(seed)
        self.names = [f"n{i}" for i in range(size)]
        self.renames = Renames(self)
        self.renaming = renames
        self.now = 0.0
        self.calm = False
        self.chances = Chances()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = 0
        self.ids = 0
        self.turns = 0
        self.reports: dict[str, str] = {}  # entries of the inbox that report a fault
        self.alarm = 0.0
        self.trace: list[str] = []
        self.told: Counter[tuple[str, ...]] = Counter()
        self.sent_types: dict[tuple[str, int, str], str] = {}
        self.disk = Disk()
        self.disk.graph.tracking = True
        self.catalog = dict(CATALOG)
        self.outside = Outside(self)
        self.people = People(self)
        self.policy = FaultPolicy(self)
        self.phased = Phased(self)
        self.invariants = Invariants(self)
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
        raise Broken("\n".join([*self.trace[-80:], text]))

    def run(self, until: float = 120.0) -> None:
        dice = self.dice
        plan: list[tuple[Callable[[], object], int]] = [
            (self.publish, dice.randint(2, 6)),
            (self.drift, dice.randint(0, 8)),
            (self.people.decide, dice.randint(0, 40)),
            (self.pause, dice.randint(0, 1)),
            (self.unblock, dice.randint(0, 4)),
            (self.domain_goes, dice.randint(0, 1)),
            (self.reconcile, dice.randint(0, 1)),
            (self.invariants.loaded_again, 3),
        ]
        if self.renaming:
            plan.append((self.renames.rename, dice.randint(1, 6)))
        for what, times in plan:
            for _ in range(times):
                self.at(dice.uniform(0, until * 0.9), lambda w=what: w())
        self.at(0.0, self.publish)
        self.at(60.0, self.people.poll)
        self.tick()
        self.play(until)
        self.calm_down(until)
        self.invariants.converged()

    def calm_down(self, until: float) -> None:
        """Nothing goes wrong any more, people agree to everything, and what was given up is taken up again."""
        self.say("calm")
        self.chances, self.calm = Chances.none(), True
        self.outside.republish()
        for node in ("", *sorted({*self.names, *(u.id for u in self.invariants.units())})):
            self.turn(lambda r, n=node: r.on_paused(self.now, False, n))
        for minute in range(70):
            self.at(minute * 5.0, self.decide_all)
        self.play(until + 400.0)
        self.invariants.explained()
        for again in range(3):
            for node in sorted({u.id for u in self.invariants.units() if u.phase not in HEALTHY}):
                self.turn(lambda r, n=node: r.on_unblock(self.now, n))
            for minute in range(20):
                self.at(minute * 5.0, self.decide_all)
            self.play(until + 400.0 + 300.0 * (again + 1))

    def decide_all(self) -> None:
        for _ in range(len(self.people.items)):
            self.people.decide()

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
        disk = self.disk
        disk.epoch += 1
        rec = self.reconciler = self.fresh(disk.epoch)
        disk.graph.drain()
        self.redeclare()  # what it has loaded may have other edges than what its predecessor saw last
        self.renames.heard = len(self.renames.history)
        for name, intent in list(disk.todo.items()):
            if isinstance(intent, StepIntent):
                batch = rec.rebuild(name.removeprefix("b:"), intent)
                if batch is not None:
                    self.send(lambda b=batch: self.outside.receive(b))
            else:
                self.people.carry_out(intent)
        for tag in list(disk.inbox):
            self.report(rec, tag)
        self.at(0.01, self.tick)
        return rec

    def fresh(self, epoch: int) -> Reconciler:
        """A reconciler with what is on the disk."""
        disk = self.disk
        rec = Reconciler(REF, "inc", epoch, self.new_id, SETTINGS)
        rec.on_catalog(self.now, dict(self.catalog))
        nodes, gone = in_order(disk.graph.nodes), in_order(disk.graph.gone)
        rec.load(
            self.now, nodes, gone.values(), disk.records, disk.todo,
            counter=disk.counter, converged=disk.converged, paused=disk.paused,
        )  # fmt: skip
        self.phased.feed(rec)
        rec.version = disk.graph.version
        return rec

    def take_graph(self) -> None:
        graph, rec = self.disk.graph, self.reconciler
        if rec.version != graph.version:
            rec.version = graph.version
            nodes, gone = graph.drain()
            self.renames.heard = len(self.renames.history)
            rec.on_graph(self.now, in_order(nodes), in_order(gone))
            self.phased.feed(rec)
            self.redeclare()

    def redeclare(self) -> None:
        """Edges are no part of what a node is: what is as declared stands on what it declares now."""
        units = self.reconciler.core.units
        for unit in units.values():
            thing = self.outside.things.get((unit.id, unit.type))
            if unit.current and unit.node is not None and thing is not None:
                thing.made_with = frozenset((t, units[t].type) for t in unit.node.depends_on)

    def turn(self, feed: Callable[[Reconciler], object]) -> None:
        self.turns += 1
        if self.dice.random() < self.chances.crash_planner:
            self.say("planner crashes before its turn")
            self.boot()
            return
        rec = self.reconciler
        self.take_graph()
        feed(rec)
        rec.on_time(self.now)
        done = rec.finish(self.now, BUDGET)
        while self.dice.random() < self.chances.lose_turn:
            self.say("the turn loses its compare-and-set")
            rec.rollback(done)
            if self.dice.random() < 0.3:
                self.publish()
            self.take_graph()
            feed(rec)
            rec.on_time(self.now)
            done = rec.finish(self.now, BUDGET)
        self.commit(rec, done)
        if self.turns % 8 == 0 and self.reconciler is rec:
            audit(self)

    def commit(self, rec: Reconciler, done: Turn) -> None:
        disk = self.disk
        self.redeclare()
        for name, record in done.rows.items():
            if record is None:
                disk.records.pop(name, None)
            else:
                disk.records[name] = msgspec.json.decode(msgspec.json.encode(record), type=Record)
        for name, intent in done.todo.items():
            if intent is None:
                disk.todo.pop(name, None)
            else:
                disk.todo[name] = msgspec.json.decode(msgspec.json.encode(intent), type=type(intent))
        for sent in done.dispatch:
            for step in sent.batch.steps:
                self.renames.sent(step)
        for tag in done.served:
            disk.inbox.pop(tag, None)
        disk.counter = int(done.meta.get("counter", disk.counter))
        disk.converged = rec.core.converged
        disk.paused = rec.core.paused
        self.hear(done)
        if done.forget:
            disk.graph.forget(done.forget)
            disk.graph.take_delta()
            disk.graph.version += 1
            self.at(0.0, self.tick)
        self.phased.commit(done)
        self.phased.check()
        if self.dice.random() < self.chances.crash_planner:
            self.say("planner crashes after its commit")
            self.boot()
            return
        for sent in done.dispatch:
            self.invariants.sent(sent.batch)
            self.send(lambda b=sent.batch: self.outside.receive(b))
        for look in done.look:
            self.observe(look)
        for intent in done.todo.values():
            if isinstance(intent, ItemIntent | CloseIntent):
                self.people.carry_out(intent)
        if done.wake_at is not None:
            self.wake(done.wake_at)
        self.people.check()

    def hear(self, done: Turn) -> None:
        """What is told to the outside, and that nothing is told twice."""
        for fault in done.faults:
            self.say(f"fault {fault.type} {fault.node} {fault.reason} {fault.episode}")
            self.once("fault", fault.id)
            if fault.type == "NODE_DEGRADED":
                self.once("degraded", fault.node, fault.episode, fault.reason)
            self.policy.hear(fault)
        for event in (*done.heralds, *done.events):
            self.say(f"event {event.name} {event.node}")
            if event.name == "recovered":
                self.once("recovered", event.node, str(event.data["episode"]))
            self.policy.hear(event)

    def once(self, *what: str) -> None:
        self.told[what] += 1
        if self.told[what] > 1:
            self.fail(f"told twice: {what}")

    def tick(self) -> None:
        self.turn(lambda r: r.on_time(self.now))

    def wake(self, when: float) -> None:
        """Have a turn at a time; one that is due before will arrange for the next."""
        when = max(self.now, when) + 0.001
        if not self.now < self.alarm <= when:
            self.alarm = when
            self.at(when - self.now, self.tick)

    # ---- over the network

    def observe(self, look: Look) -> None:
        life = self.disk.epoch
        answered = False

        def reply(seen: Mapping[str, Observation]) -> None:
            nonlocal answered
            if self.disk.epoch == life and not answered:
                answered = True
                self.turn(lambda r: r.on_observed(self.now, look, seen))

        def answer() -> None:
            info = self.catalog.get(look.type)
            if info is None or not info.live:
                return
            for item in look.nodes:
                self.invariants.resolved(item.node, item.spec, item.present)
            seen = {i.node: self.outside.see((i.node, look.type), i.digest) for i in look.nodes}
            if self.dice.random() < self.chances.lose:
                seen.pop(look.nodes[0].node)
            self.send(lambda: reply(seen))

        self.send(answer)
        self.at(5.0, lambda: reply({}))

    def deliver(self, batch: StepBatch, outcome: StepOutcome) -> None:
        result = ResultBatch(batch.batch, REF.tenant, REF.graph, batch.incarnation, batch.epoch, [outcome])
        self.send(lambda: self.turn(lambda r: r.on_outcomes(self.now, result.outcomes)))

    # ---- users and accidents

    def publish(self) -> None:
        """A new version of the blueprint: nodes come, go, change their spec, their type or their dependencies."""
        dice = self.dice
        if dice.random() < 0.05:
            self.say("delete")
            self.mutate(self.phased.clear)
            return
        if dice.random() < 0.1:
            self.mutate(self.phased.again)
            return
        phases = dice.choice((1, 1, 1, 2, 3))
        versions = [self.version(refer=phases == 1) for _ in range(phases)]
        shared = {i: d for version in versions for i, d in version}  # a node that is in two phases is alike in both
        self.mutate(lambda: self.phased.publish([fitting(v, shared) for v in versions]))

    def version(self, refer: bool) -> list[tuple[str, Declaration]]:
        """Nodes for a graph or a phase. ``refer``: some use what others publish (those of other phases may be gone)."""
        dice = self.dice
        chosen = [i for i in range(len(self.names)) if dice.random() < 0.7]
        if dice.random() < 0.4:
            dice.shuffle(chosen)
        nodes = []
        for at, i in enumerate(chosen):
            name = self.names[i]
            below = [self.names[j] for j in chosen[:at] if dice.random() < 0.35]
            old = self.disk.graph.nodes.get(name)
            kind = old.type if old is not None and dice.random() < 0.8 else dice.choice(KINDS)
            content: dict[str, object] = {"v": dice.randint(0, 2)}
            known = {n.id: n for n in nodes}
            for target in below:  # what a person has made, and nobody ever looks at, publishes nothing
                if refer and dice.random() < 0.4 and known[target].type != UNSEEN:
                    content[f"of-{target}"] = {"$ref": f"{target}#/v"}
            spec = msgspec.json.encode(content)
            gating = dice.choice(["NONE"] * 12 + ["ALL", "PROVISION_ONLY", "DEPROVISION_ONLY"])
            if kind == PERSONAL:
                gating = "ALL"
            nodes.append(NodeDeclaration(name, kind, msgspec.Raw(spec), gating, depends_on=tuple(below)))
        return [(n.id, declare(n)) for n in nodes]

    def mutate(self, change: Callable[[], object]) -> None:
        """Somebody commits a change of the desired graph; the planner hears of it, sooner or later."""
        graph = self.disk.graph
        change()
        if graph.take_delta():
            graph.version += 1
        self.at(self.dice.choice((0.0, 0.0, 0.5, 3.0)), self.tick)

    def drift(self) -> None:
        key = self.outside.accident()
        if key is not None and self.dice.random() < 0.7:
            self.disk.inbox[tag := self.new_id()] = [key[0]]
            if self.dice.random() < 0.5:
                self.reports[tag] = "NODE_DESTROYED"
            self.turn(lambda r: self.report(r, tag))

    def report(self, rec: Reconciler, tag: str) -> None:
        """What somebody outside says has happened to a node."""
        for node in self.disk.inbox.get(tag, ()):
            if tag in self.reports:
                rec.on_reported(self.now, node, self.reports[tag], "gone", tag)
            rec.on_wake(self.now, [node], tag)

    def pause(self) -> None:
        self.say("pause")
        node = self.names[self.dice.randrange(len(self.names))] if self.dice.random() < 0.5 else ""
        self.turn(lambda r: r.on_paused(self.now, True, node))
        self.at(self.dice.uniform(1, 40), lambda: self.turn(lambda r: r.on_paused(self.now, False, node)))

    def unblock(self) -> None:
        node = self.names[self.dice.randrange(len(self.names))]
        self.say(f"unblock {node}")
        self.turn(lambda r: r.on_unblock(self.now, node))

    def reconcile(self) -> None:
        self.turn(lambda r: r.on_reconcile(self.now))

    def domain_goes(self) -> None:
        """A domain is away for a while; for a moment, nobody may even know its type."""
        type = self.dice.choice((FOREIGN, HEAL, OTHER))
        self.say(f"the domain of {type} goes")
        unknown = self.dice.random() < 0.3
        self.change_catalog(type, None if unknown else _with(CATALOG[type], live=False))
        self.at(self.dice.uniform(5, 60), lambda: self.change_catalog(type, CATALOG[type]))

    def change_catalog(self, type: str, info: TypeInfo | None) -> None:
        self.catalog = {t: i for t, i in self.catalog.items() if t != type}
        if info is not None:
            self.catalog[type] = info
        self.turn(lambda r: r.on_catalog(self.now, dict(self.catalog)))


def fitting(nodes: list[tuple[str, Declaration]], shared: Mapping[str, Declaration]) -> list[tuple[str, Declaration]]:
    """Nodes as they are in all phases, but for edges, which name only what is in the same one."""
    return [
        (id, _with(shared[id], depends_on=d.depends_on) if shared[id].type != PERSONAL else _with(d, spec=d.spec))
        for id, d in nodes
    ]


def in_order(found: Mapping[Any, Node | Tombstone | None]) -> dict[Any, Any]:
    """The same in an order that does not depend on how this process hashes strings, so that a seed replays exactly."""
    return {
        k: _with(v, dependents=tuple(sorted(v.dependents))) if isinstance(v := found[k], Tombstone) else v
        for k in sorted(found)
    }
