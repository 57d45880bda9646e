"""Graphs that are not in memory: what is noted of one when it is unloaded, and when it must be loaded again.

The note (field ``rested`` of ``meta``) is written by a turn, and removed by the next one: where it is, nothing is under
way, whoever owned the graph last. It is wrong to trust it once the graph's version moved, something lies in its inbox
or outbox, its time has come, or the domains and preferences it was made for have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from holdfast_model.names import BUILT_IN_TYPES
from holdfast_model.reconciler import Reconciler, TypeInfo
from holdfast_model.resync import Preference, interval_for

META_RESTED = "rested"
SHORTEST = 2.0
"""Seconds: a graph that is to be looked at again sooner stays loaded."""
ASKS_EVERY = 600.0
"""Seconds after which a graph that waits for a person asks after its WorkItems, in case an answer was missed."""


class Rested(msgspec.Struct, frozen=True):
    """A graph as it was unloaded. ``wake_at``: s since the epoch; ``every``: by type, the interval (s) at which it is
    looked at; ``missing``: types that nobody provisions; ``searched``: those that are searched for leftovers (None: the
    graph searches for nothing).
    """

    version: int
    wake_at: float | None = None
    every: Mapping[str, float] = {}
    missing: tuple[str, ...] = ()
    searched: tuple[str, ...] | None = None


class Found(msgspec.Struct, frozen=True):
    """What the store says of a graph that is not loaded. ``letters``: entries of its inbox and outbox."""

    rested: bytes | None
    version: int
    letters: int


_decode = msgspec.json.Decoder(Rested).decode


def note_of(reconciler: Reconciler, wake_at: float | None, now: float) -> Rested | None:
    """What to note before a graph is unloaded; None when something is under way, or will be in a moment."""
    if not reconciler.at_rest:
        return None
    core = reconciler.core
    if core.gates:
        wake_at = min(wake_at or float("inf"), now + ASKS_EVERY)
    if wake_at is not None and wake_at < now + SHORTEST:
        return None
    every = {name: interval for interval, names in core.intervals.groups.items() for name in names}
    there = [name for name, units in core.by_type.items() if units and name not in BUILT_IN_TYPES]
    missing = tuple(n for n in there if not _served(core.catalog.get(n)))
    search = core.search
    searched = None if search.types and not search.due else tuple(search.due)
    return Rested(reconciler.version, wake_at, every, missing, searched)


def read_note(raw: bytes | None) -> Rested | None:
    """The note, or None where there is none that can be read."""
    try:
        return _decode(raw) if raw else None
    except msgspec.DecodeError:
        return None


def must_wake(found: Found, infos: Mapping[str, TypeInfo], preferences: Iterable[Preference], now: float) -> bool:
    """Whether a graph that is not loaded has to be."""
    rested = read_note(found.rested)
    if rested is None or rested.version != found.version or found.letters:
        return True
    if rested.wake_at is not None and rested.wake_at <= now:
        return True
    if any(_served(infos.get(name)) for name in rested.missing):
        return True
    if rested.searched is not None:  # a domain that can search has come since: it may find something at once
        able = {name for name, info in infos.items() if info.discover and info.live}
        if not able <= set(rested.searched):
            return True
    declared = {name: infos[name].resync for name in rested.every if name in infos}
    named = tuple(preferences)
    return any(interval_for(name, declared, *named) != every for name, every in rested.every.items() if name in infos)


def _served(info: TypeInfo | None) -> bool:
    return info is not None and info.live
