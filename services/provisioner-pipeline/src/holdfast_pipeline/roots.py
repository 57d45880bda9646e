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
from holdfast_model.names import check_label

from .objects import Location
from .patterns import is_pattern
from .stores import ObjectPlace, StoreRef, is_object_uri, object_place
from .tasks import EngineSettings


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
    warehouse: Location
    stores: tuple[StoreRef, ...] = ()

    @classmethod
    def of(cls, settings: EngineSettings, tenant: str) -> Roots:
        """The tenant's configured roots, real paths. A tenant without any can reach nothing."""
        folders = settings.roots.get(tenant)
        if folders is None:
            folders = (settings.data / check_label(tenant, "tenant"),) if settings.data is not None else ()
        real = tuple(Path(os.path.realpath(f)) for f in folders)
        warehouse = settings.warehouse
        if isinstance(warehouse, Path):
            warehouse = Path(os.path.realpath(warehouse))
        return cls(tenant, real, warehouse, settings.stores.get(tenant, ()))

    def place(self, uri: str) -> Place | ObjectPlace:
        """Where ``uri`` (relative, absolute, ``file://`` or ``s3://``) points to.

        Raises Invalid for other schemes, ``..`` and control characters, Forbidden for paths outside the
        roots.
        """
        if is_object_uri(uri):
            return object_place(self.stores, self.tenant, uri)
        path = PurePosixPath(_path_of(uri))
        if any(part == ".." for part in path.parts) or any(ord(c) < 32 or _lone(c) for c in str(path)):
            raise _refused(uri, "must not contain '..', control characters or halves of characters")
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
        found = os.path.realpath(path)
        real = Path(found)
        if not _inside(found, root):
            raise Forbidden(f"{uri!r} leads to a place outside the data roots of tenant {self.tenant!r}")
        # One in an object store is apart from every tenant's: the settings see to it.
        if isinstance(self.warehouse, Path) and _inside(found, self.warehouse):
            raise Forbidden(f"{uri!r} leads into the warehouse, which holds the pipelines' own tables")
        return real


def _inside(real: str, folder: Path) -> bool:
    """Whether a real path is a folder, or below it. As texts: a listing asks for each of its files."""
    return real == str(folder) or real.startswith(f"{str(folder).rstrip('/')}/")


def _path_of(uri: str) -> str:
    if uri.startswith("file:"):
        parts = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
        if parts.netloc not in ("", "localhost"):
            raise _refused(uri, "names another host")
        return unquote(parts.path)
    if "://" in uri:
        raise _refused(uri, "only paths, file:// and s3:// URIs can be used here")
    if not uri:
        raise _refused(uri, "must not be empty")
    return uri


def _lone(c: str) -> bool:
    """Half of a pair that JSON may hold and no path."""
    return "\ud800" <= c <= "\udfff"


def _refused(uri: str, why: str) -> Invalid:
    text = f"uri {uri!r} {why}"
    return Invalid(text, [Problem("/uri", text)])
