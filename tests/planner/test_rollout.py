"""A new version of a domain rolls out beside the old one, and back, without a failed step."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from holdfast_testkit.processes import ServiceProcess
from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT, eventually

from .conftest import HERE, Told, World

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXPIRY = 30.0
"""Seconds until the heartbeat of a killed instance is old, and what it held is delivered again."""
GRAPH = "g"


class Rollout:
    """One domain of the test's own, its versions as processes, and what they did."""

    def __init__(self, system: System, told: Told, folder: Path) -> None:
        self.name = f"roll{uuid.uuid4().hex[:6]}"
        self.told = told
        self.folder = folder / told.tenant
        self._env = {"HOLDFAST_NATS_URL": system.nats_url, "PYTHONPATH": HERE, "WORLD_FOLDER": str(folder)}
        self._value = 0
        self.processes: list[ServiceProcess] = []

    async def start(self, version: str) -> ServiceProcess:
        env = self._env | {"ROLLING_NAME": self.name, "ROLLING_VERSION": version}
        process = ServiceProcess("rolling_domain", env, name=f"{self.name}-{version}")
        self.processes.append(process)
        await process.start()
        return process

    async def apply(self, count: int = 12, slow: float = 0.0, **more: Any) -> None:
        """Declare things of a new value."""
        self._value += 1
        things = {f"n{i}": {"value": self._value, "slow": slow, **more} for i in range(count)}
        await self.told.publish(GRAPH, {"domain": self.name, "spec": {"things": things}})

    async def converged(self, within: float = LIMIT) -> None:
        """Everything is as the newest blueprint says, and no step failed on the way."""

        async def done() -> bool:
            graph = (await self.told.ask("get", graph=GRAPH)).get("graph", {})
            accepted = self.told.of("graph.default.g.accepted")
            # Versions that come at once may be looked at in any order: one that came too late is told so
            late = [r for r in self.told.of("graph.default.g.rejected") if r.get("superseded")]
            heard = len(accepted) + len(late)
            assert heard == self._value, f"{heard} of {self._value} blueprints were answered"
            return graph["status"] == "converged" and graph["version"] >= accepted[-1]["version"]

        try:
            await eventually(done, within=within)
        except AssertionError as late:
            logs = "\n".join(f"--- {p.name}\n{p.tail(30)}" for p in self.processes)
            raise AssertionError(f"{late}\n{await self.told.phases(GRAPH)}\n{logs}") from late
        assert {p.read_text() for p in self.folder.glob("*.value")} == {str(self._value)}
        wrong = [s for s, data in self.told.events if "rejected" in s and not data.get("superseded")]
        assert wrong + [s for s, _ in self.told.events if "fault." in s or "blocked" in s] == []

    def log(self, *actions: str, since: int = 0) -> list[tuple[str, str, str]]:
        """(version, node, key) of what was done, in order."""
        path = self.folder / "log"
        lines = [line.split() for line in path.read_text().splitlines()[since:]] if path.exists() else []
        return [(version, node, key) for version, action, node, key in lines if action in actions]

    def lines(self) -> int:
        path = self.folder / "log"
        return len(path.read_text().splitlines()) if path.exists() else 0

    async def answered_by(self, version: str) -> None:
        """Wait until the planner takes this version for the newest that is there."""

        async def newest() -> bool:
            (mine,) = [d for d in (await self.told.ask("domains"))["domains"] if d["domain"] == self.name]
            return bool(mine["newest"] == version)

        await eventually(newest, within=EXPIRY + LIMIT)


@pytest_asyncio.fixture(loop_scope="session")
async def rollout(system: System, told: Told, world: World, folder: Path) -> AsyncIterator[Rollout]:
    made = Rollout(system, told, folder)
    yield made
    for process in made.processes:
        if process.running:
            await process.stop()
        process.discard()


