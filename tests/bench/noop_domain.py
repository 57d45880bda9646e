"""The domain of the benchmarks: nodes that cost nothing, and a way to lose one.

A request on ``bench.lose`` with ``<tenant>/<graph>/<node>`` takes a node away, as an accident would; the reply comes
when it is gone. Nobody is told: that is what a ``state`` event is for.
"""

from __future__ import annotations

import os
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from holdfast_sdk import Absent, Context, Domain, Node, Present, run

LOSE = "bench.lose"

noop = Domain("noop", version="1")


@noop.node_type("noop", resync="1h", timeout="20s", batch=512, concurrency=512)
class Noop:
    """A node is there when its name is."""

    def __init__(self) -> None:
        self.there: set[tuple[str, str, str]] = set()
        self.client: Client | None = None

    async def observe(self, node: Node[dict[str, Any]], ctx: Context) -> Present[Any] | Absent:
        return Present() if (ctx.tenant, ctx.graph, node.id) in self.there else Absent()

    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> None:
        self.there.add((ctx.tenant, ctx.graph, node.id))

    async def deprovision(self, node: Node[dict[str, Any]], ctx: Context) -> None:
        self.there.discard((ctx.tenant, ctx.graph, node.id))

    async def listen(self) -> None:
        self.client = await nats.connect(os.environ["HOLDFAST_NATS_URL"], max_reconnect_attempts=-1)
        await self.client.subscribe(LOSE, cb=self._lose)

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def _lose(self, message: Msg) -> None:
        tenant, graph, node = message.data.decode().split("/", 2)
        self.there.discard((tenant, graph, node))
        await message.respond(b"gone")


if __name__ == "__main__":
    handler = Noop()
    noop.on_startup(handler.listen)
    noop.on_shutdown(handler.close)
    run(noop, handler)
