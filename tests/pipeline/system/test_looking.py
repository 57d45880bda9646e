"""The command line looks into real tables and makes them again, as a person would ask for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from holdfast_cli.main import build
from holdfast_testkit.system import System

from . import wells
from .conftest import GRAPH, Setting, User
from .test_convergence import settled

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

Invoke = Callable[..., Awaitable[Result]]


@pytest.fixture
def holdfast(user: User, calm: Setting, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs a command line as the tenant."""
    monkeypatch.setenv("HOLDFAST_NATS_URL", calm.nats.url)
    monkeypatch.setenv("HOLDFAST_TENANT", user.tenant)

    async def invoke(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, build(), list(arguments))

    return invoke


async def _json(holdfast: Invoke, *arguments: str) -> Any:
    result = await holdfast(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest_asyncio.fixture(loop_scope="session")
async def declared(user: User) -> dict[str, Any]:
    wells.put_all(user.data)
    blueprint = wells.board()
    await user.publish(blueprint)
    await settled(user)
    return blueprint


async def test_a_gold_table_is_followed_back_to_its_files_and_a_file_to_gold(
    system: System, user: User, declared: dict[str, Any], holdfast: Invoke
) -> None:
    files = sorted(p.relative_to(user.data).as_posix() for p in (user.data / "readings").iterdir())

    told = await _json(holdfast, "pipeline", "lineage", GRAPH, "by-district")
    followed = await _json(holdfast, "pipeline", "lineage", GRAPH, "--file", files[0])
    drawn = await holdfast("pipeline", "lineage", GRAPH, "by-district")

    assert [f["file"] for f in told["files"]] == files
    assert {"readings-raw", "by-district", "district-report"} <= {s["stage"] for s in followed["stations"]}
    assert drawn.exit_code == 0, drawn.output
    assert all(name in drawn.stdout for name in ("by-district", "readings-good", "readings-raw", *files))


async def test_rows_rates_and_versions_are_shown(
    system: System, user: User, declared: dict[str, Any], holdfast: Invoke
) -> None:
    rows = len(wells.good_readings(wells.bronze_readings(user.data)))

    shown = await _json(holdfast, "pipeline", "preview", GRAPH, "readings-good", "--limit", "3")
    text = await holdfast("pipeline", "preview", GRAPH, "readings-good")
    nodes = await holdfast("get", "nodes", GRAPH)
    nothing = await holdfast("pipeline", "preview", GRAPH, "no-such-stage")

    assert (shown["total"], len(shown["rows"])) == (rows, 3)
    assert f"{min(20, rows)} of {rows} rows" in text.output
    [line] = [line for line in nodes.stdout.splitlines() if line.startswith("readings-good ")]
    assert f"{rows:,}" in line
    assert nothing.exit_code == 1
    assert "readings-good" in nothing.output  # the hint names what there is


async def test_a_late_file_is_the_difference_between_two_versions(
    system: System, user: User, declared: dict[str, Any], holdfast: Invoke
) -> None:
    before = (await _json(holdfast, "pipeline", "preview", GRAPH, "readings-good"))["version"]
    late = wells.readings(5000, 7)
    wells.put_readings(user.data, "late", late)
    await settled(user)

    told = await _json(holdfast, "pipeline", "diff", GRAPH, "readings-good", "--from", str(before))
    text = await holdfast("pipeline", "diff", GRAPH, "readings-good", "--from", str(before))

    seq = [c["name"] for c in told["columns"]].index("seq")
    good = {r["seq"] for r in wells.good_readings(wells.bronze_readings(user.data))}
    assert (told["added"], told["removed"]) == (len(good & {r["seq"] for r in late}), 0)
    assert {row[seq] for row in told["added_rows"]} <= {r["seq"] for r in late}
    assert f"+{told['added']} rows" in text.stdout


async def test_a_rerun_makes_a_stage_and_what_is_below_it_again_and_nothing_else(
    system: System, user: User, declared: dict[str, Any], holdfast: Invoke
) -> None:
    before, mark = user.tables().commits(), len(user.steps)

    done = await holdfast("pipeline", "rerun", GRAPH, "--from", "readings-good", "--wait")
    wrong = await holdfast("pipeline", "rerun", GRAPH, "--from", "nothing")

    assert done.exit_code == 0, done.output
    await settled(user)
    after = user.tables().commits()
    grown = {name for name, count in after.items() if count > before.get(name, 0)}
    assert {"silver/readings-good", "gold/by-district", "gold/district-report"} <= grown
    assert not grown & {"bronze/readings-raw", "silver/visits-good", "gold/time-spent"}
    assert "readings-raw" not in {node for _, _, node in user.steps[mark:]}
    assert (await _json(holdfast, "get", "blueprint", GRAPH))["domain"] == "pipeline"
    assert wrong.exit_code == 1
    assert "readings-good" in wrong.output
