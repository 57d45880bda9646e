"""WorkItems, the people who decide them, and a fault policy: what the planner's peers do, over the same bad network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast_model.events import Event, Family, Fault
from holdfast_model.messages import Action, Status
from holdfast_model.mutations import AddNode, RemoveNode, declaration
from holdfast_model.names import BUILT_IN_TYPES
from holdfast_model.reconciler import CloseIntent, Ended, ItemIntent

from .outside import PERSONAL, Thing

if TYPE_CHECKING:
    from .world import World

ENDINGS = ("COMPLETED", "COMPLETED", "COMPLETED", "COMPLETED", "REJECTED", "EXPIRED", "CANCELLED", "FAULTED")
OWNER = "policy:ladder"


@dataclass
class Item:
    id: str
    intent: ItemIntent
    status: str = "PENDING"
    outcome: str = ""

    @property
    def active(self) -> bool:
        return self.status == "PENDING"


@dataclass
class People:
    """The work-items service and its users."""

    world: World
    items: dict[str, Item] = field(default_factory=dict)  # by request key

    def carry_out(self, intent: ItemIntent | CloseIntent) -> None:
        """An RPC that is tried again until it is answered, or the planner is gone."""
        world, epoch = self.world, self.world.disk.epoch

        def attempt() -> None:
            if world.disk.epoch != epoch:
                return
            if isinstance(intent, ItemIntent) and not isinstance(
                world.disk.todo.get(f"o:{intent.request}"), ItemIntent
            ):
                return  # called off
            if world.dice.random() < world.chances.lose:
                world.at(1.0, attempt)
            elif isinstance(intent, ItemIntent):
                item = self._create(intent)
                self._reply(epoch, lambda r: r.on_item_opened(world.now, intent.request, item.id), attempt)
            else:
                item = self.items.get(intent.request)
                if item is not None and item.active:
                    self._end(item, "OBSOLETE")
                self._reply(epoch, lambda r: r.on_item_closed(intent.request), attempt)

        world.at(world.dice.expovariate(5.0), attempt)

    def _reply(self, epoch: int, feed: Any, again: Any) -> None:
        world = self.world
        if world.dice.random() < world.chances.lose:
            world.at(1.0, again)
            return
        world.at(world.dice.expovariate(5.0), lambda: world.turn(feed) if world.disk.epoch == epoch else None)

    def _create(self, intent: ItemIntent) -> Item:
        found = self.items.get(intent.request)
        if found is not None:
            return found
        for item in self.items.values():
            if item.active and item.intent.caller_ref == intent.caller_ref:
                self._end(item, "OBSOLETE")
        item = self.items[intent.request] = Item(f"w{len(self.items) + 1}", intent)
        self.world.say(f"item {item.id} {intent.kind} {intent.title}")
        return item

    def decide(self) -> None:
        """Somebody deals with an open item."""
        world = self.world
        items = [i for i in self.items.values() if i.active]
        if not items:
            return
        item = world.dice.choice(items)
        status = "COMPLETED" if world.calm else world.dice.choice(ENDINGS)
        outcomes = item.intent.outcomes or [""]
        item.outcome = outcomes[0] if world.calm else world.dice.choice(outcomes)
        if status == "COMPLETED" and item.outcome != "reject" and item.intent.kind == "human":
            self._do(item)
        self._end(item, status)

    def _do(self, item: Item) -> None:
        """A person does what a gate is for, where no provisioner does it afterwards."""
        world, payload = self.world, item.intent.payload
        node, type = item.intent.node, item.intent.type
        if type in BUILT_IN_TYPES or type == PERSONAL:
            return
        if item.intent.request not in world.reconciler.core.gates:
            return  # nobody waits for it any more; its item is about to be closed
        known = world.reconciler.core.gates[item.intent.request].id
        node = world.renames.called(known, type)  # the planner may not have heard of its name yet
        key = (node, type)
        wanted = world.disk.graph.nodes.get(node)
        if payload.get("action") == Action.DEPROVISION.value:
            if key in world.disk.graph.gone:
                world.outside.things.pop(key, None)
        elif wanted is not None and wanted.type == type:
            # The planner may never learn of it as its own doing, so nothing is known about what it was made with.
            made, old = world.reconciler.core.units[known].form.digest, world.outside.things.get(key)
            published = old.published if old is not None else 1
            world.outside.things[key] = Thing(made, frozenset(), published=published)

    def _end(self, item: Item, status: str) -> None:
        item.status = status
        self.world.say(f"item {item.id} {status} {item.outcome}")
        self.tell(item)

    def tell(self, item: Item) -> None:
        world = self.world
        end = Ended(item.intent.request, item.id, item.status, item.outcome, by="p", at=world.now)
        world.send(lambda: world.turn(lambda r: r.on_decision(world.now, end)))

    def poll(self) -> None:
        """The planner asks after its open items."""
        for unit in list(self.world.reconciler.core.gates.values()):
            for gate in (unit.rec.gate, unit.rec.approval):
                item = self.items.get(gate.id) if gate is not None else None
                if item is not None and not item.active:
                    self.tell(item)
        self.world.at(60.0, self.poll)

    def check(self) -> None:
        """At most one active item per question."""
        active = [i.intent.caller_ref for i in self.items.values() if i.active]
        if len(active) != len(set(active)):
            self.world.fail(f"two active items ask the same: {sorted(active)}")


@dataclass
class FaultPolicy:
    """A ladder as the fault-policy service runs it: every fault once, reviews added, and forgotten on recovery."""

    world: World
    handled: set[str] = field(default_factory=set)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def hear(self, event: Event | Fault) -> None:
        """Events come late, and more than once; none is lost for ever (outbox and sweep)."""
        world = self.world
        for _ in range(2 if world.dice.random() < world.chances.double else 1):
            what = self._fault if isinstance(event, Fault) else self._event
            world.at(world.dice.expovariate(2.0), lambda w=what: w(event))

    def _event(self, event: Event) -> None:
        if event.family is Family.NODE and event.name == "recovered":
            self._forget(event.node, str(event.data["episode"]))

    def _forget(self, node: str, episode: str) -> None:
        graph = self.world.disk.graph
        self.counts.pop((node, episode), None)
        for name in sorted(graph.reviews_of(node)):
            if f'"{episode}"'.encode() in bytes(graph.nodes[name].spec):
                self.world.mutate(lambda n=name: graph.apply(RemoveNode(n), OWNER))

    def _fault(self, fault: Fault) -> None:
        world = self.world
        if fault.id in self.handled:
            return
        self.handled.add(fault.id)
        node = world.disk.graph.nodes.get(fault.node)
        record = world.disk.records.get(fault.node)
        if node is None or record is None or record.episode != fault.episode or node.type in BUILT_IN_TYPES:
            return
        if fault.type == "NODE_DEGRADED" and node.type == "hold":
            self._add(fault, "human-review")
        elif fault.type == "PROVISION_FAILED":
            key = (fault.node, fault.episode)
            self.counts[key] = self.counts.get(key, 0) + 1
            if self.counts[key] >= 3 or fault.permanent:
                self._climb(fault)

    def _climb(self, fault: Fault) -> None:
        ai = f"ai-review-{fault.node}"
        found = self.world.disk.graph.nodes.get(ai)
        if found is None or f'"{fault.episode}"'.encode() not in bytes(found.spec):
            self._add(fault, "ai-review")
            return
        answer = self.world.disk.records.get(ai)
        if answer is not None and answer.status is Status.PRESENT and answer.reason == "UNRESOLVED":
            self._add(fault, "human-review")

    def _add(self, fault: Fault, kind: str) -> None:
        name, graph = f"{kind}-{fault.node}", self.world.disk.graph
        if name in graph.nodes and f'"{fault.episode}"'.encode() in bytes(graph.nodes[name].spec):
            return
        spec = {"target": fault.node, "target_digest": fault.digest, "episode": fault.episode, "reason": fault.reason}
        gating = "ALL" if kind == "human-review" else "NONE"
        self.world.mutate(lambda: graph.apply(AddNode(declaration(name, kind, spec, gating)), OWNER))
