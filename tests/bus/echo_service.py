"""A small service for the tests: reads STATE, answers rpc.planner.get, and fails on request."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from holdfast_bus import Bus, BusSettings, Inbound, ServiceApp, attach_mover, run
from holdfast_bus.streams import PLANNER_STATE
from holdfast_model.errors import Unavailable


def build_app(settings: BusSettings) -> ServiceApp:
    bus = Bus(settings, "echo", "1.2.3")
    broken = os.environ.get("ECHO_BROKEN", "")
    down = Path(os.environ.get("ECHO_DOWN", "/nonexistent"))

    @bus.consume(PLANNER_STATE, concurrency=2)
    async def on_state(message: Inbound) -> None:
        """Says on echo.state what it read."""
        if message.data == b"slow":
            await bus.hint("echo.started", b"")
            await asyncio.sleep(1.0)
        if message.data == b"hang":
            await bus.hint("echo.started", b"")
            await asyncio.sleep(3600)
        if message.data == b"freeze":
            time.sleep(30)  # noqa: ASYNC251  freezing the loop is the point
        await bus.hint("echo.state", message.data)

    @bus.rpc("rpc.planner.get", queue="echo")
    async def get(body: bytes) -> object:
        """Answers what it was asked."""
        return {"pid": os.getpid(), "body": body.decode()}

    attach_mover(bus)

    async def store() -> None:
        if down.exists():  # noqa: ASYNC240
            raise Unavailable("the store is down")

    async def before() -> None:
        if broken:
            raise Unavailable(broken)
        assert bus.client.is_connected

    async def after() -> None:
        await bus.publish("state.echo.stopped", b"bye", stream="STATE")

    return bus.app(readiness=[store], on_start=[before], on_stop=[after])


if __name__ == "__main__":
    run(build_app(BusSettings()))
