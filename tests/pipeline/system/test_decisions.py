"""What waits for people: files that do not fit, rows that cannot be right, stages that fail, Gold that is published."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from . import wells
from .conftest import User

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]


def reviews_in(nodes: dict[str, Any]) -> set[str]:
    return {name for name in nodes if "review" in name}


async def test_a_misfit_is_held_until_decided_and_silver_waits(system: System, user: User) -> None:
    # Given a graph that is as declared
    wells.put_all(user.data)
    await user.publish(wells.chain())
    await user.converged(right=lambda: user.tables().seqs("bronze", "readings-raw") != [])
    silver = user.tables().commits()["silver/readings-tidy"]

    # When a file with a renamed field and a good one arrive together
    renamed = [{"seq": r["seq"], "well": r["well"], "liters": r["litres"]} for r in wells.readings(400, 12)]
    wells.put_readings(user.data, "c", renamed)
    wells.put_readings(user.data, "d", wells.readings(500, 8))
    item = await user.item("human-review-reading-fields")

    # Then the good one is in Bronze (or comes to it, where it was seen later), nothing of the other is, and Silver has
    # not moved
    assert item["permittedOutcomes"] == ["accept", "reject"]
    await eventually(lambda: 500 in user.tables().seqs("bronze", "readings-raw"))
    assert 400 not in user.tables().seqs("bronze", "readings-raw")
    assert user.tables().commits()["silver/readings-tidy"] == silver

    # When a person maps it, everything goes on, with both files
    mark = len(user.steps)
    await user.decide(item, "accept", rename={"liters": "litres"})
    wanted = wells.by_district(wells.good_readings(wells.bronze_readings(user.data, {"liters": "litres"})))
    await user.converged(right=lambda: user.tables().report_is(wanted))
    assert user.stepped(since=mark)["reading-fields"] == 1
    assert user.tables().commits()["silver/readings-tidy"] - silver == 1  # for the good file and the accepted one

    # And the review went without a step or a question, and the decision is used up: another misfit asks again
    await user.without_reviews()
    assert not any("review" in node for node in user.stepped(since=mark))
    assert len(user.heard("workitem.created")) == 1
    wells.put_readings(user.data, "e", [{"seq": 600, "place": "W-01", "litres": 1}])
    second = await user.item("human-review-reading-fields", count=2)
    await user.decide(second, "reject")
    await user.converged(right=lambda: user.tables().report_is(wanted))
    assert 600 not in user.tables().seqs("bronze", "readings-raw")
    await user.without_reviews()
    assert {f["type"] for f in user.heard("fault.*")} == {"NODE_DEGRADED"}
    assert len(user.heard("fault.*")) == 2


async def test_quarantined_rows_are_accepted_dropped_or_judged_again(system: System, user: User) -> None:
    """Three graphs over the same files, each decided in another way."""
    graphs = {"take": "accept-rows", "leave": "drop-rows", "again": "retry"}
    wells.put_all(user.data)
    await asyncio.gather(*(user.publish(wells.chain(destination=f"out-{g}"), g) for g in graphs))
    good = wells.by_district(wells.good_readings(wells.bronze_readings(user.data)))
    await asyncio.gather(
        *(user.converged(g, right=lambda g=g: user.tables(g, f"out-{g}").report_is(good)) for g in graphs)
    )

    # When a file of which a third of the rows cannot be right arrives, nothing new is published
    wells.put_readings(user.data, "c", wells.readings(300, 30, bad=10))
    items = {g: await user.item("human-review-readings-good", g) for g in graphs}
    for graph in graphs:
        assert user.tables(graph, f"out-{graph}").report_is(good)

    # When each is decided
    for graph, outcome in graphs.items():
        await user.decide(items[graph], outcome)
    rows = wells.bronze_readings(user.data)
    await asyncio.gather(
        user.converged("take", right=lambda: user.tables("take", "out-take").report_is(wells.by_district(rows))),
        user.converged(
            "leave",
            right=lambda: user.tables("leave", "out-leave").report_is(wells.by_district(wells.good_readings(rows))),
        ),
    )

    # Then retry looked once more and asks again, since nothing had changed; nobody else is asked
    second = await user.item("human-review-readings-good", "again", count=2)
    assert user.tables("again", "out-again").report_is(good)
    await user.decide(second, "drop-rows")
    wanted = wells.by_district(wells.good_readings(rows))
    await user.converged("again", right=lambda: user.tables("again", "out-again").report_is(wanted))
    assert [len(user.heard("workitem.created", g)) for g in graphs] == [1, 1, 2]
    for graph in graphs:
        await user.without_reviews(graph)
        assert not any("review" in node for node in user.stepped(graph))


async def test_gold_is_published_as_it_was_approved(system: System, user: User) -> None:
    wells.put_all(user.data)
    blueprint = wells.chain(approval_required=True, format="delta")  # which keeps every version that was published
    await user.publish(blueprint)
    item = await user.item("district-report")
    first = wells.by_district(wells.good_readings(wells.bronze_readings(user.data)))
    assert user.tables().published("district-report") == {}

    # New data arrives while the question is open, and reaches the stage before
    before = user.tables().commits()["gold/by-district"]
    wells.put_readings(user.data, "c", wells.readings(300, 10))
    await eventually(lambda: user.tables().commits()["gold/by-district"] > before)
    asked = len(user.heard("workitem.created"))
    await user.decide(item, "approve")

    # First exactly what was approved, then what came later, and nobody was asked again
    after = wells.by_district(wells.good_readings(wells.bronze_readings(user.data)))
    await user.converged(right=lambda: user.tables().report_is(after))
    assert user.tables().history("district-report", "district", "n", "litres") == [first, after]
    assert len(user.heard("workitem.created")) == asked == 1

    # An edit asks again; what is published stays until then, and a second edit replaces the question
    wells.stage(blueprint, "district-report")["format"] = "csv"
    await user.publish(blueprint)
    open_item = await user.item("district-report", count=2)
    wells.stage(blueprint, "district-report")["format"] = "parquet"
    wells.stage(blueprint, "district-report")["destination"] = "out2"
    await user.publish(blueprint)
    third = await user.item("district-report", count=3)
    await user.wait_for("workitem.obsolete")
    assert [i["id"] for i in user.heard("workitem.obsolete")] == [open_item["id"]]
    assert user.tables().report_is(after)

    # A refusal is a fault, publishes nothing and is not asked again
    await user.decide(third, "reject")
    fault = await user.wait_for("fault.approval_rejected")
    assert fault["node"] == "district-report"
    assert user.tables(out="out2").published("district-report") == {}
    await user.until("district-report", "refused")
    assert len(user.heard("workitem.created")) == 3


async def test_a_stage_that_keeps_failing_is_reviewed_then_asked_about(system: System, user: User) -> None:
    """Two graphs whose sink cannot write, because a file is where its folder must be."""
    wells.put_all(user.data)
    for graph in ("mend", "leave"):
        wells.put(user.data / f"blocked-{graph}", "in the way")
        await user.publish(wells.chain(destination=f"blocked-{graph}"), graph)
    items = {g: await user.item("human-review-district-report", g) for g in ("mend", "leave")}

    # Three failures were answered by trying again, the next by a review, which found that a person is needed
    for graph in items:
        failed = [f for f in user.heard("fault.*", graph) if f["node"] == "district-report"]
        assert len(failed) >= 4
        assert [n for g, _, n in user.steps if g == graph].count("ai-review-district-report") == 1
        nodes = await user.nodes(graph)
        assert nodes["by-district"]["phase"] == "present"
        assert reviews_in(nodes) == {"ai-review-district-report", "human-review-district-report"}

    # When one is mended and tried again, it is well, and its reviews go without asking anybody. It is tried now and
    # then all the while: paused, it is not well before somebody decides.
    await user.ask("planner", "pause", graph="mend", node="district-report")
    await user.until("district-report", "paused", "mend")
    (user.data / "blocked-mend").unlink()
    mark, asked = len(user.steps), len(user.heard("workitem.created", "mend"))
    await user.decide(items["mend"], "retry")
    await user.ask("planner", "resume", graph="mend", node="district-report")
    wanted = wells.by_district(wells.good_readings(wells.bronze_readings(user.data)))
    await user.converged("mend", right=lambda: user.tables("mend", "blocked-mend").report_is(wanted))
    await user.without_reviews("mend")
    assert user.stepped("mend", since=mark) == {"district-report": 1}
    assert len(user.heard("workitem.created", "mend")) == asked

    # When the other is given up, it stays as it is, and new data does not make anybody try it again
    await user.decide(items["leave"], "give-up")
    await user.until("district-report", "refused", "leave")
    mark, before = len(user.steps), user.tables("leave").commits()["gold/by-district"]
    wells.put_readings(user.data, "c", wells.readings(300, 10))
    await eventually(lambda: user.tables("leave").commits()["gold/by-district"] > before)
    await user.until("by-district", "present", "leave")
    assert user.stepped("leave", since=mark)["district-report"] == 0
    assert len(user.heard("workitem.created", "leave")) == 1


WRONG: list[tuple[str, Any, str]] = [
    ("unknown key", lambda b: b["spec"].update(sauces=[]), "/spec/sauces"),
    ("unknown key of a stage", lambda b: b["spec"]["sinks"][0].update(colour="red"), "/spec/sinks/0/colour"),
    ("dangling input", lambda b: b["spec"]["sinks"][0].update(inputs=["nobody"]), "/spec/sinks/0/inputs/0"),
    ("cycle", lambda b: b["spec"]["transformers"][0].update(inputs=["by-district"]), "/spec/transformers/0/inputs"),
    ("missing column", lambda b: b["spec"]["transformers"][0].update(sql="select x from readings_good"), "/sql"),
    ("outside", lambda b: b["spec"]["sources"][0].update(uri="../../*.ndjson"), "/spec/sources/0/uri"),
    ("id used twice", lambda b: b["spec"]["sinks"].append(dict(b["spec"]["sinks"][0])), "/spec/sinks/1/id"),
]


async def test_wrong_blueprints_are_refused_by_place_while_data_goes_on(system: System, user: User) -> None:
    wells.put_all(user.data)
    await user.publish(wells.chain())
    await user.converged()
    pids = {name: process.pid for name, process in system.processes.items()}
    mark = len(user.steps)

    wrong: dict[int, tuple[str, str]] = {}
    for name, spoil, place in WRONG:
        blueprint = wells.chain()
        spoil(blueprint)
        wrong[await user.publish(blueprint)] = name, place
    noise = [b"\x00\x01\xff" * 1_000_000, b"spec: [1, 2", b"domain: pipeline\nspec:\n  sources: {a: b: c}\n", b"[]"]
    noisy = {await user.publish(body) for body in noise}
    wells.put_readings(user.data, "c", wells.readings(300, 10))

    # Each is answered, by its sequence: a blueprint that is delivered again is refused again
    await eventually(lambda: {r["sequence"] for r in user.heard("graph.rejected")} == wrong.keys() | noisy)
    for said in user.heard("graph.rejected"):
        name, place = wrong.get(said["sequence"], ("noise", ""))
        assert said["reason"], name
        assert not place or any(place in p["path"] for p in said["problems"]), (name, said)
    wanted = wells.by_district(wells.good_readings(wells.bronze_readings(user.data)))
    await user.converged(right=lambda: user.tables().report_is(wanted))
    assert user.heard("fault.*") == []
    assert set(user.stepped(since=mark).values()) == {1}
    assert {name: process.pid for name, process in system.processes.items()} == pids
    assert all(process.running for process in system.processes.values())
