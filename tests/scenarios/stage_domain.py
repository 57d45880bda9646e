"""A domain over a folder that behaves as each node's spec and the folder say; the world of the scenarios.

A file ``<node>.sick`` with ``{"reason", "detail", "hold", "token"}`` makes a node drift. Everything that is done is a
line in ``log``, everything that is looked at one in ``looks``.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from holdfast_model.mutations import AddNode as AddNodeMutation
from holdfast_model.mutations import Mutation, UpdateNode, declaration
from holdfast_sdk import (
    PENDING,
    RESOLVED,
    UNRESOLVED,
    Absent,
    AddNode,
    Context,
    Domain,
    Drifted,
    Ladder,
    Node,
    PendingApproval,
    Permanent,
    PolicyRequest,
    Present,
    Review,
    Reviewed,
    Rung,
    State,
    Temporary,
    run,
)

FOLDER = Path(os.environ.get("WORLD_FOLDER", "."))
OUTCOMES = {"*": ["mend", "give-up"]}


class Part(BaseModel, extra="forbid"):
    """``mood``: ``throws`` (its provisioner raises), ``blind`` (its observer does), ``wears`` (seen as drifted whatever
    is done), ``stubborn`` (stays sick in spite of decisions), ``clings`` (cannot be removed without a file
    ``<node>.let-go``), ``ails`` (fails without a file ``<node>.well``). ``fail``: so many attempts fail, each is
    repeated after ``again`` seconds; ``bad``: it fails while its value is "bad"; ``slow``: seconds that a step takes;
    ``until``: it takes until there is a file of that name. ``policy``: what the domain's own policy does about its
    faults. ``review``: what the reviewer says, ``fix`` what it proposes.
    """

    value: Any = None
    mood: str = ""
    fail: int = 0
    bad: bool = False
    plan: str = ""
    slow: float = 0.0
    until: str = ""
    again: float = 0.05
    policy: str = ""
    review: str = "UNRESOLVED"
    fix: dict[str, Any] | None = None


stage = Domain("stage", version="1")


class Props:
    """Files as things."""

    def __init__(self) -> None:
        self.tries: dict[tuple[str, str], int] = {}

    async def observe(self, node: Node[Part], ctx: Context) -> State[BaseModel]:
        write("looks", node.id, ctx)
        if node.spec.mood == "blind":
            raise RuntimeError("cannot see")
        sick = place(node.id, ctx).with_suffix(".sick")
        if sick.exists():
            said = json.loads(sick.read_text())
            return Drifted(
                said["reason"], detail=said.get("detail", ""), hold=said.get("hold"), token=said.get("token", "")
            )
        if not place(node.id, ctx).exists():
            return Absent()
        there = json.loads(place(node.id, ctx).read_text())
        if node.spec.mood == "wears":
            return Drifted("worn", token="always the same")
        return Present(token=str(there)) if there == node.spec.value else Drifted("changed", token=str(there))

    async def provision(self, node: Node[Part], ctx: Context) -> State[BaseModel]:
        spec = node.spec
        decision = f" {ctx.decision.outcome}" if ctx.decision is not None else ""
        write("steps", f"{node.id}{decision}", ctx)
        await asyncio.sleep(spec.slow)
        while spec.until and not (FOLDER / ctx.tenant / spec.until).exists():  # noqa: ASYNC110  made by another process
            await asyncio.sleep(0.02)
        if spec.mood == "throws":
            raise RuntimeError("a bug in the provisioner")
        if spec.bad and spec.value == "bad":
            raise Permanent("the value is bad", reason="bad_value")
        if spec.mood == "ails" and not place(node.id, ctx).with_suffix(".well").exists():
            raise Temporary("it is not well", reason="flaky", retry_after=spec.again)
        who = (ctx.tenant, node.id)
        self.tries[who] = tried = self.tries.get(who, 0) + 1
        if tried <= spec.fail:
            raise Temporary(f"attempt {tried} fails", reason="flaky", retry_after=spec.again)
        if spec.plan and (ctx.approval is None or ctx.approval.plan != spec.plan):
            raise PendingApproval(spec.plan, summary={"value": spec.value}, pins={"value": spec.value})
        if ctx.decision is not None and spec.mood != "stubborn":
            place(node.id, ctx).with_suffix(".sick").unlink(missing_ok=True)
        scratch = place(node.id, ctx).with_suffix(".tmp")
        scratch.write_text(json.dumps(spec.value))
        scratch.replace(place(node.id, ctx))
        write("log", f"provision {node.id}{decision}", ctx)
        return await Props.observe(self, node, ctx) if spec.mood == "stubborn" else Present(token=str(spec.value))

    async def deprovision(self, node: Node[Part], ctx: Context) -> None:
        if node.spec.mood == "clings" and not place(node.id, ctx).with_suffix(".let-go").exists():
            raise Temporary("it does not let go", reason="clings", retry_after=node.spec.again)
        place(node.id, ctx).unlink(missing_ok=True)
        write("log", f"deprovision {node.id}", ctx)


def place(node: str, ctx: Context) -> Path:
    folder = FOLDER / ctx.tenant
    folder.mkdir(exist_ok=True)
    return folder / (quote(node, safe="") + ".json")


def write(file: str, line: str, ctx: Context) -> None:
    with (place("x", ctx).parent / file).open("a") as lines:
        lines.write(f"{line}\n")


COMMON: dict[str, Any] = {"resync": "1h", "timeout": "20s", "concurrency": 8, "backoff": ("100ms", "300ms")}


@stage.node_type("prop", outcomes=OUTCOMES, **COMMON)
class Plain(Props):
    """No ladder looks after these."""


@stage.node_type("watched", on_drift="hold", outcomes=OUTCOMES, **COMMON)
class Watched(Props):
    """Ladders look after these."""


@stage.node_type("policed", outcomes=OUTCOMES, **COMMON)
class Policed(Props):
    """The domain's own policy looks after these, and a ladder that wants a person at once."""


