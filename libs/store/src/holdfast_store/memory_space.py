"""The key space of the in-memory twin: values, their expiry, and how often each key was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Refused(Exception):
    """The server answers this command with an error."""


class ZSet(dict[bytes, float]):
    """Members and scores, in the server's order when asked."""

    def ordered(self) -> list[tuple[bytes, float]]:
        return sorted(self.items(), key=lambda item: (item[1], item[0]))


class Stream:
    """Entries in the order of their ids, and the last id ever given out."""

    def __init__(self) -> None:
        self.entries: list[tuple[tuple[int, int], dict[bytes, bytes]]] = []
        self.last = (0, 0)


class Store:
    """The key space. Expired keys are dropped when they are looked at, which counts as a write."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._values: dict[bytes, Any] = {}
        self._expiry: dict[bytes, float] = {}
        self._writes: dict[bytes, int] = {}

    def writes(self, key: bytes) -> int:
        self.get(key)
        return self._writes.get(key, 0)

    def touch(self, key: bytes) -> None:
        self._writes[key] = self._writes.get(key, 0) + 1

    def get(self, key: bytes) -> Any:
        at = self._expiry.get(key)
        if at is not None and self.clock() >= at:
            self.drop(key)
        return self._values.get(key)

    def typed(self, key: bytes, kind: type[Value]) -> Value | None:
        """The value, which must be of ``kind`` if it is there."""
        value = self.get(key)
        if value is not None and type(value) is not kind:
            raise Refused("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def made(self, key: bytes, kind: type[Value]) -> Value:
        """The value, made empty if it is missing."""
        value = self.typed(key, kind)
        if value is None:
            value = self._values[key] = kind()
        return value

    def put(self, key: bytes, value: Any, expiry: float | None = None) -> None:
        self._values[key] = value
        self.set_expiry(key, expiry)
        self.touch(key)

    def drop(self, key: bytes) -> bool:
        self._expiry.pop(key, None)
        if self._values.pop(key, None) is None:
            return False
        self.touch(key)
        return True

    def expiry(self, key: bytes) -> float | None:
        return self._expiry.get(key)

    def set_expiry(self, key: bytes, at: float | None) -> None:
        if at is None:
            self._expiry.pop(key, None)
        else:
            self._expiry[key] = at

    def wrote(self, key: bytes, changed: bool = True) -> None:
        """Note a change of a collection; an empty one ceases to exist, as on the server (streams stay)."""
        if changed:
            value = self._values.get(key)
            if not isinstance(value, Stream) and not value:
                self._values.pop(key, None)
                self._expiry.pop(key, None)
            self.touch(key)

    def live_keys(self) -> list[bytes]:
        return sorted(k for k in list(self._values) if self.get(k) is not None)
