"""Writers in several processes on one graph, over a server of their own."""

from __future__ import annotations

from .commit_writers import run


def test_writers_in_several_processes_lose_no_update_and_beat_naive_watch() -> None:
    # When two processes of sixteen writers increment shared counters for a moment, both ways
    result = run(processes=2, writers=16, seconds=1.0)
    # Then every increment is there, and sharing transactions pays (the times are the benchmark's matter: they tell of
    # the machine's load as well)
    assert result.lost == 0
    assert result.grouped > 0
    assert 0 < 3 * result.grouped_tries < 1 <= result.naive_tries
