"""Steps told as OpenLineage events, to a real HTTP server that keeps them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from openlineage.client.event_v2 import RunEvent

from holdfast_pipeline import specs
from holdfast_pipeline.openlineage_feed import QUEUED, OpenLineageFeed
from holdfast_pipeline.tasks import StageTask
from holdfast_testkit.waiting import eventually

from .test_domain import Loop, loop

__all__ = ["loop"]

SPEC = specs.IngestionSpec(specs.Source("orders", "orders/*.csv", "csv"))
TASK = StageTask("acme", "main", "orders-raw", specs.INGESTION, msgspec.Raw(specs.encode_spec(SPEC)), "d")


class Backend:
    """Keeps what is posted; answers 503 as often as :attr:`failing` says."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.failing = 0
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if backend.failing > 0:
                    backend.failing -= 1
                    self.send_error(400)
                    return
                backend.events.append(json.loads(body))
                self.send_response(201)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    running = Backend()
    monkeypatch.setenv("OPENLINEAGE_URL", running.url)
    yield running
    running.server.shutdown()
    running.server.server_close()


async def test_every_step_is_a_run_with_what_it_read_and_wrote(backend: Backend, loop: Loop) -> None:
    await loop.converge()

    def told() -> Counter[tuple[str, str]]:
        return Counter((e["job"]["name"], e["eventType"]) for e in backend.events)

    await eventually(lambda: told()["cube", "COMPLETE"] == 1 and told()["report", "FAIL"] == 1)
    assert told()["orders-raw", "START"] == told()["orders-raw", "COMPLETE"] == 1
    [raw] = [e for e in backend.events if (e["job"]["name"], e["eventType"]) == ("orders-raw", "COMPLETE")]
    [valid] = [e for e in backend.events if (e["job"]["name"], e["eventType"]) == ("orders-valid", "COMPLETE")]
    assert raw["job"]["namespace"] == "holdfast://default/main"
    assert [i["name"] for i in raw["inputs"]] == ["orders/*.csv"]
    assert raw["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 4
    assert [i["name"] for i in valid["inputs"]] == ["silver.orders-geo"]
    # A start and its end are one run, and no two steps share one
    runs = Counter(e["run"]["runId"] for e in backend.events)
    assert set(runs.values()) == {2}


async def test_an_event_is_tried_again_and_a_backend_that_is_gone_stops_nothing(backend: Backend) -> None:
    feed = OpenLineageFeed.from_environment()
    feed = OpenLineageFeed(feed._send, pause=0.01)
    await feed.start()
    backend.failing = 2
    feed.began("7d3f3c8e-7f1b-4f57-9d5a-0d8d4b6f3c11", TASK, SPEC)
    await eventually(lambda: len(backend.events) == 1)

    backend.failing = 3
    feed.began("7d3f3c8e-7f1b-4f57-9d5a-0d8d4b6f3c12", TASK, SPEC)
    feed.began("7d3f3c8e-7f1b-4f57-9d5a-0d8d4b6f3c13", TASK, SPEC)
    await eventually(lambda: len(backend.events) == 2)
    await feed.stop()

    assert [e["run"]["runId"][-2:] for e in backend.events] == ["11", "13"]


async def test_what_waits_is_bounded_and_telling_never_blocks() -> None:
    entered, leave = threading.Event(), threading.Event()
    sent: list[RunEvent] = []

    def slow(event: RunEvent) -> None:
        entered.set()
        leave.wait(60)
        sent.append(event)

    feed = OpenLineageFeed(slow)
    await feed.start()
    for _ in range(2 * QUEUED):
        feed.began("7d3f3c8e-7f1b-4f57-9d5a-0d8d4b6f3c11", TASK, SPEC)
        await asyncio.sleep(0)
    assert await asyncio.to_thread(entered.wait, 60)
    leave.set()
    await feed.stop()

    assert 0 < len(sent) <= QUEUED + 1
