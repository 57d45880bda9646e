"""How an outcome is compared with what a vector expects, and where they differ.

Objects are compared on the keys given, lists as sets unless their key says order; ``x_has`` lists words that the text
``x`` contains; ``before`` lists pairs of which the first comes earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast_model.durations import parse_duration
from holdfast_model.errors import Invalid

ORDERED = frozenset(
    {
        "addition_order", "cycle", "edge", "edge_mutations", "created", "fired", "labels", "layers", "listener_calls",
        "statuses_in_order", "working_graph_sizes_seen", "called",
    }
)  # fmt: skip
"""Keys whose lists have an order; those below ``steps`` and ``returns`` run parallel to the operations."""

EXACT = frozenset({"statuses"})
"""Keys whose objects say everything there is; so does ``groups``."""

EMPTY = EXACT | {"nodes"}
"""Keys whose objects say that there is nothing when they are empty."""

DURATIONS = frozenset({"interval", "single_timer"})
"""Keys of durations, which may be written in several ways; so may the keys of ``groups``."""

PARALLEL = frozenset({"steps", "returns", "phases"})


@dataclass(frozen=True)
class Mismatch:
    """A place (``steps.1.events``) and what is wrong there."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path or '(all)'}: {self.text}"


class Missing:
    """Stands for a key that the outcome does not have."""

    def __repr__(self) -> str:
        return "nothing"


_MISSING = Missing()


def mismatches(actual: Any, expected: Any, path: str = "", key: str = "") -> Iterator[Mismatch]:
    """Every place where the outcome is not as expected."""
    if key in DURATIONS and isinstance(expected, str) and isinstance(actual, str):
        actual, expected = _seconds(actual), _seconds(expected)
    if key == "error" and isinstance(expected, str) and isinstance(actual, Mapping):
        yield from mismatches(actual.get("kind"), expected, path)
    elif isinstance(expected, Mapping):
        yield from _object(actual, expected, path)
    elif isinstance(expected, list):
        yield from _list(actual, expected, path, key)
    elif isinstance(expected, bool) or isinstance(actual, bool) or not isinstance(expected, int | float):
        if actual != expected or type(actual) is not type(expected):
            yield Mismatch(path, f"expected {expected!r}, got {actual!r}")
    elif not isinstance(actual, int | float) or abs(actual - expected) > 1e-9:
        yield Mismatch(path, f"expected {expected!r}, got {actual!r}")


def _timers(actual: Mapping[str, Any], expected: Mapping[str, Any], path: str) -> Iterator[Mismatch]:
    found = {_seconds(interval): types for interval, types in actual.items()}
    wanted = {_seconds(interval): types for interval, types in expected.items()}
    if found.keys() != wanted.keys():
        yield Mismatch(path, f"expected exactly {sorted(expected)}, got {sorted(actual)}")
    for interval in found.keys() & wanted.keys():
        yield from mismatches(found[interval], wanted[interval], f"{path}.{interval}")


def _seconds(text: str) -> float | str:
    """A duration as a number; what is none stays as it is."""
    try:
        return parse_duration(text)
    except Invalid:
        return text


def _object(actual: Any, expected: Mapping[str, Any], path: str) -> Iterator[Mismatch]:
    if not isinstance(actual, Mapping):
        yield Mismatch(path, f"expected {dict(expected)!r}, got {actual!r}")
        return
    exact = expected.get("exact") is True
    if not expected and actual and path.rpartition(".")[2] in EMPTY:
        yield Mismatch(path, f"expected nothing, got {dict(actual)!r}")
    for key, wanted in expected.items():
        place = f"{path}.{key}" if path else key
        if key == "exact":
            continue
        if key.endswith("_has") and isinstance(wanted, list):
            yield from _words(actual.get(key.removesuffix("_has"), _MISSING), wanted, place)
        elif key == "before" and isinstance(wanted, list):
            yield from _before(actual.get("order", _MISSING), wanted, place)
        elif key == "groups" and isinstance(actual.get(key), Mapping) and isinstance(wanted, Mapping):
            yield from _timers(actual[key], wanted, place)
        elif key in actual:
            yield from mismatches(actual[key], wanted, place, key)
            if key in EXACT and isinstance(wanted, Mapping) and isinstance(actual[key], Mapping):
                yield from _beyond(actual[key], wanted, place)
            elif exact and isinstance(wanted, Mapping) and set(actual[key]) != set(wanted):
                yield Mismatch(place, f"expected exactly {sorted(wanted)}, got {sorted(actual[key])}")
        else:
            yield Mismatch(place, f"expected {wanted!r}, got nothing")


