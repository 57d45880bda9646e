"""Which attempts run in this process right now, and who waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from .history import Seen

R = TypeVar("R")
S = TypeVar("S")


class Flight(Generic[R, S]):
    """A running attempt. ``joined`` wait for the same one, ``behind`` holds newer ones of the same node."""

    __slots__ = ("attempt", "behind", "joined")

    def __init__(self, attempt: Seen) -> None:
        self.attempt = attempt
        self.joined: list[R] = []
        self.behind: list[tuple[R, S]] = []


class Flights(Generic[R, S]):
    """At most one running attempt per node: copies join it, newer attempts line up behind it."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Flight[R, S]] = {}

    def board(self, scope: str, node: str, attempt: Seen, run: R, step: S) -> bool:
        """True if the attempt may start now; else it has joined or waits, and :meth:`land` will
        bring it up.
        """
        key = (scope, node)
        flight = self._running.get(key)
        if flight is None:
            self._running[key] = Flight(attempt)
            return True
        if flight.attempt == attempt:
            flight.joined.append(run)
        else:
            flight.behind.append((run, step))
        return False

    def land(self, scope: str, node: str) -> tuple[list[R], list[tuple[R, S]]]:
        """An attempt ended: who else wanted its outcome, and what may board now."""
        flight = self._running.pop((scope, node))
        return flight.joined, flight.behind

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._running)
