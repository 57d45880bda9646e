"""What a run reads of its vector: a field that nobody looks at must not pass for one that was checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


class Reading(dict[str, Any]):
    """An object of a vector that notes which of its keys were looked at; objects inside it do so too."""

    def __init__(self, given: Json) -> None:
        super().__init__({key: watched(value) for key, value in given.items()})
        self.seen: set[str] = set()
        self.parts: tuple[Reading, ...] = ()

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self._note_all()
        return super().__iter__()

    def __or__(self, other: dict[str, Any]) -> Reading:  # type: ignore[override]
        """Both in one; what is looked at there counts for both."""
        both = Reading({})
        parts = tuple(p for p in (self, other) if isinstance(p, Reading))
        for part in parts:
            dict.update(both, dict.items(part))
        both.parts = parts
        return both

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def keys(self) -> Any:
        self._note_all()
        return super().keys()

    def items(self) -> Any:
        self._note_all()
        return super().items()

    def values(self) -> Any:
        self._note_all()
        return super().values()

    def _note(self, key: object) -> None:
        self.seen.add(str(key))
        for part in self.parts:
            part._note(key)

    def _note_all(self) -> None:
        for key in dict.keys(self):
            self._note(key)

    def unread(self, path: str) -> Iterator[str]:
        """Places below ``path`` that nobody looked at."""
        for key, value in dict.items(self):
            place = f"{path}.{key}"
            if key not in self.seen:
                yield place
            else:
                yield from unread(value, place)


def watched(value: Any) -> Any:
    """A value whose objects note what is read of them."""
    if isinstance(value, dict):
        return Reading(value)
    return [watched(v) for v in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """A value as it was, all of it read: for parts that go as they are to whoever judges them (specs, blueprints)."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


def unread(value: Any, path: str) -> Iterator[str]:
    """Places in a watched value that nobody looked at."""
    if isinstance(value, Reading):
        yield from value.unread(path)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from unread(item, f"{path}.{i}")
