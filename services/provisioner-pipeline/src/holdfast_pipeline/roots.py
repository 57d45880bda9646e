"""Which paths a tenant may use. Every path that comes from a blueprint or a directory listing passes here.

A path is judged by where it really is (symlinks resolved), so a link cannot lead out of the tenant's roots.
The warehouse belongs to the engine alone: nothing under it is a source or a target.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from holdfast_model.errors import Forbidden, Invalid, Problem

from .tasks import EngineSettings

MAGIC = frozenset("*?[")


def is_pattern(part: str) -> bool:
    """Whether a path component is a glob pattern."""
    return any(c in MAGIC for c in part)


@dataclass(frozen=True)
class Place:
    """A path or pattern below one root. ``root`` is real (no symlinks); ``parts`` are relative to it."""

    root: Path
    parts: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.root.joinpath(*self.parts)

    @property
    def base(self) -> Path:
        """The folder or file above the first pattern."""
        fixed: list[str] = []
        for part in self.parts:
            if is_pattern(part) and not self.root.joinpath(*fixed, part).exists():
                break
            fixed.append(part)
        return self.root.joinpath(*fixed)


@dataclass(frozen=True)
class Roots:
    """The roots of one tenant."""

    tenant: str
    folders: tuple[Path, ...]
    warehouse: Path

    @classmethod
    def of(cls, settings: EngineSettings, tenant: str) -> Roots:
        """The tenant's configured roots, real paths. A tenant without any can reach nothing."""
        folders = settings.roots.get(tenant)
        if folders is None:
            folders = (settings.data / tenant,) if settings.data is not None else ()
        real = tuple(Path(os.path.realpath(f)) for f in folders)
        return cls(tenant, real, Path(os.path.realpath(settings.warehouse)))

    def place(self, uri: str) -> Place:
        """Where ``uri`` (relative, absolute or ``file://``) points to.

        Raises Invalid for other schemes, ``..`` and control characters, Forbidden for paths outside the
        roots.
        """
        path = PurePosixPath(_path_of(uri))
        if any(part == ".." for part in path.parts) or any(ord(c) < 32 for c in str(path)):
            raise _refused(uri, "must not contain '..' or control characters")
        if not self.folders:
            raise Forbidden(f"tenant {self.tenant!r} has no data roots, so {uri!r} cannot be used")
        if path.is_absolute():
            for root in self.folders:
                for shown in {root, Path(os.path.realpath(root))}:
                    if path.is_relative_to(shown):
                        return self._checked(Place(root, path.relative_to(shown).parts), uri)
            raise Forbidden(f"{uri!r} is outside the data roots of tenant {self.tenant!r}")
        places = [Place(root, path.parts) for root in self.folders]
        there = (p for p in places if os.path.lexists(p.base) and p.base != p.root)
        return self._checked(next(there, places[0]), uri)

    def _checked(self, place: Place, uri: str) -> Place:
        self.check(place.root, place.base, uri)
        return place

    def check(self, root: Path, path: Path, uri: str) -> Path:
        """The real path, if it is inside ``root`` and outside the warehouse; raises Forbidden otherwise."""
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(root):
            raise Forbidden(f"{uri!r} leads to a place outside the data roots of tenant {self.tenant!r}")
        if real.is_relative_to(self.warehouse) or (real == root and self.warehouse == root):
            raise Forbidden(f"{uri!r} leads into the warehouse, which holds the pipelines' own tables")
        return real


def _path_of(uri: str) -> str:
    if uri.startswith("file:"):
        parts = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
        if parts.netloc not in ("", "localhost"):
            raise _refused(uri, "names another host")
        return unquote(parts.path)
    if "://" in uri:
        raise _refused(uri, "only paths and file:// URIs can be used here")
    if not uri:
        raise _refused(uri, "must not be empty")
    return uri


def _refused(uri: str, why: str) -> Invalid:
    text = f"uri {uri!r} {why}"
    return Invalid(text, [Problem("/uri", text)])
