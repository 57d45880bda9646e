"""The files of a source: which are there, whether they have settled, and what identifies their content."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import IO

from holdfast_model.errors import Forbidden, Invalid, NotFound, Problem, Temporary, Unavailable

from .abreast import in_order
from .foreign import linked, outside
from .object_files import Copy, source_objects
from .objects import Location, ObjectPath
from .patterns import ignored, is_pattern
from .reasons import PipelineReason
from .roots import Place, Roots
from .specs import Source
from .stores import ObjectPlace
from .tables import Table

_CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file. ``name``: its path below the root, with ``/`` (of an object: its URI); ``tag`` changes when the file
    does (cheap).

    ``unsettled``: seconds for which it must still stay as it is before it is taken.
    """

    name: str
    origin: Location
    size: int
    tag: str
    unsettled: float = 0.0
    copies: dict[str, IO[bytes]] = field(default_factory=dict, compare=False, repr=False)
    """Decoded copies on disk, which go when the file is not needed any more."""
    _fetched: list[Copy] = field(default_factory=list, compare=False, repr=False)

    @property
    def path(self) -> Path:
        """Where its bytes are on this machine. An object is fetched when it is asked for first; Temporary if it is not
        what was listed any more."""
        if isinstance(self.origin, Path):
            return self.origin
        if not self._fetched:
            self._fetched.append(Copy(self.origin, self.tag, self.name))
        return self._fetched[0].path

    @property
    def settled(self) -> bool:
        return self.unsettled <= 0


@dataclass(frozen=True)
class Listing:
    """All files of a source, by name."""

    files: dict[str, SourceFile] = field(default_factory=dict)

    @property
    def settled(self) -> list[SourceFile]:
        return [f for _, f in sorted(self.files.items()) if f.settled]

    @property
    def unsettled(self) -> float:
        """Seconds until every file has settled, if none changes any more."""
        return max((f.unsettled for f in self.files.values()), default=0.0)


def list_source(roots: Roots, source: Source, *, now: float, settle: float) -> Listing:
    """The files that ``source`` stands for.

    A single file or Delta table that is not there, or a pattern below a folder that is not, raises NotFound;
    what cannot be listed raises Unavailable; a link out of the roots raises Forbidden.
    """
    place = roots.place(source.uri)
    try:
        if source.format == "delta":
            return _delta(roots, place, source)
        if isinstance(place, ObjectPlace):
            return _objects(place, source)
        if not place.base.exists():
            raise NotFound(f"{source.uri!r} does not exist", reason=PipelineReason.SOURCE_MISSING)
        found = [_stat(roots, place, source, p, now, settle) for p in _walk(place, roots.warehouse)]
    except OSError as e:
        raise Unavailable(f"{source.uri!r} cannot be listed: {e.strerror or e}") from e
    return Listing({f.name: f for f in found if f is not None})


def fetched(files: Iterable[SourceFile], source: Source) -> Iterator[SourceFile]:
    """The files in their order, each with its content on this machine. Those of an object store are fetched a few at a
    time, ahead of whoever takes them; Temporary in the place of one that is not what was listed any more.
    """
    known = list(files)
    if source.format == "delta" or not any(isinstance(f.origin, ObjectPath) for f in known):
        yield from known
        return
    yield from in_order(_with_content, known)


def _with_content(file: SourceFile) -> SourceFile:
    _ = file.path
    return file


def content_sha(file: SourceFile, source: Source) -> str:
    """The sha256 of the content (of a Delta table: of its id and version). Temporary if the file moves
    meanwhile."""
    if source.format == "delta":
        return sha256(file.tag.encode()).hexdigest()
    digest = sha256()
    try:
        with open(file.path, "rb", buffering=0) as f:
            while chunk := f.read(_CHUNK):
                digest.update(chunk)
    except OSError as e:
        raise Temporary(f"{file.name!r} cannot be read: {e.strerror or e}") from e
    assert_unchanged(file, source)
    return digest.hexdigest()


def assert_unchanged(file: SourceFile, source: Source) -> None:
    """Raise Temporary unless the file still is what was listed."""
    if source.format == "delta":
        _assert_own(file.origin, Table.open(file.origin, version=int(file.tag.rpartition("-")[2])), source.uri)
        return
    if isinstance(file.origin, ObjectPath):
        return  # it was fetched by its etag
    try:
        tag = _tag(os.stat(file.origin, follow_symlinks=False))
        real = os.path.realpath(file.origin)
    except OSError as e:
        raise Temporary(f"{file.name!r} went away while it was read") from e
    if tag != file.tag or real != str(file.origin):  # a link on the way there may lead anywhere
        raise Temporary(f"{file.name!r} changed while it was read")


