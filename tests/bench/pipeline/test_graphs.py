"""What is said of fairness is right."""

from __future__ import annotations

import pytest

from .graphs import at_half, jain


def test_the_index_is_one_for_equal_shares_and_one_in_n_when_one_has_everything() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1.0)
    assert jain([9, 0, 0]) == pytest.approx(1 / 3)
    assert jain([]) == jain([0, 0]) == 1.0


def test_graphs_that_are_served_one_after_the_other_have_half_of_it() -> None:
    names = [f"g{i}" for i in range(100)]
    one_by_one = [name for name in names for _ in range(6)]
    in_turn = names * 6
    assert jain(at_half(one_by_one, names)) == pytest.approx(0.5)
    assert jain(at_half(in_turn, names)) == pytest.approx(1.0)
