"""Requests that no client of ours sends: each is answered, with the place that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.told import Told

from .conftest import thing

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("verb", "body", "place"),
    [
        ("log", {"graph": "g", "limit": -5}, "/limit"),
        ("faults", {"graph": "g", "limit": 0}, "/limit"),
        ("get", {"graph": "g", "limit": -1}, "/limit"),
        ("get", {"graph": "g", "limit": "12"}, "/limit"),
        ("explain", {"node": "a"}, "/graph"),
        ("pause", {"graph": "g", "nodes": ["a"]}, "/nodes"),
        ("domains", {"tenant": 5}, "/tenant"),
    ],
)
async def test_a_request_that_is_wrong_is_answered_with_its_place(
    system: System, told: Told, verb: str, body: dict[str, Any], place: str
) -> None:
    await told.ask("apply", graph="g", blueprint={"nodes": [thing("a")]})
    reply = await told.ask(verb, **body)
    assert reply["error"]["code"] == "invalid"
    assert [p["path"] for p in reply["error"]["paths"]] == [place]


async def test_what_is_no_request_at_all_is_answered(system: System, told: Told) -> None:
    for verb in ("list", "domains", "pref_list", "announce"):
        for body in (b"null", b"[]", b"42", b"{", b"\xff"):
            reply = await told.client.request(f"rpc.planner.{verb}", body, timeout=30)
            assert json.loads(reply.data)["error"]["code"] == "invalid", (verb, body)


@pytest.mark.parametrize(("wrong", "place"), [({"instance": ""}, "/instance"), ({"slots": {"odd": -5}}, "/slots/odd")])
async def test_an_instance_that_cannot_be_is_refused(
    system: System, told: Told, tenant: str, wrong: dict[str, Any], place: str
) -> None:
    said = {"manifest": {"domain": tenant, "version": "1", "types": []}, "instance": "i", "slots": {}, **wrong}
    reply = await told.client.request("rpc.planner.announce", json.dumps(said).encode(), timeout=30)
    assert [p["path"] for p in json.loads(reply.data)["error"]["paths"]] == [place]
