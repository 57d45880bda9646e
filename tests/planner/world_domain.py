"""A domain over a folder: one file per node, one line in ``log`` per effect. Behaves as each node's spec says.

``fail``: so many attempts fail first. ``permanent``: it fails for ever. ``plan``: asks for approval of that plan.
``slow``: seconds a step takes. ``until``: a step takes until there is a file of that name. A file ``<node>.broken``
makes the node drift and hold.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel

from holdfast_sdk import (
    Absent,
    Context,
    Domain,
    Drifted,
    Found,
    GraphBuilder,
    Node,
    PendingApproval,
    Permanent,
    Present,
    State,
    Temporary,
    run,
)

FOLDER = Path(os.environ.get("WORLD_FOLDER", "."))
KEEP = ("value",)


class Thing(BaseModel, extra="forbid"):
    value: Any = None
    fail: int = 0
    permanent: bool = False
    plan: str = ""
    slow: float = 0.0
    until: str = ""


class Blueprint(BaseModel, extra="forbid"):
    things: dict[str, Thing]
    chain: bool = False


world = Domain("world", blueprint=Blueprint, version=os.environ.get("WORLD_VERSION", "1"))


@world.compiler
def compile(bp: Blueprint, graph: GraphBuilder) -> None:
    before: list[str] = []
    for name, thing in bp.things.items():
        graph.add(name, "thing", thing, depends_on=before if bp.chain else [], at=f"/things/{name}")
        before = [name]


def path_of(node: str, ctx: Context) -> Path:
    folder = FOLDER / ctx.tenant
    folder.mkdir(exist_ok=True)
    return folder / (quote(node, safe="") + ".json")


async def let(until: str, ctx: Context) -> None:
    """Returns once the test lets this go on."""
    while until and not (FOLDER / ctx.tenant / until).exists():  # noqa: ASYNC110  another process makes it
        await asyncio.sleep(0.02)


def note(action: str, node: str, ctx: Context) -> None:
    with (FOLDER / ctx.tenant / "log").open("a") as log:
        log.write(f"{action} {quote(node, safe='')} {ctx.idempotency_key}\n")


class Folder:
    """Files as things."""

    def __init__(self) -> None:
        self.tries: dict[tuple[str, str], int] = {}

    async def observe(self, node: Node[Thing], ctx: Context) -> State[BaseModel]:
        if path_of(node.id, ctx).with_suffix(".broken").exists():
            return Drifted("broken", detail="somebody broke it", hold=True, token="broken")
        if not path_of(node.id, ctx).exists():
            return Absent()
        there = json.loads(path_of(node.id, ctx).read_text())
        if there["value"] != node.spec.value:
            return Drifted("changed", token=str(there["value"]))
        return Present(token=str(there["value"]))

    async def provision(self, node: Node[Thing], ctx: Context) -> State[BaseModel]:
        spec = node.spec
        if spec.slow:
            await asyncio.sleep(spec.slow)
        await let(spec.until, ctx)
        if spec.permanent:
            raise Permanent("this can never work", reason="impossible")
        who = (ctx.tenant, node.id)
        tried = self.tries[who] = self.tries.get(who, 0) + 1
        if tried <= spec.fail:
            raise Temporary(f"attempt {tried} fails", reason="flaky", retry_after=0.05)
        if spec.plan and (ctx.approval is None or ctx.approval.plan != spec.plan):
            raise PendingApproval(spec.plan, summary={"value": spec.value}, pins={"value": spec.value})
        if ctx.decision is not None:
            note(f"decision={ctx.decision.outcome}", node.id, ctx)
            path_of(node.id, ctx).with_suffix(".broken").unlink(missing_ok=True)
        note("provision", node.id, ctx)
        scratch = path_of(node.id, ctx).with_suffix(".tmp")
        scratch.write_text(json.dumps({"value": spec.value}))
        scratch.replace(path_of(node.id, ctx))
        return Present(token=str(spec.value))

    async def deprovision(self, node: Node[Thing], ctx: Context) -> None:
        note("deprovision", node.id, ctx)
        path_of(node.id, ctx).unlink(missing_ok=True)


@world.node_type("thing", resync="1h", timeout="20s", batch=8, concurrency=8, outcomes={"broken": ["mend", "give-up"]})
class Things(Folder):
    pass


@world.node_type("other", resync="1h", timeout="20s", batch=1, concurrency=4)
class Others(Folder):
    pass


class Plot(BaseModel, extra="forbid"):
    value: Any
    place: str = ""
    until: str = ""


class Plots:
    """Files in a folder for each type: whatever is there can be found, and what it should be is written in it.

    A file is called as its ``place`` or, without one, as its node.
    """

    kind = "plot"

    def path(self, node: str, ctx: Context) -> Path:
        folder = FOLDER / ctx.tenant / self.kind
        folder.mkdir(exist_ok=True, parents=True)
        return folder / quote(node, safe="")

    async def observe(self, node: Node[Plot], ctx: Context) -> State[BaseModel]:
        path = self.path(node.spec.place or node.id, ctx)
        if not path.exists():
            return Absent()
        there = path.read_text()
        same = there == str(node.spec.value)
        return Present(token=there, outputs={"at": node.spec.place}) if same else Drifted("changed", token=there)

    async def provision(self, node: Node[Plot], ctx: Context) -> dict[str, Any]:
        await let(node.spec.until, ctx)
        note("provision", node.id, ctx)
        self.path(node.spec.place or node.id, ctx).write_text(str(node.spec.value))
        return {"at": node.spec.place}

    async def deprovision(self, node: Node[Plot], ctx: Context) -> None:
        note("deprovision", node.id, ctx)
        place = json.loads(node.raw_spec).get("place", "")  # of a leftover there may be no spec
        self.path(place or node.id, ctx).unlink(missing_ok=True)

    async def discover(self, ctx: Context) -> list[str | Found]:
        folder = self.path("-", ctx).parent
        if (folder / "closed").exists():
            raise Temporary("the land register is closed")
        texts = {unquote(path.name): path.read_text() for path in folder.iterdir()}
        return [Found(id, {"value": text}) if text else id for id, text in texts.items()]


@world.node_type("plot", resync="1h", scope="tenant")
class Reported(Plots):
    pass


@world.node_type("weed", resync="1h", scope="tenant", adopt_orphans="remove")
class Removed(Plots):
    kind = "weed"


if __name__ == "__main__":
    run(world, Things(), Others(), Reported(), Removed())
