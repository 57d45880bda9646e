"""The same with many things, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from holdfast_pipeline.abreast import in_order

LIMIT = 60.0


def test_results_come_in_the_order_of_things_however_long_each_takes() -> None:
    second = threading.Event()

    def work(thing: int) -> int:
        if thing == 0:
            assert second.wait(LIMIT)  # the first waits for the one behind it
        if thing == 1:
            second.set()
        return thing * 10

    assert list(in_order(work, range(50), at_once=2)) == [n * 10 for n in range(50)]


def test_as_many_as_allowed_are_under_way_and_no_more() -> None:
    together = threading.Barrier(3)
    under_way, most, lock = 0, 0, threading.Lock()

    def work(thing: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(LIMIT)  # only three at once get through
        with lock:
            under_way -= 1
        return thing

    assert list(in_order(work, range(12), at_once=3)) == list(range(12))
    assert most == 3


def test_nothing_is_begun_that_nobody_has_room_for() -> None:
    begun: list[int] = []

    def things() -> Iterator[int]:
        for thing in range(100):
            begun.append(thing)
            yield thing

    results = in_order(lambda thing: thing, things(), at_once=4)
    for taken in range(10):
        assert next(results) == taken
        assert len(begun) <= taken + 5
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 15


def test_what_is_raised_comes_in_its_place_and_ends_it() -> None:
    done: list[int] = []
    failed = threading.Event()

    def work(thing: int) -> int:
        if thing == 2:
            failed.set()
            raise OSError(f"thing {thing}")
        done.append(thing)
        return thing

    results = in_order(work, range(1000), at_once=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="thing 2"):
        next(results)
    assert failed.is_set()
    assert max(done) <= 5
    assert [t for t in threading.enumerate() if t.name.startswith("abreast")] == []
