"""Many writers on one graph: group commit beside naive WATCH/MULTI, on the same server in the same run.

Every mutation reads a counter in a node that all writers share and writes it back one higher, so a lost update shows
in the sum. Run it as ``python tests/bench/commit_writers.py [--processes 4] [--writers 16] [--seconds 3]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from redis import Redis

from holdfast_model.desired import DesiredGraph
from holdfast_model.messages import NodeDeclaration
from holdfast_model.mutations import AddNode
from holdfast_model.names import GraphRef
from holdfast_model.rows import declare
from holdfast_store import keys
from holdfast_store.commits import Extra, Op
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Changed, Cmd
from holdfast_store.log import decode_row, encode
from holdfast_store.redis_kv import RedisKv
from holdfast_testkit.servers import start_redis

COUNTERS = 16
OWNER = "bench"


class Result(msgspec.Struct):
    """Mutations per second of both ways, updates lost by both (must be 0), and how many times faster ours is.

    ``grouped_tries``, ``naive_tries``: transactions tried for one mutation, which no load of the machine changes much.
    """

    writers: int
    processes: int
    seconds: float
    grouped: float
    naive: float
    lost: int
    ratio: float
    grouped_tries: float = 0.0
    naive_tries: float = 0.0


class Increment:
    """Read a node's counter, write it one higher."""

    watch: Sequence[str] = ()
    reads: Sequence[Cmd] = ()

    def __init__(self, node: str) -> None:
        self.node = node

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        seen = graph.nodes.get(self.node)
        mutation = AddNode(_declaration(self.node, _count(seen.spec) if seen else 0))
        graph.apply(mutation, OWNER)
        return Extra(mutations=[mutation])


def _declaration(node: str, count: int) -> NodeDeclaration:
    return NodeDeclaration(node, "counter", msgspec.Raw(b'{"count":%d}' % (count + 1)))


def _count(spec: msgspec.Raw) -> int:
    return int(msgspec.json.decode(spec)["count"])


def _ref(mode: str) -> GraphRef:
    return GraphRef("bench", mode)


async def _grouped(url: str, name: str, writers: int, until: float) -> int:
    kv = RedisKv(url)
    store = GraphStore(kv)

    async def write(writer: int) -> int:
        dice, done = random.Random(writer), 0
        while time.time() < until:
            op = Op(f"{name}-{writer}-{done}", "bench")
            await store.commit(_ref("grouped"), op, Increment(f"n{dice.randrange(COUNTERS)}"))
            done += 1
        return done

    done = sum(await asyncio.gather(*[write(i) for i in range(writers)]))
    await store.close()
    await kv.close()
    return done


async def _naive(url: str, name: str, writers: int, until: float) -> int:
    kv = RedisKv(url, connections=writers)
    ref = _ref("naive")

    async def write(writer: int) -> int:
        dice, done = random.Random(writer), 0
        while time.time() < until:
            node = f"n{dice.randrange(COUNTERS)}"
            async with kv.watching(keys.ver(ref)) as watch:
                ver, row = await watch.read(("GET", keys.ver(ref)), ("HGET", keys.node(ref), node))
                seen = decode_row(row).of(OWNER) if row else None
                new = declare(_declaration(node, _count(seen.spec) if seen else 0))
                try:
                    await watch.commit(
                        ("SET", keys.ver(ref), int(ver or 0) + 1),
                        ("HSET", keys.node(ref), node, encode([[(OWNER, new)]])),
                        ("XADD", keys.log(ref), "*", "v", int(ver or 0) + 1, "n" + node, encode([[(OWNER, new)]])),
                    )
                except Changed:
                    continue
            done += 1
        return done

    done = sum(await asyncio.gather(*[write(i) for i in range(writers)]))
    await kv.close()
    return done


WAYS = {"grouped": _grouped, "naive": _naive}


def run(processes: int = 4, writers: int = 16, seconds: float = 3.0) -> Result:
    """Run both ways, ``writers`` in each of ``processes``; takes about 2 x (``seconds`` + 2) seconds."""
    server = start_redis()
    try:
        done, tries = {}, {}
        for way in WAYS:
            before = _transactions(server.url)
            done[way] = _run_way(server.url, way, processes, writers, seconds)
            tries[way] = (_transactions(server.url) - before) / max(done[way], 1)
        kept = {way: asyncio.run(_sum(server.url, way)) for way in WAYS}
    finally:
        server.close()
    rates = {way: count / seconds for way, count in done.items()}
    lost = sum(abs(done[way] - kept[way]) for way in WAYS)
    return Result(
        processes * writers, processes, seconds, rates["grouped"], rates["naive"], lost,
        rates["grouped"] / max(rates["naive"], 1.0), tries["grouped"], tries["naive"],
    )  # fmt: skip


def _run_way(url: str, way: str, processes: int, writers: int, seconds: float) -> int:
    command = [sys.executable, __file__, "--url", url, "--way", way, "--writers", str(writers)]
    workers = [
        subprocess.Popen([*command, "--name", str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(processes)
    ]
    try:
        for worker in workers:  # all have imported what they need before the clock starts
            assert worker.stdout is not None
            worker.stdout.readline()
        until = time.time() + seconds
        return sum(json.loads(worker.communicate(f"{until}\n", timeout=seconds + 120)[0]) for worker in workers)
    finally:
        for worker in workers:
            worker.kill()


def _transactions(url: str) -> int:
    """How many the server was asked to carry out so far."""
    with Redis.from_url(url) as redis:
        stats: dict[str, dict[str, Any]] = redis.info("commandstats")
    return int(stats["cmdstat_exec"]["calls"]) if "cmdstat_exec" in stats else 0


async def _sum(url: str, way: str) -> int:
    kv = RedisKv(url)
    (rows,) = await kv.run(("HVALS", keys.node(_ref(way))))
    await kv.close()
    owned = [decode_row(row).of(OWNER) for row in rows]
    return sum(_count(d.spec) for d in owned if d is not None)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--processes", type=int, default=4)
    options.add_argument("--writers", type=int, default=16, help="writers in each process")
    options.add_argument("--seconds", type=float, default=3.0)
    for hidden in ("--url", "--way", "--name"):
        options.add_argument(hidden, default="", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.way:
        print("ready", flush=True)
        until = float(sys.stdin.readline())
        print(asyncio.run(WAYS[chosen.way](chosen.url, chosen.name, chosen.writers, until)))
        return
    result = run(chosen.processes, chosen.writers, chosen.seconds)
    print(f"{result.writers} writers in {result.processes} processes on one graph, {result.seconds:g} s each way")
    print(f"group commit       {result.grouped:10,.0f} mutations/s")
    print(f"naive WATCH/MULTI  {result.naive:10,.0f} mutations/s")
    print(f"lost updates       {result.lost:10,d}")
    print(f"ratio              {result.ratio:10,.1f}")


if __name__ == "__main__":
    main()