async def test_a_new_version_takes_over_at_once_and_the_old_one_leaves(rollout: Rollout) -> None:
    # Given a graph of version 1 that changes all the time
    old = await rollout.start("1")
    await rollout.apply()
    await rollout.converged()

    # When version 2 comes, then what only it knows is taken by it, though version 1 still listens
    async with changing(rollout):
        await rollout.start("2")
        await rollout.answered_by("2")
    await rollout.converged()
    before = rollout.lines()
    await rollout.apply(color="red")
    await rollout.converged()
    assert {version for version, _, _ in rollout.log("observe", since=before)} <= {"2"}
    await rollout.told.publish("extra", {"nodes": [{"id": "x", "type": f"{rollout.name}-extra", "spec": {"value": 9}}]})
    await rollout.told.wait_for("graph.default.extra.converged")
    assert ("2", "x") in {(version, node) for version, node, _ in rollout.log("provision")}

    # When version 1 leaves while the graph changes, then nothing fails and nothing is done twice
    async with changing(rollout):
        began = len(rollout.log("begin"))
        await eventually(lambda: len(rollout.log("begin")) > began)
        assert await old.stop() == 0
    (rollout.folder / "x.value").unlink()
    before = rollout.lines()
    await rollout.apply()
    await rollout.converged()
    assert {version for version, _, _ in rollout.log("begin", since=before)} == {"2"}
    done = [(node, key) for _, node, key in rollout.log("provision")]
    assert len(done) == len(set(done))


async def test_the_old_version_is_killed_in_the_middle_of_steps(rollout: Rollout) -> None:
    old = await rollout.start("1")
    await rollout.apply(until="go")
    await eventually(lambda: rollout.log("begin"))
    await rollout.start("2")
    await old.kill()
    (rollout.folder / "go").touch()

    # What it held is delivered to the new one, under the same keys
    await rollout.converged(within=EXPIRY + LIMIT)
    assert {node for version, node, _ in rollout.log("provision") if version == "2"}
    begun = {key for version, _, key in rollout.log("begin") if version == "1"}
    assert begun & {key for version, _, key in rollout.log("provision") if version == "2"}


async def test_the_new_version_goes_and_the_old_one_takes_over_again(rollout: Rollout) -> None:
    await rollout.start("1")
    new = await rollout.start("2")
    await rollout.answered_by("2")
    await rollout.apply(color="red")
    await rollout.converged()

    # When the new one leaves in order, the old one goes on at once
    await new.stop()
    await rollout.answered_by("1")
    await rollout.apply()
    await rollout.converged()

    # When the new one comes again and is killed in the middle of steps that wait for it
    new = await rollout.start("2")
    await rollout.answered_by("2")
    before = rollout.lines()
    await rollout.apply(count=40, slow=3.0)
    await eventually(lambda: rollout.log("begin", since=before))
    await new.kill()

    # Then the old one takes what was sent to it, once it is known to be gone
    await rollout.converged(within=EXPIRY + 2 * LIMIT)
    assert {v for v, _, _ in rollout.log("provision", since=before)} >= {"1"}


@asynccontextmanager
async def changing(rollout: Rollout) -> AsyncIterator[None]:
    """The graph is changed again and again, as long as the block lasts."""
    over = asyncio.Event()

    async def change() -> None:
        while not over.is_set():
            await rollout.apply(slow=0.1)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.3)

    task = asyncio.create_task(change())
    try:
        yield
    finally:
        over.set()
        await task


async def test_a_blueprint_is_compiled_by_a_new_version_when_it_is_applied_again_and_not_before(
    rollout: Rollout,
) -> None:
    # Given a graph that version 1 compiled
    await rollout.start("1")
    await rollout.apply(count=3)
    await rollout.converged()

    async def row() -> dict[str, Any]:
        (mine,) = [g for g in (await rollout.told.ask("list"))["graphs"] if g["graph"] == GRAPH]
        return mine

    assert (await row())["outdated"] == []
    version = (await row())["version"]

    # When version 2 runs, which makes other specs of it, then it is told and nothing else happens
    await rollout.start("2")
    await rollout.answered_by("2")
    old = {"name": "main", "domain": rollout.name, "compiled_by": "1", "newest": "2"}

    async def told() -> bool:
        return bool((await row())["outdated"] == [old])

    await eventually(told, within=LIMIT)
    await rollout.told.ask("reconcile", graph=GRAPH)
    await rollout.converged()
    assert (await row())["version"] == version

    # When it is planned and applied again, then the nodes are those of version 2
    kept = (await rollout.told.ask("blueprint", graph=GRAPH))["document"]
    document = json.loads(kept)
    planned = await rollout.told.ask("plan", graph=GRAPH, blueprint=document)
    assert planned["counts"]["update"] == 3
    applied = await rollout.told.ask("apply", graph=GRAPH, blueprint=document)
    assert (applied["status"], applied["changes"]["updated"]) == ("accepted", 3)
    assert (await row())["outdated"] == []

    # And once more it changes nothing
    again = await rollout.told.ask("apply", graph=GRAPH, blueprint=document)
    assert again["changes"]["updated"] == 0
    gone = await rollout.told.ask("delete", graph=GRAPH)
    assert gone["status"] == "accepted"
