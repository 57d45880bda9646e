"""Which attempts run in this process right now, and who waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from .history import Seen

R = TypeVar("R")
S = TypeVar("S")


class _Followers(Generic[R, S]):
    """Who else wants a running attempt: ``joined`` wait for it, ``behind`` holds newer ones of the same node."""

    __slots__ = ("behind", "joined")

    def __init__(self) -> None:
        self.joined: list[R] = []
        self.behind: list[tuple[R, S]] = []


class Flights(Generic[R, S]):
    """At most one running attempt per node: copies join it, newer attempts line up behind it."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Seen] = {}
        self._followed: dict[tuple[str, str], _Followers[R, S]] = {}

    def board(self, scope: str, node: str, attempt: Seen, run: R, step: S) -> bool:
        """True if the attempt may start now; else it has joined or waits, and :meth:`land` will
        bring it up.
        """
        key = (scope, node)
        running = self._running.setdefault(key, attempt)
        if running is attempt:
            return True
        followers = self._followed.get(key)
        if followers is None:
            followers = self._followed[key] = _Followers()
        if running == attempt:
            followers.joined.append(run)
        else:
            followers.behind.append((run, step))
        return False

    def land(self, scope: str, node: str) -> tuple[list[R], list[tuple[R, S]]]:
        """An attempt ended: who else wanted its outcome, and what may board now."""
        key = (scope, node)
        del self._running[key]
        followers = self._followed.pop(key, None) if self._followed else None
        return ([], []) if followers is None else (followers.joined, followers.behind)

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._running)
