"""The example domain of the README, in the harness and on real servers: the same claims."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from holdfast_sdk.testing import harness
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .example_domain import DnsRecord, Zone, dns
from .peer import running

README = Path(__file__).parents[2] / "libs" / "sdk" / "README.md"
WWW = {"name": "www.example.org", "address": "192.0.2.1"}
MAIL = {"name": "mail.example.org", "address": "192.0.2.2"}


async def test_the_example_works_in_the_harness() -> None:
    zone = Zone()
    async with harness(dns, DnsRecord(zone)) as h:
        await h.apply({"records": {"www": WWW, "mail": MAIL}})
        await h.converged()
        assert zone.records == {"www.example.org": "192.0.2.1", "mail.example.org": "192.0.2.2"}
        zone.records["www.example.org"] = "203.0.113.9"
        await h.advance("10m")
        assert zone.records["www.example.org"] == "192.0.2.1"
        await h.apply({"records": {"mail": MAIL}})
        await h.converged()
        assert list(zone.records) == ["mail.example.org"]


class Told:
    """Events of one graph, as a plain client hears them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    async def hear(self, message: Any) -> None:
        self.events.append((message.subject, json.loads(message.data)["data"]))

    async def of(self, subject: str, count: int = 1) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [data for heard, data in self.events if heard == subject]

        await eventually(lambda: len(found()) >= count, what=f"{count} of {subject} in {self.events}")
        return found()[count - 1]


@asynccontextmanager
async def subscribed(url: str) -> AsyncIterator[tuple[Client, Told]]:
    client, told = await nats.connect(url), Told()
    for family in ("graph", "node", "fault"):
        await client.subscribe(f"{family}.acme.shop.>", cb=told.hear)
    await client.flush()
    try:
        yield client, told
    finally:
        await client.close()


async def test_the_example_works_on_real_servers(nats_url: str, redis_url: str) -> None:
    zone = Zone()
    async with System(nats_url, redis_url, services=()), running(nats_url, dns, DnsRecord(zone)):
        async with subscribed(nats_url) as (client, told):

            async def publish(records: dict[str, Any]) -> None:
                body = {"domain": "dns", "spec": {"records": records}}
                await client.jetstream().publish("blueprint.acme.shop", json.dumps(body).encode())

            # When a blueprint is published, then it becomes real
            await publish({"www": WWW, "mail": MAIL})
            await told.of("graph.acme.shop.converged")
            assert zone.records == {"www.example.org": "192.0.2.1", "mail.example.org": "192.0.2.2"}
            # Drift that somebody reports is a fault, and healed
            zone.records["www.example.org"] = "203.0.113.9"
            await client.jetstream().publish("state.acme.shop", b'{"node": "www"}')
            fault = await told.of("fault.acme.shop.node_degraded")
            assert (fault["node"], fault["detail"]) == ("www", "points to 203.0.113.9")
            await eventually(lambda: zone.records["www.example.org"] == "192.0.2.1")
            # A wrong blueprint is refused with the place of what is wrong
            await publish({"www": {"name": "www.example.org"}})
            rejected = await told.of("graph.acme.shop.rejected")
            assert "/spec/records/www/address" in json.dumps(rejected)
            # And what is left out goes
            await publish({"mail": MAIL})
            await eventually(lambda: list(zone.records) == ["mail.example.org"])


def test_the_readme_shows_the_domain_as_it_is_tested() -> None:
    shown = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert (Path(__file__).parent / "example_domain.py").read_text() in shown


async def test_the_test_in_the_readme_passes() -> None:
    shown = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    source = next(block for block in shown if "async def test_" in block)
    names: dict[str, Any] = {}
    exec(compile(source.replace("example_domain", f"{__package__}.example_domain"), str(README), "exec"), names)
    await next(value for name, value in names.items() if name.startswith("test_"))()
