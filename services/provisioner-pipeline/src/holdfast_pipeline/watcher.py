"""Watches the folders of sources, so that new files are taken at once and not at the next look.

Only a hint: what it misses (network folders, a restart, events that overflow) the regular look finds.
Sources are made known by whoever observes them, and forgotten when nobody did for a while (their graph is
gone).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch

from .objects import Location
from .patterns import is_pattern
from .roots import Place

FORGET_AFTER = 120.0
"""Seconds after which a source that nobody observed any more is not watched any more."""

_HIDDEN = (".", "_")
_QUEUE = 1000


@dataclass(frozen=True)
class Watched:
    """A source of one graph. ``readers`` are nodes that take its files.

    ``folder`` is the part of the path above any pattern (or above the file); ``deep``: folders in it
    count too.
    """

    tenant: str
    graph: str
    node: str
    readers: tuple[str, ...]
    folder: Path
    deep: bool

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.tenant, self.graph, self.node)


def watched_folder(place: Place) -> tuple[Path, bool]:
    """Which folder to watch for a source's place, and whether its folders too. Looks at the disk."""
    base = place.base
    patterns = sum(is_pattern(part) for part in place.parts)
    if patterns:
        below = len(place.parts) - (len(base.parts) - len(place.root.parts))
        return base, below > 1
    return (base, True) if base.is_dir() else (base.parent, False)


class Watcher:
    """Yields sources whose folders changed and then were quiet for ``settle`` seconds.

    ``ignore`` is a folder in which things change all the time that are nobody's source: the warehouse.
    """

    def __init__(self, settle: float, clock: Callable[[], float], ignore: Location) -> None:
        self._settle = settle
        self._clock = clock
        self._ignore = ignore
        self._known: dict[tuple[str, str, str], tuple[Watched, float]] = {}
        self._changed = asyncio.Event()

    def know(self, watched: Watched) -> None:
        """The source was observed just now."""
        old = self._known.get(watched.key)
        self._known[watched.key] = (watched, self._clock())
        if old is None or (old[0].folder, old[0].deep) != (watched.folder, watched.deep):
            self._changed.set()

    def forget(self, tenant: str, graph: str, node: str) -> None:
        """The source was removed."""
        if self._known.pop((tenant, graph, node), None) is not None:
            self._changed.set()

    async def changes(self) -> AsyncIterator[Watched]:
        """Runs until cancelled; starts over with other folders whenever sources come or go."""
        while True:
            self._changed.clear()
            folders = await asyncio.to_thread(self._folders)
            if not folders:
                await self._changed.wait()
                continue
            async for paths in self._watch(folders):
                for watched in self._touched(paths):
                    yield watched
                if await asyncio.to_thread(self._folders) != folders:
                    self._changed.set()  # a folder that was awaited is there now

    async def _watch(self, folders: dict[Path, bool]) -> AsyncIterator[set[Path]]:
        """Settled changes in ``folders`` (folder -> with the folders in it), until others are to be
        watched.
        """
        settled: asyncio.Queue[set[Path] | None] = asyncio.Queue(_QUEUE)

        async def listen(deep: bool) -> None:
            paths = [folder for folder, recursive in folders.items() if recursive is deep]
            if paths:
                async for batch in self._settled(paths, deep):
                    await settled.put(batch)
            else:
                await self._changed.wait()
            await settled.put(None)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(listen(deep)) for deep in (False, True)]
            ended = 0
            while ended < len(tasks):
                batch = await settled.get()
                if batch is None:
                    ended += 1
                else:
                    yield batch

    async def _settled(self, folders: list[Path], deep: bool) -> AsyncIterator[set[Path]]:
        pending: set[Path] = set()
        events = awatch(
            *folders,
            recursive=deep,
            stop_event=self._changed,
            debounce=100,
            rust_timeout=max(50, int(self._settle * 1000)),
            yield_on_timeout=True,
        )
        async for batch in events:
            fresh = self._relevant(Path(path) for _, path in batch)
            if fresh:
                pending |= fresh  # a file that is being written changes again; wait until it is quiet
            elif pending:
                yield pending
                pending = set()
            if not batch and self._drop_old():
                self._changed.set()
        if pending:
            yield pending

    def _relevant(self, paths: Iterable[Path]) -> set[Path]:
        return {p for p in paths if not p.name.startswith(_HIDDEN) and not self._ignored(p) and self._touched({p})}

    def _ignored(self, path: Path) -> bool:
        return isinstance(self._ignore, Path) and path.is_relative_to(self._ignore)

    def _touched(self, paths: set[Path]) -> list[Watched]:
        return [w for w, _ in self._known.values() if any(_concerns(p, w) for p in paths)]

    def _folders(self) -> dict[Path, bool]:
        """What to watch. A folder that is not there yet is awaited in the nearest one above it."""
        folders: dict[Path, bool] = {}
        for watched, _ in list(self._known.values()):
            there = _existing(watched.folder)
            deep = watched.deep and there == watched.folder
            folders[there] = folders.get(there, False) or deep
        return folders

    def _drop_old(self) -> bool:
        """Whether a source was forgotten because nobody observed it for long."""
        oldest = self._clock() - FORGET_AFTER
        old = [key for key, (_, seen) in self._known.items() if seen < oldest]
        for key in old:
            del self._known[key]
        return bool(old)


def _existing(folder: Path) -> Path:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _concerns(path: Path, watched: Watched) -> bool:
    folder = watched.folder
    below = path.is_relative_to(folder) if watched.deep else path.parent == folder
    return below or folder.is_relative_to(path)
