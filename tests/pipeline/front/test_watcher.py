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

        async def nothing_before_it_was_quiet() -> bool:
            # When a file is written for a while
            before, began = len(hints.seen), time.monotonic()
            while time.monotonic() - began < 6 * SETTLE:
                (tmp_path / "b.csv").write_text(str(time.time()))
                await asyncio.sleep(SETTLE / 5)
            meanwhile = len(hints.seen) - before
            await eventually(lambda: len(hints.seen) > before + meanwhile)
            return meanwhile == 0

        # Then nothing is said meanwhile, and then it is; once more where this machine itself was quiet for so long
        await eventually(nothing_before_it_was_quiet)


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
    folder, marks = tmp_path / "all", [tmp_path / "first", tmp_path / "then"]
    for each in (folder, folder / "warehouse", *marks):
        each.mkdir()
    watcher = Watcher(SETTLE, time.monotonic, folder / "warehouse")
    for each in (folder, *marks):
        watcher.know(source(each, deep=True, node=each.name))
    async with Hints(watcher) as hints:
        await hints.after(lambda: (folder / "a.csv").write_text(str(time.time())), "all")
        # What is said of another source, by whose only changes, comes after all that was to be said before
        await hints.after(lambda: (marks[0] / "a.csv").write_text(str(time.time())), "first")
        count = hints.seen.count("all")
        (folder / "warehouse" / "x.parquet").write_text("x")
        (folder / ".hidden").write_text("x")
        (folder / "_SUCCESS").write_text("x")
        await hints.after(lambda: (marks[1] / "a.csv").write_text(str(time.time())), "then")
        assert hints.seen.count("all") == count


async def test_sources_that_nobody_observes_are_forgotten(tmp_path: Path) -> None:
    now = 1000.0
    watcher = Watcher(SETTLE, lambda: now, tmp_path / "warehouse")
    folders = [tmp_path / name for name in ("orders", "first", "then")]
    for folder in folders:
        folder.mkdir()
        watcher.know(source(folder, node=folder.name))

    def change() -> None:
        for folder in folders:
            (folder / "a.csv").write_text(str(time.time()))

    async with Hints(watcher) as hints:
        await hints.after(change)
        now += FORGET_AFTER + 1
        for folder in folders[1:]:
            watcher.know(source(folder, node=folder.name))
        await hints.after(change, "first")  # after which it is forgotten, as it was quiet
        await hints.after(change, "then")
        count = hints.seen.count("orders")
        await hints.after(change, "first")
        await hints.after(change, "then")
        assert hints.seen.count("orders") == count


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
