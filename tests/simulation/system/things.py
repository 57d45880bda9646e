"""What really exists, and how one step changes it: idempotent, never after its time, with approvals and decisions.

Things outlive every process. The checks here are those of a strict provisioner: nothing twice under one key, no
consent used twice or for other content, no two operations of a node at once. A thing is found by the key in its spec,
whatever its node is called.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import msgspec

from holdfast_model.manifest import AddNode, Backoff, Ladder, Manifest, NodeType, OnDrift, OnUnknown, Rung
from holdfast_model.messages import Action, Observation, Outcome, Status, Step, StepBatch, StepOutcome, Touch
from holdfast_model.names import AI_REVIEW, HUMAN_REVIEW, GraphRef
from holdfast_model.references import MARKED, parse
from holdfast_model.rows import digest_of
from holdfast_model.work_items import WorkItem
from holdfast_sdk.context import Context

from .allowed import misquoted
from .keyed import key_in, lane

Key = tuple[GraphRef, str, str]  # graph, key, type

HEAL, HOLD, APPROVED, PERSONAL, GUESSED = "heal", "hold", "approved", "personal", "guessed"
TIMEOUT = 12.0
FIXES, FIRST_FIX = 0.7, 100
_BACKOFF = Backoff(1.0, 15.0)


def _type(name: str, **more: object) -> NodeType:
    base: dict[str, object] = {"resync": 60.0, "timeout": TIMEOUT, "batch": 3, "concurrency": 3, "backoff": _BACKOFF}
    return NodeType(name, **{**base, **more})  # type: ignore[arg-type]


LADDERS_REFRESH = 20.0
"""Seconds after which fault-policy looks for ladders again."""
AUTOMATIC = [APPROVED, GUESSED]
"""Types of which a reviewer's fix is carried out without asking."""


def _escalation(name: str, types: list[str], **spec: object) -> Ladder:
    tried = (
        "(count >= 3 || fault.permanent) && review('ai-review-' + node) == '' && review('human-review-' + node) == ''"
    )
    return Ladder(
        name,
        ["PROVISION_FAILED"],
        [
            Rung(tried, AddNode("ai-review-{node}", AI_REVIEW, spec=spec)),
            Rung(
                "review('ai-review-' + node) == 'UNRESOLVED'", AddNode("human-review-{node}", HUMAN_REVIEW, "ALL")
            ),
        ],
        node_types=types,
    )  # fmt: skip


LADDERS = [
    _escalation("escalation", [HEAL]),
    _escalation("mending", AUTOMATIC, auto_apply=True),
    Ladder(
        "degraded", ["NODE_DEGRADED"], [Rung("true", AddNode("human-review-{node}", HUMAN_REVIEW, "ALL"))],
        node_types=[HOLD],
    ),
    Ladder("total", ["PROVISION_FAILED", "DEPROVISION_FAILED"], [Rung("false")], reset="never"),
]  # fmt: skip
MANIFEST = Manifest(
    "sim",
    "1",
    [
        _type(HEAL),
        _type(HOLD, on_drift=OnDrift.HOLD, outcomes={"*": ["fix", "retry", "give-up"]}),
        _type(APPROVED, batch=1),
        _type(PERSONAL, after_human=True),
        _type(GUESSED, on_unknown=OnUnknown.PROVISION),
    ],
    reviews=True,
    ladders=LADDERS,
)
KINDS = [HEAL] * 6 + [HOLD, HOLD, APPROVED, APPROVED, PERSONAL, GUESSED]


