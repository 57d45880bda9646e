"""Files become tables, and stay what was declared, with no more work than a change asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_testkit.system import System

from . import wells
from .conftest import User

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]


def everything_right(user: User) -> bool:
    """Every table of the whole blueprint, value by value."""
    tables = user.tables()
    bronze, seen = wells.bronze_readings(user.data), wells.all_visits(user.data)
    good = wells.good_readings(bronze)
    assert tables.seqs("bronze", "readings-raw") == sorted(r["seq"] for r in bronze)
    assert tables.seqs("silver", "readings-good") == sorted(r["seq"] for r in good)
    assert tables.report_is(wells.by_district(good))
    assert tables.published("time-cube", "well", "minutes") == wells.time_spent(seen)
    assert tables.published("overview", "well", "n") == wells.overview(good, seen)
    return True


async def settled(user: User) -> None:
    await user.converged(right=lambda: everything_right(user))


async def test_files_become_tables_value_by_value_in_one_step_per_stage(system: System, user: User) -> None:
    wells.put_all(user.data)
    wells.put_readings(user.data, "c", [*wells.readings(200, 3), {"seq": -4, "well": " W-01 ", "litres": 1}])
    await user.publish(wells.board())
    await settled(user)
    assert user.heard("fault.*") == []
    assert user.heard("workitem.created") == []
    assert set(user.stepped().values()) == {1}, user.stepped()


async def test_an_edit_of_one_stage_touches_it_and_what_depends_on_it_only(system: System, user: User) -> None:
    # Given everything as declared
    wells.put_all(user.data)
    blueprint = wells.board()
    await user.publish(blueprint)
    await settled(user)
    before, mark = user.tables().commits(), len(user.steps)

    # When one transformer changes (with the same rows as its result)
    wells.stage(blueprint, "by-district")["sql"] += " having count(*) > 0"
    await user.publish(blueprint)
    await user.wait_for("graph.accepted", 2)
    await settled(user)

    # Then it and its sink are written once more, and nothing else is, nor is anything tried, and it is said once
    assert len(user.heard("graph.converged")) == 2
    assert grown(before, user) == {"gold/by-district": 1, "gold/district-report": 1}
    assert set(user.stepped(since=mark)) == {"by-district", "district-report"}

    # When a cleanser in the middle changes
    before, mark = user.tables().commits(), len(user.steps)
    wells.stage(blueprint, "visits-tidy")["rules"] = ["trim"]
    await user.publish(blueprint)
    await user.wait_for("graph.accepted", 3)
    await settled(user)
    assert set(grown(before, user)) <= {
        "silver/visits-tidy", "silver/visits-good", "silver/visits-good__quarantine", "gold/time-spent",
        "gold/time-cube", "gold/both", "gold/overview",
    }  # fmt: skip
    assert set(grown(before, user).values()) == {1}

    # When the same is published again, nothing at all happens
    before, mark = user.tables().commits(), len(user.steps)
    await user.publish(blueprint)
    await user.wait_for("graph.accepted", 4)
    await settled(user)
    assert grown(before, user) == {}
    assert user.steps[mark:] == []


async def test_a_new_file_reaches_gold_without_a_command_and_raises_no_fault(system: System, user: User) -> None:
    wells.put_all(user.data)
    await user.publish(wells.board())
    await settled(user)
    before = user.tables().commits()

    told = len(user.heard("graph.converged"))
    wells.put_readings(user.data, "c", wells.readings(300, 15))
    await settled(user)
    await user.wait_for("graph.converged", told + 1)  # what was told before it was heard, too
    told = len(user.heard("graph.converged"))
    wells.put_visits(user.data, "second", wells.visits(50, 9))
    await settled(user)
    await user.wait_for("graph.converged", told + 1)

    assert user.heard("fault.*") == []
    assert user.heard("workitem.created") == []
    # Both files were taken once; only what both chains feed was made twice.
    more = grown(before, user)
    assert more["bronze/readings-raw"] == more["bronze/visits-raw"] == more["gold/by-district"] == 1
    assert more["gold/both"] == more["gold/overview"] == 2


async def test_one_failing_stage_stops_its_dependents_only(system: System, user: User) -> None:
    # Given a transformer that cannot be computed with these rows
    wells.put_all(user.data)
    blueprint = wells.board()
    wells.stage(blueprint, "by-district")["sql"] = (
        "select district, count(*) as n, sum(cast(well as int)) as litres from readings_good group by district"
    )
    await user.publish(blueprint)
    fault = await user.wait_for("fault.provision_failed")
    assert (fault["node"], fault.get("permanent")) == ("by-district", True)

    # Then all that does not depend on it is there
    for node in ("time-cube", "overview"):
        await user.until(node, "present")
    await user.until("district-report", "blocked")
    nodes = await user.nodes()
    assert nodes["district-report"]["blocked_by"] == "by-district"
    wrong = {i for i, row in nodes.items() if row["phase"] != "present" and "review" not in i}
    assert wrong == {"by-district", "district-report"}

    # When it is corrected, it goes on, and what was asked about it goes away without asking anybody
    await user.item("human-review-by-district")
    asked = len(user.heard("workitem.created"))
    await user.publish(wells.board())
    await settled(user)
    await user.without_reviews()
    assert set(await user.nodes()) == {e["id"] for entries in wells.board()["spec"].values() for e in entries}
    assert len(user.heard("workitem.created")) == asked


async def test_a_source_that_appears_later_heals_by_itself(system: System, user: User) -> None:
    # Given files of one chain only
    wells.put_wells(user.data)
    wells.put_visits(user.data, "first", wells.visits(1))
    blueprint = wells.board()
    wells.stage(blueprint, "readings")["uri"] = "late/readings/*.ndjson"
    await user.publish(blueprint)
    await user.until("time-cube", "present")
    await user.until("district-report", "blocked")
    await user.wait_for("fault.provision_failed", 2)

    # When the folder appears
    wells.put_readings(user.data / "late", "a", wells.readings(100))

    # Then everything is made, and nothing that was asked meanwhile stays open
    wanted = wells.by_district(wells.good_readings(wells.bronze_readings(user.data / "late")))
    await user.converged(right=lambda: user.tables().report_is(wanted))
    about = {(f["node"], f["type"]) for f in user.heard("fault.*")}
    assert about == {("readings", "PROVISION_FAILED"), ("readings-raw", "DEPENDENCY_UNAVAILABLE")}


async def test_removed_stages_go_dependents_first_and_nothing_else_goes(system: System, user: User) -> None:
    # Given two graphs of one tenant, one of which drops what it published
    wells.put_all(user.data)
    blueprint = wells.board()
    for sink in ("district-report", "time-cube", "overview"):
        wells.stage(blueprint, sink)["destination"] = "shared"
    wells.stage(blueprint, "district-report")["on_delete"] = "drop"
    other = wells.chain(destination="elsewhere")
    await user.publish(blueprint)
    await user.publish(other, "other")
    await user.converged()
    await user.converged("other")
    wells.put(user.data / "shared" / "notes.txt", "mine")
    wells.put(user.data / "shared" / "district-report.txt", "mine too")
    foreign = user.warehouse / user.tenant / "precious"
    wells.put(foreign / "bronze" / "readings-raw" / "x", "not of any graph")
    before, mark = contents(user.data, user.warehouse / user.tenant), len(user.steps)

    # When the readings leave the blueprint
    gone = ("both", "overview", "by-district", "district-report", "readings-good", "readings-placed", "readings-tidy",
            "readings-raw", "reading-fields", "readings", "wells")  # fmt: skip
    await user.publish({**wells.without(blueprint, *gone), "allow_removals": True})
    await user.wait_for("graph.accepted", 2)
    await user.converged(right=lambda: "readings-raw" not in user.tables().there())

    # Then their tables went, each after those that depended on it
    removed = [node for graph, action, node in user.steps[mark:] if graph == "board" and action == "DEPROVISION"]
    for first, then in (
        ("district-report", "by-district"), ("by-district", "readings-good"), ("overview", "both"),
        ("both", "readings-good"), ("readings-good", "readings-placed"), ("readings-placed", "readings-tidy"),
        ("readings-tidy", "readings-raw"),
    ):  # fmt: skip
        assert removed.index(first) < removed.index(then), removed
    assert {node for _, action, node in user.steps[mark:] if action == "PROVISION"} == set()
    assert user.tables().there() == {
        "visits-raw", "visits-raw__files", "visits-tidy", "visits-good", "visits-good__quarantine", "time-spent",
        "time-cube",
    }  # fmt: skip

    # And of all other files only the marked target that was to be dropped
    after = contents(user.data, user.warehouse / user.tenant)
    lost = {path for path in before - after if "/board/" not in path}
    assert lost == {p for p in before if "/shared/district-report/" in p}
    assert len(lost) > 0

    # When the whole graph is deleted, its folder alone goes; published data is kept
    await user.publish({"delete": True})
    await user.wait_for("graph.deleted")
    assert user.tables().there() == set()
    lost = {path for path in after - contents(user.data, user.warehouse / user.tenant) if "/board/" not in path}
    assert lost == set()


def grown(before: dict[str, int], user: User) -> dict[str, int]:
    """Table -> commits more than before, where there are any."""
    return {t: n - before.get(t, 0) for t, n in user.tables().commits().items() if n != before.get(t, 0)}


def contents(*folders: Path) -> set[str]:
    return {str(p) for folder in folders for p in folder.rglob("*") if p.is_file()}
