"""JSON text as plain data, where it came from outside and nobody has looked into it yet.

JSON limits neither depth nor numbers, and says nothing of a key that stands twice in one object. Programs do: what
passes here can be read by every program that it will come to, and says the same to all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

MAX_DEPTH = 128
"""Levels of arrays and objects in each other. Common readers of JSON go on to about 200."""

_decode = msgspec.json.Decoder().decode
TOO_DEEP = f"arrays and objects in each other, more than {MAX_DEPTH} levels deep"
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_OPENING = (b"[", b"{")


class Unreadable(ValueError):
    """Plain data that cannot be used. ``place``: the JSON pointer of what is wrong."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


def plain(text: Raw | bytes) -> Any:
    """The data that JSON text stands for. Raises Unreadable if it is nested too deeply or a number is too large."""
    try:
        value = _decode(text)
    except msgspec.ValidationError as error:  # JSON by its grammar
        raise Unreadable(_place_of(text), str(error).partition(" - at ")[0]) from error
    except RecursionError as error:
        raise Unreadable("", TOO_DEEP) from error
    raw = bytes(text) if isinstance(text, Raw) else text
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _too_deep(value):
        raise Unreadable("", TOO_DEEP)
    return value


def too_deep_at(body: bytes) -> tuple[int, str]:
    """The byte at which a JSON document gets too deep, and what to say of it. The document must be too deep."""
    depth = 0
    for found in _TOKEN.finditer(body):
        depth += (found[0] in _OPENING) - (found[0] in (b"]", b"}"))
        if depth > MAX_DEPTH:
            return found.start(), TOO_DEEP
    return 0, TOO_DEEP


def repeated_key(body: bytes) -> str | None:
    """JSON pointer of the first key that stands twice in one object; None if there is none.

    Most readers take the last value and drop the other without a word. ``body`` must be valid JSON.
    """
    try:
        json.loads(body, object_pairs_hook=_once, **_AS_WRITTEN)
    except _TwiceError:
        return _first_repeated(json.loads(body, object_pairs_hook=_Pairs, **_AS_WRITTEN), "")
    return None


_AS_WRITTEN: Any = {"parse_int": str, "parse_float": str}
"""Python refuses to read integers of thousands of digits; what they are does not matter here."""


class _TwiceError(Exception):
    pass


class _Pairs(list[tuple[str, Any]]):
    """An object, with every key as often as it is there."""


def _once(pairs: Sequence[tuple[str, Any]]) -> None:
    if len(pairs) > 1 and len({key for key, _ in pairs}) < len(pairs):
        raise _TwiceError


def _first_repeated(value: Any, place: str) -> str | None:
    seen: set[str] = set()
    items: list[tuple[str | int, Any]] = list(value) if isinstance(value, _Pairs) else list(enumerate(value))
    for key, item in items:
        at = f"{place}/{str(key).replace('~', '~0').replace('/', '~1')}"
        if isinstance(value, _Pairs):
            if key in seen:
                return at
            seen.add(str(key))
        if isinstance(item, list) and (found := _first_repeated(item, at)) is not None:
            return found
    return None


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [i for v in level for i in (v.values() if isinstance(v, dict) else v) if isinstance(i, dict | list)]
        if not level:
            return False
    return True


def _place_of(text: Raw | bytes) -> str:
    """The pointer of a number that cannot be read: msgspec does not say where in plain data it stands."""
    place = ""
    for _ in range(MAX_DEPTH):
        raw = bytes(text).lstrip()
        items: Any = ()
        if raw[:1] == b"{":
            items = msgspec.json.decode(raw, type=dict[str, Raw]).items()
        elif raw[:1] == b"[":
            items = enumerate(msgspec.json.decode(raw, type=list[Raw]))
        bad = next(((key, item) for key, item in items if not _reads(item)), None)
        if bad is None:
            break
        key, text = bad
        place += f"/{str(key).replace('~', '~0').replace('/', '~1')}"
    return place


def _reads(text: Raw) -> bool:
    try:
        _decode(text)
    except msgspec.ValidationError:
        return False
    return True
