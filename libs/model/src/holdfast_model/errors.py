"""The one tree of errors.

::

    HoldfastError
    ├── Temporary          try again later (``retry_after`` seconds, or the receiver's backoff)
    │   ├── Unavailable    a peer, store or bus does not answer; stop fetching until it does
    │   └── Conflict       lost every round of a compare-and-set; nothing was written
    ├── Permanent          trying again changes nothing
    │   ├── Invalid        bad input, with the place of each problem
    │   │   ├── Dangling   an edge names a node that is not there
    │   │   ├── Cycle      an edge would close a cycle (``path`` names it)
    │   │   ├── Disagreement   two declarations of one node differ and may not
    │   │   └── Claimed    a node type belongs to another domain
    │   ├── NotFound
    │   ├── Forbidden      the actor may not do this
    │   ├── IllegalState   the target's state does not allow this (a person re-reads and decides again)
    │   └── Stale          the caller's version is not the current one
    └── Fenced             another owner took over; stop writing to this graph
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong. ``path`` is a JSON pointer (RFC 6901) or ``line L, column C`` of the source text."""

    path: str
    message: str


class HoldfastError(Exception):
    """Root of all errors that Holdfast raises on purpose. ``code`` travels over RPC, ``hint`` says what to do.

    ``reason`` is a provisioner's own code for what went wrong (``quota_exceeded``); people's choices depend on it.
    """

    code = "internal"
    current: object | None = None
    """The newest state of what the caller decided on, where that helps; it travels along."""

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason


class Temporary(HoldfastError):
    """Failed, but may work later. ``retry_after`` is in seconds; None leaves the pause to the receiver."""

    code = "temporary"

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.retry_after = retry_after


class Unavailable(Temporary):
    """A peer, the store or the bus does not answer."""

    code = "unavailable"


class Conflict(Temporary):
    """A compare-and-set lost every round it was allowed. Nothing was written."""

    code = "conflict"


class Permanent(HoldfastError):
    """Failed, and the same request will fail again."""

    code = "permanent"


class Invalid(Permanent):
    """Bad input. ``problems`` names the place of each thing that is wrong."""

    code = "invalid"

    def __init__(self, message: str, problems: Sequence[Problem] = (), *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class Dangling(Invalid):
    """An edge names a node that is ``missing``: it is not in the graph."""

    def __init__(self, source: str, target: str, *, missing: str = "", path: str = "") -> None:
        text = f"{source!r} depends on {target!r}, but {(missing or target)!r} is not in the graph"
        super().__init__(text, [Problem(path, text)])
        self.edge = (source, target)


SHOWN_NODES = 20
"""Nodes of a cycle that its message names; the way back to the first one is always among them."""


class Cycle(Invalid):
    """Dependencies form a cycle. ``path`` lists its nodes in order, the first one repeated at the end."""

    def __init__(self, path: Sequence[str], *, pointer: str = "") -> None:
        shown = (
            path if len(path) <= SHOWN_NODES else [*path[:-4][: SHOWN_NODES - 4], f"({len(path)} in all)", *path[-3:]]
        )
        text = "dependencies form a cycle: " + " -> ".join(shown)
        super().__init__(text, [Problem(pointer, text)])
        self.path = tuple(path)


class Disagreement(Invalid):
    """Two declarations of one node differ where they must be equal. ``nodes`` lists the ids."""

    def __init__(self, nodes: Sequence[str], message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, problems)
        self.nodes = tuple(nodes)


class Claimed(Invalid):
    """Two domains claim one node type. ``owner`` claimed it first."""

    def __init__(self, node_type: str, owner: str, other: str, *, path: str = "") -> None:
        text = f"type {node_type!r} belongs to domain {owner!r}; {other!r} may not claim it"
        super().__init__(text, [Problem(path, text)], hint="rename the type, or forget the domain that is gone")
        self.type, self.owner, self.other = node_type, owner, other


class NotFound(Permanent):
    """What the caller names does not exist (for this tenant)."""

    code = "not_found"


class Forbidden(Permanent):
    """The actor may not do this."""

    code = "forbidden"


class IllegalState(Permanent):
    """The state of the target does not allow this command."""

    code = "illegal_state"


class Stale(Permanent):
    """The caller decided on an older version of the target."""

    code = "stale"


class Fenced(HoldfastError):
    """A newer owner raised the epoch; this one must stop writing to the graph."""

    code = "fenced"


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels in an RPC reply: ``{"error": {...}}``. ``current`` holds the newest state, if useful."""

    code: str
    message: str
    hint: str = ""
    paths: tuple[Problem, ...] = ()
    retry_after: float | None = None
    current: object | None = None


_BY_CODE: dict[str, type[HoldfastError]] = {
    c.code: c for c in (Temporary, Unavailable, Conflict, Permanent, NotFound, Forbidden, IllegalState, Stale, Fenced)
}


def to_body(error: BaseException) -> ErrorBody:
    """What a caller is told about an error. Foreign exceptions become ``internal`` with their type and text."""
    if isinstance(error, Invalid):
        return ErrorBody(error.code, error.message, error.hint, error.problems)
    if isinstance(error, Temporary):
        return ErrorBody(error.code, error.message, error.hint, retry_after=error.retry_after)
    if isinstance(error, HoldfastError):
        return ErrorBody(error.code, error.message, error.hint, current=error.current)
    return ErrorBody("internal", f"{type(error).__name__}: {error}")


def from_body(body: ErrorBody) -> HoldfastError:
    """The error a reply stands for; the inverse of :func:`to_body` for our own errors."""
    if body.code == Invalid.code:
        return Invalid(body.message, body.paths, hint=body.hint)
    kind = _BY_CODE.get(body.code, HoldfastError)
    if kind is Conflict and body.current is not None:
        kind = IllegalState  # work-items says "conflict" for both; only a wrong state comes with the state
    error = kind(body.message, hint=body.hint)
    error.current = body.current
    if isinstance(error, Temporary):
        error.retry_after = body.retry_after
    return error
