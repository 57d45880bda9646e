"""apply, plan, delete and the small verbs: what they ask, what they print, how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast_cli.exits import Exit

from .conftest import Invoke, Peer

BLUEPRINT = "nodes:\n- {id: a, type: thing}\n- {id: b, type: thing, depends_on: [a]}\n"
ACCEPTED = {
    "status": "accepted", "version": 3, "sequence": 7, "warnings": ["conflict 'x' is not known"],
    "changes": {"added": ["a", "b"], "updated": [], "removed": []},
}  # fmt: skip


@pytest.fixture
def blueprint(tmp_path: Path) -> str:
    file = tmp_path / "shop.yaml"
    file.write_text(BLUEPRINT)
    return str(file)


async def test_apply_sends_the_document_and_says_what_changed(holdfast: Invoke, peer: Peer, blueprint: str) -> None:
    peer.answers["planner.apply"] = ACCEPTED

    result = await holdfast("apply", "-f", blueprint, "-g", "shop", "-t", "acme", "--name", "base")

    assert result.exit_code == Exit.OK
    assert "'shop' accepted as version 3 (2 added, 0 updated, 0 removed)" in result.stdout
    assert "warning: conflict" in result.stderr
    (body,) = peer.bodies("planner.apply")
    assert (body["tenant"], body["graph"], body["actor"]) == ("acme", "shop", "ann")
    assert body["blueprint"]["name"] == "base"
    assert [n["id"] for n in body["blueprint"]["nodes"]] == ["a", "b"]


async def test_apply_reads_json_from_standard_input(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.apply"] = ACCEPTED

    result = await holdfast("apply", "-f", "-", "-o", "json", text='{"nodes": []}')

    assert json.loads(result.stdout)["version"] == 3
    assert peer.bodies("planner.apply")[0]["blueprint"] == {"nodes": []}


async def test_apply_and_plan_send_a_selection_along(holdfast: Invoke, peer: Peer, blueprint: str) -> None:
    peer.answers |= {"planner.apply": ACCEPTED, "planner.plan": {"steps": [], "counts": {}, "warnings": ["w"]}}
    selection = ("--only", "a", "--only", "type:thing", "--except", "b*", "--name", "base")

    applied = await holdfast("apply", "-f", blueprint, *selection)
    planned = await holdfast("plan", "-f", blueprint, *selection)

    assert (applied.exit_code, planned.exit_code) == (Exit.OK, Exit.OK), applied.stderr + planned.stderr
    for (body,) in (peer.bodies("planner.apply"), peer.bodies("planner.plan")):
        sent = {key: body["blueprint"][key] for key in ("only", "except", "name")}
        assert sent == {"only": ["a", "type:thing"], "except": ["b*"], "name": "base"}
    assert "warning: w" in planned.stderr


async def test_apply_says_that_a_person_decides_about_removals(holdfast: Invoke, peer: Peer, blueprint: str) -> None:
    why = "this would remove 11 of 12 nodes; it waits until a person approves that"
    peer.answers["planner.apply"] = {"status": "waiting", "sequence": 7, "message": why, "removes": 11, "of": 12}

    result = await holdfast("apply", "-f", blueprint)

    assert result.exit_code == Exit.OK
    assert f"graph 'main' is as it was: {why}; `holdfast get workitems`" in result.stdout


async def test_a_rejected_blueprint_is_one_block_that_names_the_place(
    holdfast: Invoke, peer: Peer, blueprint: str
) -> None:
    problems = [{"path": "/spec/sinks/0/formt", "message": "unknown key"}]
    peer.answers["planner.apply"] = {"status": "rejected", "message": "1 problem", "problems": problems}

    result = await holdfast("apply", "-f", blueprint)

    assert result.exit_code == Exit.FAILED
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: rejected: 1 problem",
        "  at /spec/sinks/0/formt: unknown key",
        "  next: graph 'main' is as it was; correct the blueprint and apply it again",
    ]


async def test_errors_are_json_with_output_json(holdfast: Invoke, peer: Peer, blueprint: str) -> None:
    problems = [{"path": "/nodes/0", "message": "no"}]
    peer.answers["planner.apply"] = {"status": "rejected", "message": "1 problem", "problems": problems}

    result = await holdfast("apply", "-f", blueprint, "-o", "json")

    error = json.loads(result.stderr)["error"]
    assert error["code"] == "rejected"
    assert error["paths"] == problems


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2\nb: }", "line 2, column 2"),
        ("- just\n- a list\n", "not a mapping"),
        ("", "0 documents"),
        ("nodes: []\nspec:\n- {a: 1, b: 2, a: 3}\n", "line 3, column 16"),
        ("nodes: []\nnodes: []\n", "'nodes' stands twice"),
        ('{"nodes": [{"id": "a", "spec": {"x": 1, "x": 2}}]}', "/nodes/0/spec/x"),
    ],
)
async def test_a_file_that_is_no_blueprint_never_leaves_this_machine(
    holdfast: Invoke, peer: Peer, text: str, place: str
) -> None:
    result = await holdfast("apply", "-f", "-", text=text)

    assert result.exit_code == Exit.FAILED
    assert place in result.stderr
    assert peer.asked == []


async def test_anchors_are_no_repetition(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.apply"] = ACCEPTED
    text = "nodes:\n- &a {id: a, type: t, spec: {x: 1}}\n- {<<: *a, id: b}\n- {<<: *a, id: c}\n"

    await holdfast("apply", "-f", "-", text=text)

    assert [n["id"] for n in peer.bodies("planner.apply")[0]["blueprint"]["nodes"]] == ["a", "b", "c"]


async def test_a_missing_file_is_a_usage_error(holdfast: Invoke, peer: Peer) -> None:
    result = await holdfast("apply", "-f", "nowhere.yaml")

    assert result.exit_code == Exit.USAGE
    assert "cannot read nowhere.yaml: No such file or directory" in result.stderr


async def test_an_unknown_option_is_a_usage_error(holdfast: Invoke) -> None:
    assert (await holdfast("apply", "--fiel", "x")).exit_code == Exit.USAGE


async def test_wait_ends_when_the_planner_says_converged_at_that_version(
    holdfast: Invoke, peer: Peer, blueprint: str
) -> None:
    # Given an older version that had converged, and one that converges after a fault
    counts = iter([("converged", 2), ("converging", 3), ("converged", 3)])

    def count(_: dict[str, Any]) -> dict[str, Any]:
        status, version = next(counts)
        return {"graphs": [{"graph": "main", "status": status, "version": version, "nodes": 2, "present": 2}]}

    peer.answers |= {"planner.apply": ACCEPTED, "planner.list": count}
    fault = {"node": "b", "type": "PROVISION_FAILED", "reason": "disk_full", "detail": "no space left"}
    peer.events_after["planner.list"] = [
        ("fault.default.main.provision_failed", fault),
        ("graph.default.main.converged", {"version": 3}),
    ]

    result = await holdfast("apply", "-f", blueprint, "--wait", "--timeout", "20s")

    assert result.exit_code == Exit.OK, result.stderr
    assert "converged: 2 of 2 nodes present" in result.stdout
    assert "fault.provision_failed main  b  disk_full: no space left" in result.stderr
    assert next(counts, None) is None


async def test_a_wait_that_runs_out_says_what_is_in_the_way(holdfast: Invoke, peer: Peer, blueprint: str) -> None:
    node = {"id": "b", "phase": "blocked", "reason": "dependency", "detail": "a is not present"}
    peer.answers |= {
        "planner.apply": ACCEPTED,
        "planner.list": {"graphs": [{"graph": "main", "status": "converging", "version": 3}]},
        "planner.get": {"graph": {}, "nodes": [node]},
    }

    result = await holdfast("apply", "-f", blueprint, "--wait", "--timeout", "300ms")

    assert result.exit_code == Exit.TIMED_OUT
    assert "at b: blocked dependency a is not present" in result.stderr
    assert "holdfast explain main b" in result.stderr


async def test_plan_shows_signs_gates_and_the_blast_radius(holdfast: Invoke, peer: Peer, blueprint: str) -> None:
    peer.answers["planner.plan"] = {
        "steps": [
            {"action": "add", "node": "a", "type": "thing", "reason": "new", "after": []},
            {"action": "remove", "node": "z", "type": "thing", "after": ["y"], "gate": "approval"},
        ],
        "counts": {"add": 1, "update": 0, "remove": 1, "unchanged": 4},
        "removals_blocked": "removes 12 of 20 nodes",
    }

    result = await holdfast("plan", "-f", blueprint)
    detailed = await holdfast("plan", "-f", blueprint, "--detailed-exitcode")

    assert result.exit_code == Exit.OK
    assert "+ a  thing  new" in result.stdout
    assert "- z  thing  after y  asks: approval" in result.stdout
    assert "1 to add, 0 to update, 1 to remove, 4 unchanged" in result.stdout
    assert "removes 12 of 20 nodes" in result.stdout
    assert detailed.exit_code == Exit.CHANGES


async def test_a_plan_without_changes_ends_with_zero(holdfast: Invoke, peer: Peer, blueprint: str) -> None:
    counts = {"add": 0, "update": 0, "remove": 0, "unchanged": 2}
    peer.answers["planner.plan"] = {"steps": [], "counts": counts, "gates": []}

    result = await holdfast("plan", "-f", blueprint, "--detailed-exitcode")

    assert (result.exit_code, result.stdout.strip()) == (Exit.OK, "nothing would change")


async def test_delete_asks_and_a_no_deletes_nothing(holdfast: Invoke, peer: Peer) -> None:
    result = await holdfast("delete", "shop", text="n\n")

    assert result.exit_code == Exit.FAILED
    assert "was not confirmed" in result.stderr
    assert peer.asked == []


async def test_delete_without_an_answer_deletes_nothing(holdfast: Invoke, peer: Peer) -> None:
    assert (await holdfast("delete", "shop", text="")).exit_code == Exit.FAILED
    assert peer.asked == []


async def test_delete_with_consent_names_graph_and_owner(holdfast: Invoke, peer: Peer) -> None:
    peer.answers["planner.delete"] = {"status": "accepted", "warnings": ["nothing is declared by 'base'"]}

    result = await holdfast("delete", "shop", "--name", "base", "--yes")

    assert result.exit_code == Exit.OK
    assert peer.bodies("planner.delete") == [{"tenant": "default", "actor": "ann", "graph": "shop", "name": "base"}]
    assert "warning: nothing is declared by 'base'" in result.output


@pytest.mark.parametrize(
    ("arguments", "verb", "node"),
    [
        (("pause", "shop"), "pause", None),
        (("pause", "shop", "a"), "pause", "a"),
        (("resume", "shop"), "resume", None),
        (("reconcile", "shop"), "reconcile", None),
        (("unblock", "shop", "a"), "unblock", "a"),
    ],
)
async def test_small_verbs_ask_for_just_that(
    holdfast: Invoke, peer: Peer, arguments: tuple[str, ...], verb: str, node: str | None
) -> None:
    peer.answers[f"planner.{verb}"] = {"status": "ok"}

    result = await holdfast(*arguments)

    assert result.exit_code == Exit.OK
    (body,) = peer.bodies(f"planner.{verb}")
    assert (body["graph"], body.get("node")) == ("shop", node)


KEPT = {"graph": "shop", "name": "main", "document": "domain: d\nallow_removals: true\nspec: {x: 1}\n", "after": 7}


async def test_the_newest_blueprint_is_applied_and_planned_again_without_its_old_consent(
    holdfast: Invoke, peer: Peer
) -> None:
    peer.answers |= {
        "planner.blueprint": KEPT, "planner.apply": ACCEPTED,
        "planner.plan": {"steps": [], "counts": {"add": 1}, "warnings": []},
    }  # fmt: skip

    planned = await holdfast("plan", "--again", "-g", "shop", "--detailed-exitcode")
    applied = await holdfast("apply", "--again", "-g", "shop", "--name", "other")
    meant = await holdfast("apply", "--again", "-g", "shop", "--allow-removals")

    assert (planned.exit_code, applied.exit_code, meant.exit_code) == (Exit.CHANGES, Exit.OK, Exit.OK)
    assert [(b["graph"], b["name"]) for b in peer.bodies("planner.blueprint")] == [
        ("shop", "main"), ("shop", "other"), ("shop", "main"),
    ]  # fmt: skip
    document = {"domain": "d", "spec": {"x": 1}}
    assert [b["blueprint"] for b in peer.bodies("planner.plan")] == [document]
    assert [b["blueprint"] for b in peer.bodies("planner.apply")] == [document, document | {"allow_removals": True}]
    assert [b["after"] for b in peer.bodies("planner.apply")] == [7, 7], "nobody's version is overwritten unseen"


@pytest.mark.parametrize("command", ["apply", "plan"])
@pytest.mark.parametrize(
    "words", [(), ("--again", "-f", "x.yaml"), ("--again", "--only", "a"), ("--again", "--except", "a")]
)
async def test_a_blueprint_is_named_in_one_way(
    holdfast: Invoke, peer: Peer, command: str, words: tuple[str, ...]
) -> None:
    result = await holdfast(command, *words)
    assert result.exit_code == Exit.USAGE
    assert "--again" in result.stderr
    assert peer.bodies(f"planner.{command}") == []
