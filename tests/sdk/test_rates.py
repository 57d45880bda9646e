from __future__ import annotations

import pytest

from holdfast_sdk.history import History
from holdfast_sdk.rates import Rate


def test_a_second_may_start_at_once_and_then_each_interval_one() -> None:
    rate = Rate(5.0)
    waits = [rate.take(100.0) for _ in range(8)]
    assert waits[:5] == pytest.approx([0.0] * 5)
    assert waits[5:] == pytest.approx([0.2, 0.4, 0.6])


def test_a_slow_rate_starts_one_and_makes_the_next_wait() -> None:
    rate = Rate(0.1)
    assert rate.take(0.0) == 0.0
    assert rate.take(0.0) == pytest.approx(10.0)
    assert rate.take(100.0) == 0.0


def test_only_lower_attempts_are_older() -> None:
    history = History()
    assert history.see("g", "a", (5, 2)) == "newer"
    assert history.see("g", "a", (5, 2)) == "same"
    assert history.see("g", "a", (5, 1)) == "older"
    assert history.see("g", "a", (4, 9)) == "older"
    assert history.see("g", "a", (6, 1)) == "newer"
    assert history.see("other incarnation", "a", (1, 1)) == "newer"


def test_history_is_bounded_and_keeps_what_is_in_use() -> None:
    history = History(limit=100)
    for i in range(1000):
        history.see("g", f"n{i}", (1, 1))
        history.see("g", "used", (2, 1))
    assert len(history) <= 201
    assert history.see("g", "used", (1, 1)) == "older"
