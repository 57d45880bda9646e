"""The measure of objects measures what it says."""

from __future__ import annotations

from pathlib import Path

from .objects import measure


async def test_both_ways_end_with_all_rows_and_are_told_beside_each_other(tmp_path: Path) -> None:
    ratio, several, alone = await measure(tmp_path / "objects", 12, 1)
    assert ratio.value > 0
    assert ratio.value == several.value / alone.value
    assert (ratio.unit, ratio.mark) == ("x", 0.5)
