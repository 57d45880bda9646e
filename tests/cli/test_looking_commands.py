"""get, explain, watch, workitem, decide, doctor: answers as text and as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import Result

from holdfast_bus.settings import StreamSettings
from holdfast_bus.setup import ensure
from holdfast_cli.exits import Exit

from .conftest import Invoke, Peer

ITEM = {
    "id": "wi-1", "title": "Schema drift on orders", "status": "PENDING", "graph": "shop", "priority": "HIGH",
    "permittedOutcomes": [{"name": "accept"}, {"name": "reject"}], "payload": "2 files are held",
}  # fmt: skip


async def test_graphs_are_a_table_or_the_reply_itself(holdfast: Invoke, peer: Peer) -> None:
    reply = {
        "graphs": [{"graph": "shop", "status": "converged", "version": 4, "nodes": 9, "present": 9, "paused": False}]
    }
    peer.answers["planner.list"] = reply

    text = await holdfast("get", "graphs")
    as_json = await holdfast("get", "graphs", "-o", "json")

    assert text.stdout.splitlines()[-1].split()[:5] == ["shop", "converged", "4", "9", "9"]
    assert json.loads(as_json.stdout) == reply


async def test_no_graphs_say_what_to_do(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.list"] = {"graphs": []}

    assert "declare one with `holdfast apply -f`" in (await holdfast("get", "graphs")).stdout


async def test_nodes_of_all_pages_are_one_list(holdfast: Invoke, peer: Peer) -> None:
    def page(body: dict[str, Any]) -> dict[str, Any]:
        id = "b" if body.get("after") == "a" else "a"
        return {"graph": {"graph": "main"}, "nodes": [{"id": id, "type": "t"}], "next": "a" if id == "a" else None}

    peer.answers["planner.get"] = page

    result = await holdfast("get", "nodes", "--not-ready", "-o", "json")

    assert [n["id"] for n in json.loads(result.stdout)["nodes"]] == ["a", "b"]
    assert {body["only"] for body in peer.bodies("planner.get")} == {"not_ready"}


async def test_nodes_come_with_what_keeps_a_phase_from_going_on(holdfast: Invoke, peer: Peer) -> None:
    stage = {"phase": "build", "index": 0, "phases": ["build", "run"], "timed_out": False}
    stages = [
        {**stage, "name": "main", "missing": 0, "problem": "'x' depends on 'a', but 'a' is not in the graph"},
        {**stage, "name": "other", "missing": 2, "problem": "", "timed_out": True},
    ]
    peer.answers["planner.get"] = {"graph": {"graph": "shop", "stages": stages}, "nodes": [{"id": "a", "type": "t"}]}

    result = await holdfast("get", "nodes", "shop")

    said = " ".join(result.stderr.split())
    assert "'main' is in phase 'build', 1 of 2; 'run' cannot begin: 'x' depends on 'a', but 'a' is not" in said
    assert "'other' is in phase 'build', 1 of 2: 2 of its nodes are not as declared, and out of time" in said


async def test_explain_begins_with_the_sentence(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.explain"] = {
        "node": "b", "summary": "b waits for a, which failed", "desired": {"type": "thing", "digest": "d1"},
        "observed": {"status": "ABSENT"}, "state": {}, "waits": [{"text": "blocked by a"}],
        "next": "nothing until a is there",
    }  # fmt: skip

    result = await holdfast("explain", "shop", "b")

    lines = result.stdout.splitlines()
    assert lines[0] == "b waits for a, which failed"
    assert "  - blocked by a" in lines
    assert lines[-1] == "next: nothing until a is there"


async def test_an_error_reply_is_one_block_with_its_hint(holdfast: Invoke, peer: Peer) -> None:
    error = {"code": "not_found", "message": "no graph 'shp'", "hint": "did you mean 'shop'?"}
    peer.answers["planner.explain"] = {"error": error}

    result = await holdfast("explain", "shp", "b")

    assert result.exit_code == Exit.FAILED
    assert result.stderr.splitlines() == ["error: no graph 'shp'", "  next: did you mean 'shop'?"]


async def test_faults_and_domains_are_tables(holdfast: Invoke, peer: Peer) -> None:
    fault = {"time": 0, "type": "PROVISION_FAILED", "node": "b", "reason": "disk_full", "detail": "no space"}
    peer.answers["planner.faults"] = {"faults": [fault]}
    peer.answers["planner.domains"] = {"domains": [{"domain": "pipeline", "versions": ["1.0"], "live": True}]}

    faults = (await holdfast("get", "faults", "-g", "shop")).stdout
    domains = (await holdfast("get", "domains")).stdout

    assert "1970-01-01 00:00:00Z" in faults
    assert "disk_full: no space" in faults
    assert "pipeline" in domains


async def test_workitems_list_active_ones_with_their_outcomes(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["workitems.list"] = {"items": [ITEM], "total": 1}

    listed = await holdfast("workitem", "list")
    same = await holdfast("get", "workitems", "-g", "shop")

    assert "accept, reject" in listed.stdout
    assert same.exit_code == Exit.OK
    first, second = peer.bodies("workitems.list")
    assert "COMPLETED" not in first["status"]
    assert second["graph"] == "shop"


async def test_a_workitem_shows_its_history_and_the_command_that_decides_it(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["workitems.get"] = ITEM
    entry = {"item": "wi-1", "event": "CREATED", "actor": "planner", "time": "2026-01-02T03:04:05Z"}
    peer.answers["workitems.audit"] = {"entries": [entry], "next": ""}

    result = await holdfast("workitem", "show", "wi-1")

    assert "decide: holdfast decide wi-1 accept|reject" in result.stdout
    assert "CREATED  planner" in result.stdout


async def test_decide_completes_with_outcome_note_and_data(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["workitems.complete"] = {**ITEM, "status": "COMPLETED"}

    result = await holdfast("decide", "wi-1", "accept", "--note", "fine", "--data", '{"rename": {"a": "b"}}')

    assert result.stdout.strip() == "WorkItem wi-1 completed: accept by ann"
    assert peer.bodies("workitems.complete") == [
        {
            "tenant": "default", "id": "wi-1", "actor": "ann", "outcome": "accept", "note": "fine",
            "data": {"rename": {"a": "b"}},
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "said"),
    [("{", "is not JSON"), ("[1]", "must be a JSON object"), ('{"ignore": [], "ignore": ["a"]}', "stands twice")],
)
async def test_data_that_is_no_object_decides_nothing(holdfast: Invoke, peer: Peer, data: str, said: str) -> None:
    result = await holdfast("decide", "wi-1", "accept", "--data", data)

    assert result.exit_code == Exit.USAGE
    assert said in result.stderr
    assert peer.asked == []


async def test_watch_prints_events_of_the_graph_only(holdfast: Invoke, peer: Peer) -> None:
    async def tell() -> None:
        while True:
            await peer.tell("graph.default.shop.converged", {"version": 2})
            await peer.tell("graph.default.other.converged", {"version": 9})
            await asyncio.sleep(0.05)

    async def watched(*more: str) -> Result:
        """What it prints; on a machine that is too busy to connect within a second, of a longer time."""
        for seconds in (1, 5, 20, 60):
            result = await holdfast("watch", "-g", "shop", "--for", f"{seconds}s", *more)
            if result.stdout:
                break
        return result

    telling = asyncio.create_task(tell())
    text = await watched()
    lines = await watched("-o", "json")
    telling.cancel()

    assert "graph.converged shop  version 2" in text.stdout
    assert "other" not in text.stdout
    assert json.loads(lines.stdout.splitlines()[0])["data"] == {"version": 2}


async def test_doctor_names_what_is_missing_and_what_to_do(holdfast: Invoke, peer: Peer) -> None:
    peer.answers |= {
        "planner.list": {"graphs": []},
        "planner.domains": {"domains": []},
        "workitems.summary": {"active": 2, "overdue": 0},
    }

    result = await holdfast("doctor", "-o", "json")

    report = json.loads(result.stdout)
    failed = {f["check"] for f in report["findings"] if not f["ok"]}
    assert result.exit_code == Exit.FAILED
    assert failed == {"streams", "consumers", "domains", "letters", "faults"}


async def test_doctor_is_content_with_a_system_that_is_set_up(holdfast: Invoke, peer: Peer) -> None:
    await ensure(peer.client.jetstream(), StreamSettings())
    peer.answers |= {
        "planner.list": {"graphs": []},
        "planner.domains": {"domains": [{"domain": "pipeline", "live": True}]},
        "workitems.summary": {"active": 0, "overdue": 0},
    }

    result = await holdfast("doctor")

    assert result.exit_code == Exit.OK, result.stdout
    assert "live: pipeline" in result.stdout


async def test_a_plan_shows_renames_and_what_references_will_be(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.plan"] = {
        "steps": [
            {"action": "move", "node": "b", "type": "t", "reason": "was a", "after": [], "gate": "", "from": "a"},
            {"action": "add", "node": "user", "type": "t", "reason": "new", "after": ["b"], "gate": "human",
             "references": [{"at": "/x", "ref": "b#/ip", "value": "10.0.0.1"},
                            {"at": "/y", "ref": "c#/ip", "known_after": "c"},
                            {"at": "/z", "ref": "b#/no", "known_after": "b", "problem": "b publishes nothing at /no"}]},
        ],
        "counts": {"add": 1, "update": 0, "remove": 0, "move": 1, "unchanged": 2},
        "may_follow": [{"node": "top", "references": ["b#/ip"]}],
    }  # fmt: skip
    file = "-"
    result = await holdfast("plan", "-f", file, text="nodes: []")
    lines = result.stdout.splitlines()
    assert lines == [
        "> b  t  was a",
        "+ user  t  new  after b  asks: human",
        "    /x = 10.0.0.1  (b#/ip)",
        "    /y: known after c  (c#/ip)",
        "    /z: known after b  (b#/no; now b publishes nothing at /no)",
        "? top  made anew if b#/ip changes",
        "1 to add, 0 to update, 1 to move, 0 to remove, 2 unchanged",
    ]
    assert (await holdfast("plan", "-f", file, "--detailed-exitcode", text="nodes: []")).exit_code == Exit.CHANGES


async def test_graphs_that_an_older_version_compiled_are_told_with_what_to_do(holdfast: Invoke, peer: Peer) -> None:
    old = {"name": "base", "domain": "dns", "compiled_by": "1", "newest": "2"}
    peer.answers["planner.list"] = {
        "graphs": [{"graph": "shop", "status": "converged", "outdated": [old]}, {"graph": "fresh", "outdated": []}]
    }
    result = await holdfast("get", "graphs")
    assert "dns 1 compiled the blueprint 'base' of graph 'shop', 2 is running" in " ".join(result.stderr.split())
    assert "holdfast plan --again -g shop --name base" in " ".join(result.stderr.split())
    assert "fresh" not in result.stderr
