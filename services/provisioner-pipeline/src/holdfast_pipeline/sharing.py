"""Who gets the next free process: graphs share them by the time that they used, whatever else they have waiting.

Start-time fair queueing (Goyal, Vin, Cheng 1996): a step's place in line is the virtual time at which its graph has had
what it used so far. A graph that waits with a hundred steps does not go before one that waits with its first, and one
that comes later gets its share from then on and nothing for the time before. Pure but for the waiting itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

PATIENCE = 30.0
"""Seconds without any turn after which a graph goes first whatever it used: the time of its steps runs while they
wait."""
_SMOOTHING = 0.1


def lanes(processes: int) -> int:
    """How many steps of one type may be under way where so many processes are.

    A process that becomes free takes from those in line. Were there no more lanes than processes, no second step of a
    type would be in line at that moment: a graph's next stage would go before the first of another graph, which still
    waits outside, and would count as one that came later. More lanes would take steps from other replicas."""
    return 2 * processes


@dataclass(eq=False)
class Turn:
    """A step in line, or at work. ``place``: its virtual time."""

    graph: str
    place: float
    since: float
    expected: float


@dataclass
class Line:
    """Steps that wait, and what graphs used. ``now`` of all calls: seconds of one clock."""

    _waiting: list[Turn] = field(default_factory=list)
    _used: dict[str, float] = field(default_factory=dict)
    _served: dict[str, float] = field(default_factory=dict)
    _virtual: float = 0.0
    _usual: float = 0.0

    def enter(self, graph: str, now: float) -> Turn:
        """Wait for a process. What the step will use is counted as it usually is, until :meth:`leave` knows."""
        place = max(self._virtual, self._used.get(graph, 0.0))
        turn = Turn(graph, place, now, self._usual)
        self._used[graph] = place + turn.expected
        self._waiting.append(turn)
        return turn

    def next(self, now: float) -> Turn | None:
        """Take whose turn it is out of the line."""
        if not self._waiting:
            return None
        self._served = {g: at for g, at in self._served.items() if now - at <= PATIENCE}
        tired = (t for t in self._waiting if now - t.since > PATIENCE and t.graph not in self._served)
        turn = next(tired, None) or min(self._waiting, key=lambda t: (t.place, t.since))
        self._waiting.remove(turn)
        self._served[turn.graph] = now
        self._virtual = max(self._virtual, turn.place)
        return turn

    def leave(self, turn: Turn, used: float) -> None:
        """The step ended, or does not wait any more (0 used). Graphs that are behind what everybody has had are
        forgotten."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        else:
            self._usual += (used - self._usual) * (_SMOOTHING if self._usual else 1.0)
        self._used[turn.graph] = self._used.get(turn.graph, turn.place) + used - turn.expected
        if not self._waiting:
            self._virtual = max(self._virtual, turn.place)
        for graph in [g for g, at in self._used.items() if at <= self._virtual]:
            del self._used[graph]


class Slots:
    """``limit`` processes at a time, shared by :class:`Line`."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._free = limit
        self._clock = clock
        self._line = Line()
        self._calls: dict[int, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def slot(self, graph: str, deadline: float) -> AsyncIterator[None]:
        """Hold a process. Raises TimeoutError when none became free until ``deadline`` of the running loop."""
        turn = self._line.enter(graph, self._clock())
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls[id(turn)] = called
        self._call()
        try:
            async with asyncio.timeout_at(deadline):
                await called
        except BaseException:
            if called.done() and not called.cancelled():
                self._free += 1  # called and gone at the same moment
            self._calls.pop(id(turn), None)
            self._line.leave(turn, 0.0)
            self._call()
            raise
        began = self._clock()
        try:
            yield
        finally:
            self._free += 1
            self._line.leave(turn, self._clock() - began)
            self._call()

    def _call(self) -> None:
        while self._free and (turn := self._line.next(self._clock())) is not None:
            called = self._calls.pop(id(turn))
            if called.done():
                continue  # it gave up, and leaves the line itself
            self._free -= 1
            called.set_result(None)
