from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast_pipeline.roots import Place
from holdfast_pipeline.watcher import FORGET_AFTER, Watched, Watcher, watched_folder
from holdfast_testkit.waiting import eventually

SETTLE = 0.15


def source(folder: Path, deep: bool = False, node: str = "orders") -> Watched:
    return Watched("t", "g", node, ("raw",), folder, deep)


class Hints:
    """Collects what a watcher says while the test changes files."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.seen: list[str] = []

    async def __aenter__(self) -> Hints:
        self._task = asyncio.create_task(self._collect())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _collect(self) -> None:
        async for watched in self.watcher.changes():
            self.seen.append(watched.node)

    async def after(self, change: Callable[[], object], node: str = "orders") -> None:
        """Change something until it is noticed: nobody says when the kernel's watch is in place."""
        before = self.seen.count(node)
        async with asyncio.timeout(60):
            while self.seen.count(node) == before:
                change()
                for _ in range(20):
                    await asyncio.sleep(SETTLE / 5)
                    if self.seen.count(node) > before:
                        break


async def test_a_new_file_is_hinted_once_it_is_quiet(tmp_path: Path) -> None:
    watcher = Watcher(SETTLE, time.monotonic, tmp_path / "warehouse")
    watcher.know(source(tmp_path))
    async with Hints(watcher) as hints:
        await hints.after(lambda: (tmp_path / "a.csv").write_text(str(time.time())))
        # When a file is written for a while
        count, began, last = len(hints.seen), time.monotonic(), 0.0
        while time.monotonic() - began < 6 * SETTLE:
            (tmp_path / "b.csv").write_text(str(time.time()))
            last = time.monotonic()
            await asyncio.sleep(SETTLE / 5)
        early = len(hints.seen) - count
        await eventually(lambda: len(hints.seen) > count + early)
        # Then the hint that counts comes after its last change
        assert time.monotonic() > last


async def test_sources_that_come_later_are_watched(tmp_path: Path) -> None:
    watcher = Watcher(SETTLE, time.monotonic, tmp_path / "warehouse")
    async with Hints(watcher) as hints:
        watcher.know(source(tmp_path))
        await hints.after(lambda: (tmp_path / "a.csv").write_text(str(time.time())))


async def test_a_folder_that_is_not_there_yet_is_awaited(tmp_path: Path) -> None:
    watcher = Watcher(SETTLE, time.monotonic, tmp_path / "warehouse")
    folder = tmp_path / "in" / "orders"
    watcher.know(source(folder))

    def arrive() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in").touch()
        (folder / "a.csv").write_text(str(time.time()))

    async with Hints(watcher) as hints:
        await hints.after(arrive)
        await hints.after(lambda: (folder / "b.csv").write_text(str(time.time())))


async def test_folders_within_count_only_where_the_pattern_reaches_them(tmp_path: Path) -> None:
    (tmp_path / "2026").mkdir()
    watcher = Watcher(SETTLE, time.monotonic, tmp_path / "warehouse")
    watcher.know(source(tmp_path, deep=False, node="flat"))
    watcher.know(source(tmp_path, deep=True, node="deep"))
    async with Hints(watcher) as hints:
        await hints.after(lambda: (tmp_path / "2026" / "a.csv").write_text(str(time.time())), "deep")
        assert "flat" not in hints.seen


async def test_the_warehouse_and_hidden_files_are_nobodys_source(tmp_path: Path) -> None:
    (tmp_path / "warehouse").mkdir()
    watcher = Watcher(SETTLE, time.monotonic, tmp_path / "warehouse")
    watcher.know(source(tmp_path, deep=True, node="all"))
    async with Hints(watcher) as hints:
        await hints.after(lambda: (tmp_path / "a.csv").write_text(str(time.time())), "all")
        await asyncio.sleep(10 * SETTLE)
        count = len(hints.seen)
        (tmp_path / "warehouse" / "x.parquet").write_text("x")
        (tmp_path / ".hidden").write_text("x")
        (tmp_path / "_SUCCESS").write_text("x")
        await asyncio.sleep(4 * SETTLE)
        assert len(hints.seen) == count


async def test_sources_that_nobody_observes_are_forgotten(tmp_path: Path) -> None:
    now = 1000.0
    watcher = Watcher(SETTLE, lambda: now, tmp_path / "warehouse")
    watcher.know(source(tmp_path))
    async with Hints(watcher) as hints:
        await hints.after(lambda: (tmp_path / "a.csv").write_text(str(time.time())))
        now += FORGET_AFTER + 1
        await asyncio.sleep(4 * SETTLE)
        count = len(hints.seen)
        (tmp_path / "b.csv").write_text("x")
        await asyncio.sleep(4 * SETTLE)
        assert len(hints.seen) == count


@pytest.mark.parametrize(
    ("uri", "folder", "deep"),
    [
        ("orders/*.csv", "orders", False),
        ("orders/2026-*/*.csv", "orders", True),
        ("orders/**/*.csv", "orders", True),
        ("*.csv", "", False),
        ("countries.csv", "", False),
        ("table", "table", True),
        ("later/countries.csv", "later", False),
    ],
)
def test_the_folder_above_the_pattern_is_watched(tmp_path: Path, uri: str, folder: str, deep: bool) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "table").mkdir()
    place = Place(tmp_path, tuple(uri.split("/")))
    assert watched_folder(place) == (tmp_path / folder, deep)
