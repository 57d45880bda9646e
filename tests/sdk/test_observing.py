from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from holdfast_model.messages import ObserveItem, ObserveRequest, Status
from holdfast_sdk import Context, Domain, Node, Present, State, observing
from holdfast_sdk.observing import Observer


def request(*ids: str) -> ObserveRequest:
    nodes = [ObserveItem(i, msgspec.Raw(b"{}"), "d") for i in ids]
    return ObserveRequest("t", "g", "i", "thing", nodes)


def observer(handler: object, **options: Any) -> Observer:
    domain = Domain("d")
    domain.node_type("thing", **options)(type(handler))
    return Observer(domain.bind([handler])["thing"], lambda: 0.0)


class Slow:
    def __init__(self) -> None:
        self.most = self.running = 0

    async def observe(self, node: Node[dict[str, Any]], ctx: Context) -> State[dict[str, Any]]:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.03)
        self.running -= 1
        return Present()


class Stuck:
    async def observe(self, node: Node[dict[str, Any]], ctx: Context) -> State[dict[str, Any]]:
        if node.id != "a":
            await asyncio.sleep(3600)
        return Present()


class Batched:
    def __init__(self, answers: Mapping[str, Any] | Exception) -> None:
        self.answers = answers
        self.calls: list[list[str]] = []

    async def observe_many(
        self, nodes: Sequence[Node[dict[str, Any]]], ctx: Context
    ) -> Mapping[str, State[dict[str, Any]]]:
        self.calls.append([node.id for node in nodes])
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


async def test_requests_share_the_concurrency_of_their_type() -> None:
    handler = Slow()
    both = observer(handler, concurrency=3)
    replies = await asyncio.gather(both.observe(request(*"abcdef")), both.observe(request(*"ghijkl")))
    assert handler.most == 3
    assert all(o.status is Status.PRESENT for r in replies for o in r.observations.values())


async def test_a_request_is_answered_in_time_even_if_not_every_node_was_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given one lane, and a planner that waits for a tenth of a second
    monkeypatch.setattr(observing, "ANSWER_WITHIN", 0.1)
    reply = await observer(Stuck(), concurrency=1, timeout=0.1).observe(request(*"abcdefgh"))
    # Then what was seen in time is told, and the rest is unknown
    statuses = [reply.observations[i].status for i in "abcdefgh"]
    assert statuses[0] is Status.PRESENT
    assert statuses[-1] is Status.UNKNOWN
    assert len(reply.observations) == 8


async def test_many_are_observed_in_one_call() -> None:
    handler = Batched({"a": Present(token="1"), "b": "nonsense"})
    seen = (await observer(handler).observe(request("a", "b", "c"))).observations
    assert handler.calls == [["a", "b", "c"]]
    assert (seen["a"].status, seen["a"].token) == (Status.PRESENT, "1")
    assert (seen["b"].status, seen["b"].reason) == (Status.UNKNOWN, "observe_failed")
    assert (seen["c"].status, seen["c"].reason) == (Status.UNKNOWN, "not_observed")


async def test_a_call_for_many_that_fails_makes_all_of_them_unknown() -> None:
    seen = (await observer(Batched(OSError("gone"))).observe(request("a", "b"))).observations
    assert [(o.status, o.detail) for o in seen.values()] == [(Status.UNKNOWN, "OSError: gone")] * 2
