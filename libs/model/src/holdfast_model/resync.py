"""How often nodes are looked at again: intervals by type, from manifests and preferences, and the timers they share.

Times are seconds. A preference is called ``desiredstate.resync.<type>`` and holds a duration; the tenant's wins over
the platform's, and both over the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import floor
from zlib import crc32

import msgspec

from .durations import parse_duration
from .errors import Invalid, Problem
from .manifest import RESYNC_DEFAULT, RESYNC_FLOOR
from .names import check_type

Preference = Mapping[str, str | int | float]
"""Values by name, of one tenant or of the platform."""
PREFERENCE = "desiredstate.resync."
"""What the names of these preferences begin with; the node type follows."""


_JUST = 0.001
"""Seconds: a round that was the very reason to be loaded again counts as not held."""


def preference_of(node_type: str) -> str:
    """The name of the preference for a type."""
    return f"{PREFERENCE}{node_type}"


def type_of(preference: str, path: str = "/name") -> str:
    """The type that a preference is about. Raises Invalid for names that mean nothing."""
    if not preference.startswith(PREFERENCE):
        text = f"there is no preference {preference!r}; write {PREFERENCE}<type>"
        raise Invalid(text, [Problem(path, text)])
    return check_type(preference.removeprefix(PREFERENCE), path)


def check_interval(value: str | int | float, path: str = "") -> float:
    """Seconds of an interval as people write it. Raises Invalid below the floor of one second."""
    seconds = parse_duration(value, path)
    if seconds < RESYNC_FLOOR:
        text = f"an interval of {seconds:g} s is too short; at least PT1S"
        raise Invalid(text, [Problem(path, text)])
    return seconds


def interval_for(node_type: str, declared: Mapping[str, float], *preferences: Mapping[str, str | int | float]) -> float:
    """The interval in force for a type.

    ``declared``: by type, from manifests. ``preferences``: by name, the closest first (tenant, platform); they were
    checked when they were set. A type that nobody claims is looked at every five minutes, as soon as there is who
    can.
    """
    name = preference_of(node_type)
    for known in preferences:
        if name in known:
            return check_interval(known[name], f"/{name}")
    return declared.get(node_type, RESYNC_DEFAULT)


def next_round(graph: str, interval: float, after: float) -> float:
    """When a graph's types of this interval are looked at next, strictly later than ``after`` (s since the epoch).

    Rounds are a whole number of intervals apart from a moment within the first one that the graph's name decides: so
    graphs are spread over the interval, and no round depends on when a graph was loaded.
    """
    first = interval * (crc32(graph.encode()) / 2**32)
    number = floor((after - first) / interval) + 1
    due = first + number * interval
    while due <= after:  # what is lost in rounding
        number += 1
        due = first + number * interval
    return due


def missed_since(now: float, slept_until: float | None) -> float:
    """The moment after which rounds are still to be held: ``now``, or, of a graph that was unloaded until a round, just
    before that (s since the epoch)."""
    return now if slept_until is None else min(now, slept_until - _JUST)


class Timers(msgspec.Struct, frozen=True):
    """The timers of one graph: interval -> the types that share it."""

    groups: Mapping[float, tuple[str, ...]] = {}

    def regrouped(self, types: Iterable[str], interval_of: Callable[[str], float]) -> Timers:
        """The timers for the types that are in the graph now; the very same object when nothing changes.

        To be called whenever the graph, a manifest or a preference changed, whoever changed it.
        """
        groups: dict[float, list[str]] = {}
        for name in sorted(set(types)):
            groups.setdefault(interval_of(name), []).append(name)
        fresh = {interval: tuple(names) for interval, names in sorted(groups.items())}
        return self if fresh == self.groups else Timers(fresh)
