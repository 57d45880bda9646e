"""Work queues with explicit credit: the reader says how many messages it has room for."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class WorkMessage(Protocol):
    """One message of a work queue. Exactly one of ack, nak or term ends it; in_progress restarts its ack_wait."""

    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def stream_seq(self) -> int: ...
    @property
    def deliveries(self) -> int: ...
    async def ack(self) -> None: ...
    async def nak(self, delay: float = 0.0) -> None: ...
    async def in_progress(self) -> None: ...
    async def term(self, reason: str = "") -> None: ...
    async def dead_letter(self, reason: str) -> None:
        """Copy the message to the DLQ, then end it."""


class WorkQueue(Protocol):
    """Pulls from one durable. Use as an async context manager, or call :meth:`close`."""

    async def fetch(self, n: int, wait: float) -> list[WorkMessage]:
        """Up to ``n`` messages: at once if there are any, else the first that comes within ``wait`` seconds.

        Returns [] after ``wait``. Raises Unavailable (never sooner than a second after the last time) when the
        consumer does not exist or the server does not answer.
        """

    async def close(self) -> None:
        """Stop pulling and give back (nak) what was delivered but not fetched."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None: ...
