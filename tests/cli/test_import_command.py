"""import and get leftovers: what is there already, as a blueprint and as a table."""

from __future__ import annotations

import json

import yaml

from .conftest import Invoke, Peer

DOCUMENT = {"name": "imported", "nodes": [{"id": "p", "type": "plot", "spec": {"size": 3}}]}
REPLY = {
    "graph": "g",
    "document": DOCUMENT,
    "found": [{"id": "p", "type": "plot"}],
    "kept": 0,
    "warnings": ["look out"],
}


async def test_the_blueprint_goes_to_standard_output_and_all_else_beside_it(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.import"] = REPLY

    text = await holdfast("import", "g", "--type", "plot", "--name", "mine")
    as_json = await holdfast("import", "-g", "g", "-o", "json")

    assert yaml.safe_load(text.stdout) == DOCUMENT
    assert "warning: look out" in text.stderr
    assert "1 found that nobody desires" in text.stderr
    assert json.loads(as_json.stdout) == DOCUMENT
    assert [(b["graph"], b["type"], b["name"]) for b in peer.bodies("planner.import")] == [
        ("g", "plot", "mine"),
        ("g", "", "imported"),
    ]


async def test_what_was_imported_can_be_applied_from_a_pipe(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.import"] = REPLY
    peer.answers["planner.apply"] = {"status": "accepted", "version": 1, "changes": {}}
    printed = await holdfast("import", "g")
    await holdfast("apply", "-g", "g", "-f", "-", text=printed.stdout)
    assert peer.bodies("planner.apply")[0]["blueprint"] == DOCUMENT


async def test_leftovers_are_a_table_or_json(holdfast: Invoke, peer: Peer) -> None:
    row = {"id": "stray", "type": "plot", "since": 0.0, "spec": None, "detail": "it is left alone"}
    peer.answers["planner.get"] = {"graph": {"graph": "g"}, "nodes": [], "next": "", "leftovers": [row]}
    text = await holdfast("get", "leftovers", "g")
    as_json = await holdfast("get", "leftovers", "g", "-o", "json")
    assert text.stdout.splitlines()[-1].split()[:3] == ["stray", "plot", "1970-01-01"]
    assert json.loads(as_json.stdout)["leftovers"] == [row]
