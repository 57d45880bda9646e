"""kill -9 of each service while the shop's tables converge: the same end, no row twice."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast_cli.connection import Found
from holdfast_cli.demo import checking, dataset, expected
from holdfast_cli.embedded.programs import Layout
from holdfast_cli.embedded.stack import Stack
from holdfast_cli.session import Session, connected
from holdfast_model.errors import HoldfastError
from holdfast_testkit.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

GRAPH = "shop"
LIMIT = 120.0


async def test_any_service_may_be_killed_while_a_graph_converges(tmp_path: Path) -> None:
    # Given the shop on embedded servers
    layout = Layout(state=tmp_path / "state", data=tmp_path / "data")
    root = layout.data
    dataset.write_first(root)
    blueprint = yaml.safe_load((files("holdfast_cli.demo") / "blueprint.yaml").read_text(encoding="utf-8"))
    places = checking.Places(layout.warehouse / "default" / GRAPH, root / "out")
    wanted = expected.compute(root, {})

    async with Stack(layout) as stack:
        async with connected("default", Found(stack.plan.nats_url, "the test")) as session:
            await session.planner("apply", {"graph": GRAPH, "blueprint": blueprint}, limit=LIMIT)

            # When every service is killed in turn, as it works
            for service in stack.services:
                service.kill()
                await asyncio.sleep(1.5)

            # Then the graph converges with every table exactly right, and the one who decides is asked once
            await _until_right(session, places, wanted)
            items = await session.workitems("list", {"graph": GRAPH}, limit=LIMIT)
            await eventually(lambda: min(s.starts for s in stack.services) >= 2)

    approvals = [i for i in items["items"] if i["callerRef"].startswith("desiredstate-approval:")]
    assert [i["status"] for i in approvals] == ["COMPLETED"]
    shutil.rmtree(tmp_path)


async def _until_right(session: Session, places: checking.Places, wanted: expected.Expected) -> None:
    ends = time.monotonic() + LIMIT
    while True:
        state = await _look(session)
        verdicts = await asyncio.to_thread(checking.check, places, wanted)
        wrong = [v for v in verdicts if v.problem]
        if state.get("status") == "converged" and not wrong:
            return
        assert time.monotonic() < ends, (state, wrong)
        await asyncio.sleep(0.3)


async def _look(session: Session) -> dict[str, Any]:
    """Approve what waits, and say how the graph is; whatever does not answer is asked again."""
    try:
        open_items = await session.workitems("list", {"graph": GRAPH, "status": ["PENDING", "ASSIGNED"]}, limit=2.0)
        for item in open_items["items"]:
            body = {"id": item["id"], "actor": "ann", "outcome": "approve"}
            await session.workitems("complete", body, limit=2.0)
        graphs = (await session.planner("list", limit=2.0))["graphs"]
    except HoldfastError as error:
        return {"status": json.dumps(str(error))}
    return next((g for g in graphs if g["graph"] == GRAPH), {})
