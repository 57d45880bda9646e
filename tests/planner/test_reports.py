"""Reports of changes: which act at once, and which together."""

from __future__ import annotations

from holdfast_planner.inbox import WINDOW, Reports


def nothing(reconciler: object, now: float) -> None:
    """A report."""


def test_the_first_acts_at_once_and_those_that_follow_closely_together() -> None:
    reports = Reports()
    assert (reports.ready(0.0), reports.due) == ([], None)

    reports.arrived(nothing)
    assert len(reports.ready(10.0)) == 1

    for at in (10.01, 10.05, 10.09):
        reports.arrived(nothing)
        assert reports.ready(at) == []
    assert reports.due == 10.0 + WINDOW
    assert len(reports.ready(10.0 + WINDOW)) == 3

    reports.arrived(nothing)
    assert reports.ready(10.15) == []
    assert len(reports.ready(10.3)) == 1

    reports.arrived(nothing)
    assert len(reports.ready(99.0)) == 1
    assert reports.due is None
