"""What a user does with containers: start, publish, listen, decide, scale, and pull plugs."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from .composed import SERVICES, Composed, Listener, connect, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

SAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "sample"
REGIONS = {
    "Central": (3, "425.65"), "West": (2, "84.50"), "South": (2, "325.10"), "North": (2, "61.29"),
    "Unknown": (1, "42.00"),
}  # fmt: skip
"""The report of the sample: region -> orders and revenue, added up by hand."""


@pytest.fixture(scope="module")
def system(compose_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """Built, started and healthy; removed with its volumes at the end."""
    data = tmp_path_factory.mktemp("data")
    composed = Composed(compose_command, data, 4222)
    composed.run("build", limit=800)
    with socket.socket() as probe:  # not before the build, which is long enough for others to take it
        probe.bind(("127.0.0.1", 0))
        composed.port = int(probe.getsockname()[1])
    try:
        composed.run("up", "-d", limit=400)
        asyncio.run(_healthy(composed))
        yield composed
    finally:
        composed.remove()


async def _healthy(composed: Composed) -> None:
    async def healthy() -> bool:
        return not await asyncio.to_thread(composed.unhealthy)

    try:
        await until("every container is healthy", healthy, 180)
    except AssertionError as error:
        raise AssertionError(f"{error}; not healthy: {composed.unhealthy()}\n{composed.logs()}") from error


@pytest.fixture
async def user(system: Composed) -> AsyncIterator[Listener]:
    listener = await connect(system.port)
    await listener.hear("fault.>", "workitem.>", "graph.>", "node.>")
    yield listener
    await listener.client.close()


def _blueprint(folder: str) -> bytes:
    return (SAMPLE / "blueprint.yaml").read_text().replace("sample/", f"{folder}/").encode()


async def _publish(user: Listener, graph: str, body: bytes) -> None:
    await user.client.jetstream().publish(f"blueprint.default.{graph}", body, timeout=10)


async def _item(user: Listener, graph: str, ref: str) -> dict[str, Any]:
    """The newest open WorkItem that asks about ``ref``."""
    found: list[dict[str, Any]] = []

    async def asked() -> bool:
        query = {"tenant": "default", "graph": graph, "status": ["PENDING", "ASSIGNED", "IN_PROGRESS"]}
        reply = await user.ask("rpc.workitems.list", query)
        found[:] = [i for i in reply.get("items", []) if f":{ref}:" in i["callerRef"]]
        return bool(found)

    await _until(user, graph, f"somebody is asked about {ref}", asked, 180)
    return found[0]


async def _until(user: Listener, graph: str, what: str, reached: Callable[[], Awaitable[bool]], limit: float) -> None:
    """As ``until``; a failure tells what is not ready, as a user would ask."""
    try:
        await until(what, reached, limit)
    except AssertionError as error:
        reply = await user.ask("rpc.planner.get", {"tenant": "default", "graph": graph, "only": "not_ready"})
        nodes = [(n["id"], n["status"], n["phase"], n["reason"], n["detail"]) for n in reply.get("nodes", [])]
        raise AssertionError(f"{graph}: {error}\n{reply.get('graph', reply)}\n{nodes}") from error


async def _decide(user: Listener, item: dict[str, Any], outcome: str, **data: Any) -> None:
    body = {"tenant": "default", "id": item["id"], "actor": "ann", "outcome": outcome, **data}
    reply = await user.ask("rpc.workitems.complete", body)
    assert reply.get("status") == "COMPLETED", reply


def _report(system: Composed, folder: str) -> dict[str, tuple[int, str]]:
    """The Gold table on disk: region -> orders and revenue; empty while there is none."""
    files = sorted((system.data / folder / "out" / "report").glob("*.parquet"))
    if not files:
        return {}
    frame = pl.read_parquet(files[0])
    return {row["region"]: (row["orders"], f"{row['revenue']:.2f}") for row in frame.iter_rows(named=True)}


async def _published(system: Composed, user: Listener, folder: str, wanted: dict[str, tuple[int, str]]) -> None:
    """The graph of that name converged, and the report holds exactly this."""

    async def right() -> bool:
        reply = await user.ask("rpc.planner.list", {"tenant": "default"})
        converged = any(g["graph"] == folder and g["status"] == "converged" for g in reply.get("graphs", []))
        return converged and _report(system, folder) == wanted

    await _until(user, folder, "converged with the right report", right, 180)


def test_nats_is_published_on_this_machine_only_and_redis_not_at_all(system: Composed) -> None:
    (bus,) = system.containers("nats")
    (store,) = system.containers("redis")

    def ports(container: str) -> str:
        return subprocess.run(["docker", "port", container], capture_output=True, text=True, check=True).stdout.strip()

    assert ports(bus) == f"4222/tcp -> 127.0.0.1:{system.port}"
    assert ports(store) == ""


def test_services_do_not_run_as_root(system: Composed) -> None:
    for service in SERVICES:
        (container,) = system.containers(service)
        done = subprocess.run(["docker", "exec", container, "id", "-u"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "10001", service


async def test_a_published_blueprint_converges_and_a_decision_lets_it_go_on(system: Composed, user: Listener) -> None:
    # Given the sample that was laid into ./data, when its blueprint is published with a plain client
    await _publish(user, "sample", _blueprint("sample"))

    # Then somebody is asked before the report is published, and it is published exactly
    await _decide(user, await _item(user, "sample", "report"), "approve")
    await _published(system, user, "sample", REGIONS)
    assert user.data("workitem.default.sample.created")
    assert user.data("graph.default.sample.accepted")

    # When a file with a renamed column comes
    late = system.data / "sample" / "orders" / "2026-03.csv"
    late.write_text("order_id,customer,land,amount,placed_at\n2001,kim,FR,10.00,2026-03-01T00:00:00Z\n")

    # Then a fault is heard and the answer lets it in
    item = await _item(user, "sample", "human-review-orders-schema")
    assert any(f["node"] == "orders-schema" for f in user.data("fault.default.sample.node_degraded"))
    await _decide(user, item, "accept", data={"rename": {"land": "country"}})
    await _published(system, user, "sample", REGIONS | {"West": (3, "94.50")})


async def test_wrong_blueprints_are_rejected_and_no_service_restarts(system: Composed, user: Listener) -> None:
    started = _started(system)

    await _publish(user, "wrong", b'{"domain": "pipeline", "spec": {"sinkz": []}}')
    await _publish(user, "noise", b"\x00\xff\xfe" * 400_000)

    async def rejected() -> bool:
        return bool(user.data("graph.default.wrong.rejected") and user.data("graph.default.noise.rejected"))

    await until("both are rejected", rejected, 90)
    assert "/spec/sinkz" in json.dumps(user.data("graph.default.wrong.rejected"))
    assert _started(system) == started


def _started(system: Composed) -> dict[str, str]:
    form = "{{.State.StartedAt}} {{.RestartCount}}"
    return {
        c: subprocess.run(["docker", "inspect", "-f", form, c], capture_output=True, text=True, check=True).stdout
        for service in SERVICES
        for c in system.containers(service)
    }


async def test_more_provisioners_and_planners_share_the_work(system: Composed, user: Listener) -> None:
    system.run("up", "-d", "--no-build", "--scale", "provisioner-pipeline=3", "--scale", "planner=2", limit=400)

    assert (len(system.containers("provisioner-pipeline")), len(system.containers("planner"))) == (3, 2)
    await _healthy(system)
    _second_data(system, "scaled")
    await _publish(user, "scaled", _blueprint("scaled"))
    await _decide(user, await _item(user, "scaled", "report"), "approve")
    await _published(system, user, "scaled", REGIONS)
    system.run("up", "-d", "--no-build", "--scale", "provisioner-pipeline=1", "--scale", "planner=1", limit=400)


@pytest.mark.parametrize("service", SERVICES)
async def test_killing_a_service_while_a_graph_converges_changes_nothing(
    system: Composed, user: Listener, service: str
) -> None:
    # Given a graph that has just begun
    graph = f"killed-{service}"
    _second_data(system, graph)
    await _publish(user, graph, _blueprint(graph))

    async def begun() -> bool:
        return bool(user.data(f"graph.default.{graph}.accepted"))

    await until("it is accepted", begun, 90)

    # When a service is killed and started again
    await asyncio.to_thread(system.pull_the_plug, service)

    # Then the end is the same
    await _decide(user, await _item(user, graph, "report"), "approve")
    await _published(system, user, graph, REGIONS)


def _second_data(system: Composed, folder: str) -> None:
    target = system.data / folder
    (target / "orders").mkdir(parents=True)
    for part in ("orders/2026-01.csv", "orders/2026-02.csv", "countries.csv"):
        (target / part).write_text((SAMPLE / part).read_text())
    for path in (target, target / "orders"):
        path.chmod(0o777)