@dataclass
class Luck:
    """Probabilities of what goes wrong with a step."""

    fail: float = 0.12
    permanent: float = 0.4
    expire: float = 0.02
    touch: float = 0.05
    fail_late: float = 0.05
    """To say that it failed when all had been done."""
    silent: float = 0.1
    """To publish nothing for a while."""

    def times(self, factor: float) -> Luck:
        return Luck(**{f.name: min(0.5, factor * getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def good(cls) -> Luck:
        return cls(**dict.fromkeys((f.name for f in fields(cls)), 0.0))


@dataclass
class Thing:
    """``broken``: drifted in itself; ``version``: how often. ``by_hand``: a person made it. ``published``: what it
    publishes under ``/v``; None: nothing.
    """

    digest: str
    broken: str = ""
    version: int = 0
    by_hand: bool = False
    published: int | None = 1

    @property
    def outputs(self) -> dict[str, object] | None:
        return None if self.published is None else {"v": self.published}

    @property
    def token(self) -> str:
        return f"{self.digest[:6]}{self.broken}{self.version}"


@dataclass
class Things:
    """See the module. ``say`` writes the trace; ``fail`` ends the run: an invariant does not hold."""

    dice: random.Random
    say: Callable[[str, str], None]
    fail: Callable[[str], None]
    items: Callable[[], Mapping[str, WorkItem]] = dict
    names: Callable[[Key], list[str]] = lambda key: [key[1]]
    """What nodes of a thing have been called."""
    keys: Callable[[GraphRef, str], set[str]] = lambda ref, name: {name}
    """The keys of all things that were ever called so."""
    luck: Luck = field(default_factory=Luck)
    there: dict[Key, Thing] = field(default_factory=dict)
    disturbed: set[Key] = field(default_factory=set)
    """Changed by others, or said to be, since their last step: beliefs about them may be out of date."""
    running: dict[tuple[GraphRef, str], tuple[int, int]] = field(default_factory=dict)
    began: dict[tuple[str, int], int] = field(default_factory=dict)
    """Incarnation and operation -> the operation as which the intention began."""
    done: dict[tuple[GraphRef, str, str], tuple[str, int]] = field(default_factory=dict)
    """What was done: graph, key of the thing, idempotency key -> incarnation and operation."""
    approvals: dict[str, tuple[str, int]] = field(default_factory=dict)
    decisions: dict[str, tuple[str, int]] = field(default_factory=dict)
    fixes: dict[int, tuple[GraphRef, str, str]] = field(default_factory=dict)
    """What reviewers proposed to put in place of ``/v``: of which node, and what they said."""
    published: dict[tuple[GraphRef, str], set[object]] = field(default_factory=dict)
    """Every value that a thing ever published."""

    def see(self, key: Key, digest: str) -> Observation:
        """What an observer says."""
        thing = self.there.get(key)
        if thing is None:
            return Observation(Status.ABSENT)
        if thing.broken:
            return Observation(Status.DRIFTED, reason=thing.broken, token=thing.token, detail=f"v{thing.version}")
        if thing.digest != digest:
            return Observation(Status.DRIFTED, reason="spec_changed", token=thing.token)
        return Observation(Status.PRESENT, token=thing.token, outputs=thing.outputs)

    def _put(self, key: Key, thing: Thing) -> None:
        self.there[key] = thing
        self.published.setdefault(key[:2], set()).add(thing.published)

    def _publishes(self) -> int | None:
        """Something new, or for a while nothing."""
        return None if self.dice.random() < self.luck.silent else self.dice.randint(1, 5)

    def republish(self) -> None:
        """Everything publishes something."""
        for key in sorted(self.there):
            if self.there[key].published is None:
                self._put(key, replace(self.there[key], published=1))
                self.disturbed.add(key)

    # ---- steps

    def begin(self, ref: GraphRef, step: Step) -> bool:
        """A step starts; False when the same node is busy with an attempt of the same operation."""
        mine = (step.operation, step.attempt)
        at = (ref, key_in(step.spec, step.node))
        busy = self.running.get(at)
        if busy is not None:
            if busy[0] != step.operation:
                self.fail(f"two operations of {step.node} run at once: {busy} and {mine}")
            return False
        self.running[at] = mine
        return True

    def end(self, ref: GraphRef, step: Step) -> None:
        self.running.pop((ref, key_in(step.spec, step.node)), None)

    def run(self, batch: StepBatch, step: Step) -> StepOutcome:
        """One attempt, atomically."""
        ref, mine = GraphRef(batch.tenant, batch.graph), (step.operation, step.attempt)
        dice, key = self.dice, (ref, key_in(step.spec, step.node), step.type)
        if step.type == AI_REVIEW:
            return StepOutcome(step.node, *mine, Outcome.SUCCEEDED, observation=self._review(ref, step))
        self._made_from(ref, step)
        if wrong := misquoted(self.items(), step.approval, step.decision):
            self.fail(f"{step.node}: {wrong}")
        if dice.random() < self.luck.fail:
            return StepOutcome(
                step.node, *mine, Outcome.FAILED, reason="no luck", permanent=dice.random() < self.luck.permanent
            )
        if step.type == APPROVED and step.action is Action.PROVISION:
            if step.approval is None:
                plan = f"plan-{step.digest[:4]}-{dice.randrange(2)}"
                pins = {"digest": step.digest}
                return StepOutcome(step.node, *mine, Outcome.PENDING_APPROVAL, plan=plan, pins=pins)
            self._consent(key, step)
        words = (ref.tenant, ref.graph, batch.incarnation, step.node)
        context = Context(*words, *mine, batch.start_by, first=step.first)
        mark = (ref, key[1], context.idempotency_key)
        fixes = step.decision is not None and step.decision.outcome == "fix"
        if mark not in self.done or fixes:
            self._once(mark, batch, step)
            self._take_effect(key, step)
        if dice.random() < self.luck.fail_late:
            return StepOutcome(step.node, *mine, Outcome.FAILED, reason="lost on the way back")
        touch = self._touch(ref) if dice.random() < self.luck.touch else ()
        return StepOutcome(step.node, *mine, Outcome.SUCCEEDED, observation=self.see(key, step.digest), touch=touch)

    def _once(self, mark: tuple[GraphRef, str, str], batch: StepBatch, step: Step) -> None:
        """A provisioner that remembers the keys of what it has done does nothing twice."""
        mine = (batch.incarnation, step.first or step.operation)
        if (began := self.began.setdefault((batch.incarnation, step.operation), mine[1])) != mine[1]:
            self.fail(f"{step.node}: op{step.operation} began as op{began}, and comes as op{mine[1]}")
        for other, op in self.done.items():
            if op == mine and other != mark and other[:2] == mark[:2]:
                self.fail(f"{step.node}: one intention, op{step.operation}, comes as {other[2]} and as {mark[2]}")
        self.done[mark] = mine

    def _review(self, ref: GraphRef, step: Step) -> Observation:
        """What a reviewer says, at times with a fix of what it looked at, which may not fit."""
        answer = self.dice.choice(("RESOLVED", "RESOLVED", "PENDING", "UNRESOLVED", "UNRESOLVED"))
        info: dict[str, object] = {"confidence": 0.5}
        if self.dice.random() < FIXES:
            fix, target = FIRST_FIX + len(self.fixes), msgspec.json.decode(step.spec)["target"]
            self.fixes[fix] = (ref, target, answer)
            patch: list[dict[str, object]] = [{"op": "replace", "path": "/v", "value": fix}]
            if self.dice.random() < 0.1:
                patch.insert(0, {"op": "test", "path": "/v", "value": -1})
            info["fix"] = {"patch": patch}
        return Observation(Status.PRESENT, reason=answer, info=info)

    def _take_effect(self, key: Key, step: Step) -> None:
        self.say("things", f"{step.action} {key[0]} {step.node} op{step.operation}.{step.attempt} {step.digest[:4]}")
        if step.decision is not None:
            item, use = step.decision.workitem, (lane(key[1]), step.first or step.operation)
            if self.decisions.setdefault(item, use) != use:
                self.fail(f"decision {item} was used up by {self.decisions[item]}, and came again for {use}")
        self.disturbed.discard(key)
        if step.action is Action.DEPROVISION:
            self.there.pop(key, None)
            return
        old = self.there.get(key)
        broken = old.broken if old is not None and old.digest == step.digest else ""
        if step.decision is not None and step.decision.outcome == "fix":
            broken = ""
        published = old.published if old is not None and self.dice.random() < 0.6 else self._publishes()
        self._put(key, Thing(step.digest, broken, old.version if old else 0, published=published))

    def _made_from(self, ref: GraphRef, step: Step) -> None:
        """What stands in place of a reference has been published, at some time, by what it refers to."""
        if step.action is Action.DEPROVISION:
            return
        if MARKED in bytes(step.spec) or digest_of(step.type, step.spec) != step.digest:
            self.fail(f"{step.node} is to be made from {bytes(step.spec)!r}, which is not {step.digest}")
        for text, value in (step.refs or {}).items():
            if not any(value in self.published.get((ref, key), ()) for key in self.keys(ref, parse(text)[0])):
                self.fail(f"{step.node} is to be made with {text} = {value}, which was never published")

    def _consent(self, key: Key, step: Step) -> None:
        """Consent is given once, for one plan and one content."""
        given = step.approval
        assert given is not None
        if (given.pins or {}).get("digest") != step.digest or not given.plan.startswith(f"plan-{step.digest[:4]}"):
            self.fail(f"{step.node}: consent to {given.plan} {given.pins} came with the content {step.digest}")
        use = (lane(key[1]), step.first or step.operation)
        if self.approvals.setdefault(given.workitem, use) != use:
            self.fail(f"approval {given.workitem} was used by {self.approvals[given.workitem]} and again by {use}")

    def _touch(self, ref: GraphRef) -> tuple[Touch, ...]:
        keys = sorted(k for k in self.there if k[0] == ref and (ref, k[1]) not in self.running)
        if not keys:
            return ()
        key = self.dice.choice(keys)
        self.disturbed.add(key)
        return (Touch(self.dice.choice(self.names(key))),)

    # ---- others

    def accident(self) -> Key | None:
        """Something that exists goes, breaks, or is changed."""
        dice = self.dice
        keys = sorted(k for k in self.there if (k[0], k[1]) not in self.running)
        if not keys:
            return None
        key = dice.choice(keys)
        self.disturbed.add(key)
        thing = self.there[key]
        if dice.random() < 0.2:
            self._put(key, replace(thing, published=self._publishes()))
        elif key[2] == HOLD and dice.random() < 0.8:
            thing.broken, thing.version = dice.choice(("odd", "strange")), thing.version + 1
        elif dice.random() < 0.3:
            thing.digest, thing.version = "0" * 32, thing.version + 1
        else:
            self.gone(key)
        self.say("things", f"accident {key[0]} {key[1]} {self.there.get(key)}")
        return key

    def gone(self, key: Key) -> None:
        """Somebody took it away; what was done for it is undone, and may be done again."""
        self.there.pop(key, None)
        for mark in [m for m in self.done if m[:2] == key[:2]]:
            del self.done[mark]

    def by_hand(self, key: Key, action: Action, digest: str) -> None:
        """A person does what a gate was for."""
        self.disturbed.add(key)
        if action is Action.DEPROVISION:
            self.gone(key)
        else:
            self._put(key, Thing(digest, by_hand=True, published=self._publishes()))
        self.say("things", f"by hand: {action} {key[0]} {key[1]} {digest[:4]}")
