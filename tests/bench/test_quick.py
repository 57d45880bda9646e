"""What ``make bench-quick`` measures is right; how fast it is, is its own matter."""

from __future__ import annotations

import pytest

from .commit_writers import Result
from .quick import Figure, Run, figures, p95, show
from .rig import Rig, layered


async def test_a_layered_graph_converges_heals_and_takes_an_edit() -> None:
    async with Rig() as rig:
        # Given a graph of 1,000 nodes that came in one message
        accepted, converged = await rig.apply("large", layered(1000, 8))
        assert accepted > 0
        assert converged > 0
        shown = await rig.ask("get", graph="large", limit=1)
        assert (shown["graph"]["status"], shown["graph"]["phases"]) == ("converged", {"present": 1000})
        # When nodes get lost and are reported
        for node in ("n0", "n999", "n0"):
            assert await rig.heal("large", node) > 0
        # Then each was provisioned once more, and nothing else was
        attempts = {n: await rig.ask("explain", graph="large", node=n) for n in ("n0", "n999", "n1")}
        operations = [attempts[n]["last_outcomes"][0]["operation"] for n in ("n1", "n999", "n0")]
        assert operations[0] <= 1000
        assert operations[1:] == [1002, 1003]
        # When one node is edited / Then it is the one that changes
        await rig.apply("large", layered(1000, 8, edited=1))
        (version, *_) = (await rig.ask("log", graph="large", limit=10))["entries"]
        declared = version["ops"][0]["mutations"][0]
        assert (declared["added"], declared["updated"], declared["removed"]) == ([], ["n0"], [])
        assert rig.peak_memory > 0


def test_figures_are_medians_beside_their_marks(capsys: pytest.CaptureFixture[str]) -> None:
    # Given three runs
    runs = [Run(a, 4.0, 1.0, 100.0 + a, [0.01, 0.02, 0.03], [0.01]) for a in (1.0, 9.0, 2.0)]
    writers = [Result(64, 4, 3.0, 6000.0, 500.0, lost, 12.0) for lost in (0, 1, 0)]
    # When
    table = {f.name.strip(): f for f in figures(runs, writers, 8000)}
    # Then
    assert table["published -> accepted"] == Figure("published -> accepted", 2.0, "s", 5.0)
    assert table["nodes converged"].met is False
    assert table["planner, peak memory"].value == 109.0
    assert table["one drift -> healed, median"].met is True
    assert table["large beside small"].met is False
    assert table["updates lost"].met is False
    assert p95([3.0, 1.0, 2.0]) == 3.0
    show(list(table.values()))
    shown = capsys.readouterr().out
    assert "met" in shown
    assert "MISSED" in shown
