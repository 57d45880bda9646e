"""All services as processes, files of one tenant per test, and a user who has nothing but a NATS client."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from holdfast_bus.connecting import settle
from holdfast_testkit.servers import NatsServer, RedisServer, ServerMissingError
from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT, eventually

from . import wells

GRAPH = "board"
SETTLE = "0.2"


class User:
    """One tenant: its folder, and what a plain NATS client of it hears and says.

    An event or a batch of steps that is published again (its service ended before it could note that it had published
    it) is heard once.
    """

    def __init__(self, client: Client, tenant: str, data: Path, warehouse: Path) -> None:
        self.client = client
        self.tenant = tenant
        self.data = data
        self.warehouse = warehouse
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.steps: list[tuple[str, str, str]] = []
        """(graph, action, node) in the order in which they were handed out."""
        self.published: dict[str, int] = {}
        """Graph -> sequence of what was published for it last."""
        self._ids: set[str] = set()

    async def listen(self) -> None:
        async def hear(message: Any) -> None:
            body = json.loads(message.data)
            if "specversion" in body and body["id"] not in self._ids:  # progress is no event
                self._ids.add(body["id"])
                self.events.append((message.subject, body["data"]))

        async def hear_steps(message: Any) -> None:
            batch = json.loads(message.data)
            if batch["tenant"] == self.tenant and batch["batch"] not in self._ids:
                self._ids.add(batch["batch"])
                self.steps += [(batch["graph"], step["action"], step["node"]) for step in batch["steps"]]

        for family in ("graph", "node", "fault", "workitem"):
            await self.client.subscribe(f"{family}.{self.tenant}.>", cb=hear)
        await self.client.subscribe("graph._._.rejected", cb=hear)
        await self.client.subscribe("step.>", cb=hear_steps)
        await settle(self.client)

    def tables(self, graph: str = GRAPH, out: str = "out") -> wells.Tables:
        return wells.Tables(self.warehouse / self.tenant / graph, self.data / out)

    # ---- saying

    async def publish(self, blueprint: object, graph: str = GRAPH) -> int:
        """Publish a blueprint (bytes as they are, anything else as JSON); returns its sequence."""
        body = blueprint if isinstance(blueprint, bytes) else json.dumps(blueprint).encode()
        ack = await self.client.jetstream(timeout=LIMIT).publish(f"blueprint.{self.tenant}.{graph}", body)
        self.published[graph] = ack.seq
        return ack.seq

    def answered(self, graph: str = GRAPH) -> bool:
        """The blueprint that was published last (by this user) was taken in, or refused."""
        told = self.heard("graph.accepted", graph) + self.heard("graph.rejected", graph)
        return any(d["sequence"] >= self.published.get(graph, 0) for d in told)

    async def ask(self, service: str, verb: str, **body: Any) -> dict[str, Any]:
        """An RPC; the reply as it is."""
        request = json.dumps({"tenant": self.tenant, **body}).encode()
        return json.loads((await self.client.request(f"rpc.{service}.{verb}", request, timeout=LIMIT)).data)

    async def decide(self, item: dict[str, Any], outcome: str, **data: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"id": item["id"], "actor": "ann", "outcome": outcome}
        if data:
            body["data"] = data
        reply = await self.ask("workitems", "complete", **body)
        assert "error" not in reply, reply
        return reply

    # ---- hearing

    def heard(self, name: str, graph: str = GRAPH) -> list[dict[str, Any]]:
        """Data of the events so far: ``graph.converged``, ``workitem.created``, ``fault.*`` (any fault)."""
        family, _, last = name.partition(".")
        prefix = f"{family}.{self.tenant}.{graph}."
        return [d for s, d in self.events if s.startswith(prefix) and last in ("*", s.removeprefix(prefix))]

    async def wait_for(self, name: str, count: int = 1, graph: str = GRAPH, within: float = LIMIT) -> dict[str, Any]:
        """The ``count``-th event of a name."""
        try:
            await eventually(lambda: len(self.heard(name, graph)) >= count, within=within)
        except AssertionError as late:
            raise AssertionError(f"no {name} number {count} within {within} s\n{await self.story(graph)}") from late
        return self.heard(name, graph)[count - 1]

    async def converged(
        self, graph: str = GRAPH, *, right: Callable[[], bool] = lambda: True, within: float = LIMIT
    ) -> None:
        """Wait until the planner says so of what was published last, and the tables are ``right``.

        By then all events up to that convergence were heard: those of one graph come in their order.
        """

        async def is_converged() -> None:
            found = (await self.ask("planner", "get", graph=graph)).get("graph", {})
            assert found.get("status") == "converged", f"the graph is {found.get('status')}"
            assert found["version"] >= accepted()[-1]["version"]

        def accepted() -> list[dict[str, Any]]:
            return self.heard("graph.accepted", graph)

        async def done() -> bool:
            assert self.answered(graph), f"blueprint {self.published.get(graph)} was not answered"
            assert accepted(), "no blueprint was accepted"
            await is_converged()
            if not right():
                return False
            await is_converged()  # the first answer may be of before what made the tables right
            told = [c["version"] for c in self.heard("graph.converged", graph)]
            assert told, "no convergence was told"
            assert told[-1] >= accepted()[-1]["version"]
            return True

        try:
            await eventually(done, within=within)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{await self.story(graph)}") from late

    async def item(self, node: str, graph: str = GRAPH, count: int = 1, within: float = LIMIT) -> dict[str, Any]:
        """The ``count``-th WorkItem made about a node."""

        def made() -> list[dict[str, Any]]:
            return [i for i in self.heard("workitem.created", graph) if f":{node}:" in i["callerRef"]]

        try:
            await eventually(lambda: len(made()) >= count, within=within)
        except AssertionError as late:
            text = f"WorkItem {count} about {node} was not made\n{await self.story(graph)}"
            raise AssertionError(text) from late
        return made()[count - 1]

    async def until(self, node: str, phase: str, graph: str = GRAPH, within: float = LIMIT) -> dict[str, Any]:
        """Wait until a node is in a phase; its row."""

        async def reached() -> dict[str, Any]:
            row = (await self.nodes(graph)).get(node, {})
            assert row.get("phase") == phase, f"{node} is {row.get('phase')}"
            return row

        try:
            return await eventually(reached, within=within)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{await self.story(graph)}") from late

    async def nodes(self, graph: str = GRAPH) -> dict[str, dict[str, Any]]:
        """Id -> row. AssertionError while the planner does not know."""
        reply = await self.ask("planner", "get", graph=graph)
        assert "nodes" in reply, reply
        return {row["id"]: row for row in reply["nodes"]}

    async def without_reviews(self, graph: str = GRAPH) -> None:
        """Wait until no review is left: they go when the fault-policy service hears that their target is well."""

        async def gone() -> bool:
            left = [name for name in await self.nodes(graph) if "review" in name]
            assert left == []
            return True

        await eventually(gone)

    async def story(self, graph: str) -> str:
        """Everything known, for the text of a failure."""
        reply = await self.ask("planner", "get", graph=graph)
        rows = [
            f"  {r['id']}: {r['status']} {r['phase']} {r['reason'] or ''} {r['detail'] or ''} {r['blocked_by'] or ''}"
            for r in reply.get("nodes", [])
            if r["phase"] != "present"
        ] or [f"  {reply}"[:300]]
        heard = [f"  {s} {str(d)[:300]}" for s, d in self.events if f".{graph}." in s][-25:]
        return "\n".join(["not present:", *rows, "heard last:", *heard])

    def stepped(self, graph: str = GRAPH, since: int = 0) -> Counter[str]:
        """Node -> steps handed out, since a position in :attr:`steps`."""
        return Counter(node for g, _, node in self.steps[since:] if g == graph)


def environment(folder: Path) -> dict[str, str]:
    """Folders of the services and paces that suit tests."""
    (folder / "tenants").mkdir(exist_ok=True)
    return {
        "HOLDFAST_PIPELINE_ROOT": str(folder / "default"),
        "HOLDFAST_PIPELINE_TENANTS": str(folder / "tenants"),
        "HOLDFAST_PIPELINE_WAREHOUSE": str(folder / "warehouse"),
        "HOLDFAST_PIPELINE_SETTLE": SETTLE,
        "HOLDFAST_PIPELINE_RESYNC": "2",
    }


class Setting:
    """Servers, a folder and the system on them."""

    def __init__(self, folder: Path, replicas: int = 1, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.nats = NatsServer()
        self.redis = RedisServer()
        self._replicas = replicas
        self._env = dict(env or {})
        self.system: System

    def start(self) -> None:
        self.nats.start_now()
        self.redis.start_now()
        more = [f"pipeline-{n}" for n in range(1, self._replicas)]
        self.system = System(
            self.nats.url, self.redis.url, services=("fault-policy", "work-items", "pipeline", *more),
            modules=dict.fromkeys(more, "holdfast_pipeline"), env=environment(self.folder) | self._env,
        )  # fmt: skip

    def close(self) -> None:
        self.nats.close()
        self.redis.close()

    async def user(self, tenant: str = "") -> User:
        tenant = tenant or f"t{uuid.uuid4().hex[:10]}"
        data = self.folder / "tenants" / tenant
        data.mkdir(exist_ok=True)
        client = await nats.connect(self.nats.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        user = User(client, tenant, data, self.folder / "warehouse")
        await user.listen()
        return user


def started(folder: Path, replicas: int = 1, env: Mapping[str, str] | None = None) -> Iterator[Setting]:
    try:
        setting = Setting(folder, replicas, env)
    except ServerMissingError as missing:
        pytest.skip(str(missing))
    try:
        setting.start()
        yield setting
    finally:
        setting.close()


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """Servers of the tests that kill nothing."""
    yield from started(tmp_path_factory.mktemp("calm"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(calm: Setting) -> AsyncIterator[System]:
    """One running system for all tests that kill nothing."""
    async with calm.system as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def user(system: System, calm: Setting) -> AsyncIterator[User]:
    """A new tenant of the calm system."""
    someone = await calm.user()
    yield someone
    await someone.client.close()


@pytest.fixture(scope="module")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """Servers and processes that tests of one module kill and start again."""
    yield from started(tmp_path_factory.mktemp("rough"), 2)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rough_system(rough: Setting) -> AsyncIterator[System]:
    async with rough.system as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def victim(rough_system: System, rough: Setting) -> AsyncIterator[User]:
    """A new tenant of the rough system."""
    someone = await rough.user()
    yield someone
    await someone.client.close()
