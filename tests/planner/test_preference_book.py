"""What a planner knows of preferences, without servers: readings that overlap."""

from __future__ import annotations

import asyncio

from holdfast_planner.preferences import PreferenceBook

NAME = "desiredstate.resync.quick"


class Slow:
    """A store whose answers come when they are let go; each is what was there when it was asked."""

    def __init__(self) -> None:
        self.now = {("acme", NAME): "PT1S"}
        self.answers: list[asyncio.Event] = []

    async def all(self) -> dict[tuple[str, str], str]:
        found = dict(self.now)
        self.answers.append(asyncio.Event())
        await self.answers[-1].wait()
        return found


async def test_what_was_read_first_never_replaces_what_was_read_later() -> None:
    stored = Slow()
    book = PreferenceBook(stored)  # type: ignore[arg-type]
    # Given a reading under way when the preference is unset, and another one after that
    first = asyncio.create_task(book.refresh())
    await asyncio.sleep(0)
    stored.now = {}
    second = asyncio.create_task(book.refresh())
    await asyncio.sleep(0)
    # When the answers come in the wrong order, as far as they can
    for answer in reversed(stored.answers):
        answer.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for answer in stored.answers:
        answer.set()
    while not second.done():
        await asyncio.sleep(0)
        for answer in stored.answers:
            answer.set()
    await first
    # Then the preference is gone
    assert book.of("acme") == ({}, {})
