"""Crashes and lost replies between any two effects on the store.

Whatever is interrupted is written whole or not at all: the item, its lookups, indexes, schedule, history and events
always tell the same story, and the same request again ends in the same state as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from holdfast_model.errors import Temporary, Unavailable
from holdfast_model.events import Event
from holdfast_model.work_items import Verb, WorkItem, WorkItemStatus
from holdfast_model.work_items_breach import next_deadline
from holdfast_model.work_items_create import Defaults
from holdfast_store.kv import Ambiguous, Cmd
from holdfast_store.memory_kv import MemoryKv, MemoryServer, Stage
from holdfast_store.work_items import WorkItemStore
from holdfast_work_items.relay import Relay

from .building import NOW, after
from .storing import act, make, tick

DAY = Defaults(expiry=86_400, claim=3600)
REF = "desiredstate:acme:n1:provision"


class Crash(BaseException):
    """The process ends here."""


class Interruption:
    """Raises ``error`` at the n-th effect, and only there."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at = at
        self.error = error
        self.count = 0

    async def __call__(self, stage: Stage, cmds: Sequence[Cmd]) -> None:
        self.count += 1
        if self.count == self.at:
            if isinstance(self.error, Ambiguous) and stage not in ("commit", "committed"):
                raise Unavailable("gone")
            if isinstance(self.error, Unavailable) and stage == "committed":
                raise Ambiguous("the reply was lost")
            raise self.error


Operation = Callable[[WorkItemStore, WorkItem], Awaitable[object]]


async def _replace(store: WorkItemStore, item: WorkItem) -> object:
    return await make(store, defaults=DAY, caller_ref=REF, request="second", replace=True)


async def _complete(store: WorkItemStore, item: WorkItem) -> object:
    return await act(store, Verb.COMPLETE, item, "ann", outcome="ok")


async def _expire(store: WorkItemStore, item: WorkItem) -> object:
    return await tick(store, item, after(hours=2))


async def _note(store: WorkItemStore, item: WorkItem) -> object:
    return await act(store, Verb.NOTE, item, "ann", note="once")


OPERATIONS: dict[str, Operation] = {
    "replace": _replace,
    "complete": _complete,
    "expire": _expire,
    "note": _note,
}


def stories(server: MemoryServer) -> dict[str, list[Any]]:
    """Every item's history and events; asserts that all keys agree with the items."""
    dump = server.dump()
    prefix = "hf:wi:{acme}:"
    rows: dict[str, dict[bytes, bytes]] = {
        key.removeprefix(prefix): value
        for key, value in dump.items()
        if key.startswith(prefix) and isinstance(value, dict) and b"item" in value
    }
    items = {id: msgspec.json.decode(row[b"item"], type=WorkItem) for id, row in rows.items()}

    def members(name: str) -> set[str]:
        return {m.decode() for m in dump.get(prefix + name, {})}

    def pointer(name: str) -> str:
        return bytes(dump.get(prefix + name, b"")).decode()

    assert members("all") == set(items)
    for status in WorkItemStatus:
        assert members(f"status:{status}") == {i.id for i in items.values() if i.status is status}
    assert members("open") == {i.id for i in items.values() if i.status.active}
    assert members("due") == {i.id for i in items.values() if next_deadline(i) is not None}
    active = [i.id for i in items.values() if i.status.active and i.caller_ref == REF]
    assert len(active) <= 1
    assert pointer(f"active:{REF}") == "".join(active)
    for item in items.values():
        assert pointer(f"request:{item.request}") == item.id

    events = [msgspec.json.decode(f[b"e"], type=Event) for _, f in dump.get(prefix + "out", [])]
    assert len({e.id for e in events}) == len(events)
    told: dict[str, list[Any]] = {}
    for item in sorted(items.values(), key=lambda i: i.request):
        history = [msgspec.json.decode(f[b"e"])["event"] for _, f in dump.get(f"{prefix}audit:{item.id}", [])]
        mine = [e.name for e in events if e.node == item.id]
        assert [line.lower() for line in history if line != "NOTE"] == mine
        told[item.request] = [item.status, item.version, history]
    return told


async def _state_after(operation: Operation, interruption: Interruption | None) -> dict[str, list[Any]]:
    """Where things stand after the operation, run again by somebody else if it was interrupted."""
    server = MemoryServer(NOW.timestamp)
    store = WorkItemStore(MemoryKv(server))
    item = (await make(store, defaults=DAY, caller_ref=REF, request="first")).item
    if interruption is not None:
        with contextlib.suppress(Temporary, Crash):
            await operation(WorkItemStore(MemoryKv(server, interruption)), item)
        stories(server)
    await operation(store, item)
    return stories(server)


@pytest.mark.parametrize("name", ["replace", "expire"])
@pytest.mark.parametrize("error", [Crash(), Ambiguous("lost"), Unavailable("down")], ids=["crash", "lost", "down"])
async def test_an_interrupted_request_is_whole_or_absent_and_a_repeat_completes_it(
    name: str, error: BaseException
) -> None:
    expected = await _state_after(OPERATIONS[name], None)

    for at in itertools.count(1):
        interruption = Interruption(at, error)
        state = await _state_after(OPERATIONS[name], interruption)
        if interruption.count < at:
            break
        assert state == expected
    assert at > 3


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@pytest.mark.parametrize("stage", ["commit", "committed"])
async def test_a_lost_reply_is_neither_lost_nor_done_twice(name: str, stage: Stage) -> None:
    expected = await _state_after(OPERATIONS[name], None)
    server = MemoryServer(NOW.timestamp)
    item = (await make(WorkItemStore(MemoryKv(server)), defaults=DAY, caller_ref=REF, request="first")).item
    broken: list[Stage] = []

    async def lose(at: Stage, cmds: Sequence[Cmd]) -> None:
        if at == stage and not broken:
            broken.append(at)
            raise Ambiguous("the reply was lost")

    await OPERATIONS[name](WorkItemStore(MemoryKv(server, lose)), item)

    assert broken
    assert stories(server) == expected


@pytest.mark.parametrize("at", [1, 2])
async def test_a_relay_that_dies_repeats_events_under_their_ids_and_loses_none(at: int) -> None:
    server = MemoryServer(NOW.timestamp)
    store = WorkItemStore(MemoryKv(server))
    item = (await make(store)).item
    await act(store, Verb.COMPLETE, item, "ann")
    stream: list[Event] = []

    async def publish(events: Sequence[Event]) -> None:
        stream.extend(events)

    # It dies before publishing (1), or after publishing and before the outbox is told (2).
    with pytest.raises(Crash):
        await Relay(WorkItemStore(MemoryKv(server, Interruption(at, Crash()))), publish, "one").drain("acme")
    assert len(stream) == (4 if at == 2 else 0)
    await Relay(store, publish, "two").drain("acme")

    distinct = list(dict.fromkeys(e.id for e in stream))
    assert [id.rpartition("-")[2] for id in distinct] == ["created", "assigned", "started", "completed"]
    assert await store.outbox("acme") == []
