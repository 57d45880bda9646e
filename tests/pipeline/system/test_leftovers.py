"""Tables that outlive whoever declared them: told, taken on again as they are, or removed where a setting says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast_testkit.objects import KEY, KEY_ENV, SECRET, SECRET_ENV, Bucket, S3Server
from holdfast_testkit.servers import ServerMissingError
from holdfast_testkit.waiting import eventually

from . import wells
from .conftest import GRAPH, Setting, User

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

TENANT = "board"
TABLES = {"readings-raw", "readings-tidy", "readings-placed", "readings-good", "by-district", "district-report"}
ALL = {*TABLES, "readings", "wells", "reading-fields"}


@asynccontextmanager
async def fresh(folder: Path, **env: str) -> AsyncIterator[User]:
    """New servers and services, which know nothing, over the files and tables that are there."""
    try:
        setting = Setting(folder, env=env)
    except ServerMissingError as missing:
        pytest.skip(str(missing))
    try:
        await asyncio.to_thread(setting.start)
        async with setting.system:
            user = await setting.user(TENANT)
            yield user
            await user.client.close()
    finally:
        await asyncio.to_thread(setting.close)


def tables_of(folder: Path, lake: Bucket | None) -> dict[str, int]:
    """Every file of the graph's tables with its size; what the service notes beside them may change."""
    if lake is None:
        home = folder / "warehouse" / TENANT
        files = {str(p.relative_to(home)): p for p in home.rglob("*")}
        return {name: p.stat().st_size for name, p in files.items() if "_holdfast" not in name and p.is_file()}
    return {name: len(lake.get(name)) for name in lake.names(f"tables/{TENANT}/") if "_holdfast" not in name}


async def built(user: User, blueprint: dict[str, Any], graph: str = GRAPH) -> None:
    await user.publish(blueprint, graph)
    await user.converged(graph, within=120.0)


async def leftovers(user: User, graph: str = GRAPH) -> set[str]:
    return {row["id"] for row in (await user.ask("planner", "get", graph=graph))["leftovers"]}


@pytest.mark.parametrize("where", ["folder", "store"])
async def test_tables_whose_declaration_was_lost_are_imported_and_taken_on_without_a_step(
    where: str, tmp_path: Path
) -> None:
    server = S3Server() if where == "store" else None
    lake = server.bucket("lake") if server is not None else None
    env = {}
    if lake is not None:
        env = {"HOLDFAST_PIPELINE_WAREHOUSE_STORE": json.dumps(lake.store("tables")), KEY_ENV: KEY, SECRET_ENV: SECRET}

    # Given a pipeline whose servers lost everything that they knew
    async with fresh(tmp_path, **env) as user:
        wells.put_all(user.data)
        await built(user, wells.chain())
    before = tables_of(tmp_path, lake)
    assert before
    async with fresh(tmp_path, **env) as user:
        # When another pipeline is declared in its place
        await user.publish({"nodes": []})
        # Then all of it is told, and left alone; in other graphs there is nothing
        await eventually(lambda: {d["node"] for d in user.heard("node.leftover")} == ALL)
        assert await leftovers(user) == ALL
        assert (await user.ask("planner", "import", graph="other"))["found"] == []

        # And what is printed of it is the pipeline
        reply = await user.ask("planner", "import", graph=GRAPH)
        assert (reply["without_spec"], reply["failed"], reply["warnings"]) == ([], {}, [])
        assert {node["id"] for node in reply["document"]["nodes"]} == ALL
        await user.publish(reply["document"])
        await user.converged(within=120.0)
        assert user.steps == []
        assert tables_of(tmp_path, lake) == before
        assert await leftovers(user) == set()

        # Which is kept from now on
        wells.put_readings(user.data, "c", wells.readings(300))
        right = wells.by_district(wells.good_readings(wells.bronze_readings(user.data)))
        report = user.tables()
        await user.converged(right=lambda: report.report_is(right), within=120.0)
    if server is not None:
        server.stop()


async def test_where_a_setting_says_so_tables_that_no_stage_declares_are_removed(tmp_path: Path) -> None:
    # Given two graphs of a tenant, and what one of them declares is lost but for its first stages
    async with fresh(tmp_path) as user:
        wells.put_all(user.data)
        await built(user, wells.chain())
        await built(user, wells.without(wells.chain(), "district-report"), "beside")
    async with fresh(tmp_path, HOLDFAST_PIPELINE_LEFTOVERS="remove", HOLDFAST_ADOPT_AFTER="1") as user:
        beside = user.tables("beside").commits()
        kept = {"readings-raw", "readings-tidy"}
        await user.publish(wells.without(wells.chain(), *(TABLES - kept)))

        # Then the tables of the others go, and nothing else does
        def only_those() -> bool:
            there = {name.partition("__")[0] for name in user.tables().there()}
            assert there == kept, there
            return True

        await eventually(only_those, within=120.0)
        await user.converged(within=120.0)
        assert {(action, node) for graph, action, node in user.steps if graph == GRAPH} == {
            ("DEPROVISION", node) for node in TABLES - kept
        }
        assert user.tables("beside").commits() == beside
        assert user.tables().published("district-report")
        assert (user.data / "wells.csv").exists()
