"""A domain in two versions. Each notes ``<version> <action> <node> <key>`` a line in ``log`` of the tenant's folder.

Version 2 knows a field (``color``) and a type that version 1 does not. ``slow``: seconds a step takes. ``until``: a
step takes until there is a file of that name.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from holdfast_sdk import Absent, Context, Domain, Drifted, GraphBuilder, Node, Present, State, run

FOLDER = Path(os.environ.get("WORLD_FOLDER", "."))
NAME = os.environ.get("ROLLING_NAME", "rolling")
VERSION = os.environ.get("ROLLING_VERSION", "1")


class Thing(BaseModel):
    """What a version does not know of a spec it leaves alone, so that one may follow the other, and come back."""

    value: int = 0
    slow: float = 0.0
    until: str = ""


class Colored(Thing):
    color: str = "grey"


class BlueprintOfOne(BaseModel, extra="forbid"):
    things: dict[str, Thing]


class BlueprintOfTwo(BaseModel, extra="forbid"):
    things: dict[str, Colored]


Blueprint = BlueprintOfTwo if VERSION == "2" else BlueprintOfOne
rolling = Domain(NAME, blueprint=Blueprint, version=VERSION)


@rolling.compiler
def compile(bp: BlueprintOfOne | BlueprintOfTwo, graph: GraphBuilder) -> None:
    for name, thing in bp.things.items():
        graph.add(name, f"{NAME}-thing", thing)


def note(action: str, node: Node[Thing], ctx: Context, key: str = "-") -> None:
    with (FOLDER / ctx.tenant / "log").open("a") as log:
        log.write(f"{VERSION} {action} {node.id} {key}\n")


class Files:
    async def observe(self, node: Node[Thing], ctx: Context) -> State[BaseModel]:
        note("observe", node, ctx)
        path = FOLDER / ctx.tenant / f"{node.id}.value"
        if not path.exists():
            return Absent()
        seen = path.read_text()
        return Present(token=seen) if seen == str(node.spec.value) else Drifted("changed", token=seen)

    async def provision(self, node: Node[Thing], ctx: Context) -> State[BaseModel]:
        note("begin", node, ctx, ctx.idempotency_key)
        await asyncio.sleep(node.spec.slow)
        path = FOLDER / ctx.tenant / node.spec.until
        while node.spec.until and not path.exists():  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.02)
        (FOLDER / ctx.tenant / f"{node.id}.value").write_text(str(node.spec.value))
        note("provision", node, ctx, ctx.idempotency_key)
        return Present(token=str(node.spec.value))

    async def deprovision(self, node: Node[Thing], ctx: Context) -> None:
        (FOLDER / ctx.tenant / f"{node.id}.value").unlink(missing_ok=True)
        note("deprovision", node, ctx, ctx.idempotency_key)


@rolling.node_type(f"{NAME}-thing", resync="1h", timeout="60s", batch=4, concurrency=8)
class Things(Files):
    pass


if VERSION == "2":

    @rolling.node_type(f"{NAME}-extra", resync="1h", timeout="20s")
    class Extras(Files):
        pass


if __name__ == "__main__":
    run(rolling)
