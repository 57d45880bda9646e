"""The W3C ``traceparent`` of what is being handled, carried from message to message by header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

TRACEPARENT = "traceparent"

_current: ContextVar[str] = ContextVar("holdfast_traceparent", default="")


def current() -> str:
    """The traceparent of the message that is being handled, or ""."""
    return _current.get()


@contextmanager
def within(traceparent: str) -> Iterator[None]:
    """Everything published or asked inside belongs to this trace."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)


def stamp(headers: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of ``headers`` that carries the current trace, unless they name one."""
    stamped = dict(headers or {})
    if (trace := _current.get()) and TRACEPARENT not in stamped:
        stamped[TRACEPARENT] = trace
    return stamped
