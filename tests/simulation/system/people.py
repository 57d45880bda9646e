"""Users and people: they publish, pause and unblock, decide WorkItems, and see to it that things break."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_bus import subjects
from holdfast_model.errors import HoldfastError, Unavailable
from holdfast_model.messages import Action
from holdfast_model.names import BUILT_IN_TYPES, GraphRef
from holdfast_model.rows import digest_of
from holdfast_model.work_items import WorkItem

from .blueprints import Blueprints
from .keyed import KEY
from .loop import LIFE, Life
from .things import PERSONAL
from .wire import SimBus

if TYPE_CHECKING:
    from .world import World

VERBS = ("complete",) * 6 + ("reject", "cancel", "fault")
_encode = msgspec.json.encode


class People:
    """See the module. They reach the system over the bus only."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = random.Random(f"{world.seed} people")
        life = Life("people")
        context = contextvars.Context()
        context.run(LIFE.set, life)
        self.bus = SimBus(world.server, life, context, "people", self._dice, self._undisturbed)
        self._blueprints = Blueprints(world, self._dice)
        self.publishing: Counter[GraphRef] = Counter()
        """How many are about to publish a blueprint of a graph."""
        self._in_turn: dict[GraphRef, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def _undisturbed(self, what: str) -> None:
        """People do not crash."""

    def begin(self, until: float) -> None:
        """Plan what is done until then."""
        from .world import REFS

        dice, world = self._dice, self._world
        self.bus.open()
        refs = REFS if dice.random() < 0.5 else REFS[:1]
        for ref in refs:
            self._at(0.5, self.publish, ref)
            for _ in range(dice.randint(1, 4)):
                when = dice.uniform(1.0, until * 0.95)
                for _ in range(dice.choice((1, 1, 2))):  # two at once compete for the graph
                    self._at(when, self.publish, ref)
            if self._blueprints.renames:
                for _ in range(dice.randint(1, 5)):
                    self._at(dice.uniform(5.0, until * 0.9), self.rename_busy, ref)
            for _ in range(dice.randint(0, 2)):
                self._at(dice.uniform(1.0, until), self.command, ref, dice.choice(("pause", "unblock", "reconcile")))
        for _ in range(dice.randint(0, 6)):
            self._at(dice.uniform(5.0, until), self.raid)
        for _ in range(dice.randint(0, 25)):
            self._at(dice.uniform(5.0, until), self.decide)
        world.say("people", f"look after {[str(r) for r in refs]}")

    def _at(self, delay: float, what: Any, *args: Any) -> None:
        self._world.after(delay, lambda: self.bus.spawn(what(*args)))

    # ---- blueprints

    async def publish(self, ref: GraphRef) -> None:
        self.publishing[ref] += 1
        async with self._in_turn[ref]:  # who builds on another version publishes after it
            await self.declare(ref, self._blueprints.next(ref))
        self.publishing[ref] -= 1

    async def rename_busy(self, ref: GraphRef) -> None:
        """Somebody renames what is there, and nothing else, while something is done to it."""
        watcher, dice = self._world.watcher, self._dice
        look, rather = dice.choice((watcher.busy, watcher.busy, watcher.in_trouble)), set[str]()
        for _ in range(60):
            if rather := look(ref):
                break
            await asyncio.sleep(0.2)
        owner = "extra" if "x1" in rather and dice.random() < 0.5 else "main"
        self.publishing[ref] += 1
        async with self._in_turn[ref]:
            document = self._blueprints.renamed(ref, owner, rather)
            if document is not None:
                await self.declare(ref, document)
        self.publishing[ref] -= 1

    async def declare(self, ref: GraphRef, document: dict[str, Any]) -> None:
        """Publish a blueprint."""
        self._world.happened["blueprint"] += 1
        self._world.say("people", f"publish {ref} {_encode(document).decode()}")
        for _ in range(3):
            try:
                await self.bus.publish(
                    subjects.blueprint(*ref), _encode(document), stream="BLUEPRINTS",
                    msg_id=f"bp{self._world.watcher.transactions}-{self._dice.random()}",
                )  # fmt: skip
                return
            except Unavailable:
                continue

    # ---- commands

    async def command(self, ref: GraphRef, verb: str) -> None:
        nodes = [f"n{n}" for n in range(self._world.size)]
        if self._dice.random() < 0.5:
            nodes = self._world.watcher.names(ref) or nodes
        node = self._dice.choice(nodes)
        if verb == "reconcile" or (verb == "pause" and self._dice.random() < 0.5):
            node = ""
        await self.ask(verb, ref, node)
        if verb == "pause":
            self._at(self._dice.uniform(1.0, 40.0), self.ask, "resume", ref, node)

    async def ask(self, verb: str, ref: GraphRef, node: str = "", *, patience: int = 2) -> Any:
        """A request to the planner; None when it refuses or does not answer."""
        self._world.say("people", f"{verb} {ref} {node}")
        self._world.happened[verb] += not self._world.calm
        body: dict[str, Any] = {"tenant": ref.tenant, "graph": ref.graph}
        if node:
            body["node"] = node
        for _ in range(patience):
            try:
                reply = await self.bus.request(subjects.rpc_planner(verb), body, timeout=30.0)
                return msgspec.json.decode(reply)
            except Unavailable:
                continue
            except HoldfastError as error:
                self._world.say("people", f"{verb} {ref} {node}: {error.message}")
                return None
        return None

    # ---- raids

    async def raid(self) -> None:
        world, dice = self._world, self._dice
        key = world.things.accident()
        if key is None or dice.random() < 0.3:
            return
        world.happened["raid"] += 1
        body: dict[str, Any] = {"node": dice.choice(world.watcher.called(key))}
        if dice.random() < 0.5:
            body["fault"] = "NODE_DESTROYED"
        try:
            await self.bus.publish(subjects.state(*key[0]), _encode(body), stream="STATE", msg_id=f"s{dice.random()}")
        except Unavailable:
            return

    # ---- decisions

    async def decide(self) -> None:
        """Somebody deals with an open item."""
        world, dice = self._world, self._dice
        items = sorted((i for i in world.watcher.items.values() if i.status.active), key=lambda i: i.id)
        if not items:
            return
        world.happened["decision"] += 1
        former = [i for i in items if self._renamed_since(i)]
        await self._decide(dice.choice(former if former and dice.random() < 0.5 else items))

    async def decide_all(self) -> None:
        items = sorted((i for i in self._world.watcher.items.values() if i.status.active), key=lambda i: i.id)
        for item in items:
            await self._decide(item)

    async def _decide(self, item: WorkItem) -> None:
        world, dice = self._world, self._dice
        verb = "complete" if world.calm else dice.choice(VERBS)
        outcomes = [o.name for o in item.permitted_outcomes] or [""]
        outcome = outcomes[0] if world.calm else dice.choice(outcomes)
        body: dict[str, Any] = {"tenant": item.tenancy_id, "id": item.id, "actor": "p"}
        if verb == "complete":
            body["outcome"] = outcome
        try:
            await self.bus.request(subjects.rpc_workitems(verb), body, timeout=5.0)
        except HoldfastError as error:
            world.say("people", f"{verb} {item.id}: {error.message}")

    def _renamed_since(self, item: WorkItem) -> bool:
        """Whether what an item is about is called otherwise than in its callerRef."""
        asked = msgspec.json.decode(item.payload)
        if KEY not in asked.get("spec", ()):
            return False
        key = (GraphRef(item.tenancy_id, item.graph), str(asked["spec"][KEY]), str(asked["type"]))
        return self._world.watcher.name_of(key) not in ("", item.caller_ref.split(":")[2])

    def completed(self, item: WorkItem) -> None:
        """Whoever says that it is done has just done it, where no provisioner does it afterwards."""
        self._world.happened["decided under a former name"] += self._renamed_since(item)
        asked = msgspec.json.decode(item.payload)
        kind = asked.get("type")
        if item.outcome != "done" or kind is None or kind in BUILT_IN_TYPES or kind == PERSONAL:
            return
        action = Action(asked["action"])
        ref, world = GraphRef(item.tenancy_id, item.graph), self._world
        digest = digest_of(kind, msgspec.json.encode(asked["spec"]))
        key = (ref, str(asked["spec"].get(KEY, asked["node"])), kind)
        if world.watcher.wants(key, action):
            world.happened["decided by hand"] += 1
            world.things.by_hand(key, action, digest)
