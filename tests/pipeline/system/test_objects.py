"""From objects of a store to objects of a store, through all services, with a store that goes away in between."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import pytest_asyncio

from holdfast_testkit.objects import KEY, KEY_ENV, SECRET, SECRET_ENV, Bucket, S3Server
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import GRAPH, Setting, User, started

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

TENANT = "shore"
HEADER = "order_id,country,amount\n"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def lake(s3: S3Server) -> Bucket:
    return s3.bucket("lake")


@pytest.fixture(scope="module")
def shore(tmp_path_factory: pytest.TempPathFactory, lake: Bucket) -> Iterator[Setting]:
    """Servers and services; the tenant ``shore`` may use ``s3://lake/shore``."""
    stores = json.dumps({TENANT: [lake.store(TENANT)]})
    env = {"HOLDFAST_PIPELINE_STORES": stores, KEY_ENV: KEY, SECRET_ENV: SECRET}
    yield from started(tmp_path_factory.mktemp("shore"), env=env)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shore_system(shore: Setting) -> AsyncIterator[System]:
    async with shore.system as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(shore_system: System, shore: Setting) -> AsyncIterator[User]:
    someone = await shore.user(TENANT)
    yield someone
    await someone.client.close()


def _content(path: Path) -> bytes:
    with suppress(FileNotFoundError, IsADirectoryError):  # it may be a scratch file of a step
        return path.read_bytes()
    return b""


def blueprint(bucket: str = "lake/shore") -> dict[str, Any]:
    fields = {"order_id": {"type": "int64", "unique": True}, "country": {}, "amount": {"type": "decimal(12,2)"}}
    return {
        "domain": "pipeline",
        "spec": {
            "sources": [
                {"id": "orders", "uri": f"s3://{bucket}/orders/*.csv", "format": "csv", "schema": "orders-schema"},
                {"id": "countries", "uri": f"s3://{bucket}/countries.csv", "format": "csv"},
            ],
            "schemas": [{"id": "orders-schema", "fields": fields}],
            "ingestions": [{"id": "orders-raw", "source": "orders"}],
            "cleansers": [{"id": "orders-clean", "rules": ["trim"]}],
            "enrichers": [{"id": "orders-geo", "lookup": "countries", "join_keys": ["country"]}],
            "validators": [{"id": "orders-valid", "schema": "orders-schema"}],
            "transformers": [
                {"id": "by-region", "sql": "select region, sum(amount) as total from orders_valid group by region"}
            ],
            "sinks": [{"id": "report", "destination": f"s3://{bucket}/out", "format": "csv"}],
        },
    }


def published(lake: Bucket) -> dict[str, str]:
    content = lake.get("shore/out/report/report.csv")
    return dict(pl.read_csv(io.BytesIO(content), infer_schema=False).select("region", "total").rows())


async def test_objects_become_a_gold_object_and_a_store_that_goes_away_only_costs_time(
    shore: Setting, tenant: User, s3: S3Server, lake: Bucket
) -> None:
    # Given
    lake.put("shore/countries.csv", "country,region\nDE,Central\nFR,West\n")
    lake.put("shore/orders/may ü #1.csv", f"{HEADER}1,DE,10.00\n2,FR,5.50\n")

    # When / Then: everything is built
    await tenant.publish(blueprint())
    await tenant.converged(right=lambda: published(lake) == {"Central": "10.00", "West": "5.50"})
    assert set(tenant.stepped().values()) == {1}, tenant.stepped()

    # When the store does not answer
    s3.stop()

    async def told() -> str:
        detail = str((await tenant.nodes())["orders"]["detail"])
        assert "does not answer" in detail
        return detail

    detail = await eventually(told)
    assert f"s3://lake/shore at {s3.url}" in detail

    # Then it goes on where it was when it does again
    s3.start()
    lake.put("shore/orders/june.csv", f"{HEADER}3,FR,1.00\n")
    await tenant.converged(right=lambda: published(lake) == {"Central": "10.00", "West": "6.50"}, within=60.0)

    # And the credentials were told nowhere
    asked = [
        await tenant.ask("planner", "get", graph=GRAPH),
        await tenant.ask("planner", "explain", graph=GRAPH, node="report"),
        await tenant.ask("planner", "faults", graph=GRAPH),
        await tenant.ask("planner", "blueprint", graph=GRAPH),
        await tenant.ask("domain.pipeline", "lineage", graph=GRAPH, stage="by-region"),
        await tenant.ask("domain.pipeline", "preview", graph=GRAPH, stage="report"),
        await tenant.ask("planner", "domains"),
    ]
    assert "s3://lake/shore/orders/june.csv" in json.dumps(asked)
    said = json.dumps([asked, tenant.events])
    logs = "".join(p.logs for p in shore.system.processes.values())
    files = b"".join(map(_content, shore.folder.rglob("*")))
    for secret in (KEY, SECRET):
        assert secret not in said
        assert secret not in logs
        assert secret.encode() not in files


async def test_a_blueprint_that_reaches_for_others_is_refused_with_every_place(tenant: User) -> None:
    reaching = blueprint("lake/globex")
    reaching["spec"]["sources"][1]["uri"] = f"s3://{KEY}:{SECRET}@lake/shore/countries.csv"
    await tenant.publish(reaching, graph="reaching")
    rejected = await tenant.wait_for("graph.rejected", graph="reaching")
    assert {p["path"] for p in rejected["problems"]} == {
        "/spec/sources/0/uri", "/spec/sources/1/uri", "/spec/sinks/0/destination",
    }  # fmt: skip
    assert SECRET not in json.dumps(rejected)