def _tag(stat: os.stat_result) -> str:
    # Size and time of modification can be kept by whoever replaces a file; inode and time of change cannot.
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}-{stat.st_ctime_ns}"


def _name(root: Path, path: Path) -> str:
    # Names that are no UTF-8 are shown escaped: Delta stores text only.
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _walk(place: Place, warehouse: Location) -> Iterator[Path]:
    base = place.base
    rest = place.parts[len(base.relative_to(place.root).parts) :]
    if not rest:
        if base.is_dir():
            yield from (Path(e) for e in _entries(base) if e.is_file() and not ignored(e.name))
        else:
            yield base
        return
    seen: set[Path] = set()
    for path in _match(base, rest, warehouse):
        if path not in seen:
            seen.add(path)
            yield path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda e: e.name)


def _match(folder: Path, parts: tuple[str, ...], warehouse: Location) -> Iterator[Path]:
    if folder == warehouse:
        return  # the pipelines' own tables may lie below a tenant's root; they are nobody's source
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _match(folder, rest or ("*",), warehouse)
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False) and not ignored(entry.name):
                yield from _match(Path(entry), parts, warehouse)
        return
    for entry in _entries(folder):
        fits = fnmatchcase(entry.name, head) if is_pattern(head) else entry.name == head
        if not fits or ignored(entry.name):
            continue
        if rest and entry.is_dir():
            yield from _match(Path(entry), rest, warehouse)
        elif not rest and (entry.is_file() or entry.is_symlink()):
            yield Path(entry)


def _stat(roots: Roots, place: Place, source: Source, path: Path, now: float, settle: float) -> SourceFile | None:
    real = roots.check(place.root, path, source.uri)
    try:
        stat = os.stat(real)
    except FileNotFoundError:
        return None
    if not S_ISREG(stat.st_mode):
        if path == place.path:
            raise Unavailable(f"{source.uri!r} is neither a file nor a folder")
        return None  # a link to a folder, a pipe
    # A time in the future (a skewed clock) would never settle; the change time is this machine's own.
    changed = stat.st_mtime if stat.st_mtime <= now else min(stat.st_ctime, now)
    unsettled = max(0.0, settle - (now - changed))
    return SourceFile(_name(place.root, path), real, stat.st_size, _tag(stat), unsettled)


def _objects(place: ObjectPlace, source: Source) -> Listing:
    found = source_objects(place)
    if found is None:
        raise NotFound(f"{source.uri!r} does not exist", reason=PipelineReason.SOURCE_MISSING)
    files = (ObjectPath(place.store, tuple(e.key.split("/"))) for e in found)
    return Listing({str(f): SourceFile(str(f), f, e.size, e.etag) for f, e in zip(files, found, strict=True)})


def _delta(roots: Roots, place: Place | ObjectPlace, source: Source) -> Listing:
    if any(map(is_pattern, place.parts)) if isinstance(place, ObjectPlace) else place.base != place.path:
        text = f"uri {source.uri!r} of a Delta table must not be a pattern"
        raise Invalid(text, [Problem("/uri", text)])
    folder: Location
    if isinstance(place, ObjectPlace):
        folder = ObjectPath(place.store, place.parts)
        name = str(folder)
    else:
        folder = roots.check(place.root, place.path, source.uri)
        name = _name(place.root, place.path)
    _assert_own(folder, None, source.uri)  # before it is opened: a log may be a link to another tenant's
    table = Table.open(folder)
    if table is None:
        raise NotFound(f"{source.uri!r} is not a Delta table", reason=PipelineReason.SOURCE_MISSING)
    _assert_own(folder, table, source.uri)
    for path in outside(folder, table):
        if isinstance(place, Place):
            roots.check(place.root, path, source.uri)
    return Listing({name: SourceFile(name, folder, 0, f"{table.metadata_id}-{table.version}")})


def _assert_own(folder: Location, table: Table | None, uri: str) -> None:
    found = linked(folder, table)
    if found is not None:
        raise Forbidden(f"{uri!r}: {found.name} of this Delta table is a link; its log and files must not be")
