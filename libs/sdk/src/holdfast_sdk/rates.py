"""At most so many starts per second. Pure arithmetic over a monotonic ``now``; the caller waits."""

from __future__ import annotations


class Rate:
    """Spaces starts evenly, letting through a burst of one second's worth (at least one) after a pause."""

    __slots__ = ("_burst", "_interval", "_next")

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._burst = max(0.0, 1.0 - self._interval)
        self._next = float("-inf")

    def take(self, now: float) -> float:
        """Reserve the next start; returns the seconds to wait before it (0 for now)."""
        due = max(self._next, now - self._burst)
        self._next = due + self._interval
        return max(0.0, due - now)
