"""What becomes of a message: the decision alone."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_bus.delivery import LONGEST_PAUSE, Fate, growing, judge
from holdfast_model.errors import (
    Conflict,
    Fenced,
    Forbidden,
    IllegalState,
    Invalid,
    NotFound,
    Permanent,
    Stale,
    Temporary,
    Unavailable,
)


def test_returning_acks() -> None:
    assert judge(None, 7, 0.5).fate is Fate.ACK


@pytest.mark.parametrize("kind", [Permanent, Invalid, NotFound, Forbidden, IllegalState, Stale])
def test_permanent_errors_are_dead_letters_at_once(kind: type[Permanent]) -> None:
    assert judge(kind("x"), 1, 0.5).fate is Fate.DEAD_LETTER


def test_a_body_that_nobody_can_read_to_its_depth_is_a_dead_letter_at_once() -> None:
    assert judge(RecursionError("x"), 1, 0.5).fate is Fate.DEAD_LETTER


def test_a_named_pause_is_kept_exactly() -> None:
    assert judge(Temporary("x", retry_after=7.0), 9, 0.9).delay == 7.0
    assert judge(Temporary("x", retry_after=-1.0), 9, 0.9).delay == 0.0


@pytest.mark.parametrize("error", [Temporary("x"), Conflict("x"), Fenced("x"), ValueError("x"), MemoryError()])
def test_everything_else_comes_again_after_a_growing_pause(error: Exception) -> None:
    verdicts = [judge(error, n, 0.5) for n in (1, 2, 3, 50, 5_000)]
    assert {verdict.fate for verdict in verdicts} == {Fate.NAK}
    delays = [verdict.delay for verdict in verdicts]
    assert delays == sorted(delays)
    assert delays[0] < 0.6
    assert delays[-1] <= LONGEST_PAUSE


def test_pauses_are_spread_and_never_zero() -> None:
    assert 0 < growing(1, 0.0) < growing(1, 1.0)
    assert growing(1000, 1.0) == LONGEST_PAUSE


def test_only_an_outage_stops_fetching() -> None:
    assert judge(Unavailable("x"), 1, 0.5).outage
    assert not judge(Temporary("x"), 1, 0.5).outage
    assert not judge(RuntimeError("x"), 1, 0.5).outage


def test_a_bug_is_told_with_its_traceback_and_our_errors_without() -> None:
    assert not judge(KeyError("x"), 1, 0.5).expected
    assert judge(Fenced("x"), 1, 0.5).expected


def test_a_cancelled_handler_gives_its_message_back_at_once() -> None:
    verdict = judge(asyncio.CancelledError(), 40, 0.5)
    assert (verdict.fate, verdict.delay) == (Fate.NAK, 0.0)
