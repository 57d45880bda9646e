"""holdfast pref: what is asked for, and what is said."""

from __future__ import annotations

import json

import pytest

from holdfast_cli.exits import Exit

from .conftest import Invoke, Peer

NAME = "desiredstate.resync.table"
REPLY = {"name": NAME, "value": "PT30S", "source": "tenant", "tenant": "PT30S", "platform": None}


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("set", NAME, "30s"), {"name": NAME, "value": "30s", "platform": False, "tenant": "default"}),
        (("set", NAME, "30s", "--platform"), {"name": NAME, "value": "30s", "platform": True, "tenant": "default"}),
        (("get", NAME, "-t", "acme"), {"name": NAME, "platform": False, "tenant": "acme"}),
        (("unset", NAME, "--platform"), {"name": NAME, "platform": True, "tenant": "default"}),
    ],
)
async def test_a_preference_is_asked_for_by_name_and_level(
    holdfast: Invoke, peer: Peer, arguments: tuple[str, ...], body: dict[str, object]
) -> None:
    verb = f"planner.pref_{arguments[0]}"
    peer.answers[verb] = REPLY

    text = await holdfast("pref", *arguments)
    as_json = await holdfast("pref", *arguments, "-o", "json")

    assert text.stdout.strip() == f"{NAME} is PT30S (from the tenant)"
    assert json.loads(as_json.stdout) == REPLY
    assert [{**asked, "actor": ""} for asked in peer.bodies(verb)] == [{**body, "actor": ""}] * 2


async def test_a_refused_preference_is_one_block_with_its_place(holdfast: Invoke, peer: Peer) -> None:
    text = "an interval of 0.5 s is too short; at least PT1S"
    peer.answers["planner.pref_set"] = {
        "error": {"code": "invalid", "message": text, "hint": "", "paths": [{"path": "/value", "message": text}]}
    }

    result = await holdfast("pref", "set", NAME, "500ms")

    assert result.exit_code == Exit.FAILED
    assert "at least PT1S" in result.stderr
    assert "/value" in result.stderr


async def test_preferences_are_listed_with_their_source(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.pref_list"] = {"preferences": [REPLY]}

    listed = await holdfast("pref", "list")

    assert listed.stdout.splitlines()[-1].split() == [NAME, "PT30S", "tenant"]
    peer.answers["planner.pref_list"] = {"preferences": []}
    assert "prefer nothing" in (await holdfast("pref", "list")).stdout
