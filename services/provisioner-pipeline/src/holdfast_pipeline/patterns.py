"""Which names are patterns, and which are never files of a source; for folders and object stores alike."""

from __future__ import annotations

IGNORED_SUFFIXES = (".tmp", ".part")
_MAGIC = frozenset("*?[")


def is_pattern(part: str) -> bool:
    """Whether a path component is a glob pattern."""
    return any(c in _MAGIC for c in part)


def ignored(name: str) -> bool:
    """Whether a name says that it is no finished file: hidden ones, and those that are being written."""
    return name.startswith((".", "_")) or name.endswith(IGNORED_SUFFIXES)