def _beyond(actual: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> Iterator[Mismatch]:
    more = sorted(set(actual) - set(wanted))
    if more:
        yield Mismatch(path, f"expected exactly {sorted(wanted)}, got {more} besides")


def unexpected_errors(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[Mismatch]:
    """Errors of which the vector says nothing. A step of which nothing is said at all may fail."""
    steps = expected.get("steps", [])
    if "error" in expected or any(isinstance(s, Mapping) and "error" in s for s in steps):
        return []
    pairs = [("error", actual, expected)]
    pairs += [
        (f"steps.{i}.error", step, wanted)
        for i, (step, wanted) in enumerate(zip(actual.get("steps", ()), steps, strict=False))
        if isinstance(wanted, Mapping)
    ]
    return [
        Mismatch(place, f"expected no error, got {one['error']!r}")
        for place, one, wanted in pairs
        if isinstance(one, Mapping) and one.get("error") is not None and "error" not in wanted
    ]


def _list(actual: Any, expected: list[Any], path: str, key: str) -> Iterator[Mismatch]:
    if not isinstance(actual, list | tuple | set | frozenset):
        yield Mismatch(path, f"expected {expected!r}, got {actual!r}")
        return
    found = list(actual)
    if key in PARALLEL:
        if len(found) < len(expected):
            yield Mismatch(path, f"expected {len(expected)} of them, got {len(found)}")
        for i, (one, other) in enumerate(zip(found, expected, strict=False)):
            if other is not None:
                yield from mismatches(one, other, f"{path}.{i}")
        return
    if len(found) != len(expected):
        yield Mismatch(path, f"expected {expected!r}, got {found!r}")
        return
    nested = not key and "calls." not in path  # a pair, a tuple of a count: its order says what is what
    if key in ORDERED or nested:
        pairs = list(zip(found, expected, strict=True))
        if not all(matches(one, other, path) for one, other in pairs):
            yield Mismatch(path, f"expected in this order {expected!r}, got {found!r}")
    elif not _pairs_up(found, expected, path):
        yield Mismatch(path, f"expected {expected!r}, got {found!r}")
    elif key == "events" and not _in_groups(found):
        yield Mismatch(path, f"events of later groups come first in {found!r}")


def _pairs_up(found: list[Any], expected: list[Any], path: str) -> bool:
    """Whether each expected item has a found one of its own; tries alternatives, as items may match loosely."""
    if not expected:
        return True
    for i, one in enumerate(found):
        if matches(one, expected[0], path) and _pairs_up(found[:i] + found[i + 1 :], expected[1:], path):
            return True
    return False


_GROUPS = ("recovered", "drifted", "faulted", "completed")


def _in_groups(events: list[Any]) -> bool:
    names = [e["type"] if isinstance(e, Mapping) else str(e).partition(":")[0] for e in events]
    places = [_GROUPS.index(n.rpartition(".")[2]) for n in names if n.rpartition(".")[2] in _GROUPS]
    return places == sorted(places)


def _words(text: Any, words: list[str], path: str) -> Iterator[Mismatch]:
    missing = [w for w in words if not isinstance(text, str) or w.lower() not in text.lower()]
    if missing:
        yield Mismatch(path, f"{missing} not in {text!r}")


def _before(order: Any, pairs: list[list[str]], path: str) -> Iterator[Mismatch]:
    places = {id: i for i, id in enumerate(order)} if isinstance(order, list | tuple) else {}
    for first, second in pairs:
        if first not in places or second not in places or places[first] > places[second]:
            yield Mismatch(path, f"{first!r} does not come before {second!r} in {order!r}")


def matches(actual: Any, expected: Any, path: str = "") -> bool:
    """Whether there is no mismatch. ``path``: where both stand."""
    return next(mismatches(actual, expected, path), None) is None
