"""The objects that a source's URI stands for, and copies of them on this machine.

An object is put whole, so it has settled when it is there; its etag says whether it is another one. Readers get a
local copy of exactly the listed content, so that awkward files are treated as those of a folder are.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from holdfast_model.errors import Temporary

from .objects import Entry, ObjectPath
from .patterns import ignored, is_pattern
from .stores import ObjectPlace


def source_objects(place: ObjectPlace) -> list[Entry] | None:
    """The objects of a source in the order of their keys; None when nothing is where it looks. A name without a pattern
    is an object, else all that are directly below it."""
    fixed = _fixed(place)
    rest = place.parts[len(fixed) :]
    base = ObjectPath(place.store, fixed)
    if not rest and len(fixed) > len(place.store.prefix):
        with suppress(FileNotFoundError):
            head = base.head()
            return [Entry(base.key, int(head["ContentLength"]), head["ETag"])]
    found, there = [], fixed == place.store.prefix
    for entry in base.list():
        there = True
        if _is_file(entry.key) and matches(tuple(entry.key.split("/"))[len(fixed) :], rest or ("*",)):
            found.append(entry)
    return found if there else None


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the segments of a key below a prefix fit a pattern. What is ignored in folders is ignored here."""
    if not pattern or not names:
        return not pattern and not names
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        if matches(names, rest or ("*",)):
            return True
        return len(names) > 1 and not ignored(names[0]) and matches(names[1:], pattern)
    fits = fnmatchcase(names[0], head) if is_pattern(head) else names[0] == head
    return fits and not ignored(names[0]) and matches(names[1:], rest)


def _is_file(key: str) -> bool:
    """Whether a key can be a file's name: consoles put ``folder/`` objects, and no disk has ``..`` within a name."""
    return not key.endswith("/") and not any(p in (".", "..") for p in key.split("/"))


def _fixed(place: ObjectPlace) -> tuple[str, ...]:
    """The parts before the first pattern. A part that merely looks like one, and is there as it is written, is none."""
    fixed: tuple[str, ...] = ()
    for part in place.parts:
        if is_pattern(part):
            literal = ObjectPath(place.store, (*fixed, part))
            if "[" not in part or not (literal.exists() or literal.is_dir()):
                break
        fixed += (part,)
    return fixed


class Copy:
    """A local copy of an object, removed when nobody needs it any more (and with the scratch folder of a step)."""

    def __init__(self, origin: ObjectPath, etag: str, name: str) -> None:
        handle, path = tempfile.mkstemp(prefix="object-", suffix=Path(origin.name).suffix)
        os.close(handle)
        self.path = Path(path)
        self._end = weakref.finalize(self, self.path.unlink, missing_ok=True)
        try:
            origin.fetch(etag, self.path)
        except (FileNotFoundError, FileExistsError):
            raise Temporary(f"{name!r} changed while it was read") from None
        except OSError as e:
            raise Temporary(f"{name!r} cannot be read: {e.strerror or e}") from e
