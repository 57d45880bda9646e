"""A domain that notes every observation: ``<type> <node>`` a line, in ``seen`` of the tenant's folder.

Things are there once they were provisioned (a file each). ``look``: seconds an observation takes.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from holdfast_sdk import Absent, Context, Domain, Node, Present, State, run

FOLDER = Path(os.environ.get("WORLD_FOLDER", "."))

timed = Domain("timed", version=os.environ.get("TIMED_VERSION", "1"))


class Watched(BaseModel, extra="forbid"):
    look: float = 0.0


class Noted:
    async def observe(self, node: Node[Watched], ctx: Context) -> State[BaseModel]:
        folder = FOLDER / ctx.tenant
        with (folder / "seen").open("a") as seen:
            seen.write(f"{node.type} {node.id}\n")
        if node.spec.look:
            await asyncio.sleep(node.spec.look)
        return Present() if (folder / f"{node.id}.there").exists() else Absent()

    async def provision(self, node: Node[Watched], ctx: Context) -> None:
        (FOLDER / ctx.tenant / f"{node.id}.there").touch()

    async def deprovision(self, node: Node[Watched], ctx: Context) -> None:
        (FOLDER / ctx.tenant / f"{node.id}.there").unlink(missing_ok=True)


@timed.node_type("quick", resync="1h", timeout="20s")
class Quick(Noted):
    pass


@timed.node_type("slow", resync="1h", timeout="90s")
class Slow(Noted):
    pass


if __name__ == "__main__":
    run(timed, Quick(), Slow())
