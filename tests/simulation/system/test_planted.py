"""Mistakes that are put in on purpose are found, and a seed that finds one finds it again in the same place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .planted import BUGS, planted
from .seeds import first_broken

SEEDS = 5000
"""The bound; as measured, most are found within ten seeds, and the slowest within a hundred."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_mistake_is_found(name: str, record_property: Callable[[str, object], None]) -> None:
    with planted(name):
        found = first_broken(range(SEEDS))
        assert found is not None, f"{name} was not found in {SEEDS} seeds"
    seed, told = found
    with planted(name):
        again = first_broken([seed])
    record_property("seeds", seed + 1)
    assert again == found
    assert told.endswith(f"make simulate SEEDS=1 START={seed}")
    assert first_broken([seed]) is None, "it is the mistake that breaks this seed"