@stage.node_type("manual", after_human=True, **COMMON)
class Manual(Props):
    """A person prepares these, then they are provisioned."""


REVIEW = AddNode("human-review-{node}", "human-review", "ALL")
stage.ladder(Ladder("drifts", ["NODE_DEGRADED"], [Rung("true", REVIEW)], node_types=["watched"]))
stage.ladder(
    Ladder(
        "failures",
        ["PROVISION_FAILED"],
        [
            Rung(
                "(count >= 3 || fault.permanent) && review('ai-review-' + node) == ''",
                AddNode("ai-review-{node}", "ai-review", spec={"min_confidence": 0.5}),
            ),
            Rung("review('ai-review-' + node) == 'UNRESOLVED'", REVIEW),
        ],
        node_types=["watched"],
    )
)
stage.ladder(
    Ladder(
        "automatic",
        ["PROVISION_FAILED"],
        [
            Rung(
                "review('ai-review-' + node) == ''", AddNode("ai-review-{node}", "ai-review", spec={"auto_apply": True})
            )
        ],
        node_types=["manual"],
    )
)
stage.ladder(Ladder("strict", ["PROVISION_FAILED"], [Rung("true", REVIEW)], node_types=["policed"]))


@stage.policy
async def policy(request: PolicyRequest) -> Sequence[Mutation]:
    """What the faulted node's spec asks for."""
    node = request.node
    spec = json.loads(bytes(node.spec))
    match spec.get("policy"):
        case "throws":
            raise RuntimeError("a bug in the policy")
        case "contradicts":
            return [AddNodeMutation(declaration(f"human-review-{node.id}", "human-review", {"target": node.id}))]
        case "mends":
            return [UpdateNode(node.id, declaration(node.id, node.type, spec | {"value": "mended"}))]
    return []


@stage.reviewer
async def review(review: Review, ctx: Context) -> Reviewed:
    """What the target's spec asks for."""
    write("reviews", review.target, ctx)
    spec = review.context.get("spec") or {}
    verdicts = {"RESOLVED": RESOLVED, "PENDING": PENDING}
    return Reviewed(verdicts.get(spec.get("review", ""), UNRESOLVED), "looked at it", 0.9, fix=spec.get("fix"))


if __name__ == "__main__":
    run(stage, Plain(), Watched(), Policed(), Manual())
