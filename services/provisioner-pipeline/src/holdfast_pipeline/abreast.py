"""Doing the same with many things, a few at a time: for what waits for an object store most of its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8
"""Threads, unless a number is given."""


def in_order(work: Callable[[T], R], things: Iterable[T], at_once: int = 0) -> Iterator[R]:
    """What ``work`` returns for each thing, in their order; it runs in at most ``at_once`` threads, and no further
    ahead of whoever takes the results. What it raises is raised in the place of the result, and nothing is begun then.
    """
    at_once = at_once or AT_ONCE
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="abreast")
    begun: deque[Future[R]] = deque()
    try:
        for thing in things:
            if len(begun) == at_once:
                yield begun.popleft().result()
            begun.append(pool.submit(work, thing))
        while begun:
            yield begun.popleft().result()
    finally:
        for one in begun:
            one.cancel()
        pool.shutdown()
