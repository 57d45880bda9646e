"""Which attempts this process has seen, so that a late copy of an older one is not run."""

from __future__ import annotations

from typing import Literal

Seen = tuple[int, int]
"""(operation, attempt): ordered, unique per node within an incarnation."""


class History:
    """The highest attempt per node. Keeps between ``limit`` and twice as many nodes, the recently
    used ones.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._young: dict[tuple[str, str], Seen] = {}
        self._old: dict[tuple[str, str], Seen] = {}

    def see(self, scope: str, node: str, attempt: Seen) -> Literal["older", "same", "newer"]:
        """Note an attempt; says how it compares with the highest before. ``scope`` names graph and
        incarnation.
        """
        key = (scope, node)
        known = self._young.get(key) or self._old.get(key)
        if known is not None and attempt < known:
            return "older"
        if len(self._young) >= self._limit:
            self._old = self._young
            self._young = {}
        self._young[key] = attempt
        return "same" if known == attempt else "newer"

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
