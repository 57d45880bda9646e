"""Runs seeds one after the other, and says how a broken one is replayed."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from .world import Broken, World


def collect() -> None:
    """Clear away a world that is over, here and not at some other place of this process, where its coroutines that
    were never to run would complain.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()


@contextmanager
def worlds_only() -> Iterator[None]:
    """Collect what comes to be in this block, and leave out what was there before: hours of other tests leave millions
    of objects, and looking through them takes longer than a world lasts.
    """
    gc.freeze()
    try:
        yield
    finally:
        collect()
        gc.unfreeze()


def first_broken(seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed for which an invariant does not hold, and what is to be said about it."""
    with worlds_only():
        gc.disable()  # a world is one large cycle, and small enough to be left alone until it is over
        try:
            for seed in seeds:
                told = _broken(seed)
                if told:
                    return seed, f"{told}\nseed {seed}; to replay it: make simulate SEEDS=1 START={seed}"
                gc.collect(1)
        finally:
            gc.enable()
    return None


def _broken(seed: int) -> str:
    """Nothing refers to the world any more when this returns: it can be collected."""
    world = World(seed)
    try:
        world.run()
    except Exception as error:  # noqa: BLE001  whatever it was, it is told with what led to it
        return str(error) if isinstance(error, Broken) else world.told(f"{type(error).__name__}: {error}")
    return ""
