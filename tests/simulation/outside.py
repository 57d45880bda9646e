"""The world that is to be kept as declared: things, what they were made with, and a provisioner that makes them.

The provisioner runs each attempt at most once (it remembers its answers, as one that is idempotent does), never takes
effect after its time, and crashes with everything it was about to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_model.messages import (
    Action,
    Observation,
    Outcome,
    Status,
    Step,
    StepBatch,
    StepOutcome,
    Touch,
)

if TYPE_CHECKING:
    from .world import World

Key = tuple[str, str]  # node, type

HEAL, OTHER, HOLD, APPROVED, PERSONAL, UNSEEN, FOREIGN = "a", "b", "hold", "approved", "personal", "unseen", "foreign"
AI_REVIEW = "ai-review"
PLANS = 2


@dataclass
class Thing:
    """What really exists. ``made_with``: the things it was last made against; ``broken``: drifted in itself."""

    digest: str
    made_with: frozenset[Key]
    broken: str = ""
    version: int = 0
    published: int | None = 1
    """What it publishes under ``/v``; None: nothing."""

    @property
    def outputs(self) -> dict[str, object]:
        return {} if self.published is None else {"v": self.published}

    @property
    def token(self) -> str:
        return f"{self.digest[:6]}{self.broken}{self.version}"


@dataclass
class Outside:
    """See the module."""

    world: World
    things: dict[Key, Thing] = field(default_factory=dict)
    disturbed: set[Key] = field(default_factory=set)
    """Things that changed, or were said to have, since their last step: beliefs about them may be out of date."""
    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    highest: dict[str, tuple[int, int]] = field(default_factory=dict)
    answers: dict[str, StepOutcome] = field(default_factory=dict)
    done: dict[tuple[str, int], bool] = field(default_factory=dict)
    approvals_used: dict[str, tuple[str, int]] = field(default_factory=dict)
    decisions_used: dict[str, str] = field(default_factory=dict)
    life: int = 0

    # ---- observing

    def see(self, key: Key, digest: str) -> Observation:
        thing = self.things.get(key)
        if thing is None:
            return Observation(Status.ABSENT)
        if thing.broken:
            return Observation(Status.DRIFTED, reason=thing.broken, token=thing.token, detail=f"v{thing.version}")
        if thing.digest != digest:
            return Observation(Status.DRIFTED, reason="spec_changed", token=thing.token)
        return Observation(Status.PRESENT, token=thing.token, outputs=thing.outputs)

    # ---- provisioning

    def receive(self, batch: StepBatch) -> None:
        world = self.world
        if world.dice.random() < world.chances.crash_provisioner:
            self.life += 1
            self.running.clear()
            world.at(1.0, lambda: self.receive(batch))  # redelivered
            return
        life = self.life
        # While somebody works on a batch it is kept alive: it cannot be given up.
        if world.dice.random() < world.chances.dead_letter and not any(map(self._runs, batch.steps)):
            for step in batch.steps:
                out = StepOutcome(step.node, step.operation, step.attempt, Outcome.FAILED, reason="dead_lettered")
                if self._first(step):
                    self._answer(batch, step, out)
            return
        for step in batch.steps:
            world.at(world.dice.uniform(0.01, 2.0), lambda s=step: self._start(batch, s, life))

    def _runs(self, step: Step) -> bool:
        return self.running.get(self._name(step)) == (step.operation, step.attempt)

    def _name(self, step: Step) -> str:
        """What the thing of a step is called now."""
        return self.world.renames.now(step.operation)

    def _first(self, step: Step) -> bool:
        """Note an attempt. False for an echo of an older one, and for one that was answered: it is answered again."""
        mine = (step.operation, step.attempt)
        name = self._name(step)
        highest = self.highest.get(name, (0, 0))
        if mine > highest:
            self.highest[name] = mine
            self.answers.pop(name, None)
        return mine >= highest and name not in self.answers

    def _start(self, batch: StepBatch, step: Step, life: int) -> None:
        world = self.world
        if life != self.life:
            return
        mine = (step.operation, step.attempt)
        if not self._first(step):
            if mine == self.highest[self._name(step)]:
                world.deliver(batch, self.answers[self._name(step)])
            return
        busy = self.running.get(self._name(step))
        if busy is not None:
            if busy[0] != step.operation:
                world.fail(f"two operations of {step.node} run at once: {busy} and {mine}")
            if busy != mine:
                world.at(0.5, lambda: self._start(batch, step, life))
            return
        if world.now > batch.start_by or world.dice.random() < world.chances.expire:
            self._answer(batch, step, StepOutcome(step.node, *mine, Outcome.EXPIRED))
            return
        self.running[self._name(step)] = mine
        world.at(world.dice.uniform(0.0, 3.0), lambda: self._end(batch, step, life))

    def _end(self, batch: StepBatch, step: Step, life: int) -> None:
        if life != self.life:
            return
        mine = (step.operation, step.attempt)
        if self.running.get(self._name(step)) == mine:
            del self.running[self._name(step)]
        self._answer(batch, step, self._run(step, mine))

    def _answer(self, batch: StepBatch, step: Step, out: StepOutcome) -> None:
        self.answers[self._name(step)] = out
        self.world.say(f"{out.outcome} {step.node} op{out.operation}.{out.attempt} {out.reason}")
        self.world.deliver(batch, out)

    def _run(self, step: Step, mine: tuple[int, int]) -> StepOutcome:
        world, dice = self.world, self.world.dice
        if step.type == AI_REVIEW:
            return self._review(step, mine)
        if dice.random() < world.chances.fail:
            permanent = dice.random() < world.chances.permanent
            return StepOutcome(step.node, *mine, Outcome.FAILED, reason="no luck", permanent=permanent)
        key = (self._name(step), step.type)
        if step.type == APPROVED and step.action is Action.PROVISION:
            pending = self._approval(step, mine)
            if pending is not None:
                return pending
        fixes = step.decision is not None and step.decision.outcome == "fix"
        if (key[0], step.operation) not in self.done or fixes:
            self.done[(key[0], step.operation)] = True
            self._take_effect(step, key)
        touch = self._touches() if dice.random() < world.chances.touch else ()
        seen = self.see(key, step.digest)
        return StepOutcome(step.node, *mine, Outcome.SUCCEEDED, observation=seen, touch=touch)

    def _take_effect(self, step: Step, key: Key) -> None:
        world = self.world
        world.say(f"effect {step.action} {step.node} op{step.operation}.{step.attempt} {step.digest[:4]}")
        if step.decision is not None:
            self._use_decision(step)
        self.disturbed.discard(key)
        if step.action is Action.DEPROVISION:
            self.things.pop(key, None)
            return
        old = self.things.get(key)
        broken = old.broken if old is not None and old.digest == step.digest else ""
        if step.decision is not None and step.decision.outcome == "fix":
            broken = ""
        types = {t: world.sent_types.get((step.node, step.operation, t), "") for t in step.depends_on}
        made = frozenset((world.renames.since(t, type, step), type) for t, type in types.items())
        published = old.published if old is not None and world.dice.random() < 0.6 else self._publishes()
        self.things[key] = Thing(step.digest, made, broken, old.version if old else 0, published)

    def _publishes(self) -> int | None:
        """Something new, or for a while nothing."""
        dice = self.world.dice
        return None if not self.world.calm and dice.random() < 0.1 else dice.randint(1, 5)

    def republish(self) -> None:
        """Everything publishes something."""
        for key in sorted(self.things):
            if self.things[key].published is None:
                self.things[key].published = 1
                self.disturbed.add(key)

    def _use_decision(self, step: Step) -> None:
        assert step.decision is not None
        item = step.decision.workitem
        used = self.decisions_used.setdefault(item, f"{step.node} op{step.operation}")
        if used != f"{step.node} op{step.operation}":
            self.world.fail(f"decision {item} was used up by {used}, and came again for {step.node}")

    def _approval(self, step: Step, mine: tuple[int, int]) -> StepOutcome | None:
        """Consent is needed for a plan, and the plan's pins are what is executed."""
        given, world = step.approval, self.world
        if given is None:
            plan = f"plan-{step.digest[:4]}-{world.dice.randrange(PLANS)}"
            pins = {"digest": step.digest}
            return StepOutcome(step.node, *mine, Outcome.PENDING_APPROVAL, plan=plan, pins=pins)
        if (given.pins or {}).get("digest") != step.digest:
            world.fail(f"{step.node}: an approval of {given.pins} came with content {step.digest}")
        used = self.approvals_used.setdefault(given.workitem, (step.node, step.operation))
        if used != (step.node, step.operation):
            world.fail(f"approval {given.workitem} was used by {used} and again by {step.node} op{step.operation}")
        return None

    def _review(self, step: Step, mine: tuple[int, int]) -> StepOutcome:
        answer = self.world.dice.choice(("RESOLVED", "UNRESOLVED", "PENDING", "UNRESOLVED"))
        seen = Observation(Status.PRESENT, reason=answer, info={"confidence": 0.5})
        return StepOutcome(step.node, *mine, Outcome.SUCCEEDED, observation=seen)

    def _touches(self) -> tuple[Touch, ...]:
        world = self.world
        keys = sorted(k for k in self.things if k[0] not in self.running)
        if not keys:
            return ()
        node, type = world.dice.choice(keys)
        unit = world.reconciler.core.units.get(node)
        if unit is None or unit.type != type:
            return ()
        self.disturbed.add((node, type))
        return (Touch(node, self.see((node, type), unit.form.digest) if world.dice.random() < 0.5 else None),)

    def rename(self, old: str, new: str, type: str) -> None:
        """A node is called otherwise: the things of the world know it by what it is. Its former types keep the name."""

        def named(key: Key) -> Key:
            return (new, type) if key == (old, type) else key

        self.things = {named(key): thing for key, thing in self.things.items()}
        for thing in self.things.values():
            thing.made_with = frozenset(map(named, thing.made_with))
        self.disturbed = set(map(named, self.disturbed))
        of = self.world.renames.ops  # what operations are of, by now under the new name
        self.done = {(of[op][0] if node == old else node, op): seen for (node, op), seen in self.done.items()}
        if old in self.running and of[self.running[old][0]][0] == new:
            self.running[new] = self.running.pop(old)
        if old in self.highest and of[self.highest[old][0]][0] == new:
            self.highest[new] = self.highest.pop(old)
            if old in self.answers:
                self.answers[new] = self.answers.pop(old)

    # ---- accidents

    def accident(self) -> Key | None:
        """Something that exists goes, or breaks."""
        dice = self.world.dice
        keys = sorted(k for k in self.things if k[0] not in self.running and k[1] != UNSEEN)
        if not keys:
            return None
        key = dice.choice(keys)
        self.disturbed.add(key)
        thing = self.things[key]
        if dice.random() < 0.3:
            thing.published = self._publishes()
        elif key[1] == HOLD and dice.random() < 0.8:
            thing.broken = dice.choice(("odd", "strange"))
            thing.version += 1
        elif key[1] == OTHER and dice.random() < 0.5:
            thing.digest, thing.version = "0" * 32, thing.version + 1
        else:
            del self.things[key]
            for mark in [m for m in self.done if m[0] == key[0]]:
                del self.done[mark]
        self.world.say(f"accident {key} {self.things.get(key)}")
        return key

    # ---- in which order things may go

    def check_removal(self, key: Key, wanted: Callable[[Key, Thing], bool]) -> None:
        """Nothing that was made with a thing may be there when it is removed, unless it is as declared now."""
        for other, thing in self.things.items():
            if key in thing.made_with and other != key and not wanted(other, thing) and not self._no_order(key, other):
                self.world.fail(f"{key} is removed before {other}, which was made with it")

    def _no_order(self, key: Key, other: Key) -> bool:
        """Whether there is no order that is right: by what is true, or by what the planner could know at most."""
        core = self.world.reconciler.core
        cut = core.cuts.get(core.graves[key], ())
        return self._stands_on(key, other) or core.graves.get(other) in cut

    def _stands_on(self, key: Key, goal: Key) -> bool:
        """Whether ``key`` was made with ``goal``, or declared it when it was removed, directly or not.

        Then there is no order that is right by both what was and what was declared last; the latter counts.
        """
        seen, stack = {key}, [key]
        while stack:
            at = stack.pop()
            thing, tomb = self.things.get(at), self.world.disk.graph.gone.get(at)
            below = set(thing.made_with) if thing is not None else set()
            if tomb is not None:
                below |= {k for k in self.things if k[0] in tomb.depends_on}
            if goal in below:
                return True
            stack += sorted(below - seen)
            seen |= below
        return False
