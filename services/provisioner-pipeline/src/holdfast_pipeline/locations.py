"""What is done alike to folders of a disk and of an object store, where their ways to do it differ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

from .objects import Location, ObjectPath


def names_in(folder: Location, most: int | None = None) -> list[str]:
    """The names of what is directly in it; none when it is not there. ``most``: how many are wanted at most."""
    if isinstance(folder, ObjectPath):
        return sorted(islice(folder.children(), most))
    try:
        return sorted(os.listdir(folder))[:most]
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_in(folder: Location) -> Iterator[tuple[Location, float]]:
    """The files that are directly in it and when they were written, in seconds since the epoch by the storage's own
    time."""
    if isinstance(folder, ObjectPath):
        for entry in folder.list():
            parts = tuple(entry.key.split("/"))
            if len(parts) == len(folder.parts) + 1:
                yield ObjectPath(folder.store, parts), entry.written
        return
    with os.scandir(folder) as entries:
        for found in entries:
            yield Path(found), found.stat(follow_symlinks=False).st_mtime


def written_at(path: Location) -> float:
    """When a file was written, as :func:`files_in` says it."""
    if isinstance(path, ObjectPath):
        found: datetime = path.head()["LastModified"]
        return found.timestamp()
    return path.stat().st_mtime


def size_of(path: Location) -> int:
    """Bytes of a file."""
    return int(path.head()["ContentLength"]) if isinstance(path, ObjectPath) else path.stat().st_size


def write_whole(path: Location, content: bytes) -> None:
    """Replace a file's content; whoever reads it sees the old or the new."""
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    written = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    written.write_bytes(content)
    os.replace(written, path)


def create(path: Location, content: bytes) -> None:
    """Make a file, and the folder that it is in. FileExistsError when it is there already."""
    if isinstance(path, ObjectPath):
        path.write_bytes(content, new=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as f:
        f.write(content)


def remove_tree(folder: Location, *, last: str) -> None:
    """Remove a folder and all that is in it; safe to run again after a crash. On a disk it is gone at once, in an
    object store the file called ``last`` goes in the end."""
    if isinstance(folder, ObjectPath):
        folder.remove_all(last=last)
        return
    grave = folder.with_name(f".removed-{folder.name}")
    if grave.exists():
        shutil.rmtree(grave)
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        os.rename(folder, grave)
        shutil.rmtree(grave)


def assert_listable(folder: Location) -> None:
    """Raise OSError when it cannot be said whether there is something."""
    if isinstance(folder, ObjectPath):
        folder.is_dir()
    elif os.path.lexists(folder):
        os.listdir(folder)
