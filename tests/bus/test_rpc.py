"""Requests, replies and how errors travel."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from nats.aio.client import Client

from holdfast_bus import Bus
from holdfast_bus.answering import answer
from holdfast_bus.objects import MAX_SIZE
from holdfast_bus.streams import OBJECTS
from holdfast_bus.subjects import OBJECT_CHUNKS
from holdfast_model.errors import (
    Conflict,
    Fenced,
    Forbidden,
    HoldfastError,
    IllegalState,
    Invalid,
    NotFound,
    Permanent,
    Problem,
    Stale,
    Temporary,
    Unavailable,
)

from .conftest import MakeBus


class Get(msgspec.Struct):
    tenant: str
    size: int = 0


ERRORS: list[HoldfastError] = [
    Invalid("bad", [Problem("/a/0", "must be b")], hint="see the manual"),
    NotFound("no such graph"),
    Forbidden("not yours"),
    IllegalState("already done"),
    Stale("too old"),
    Conflict("busy", retry_after=0.5),
    Unavailable("store down", retry_after=2.0),
    Temporary("later"),
    Permanent("never"),
    Fenced("somebody else owns it"),
]


@pytest.fixture
async def server(make_bus: MakeBus) -> Bus:
    made = make_bus("planner")
    most = inside = 0

    @made.rpc("rpc.planner.get", queue="planner")
    async def get(body: bytes) -> object:
        """Reads a graph."""
        request = msgspec.json.decode(body, type=Get)
        if request.tenant == "huge":
            return b"x" * request.size
        return {"tenant": request.tenant}

    @made.rpc("rpc.planner.fail", queue="planner")
    async def fail(body: bytes) -> object:
        raise ERRORS[int(body)]

    @made.rpc("rpc.planner.bug", queue="planner")
    async def bug(body: bytes) -> object:
        return 1 / 0

    together = asyncio.Barrier(8)

    @made.rpc("rpc.planner.together", queue="planner", concurrency=8)
    async def side_by_side(body: bytes) -> bytes:
        nonlocal most, inside
        inside += 1
        most = max(most, inside)
        await together.wait()
        inside -= 1
        return b"%d" % most

    @made.rpc("rpc.planner.never", queue="planner")
    async def never(body: bytes) -> bytes:
        await asyncio.sleep(3600)
        return body

    await made.start()
    return made


async def test_a_request_is_answered(server: Bus, bus: Bus) -> None:
    assert json.loads(await bus.request("rpc.planner.get", {"tenant": "acme"}, timeout=60)) == {"tenant": "acme"}


async def test_any_nats_client_can_ask(server: Bus, raw: Client) -> None:
    reply = await raw.request("rpc.planner.get", b'{"tenant": "acme"}', timeout=60)
    assert json.loads(reply.data) == {"tenant": "acme"}
    reply = await raw.request("rpc.planner.fail", b"0", timeout=60)
    assert json.loads(reply.data) == {
        "error": {
            "code": "invalid",
            "message": "bad",
            "hint": "see the manual",
            "paths": [{"path": "/a/0", "message": "must be b"}],
        }
    }


@pytest.mark.parametrize("number", range(len(ERRORS)), ids=lambda n: type(ERRORS[n]).__name__)
async def test_an_error_arrives_as_what_it_was(server: Bus, bus: Bus, number: int) -> None:
    sent = ERRORS[number]
    with pytest.raises(type(sent)) as caught:
        await bus.request("rpc.planner.fail", b"%d" % number, timeout=60)
    assert type(caught.value) is type(sent)
    assert caught.value.message == sent.message
    assert caught.value.hint == sent.hint
    if isinstance(sent, Invalid) and isinstance(caught.value, Invalid):
        assert caught.value.problems == sent.problems
    if isinstance(sent, Temporary) and isinstance(caught.value, Temporary):
        assert caught.value.retry_after == sent.retry_after


async def test_a_bug_is_answered_and_not_a_timeout(server: Bus, bus: Bus) -> None:
    with pytest.raises(HoldfastError, match="ZeroDivisionError"):
        await bus.request("rpc.planner.bug", b"", timeout=60)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"nonsense", ""),
        (b"{}", "/tenant"),
        (b'{"tenant": "a", "size": "b"}', "/size"),
        (b'{"tenant": "a", "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", ""),
    ],
    ids=["no JSON", "empty", "another type", "too deep"],
)
async def test_a_body_that_cannot_be_read_is_invalid(server: Bus, bus: Bus, body: bytes, place: str) -> None:
    with pytest.raises(Invalid) as caught:
        await bus.request("rpc.planner.get", body, timeout=60)
    assert caught.value.problems[0].path == place


async def test_a_reply_larger_than_a_message_goes_aside_for_who_can_fetch_it(
    server: Bus, bus: Bus, raw: Client
) -> None:
    for size in (7_000_000, 9_000_000):
        reply = await bus.request("rpc.planner.get", {"tenant": "huge", "size": size}, timeout=60)
        assert len(reply) == size
    # Anybody else is told, and so is who asks for more than may be kept
    told = json.loads((await raw.request("rpc.planner.get", b'{"tenant": "huge", "size": 9000000}', timeout=60)).data)
    assert "more than the server takes" in told["error"]["message"]
    with pytest.raises(Permanent, match="more than the server takes"):
        await bus.request("rpc.planner.get", {"tenant": "huge", "size": MAX_SIZE + 1}, timeout=60)
    assert await _kept(raw) == 0


async def test_a_request_larger_than_a_message_arrives_whole_and_is_dropped(server: Bus, bus: Bus, raw: Client) -> None:
    body = {"tenant": "acme", "more": "x" * 9_000_000}
    assert json.loads(await bus.request("rpc.planner.get", body, timeout=60)) == {"tenant": "acme"}
    with pytest.raises(Unavailable):
        await bus.request("rpc.planner.nobody", body, timeout=60)
    assert await _kept(raw) == 0


async def _kept(raw: Client) -> int:
    """Objects of which chunks are kept."""
    info = await raw.jetstream().stream_info(OBJECTS.name, subjects_filter=OBJECT_CHUNKS)
    return len(info.state.subjects or {})


async def test_nobody_there_is_unavailable_at_once(bus: Bus) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable) as caught:
            await bus.request("rpc.domain.dns.compile", b"", timeout=600)
    assert caught.value.retry_after is not None
    assert "rpc.domain.dns.compile" in caught.value.message


async def test_no_answer_in_time_is_unavailable(server: Bus, bus: Bus) -> None:
    with pytest.raises(Unavailable):
        await bus.request("rpc.planner.never", b"", timeout=0.1)


async def test_requests_are_answered_side_by_side_up_to_the_concurrency(server: Bus, bus: Bus) -> None:
    # No request is answered before seven others are at work, too
    replies = await asyncio.gather(*(bus.request("rpc.planner.together", b"", timeout=60) for _ in range(16)))
    assert set(replies) == {b"8"}


async def test_an_ordinary_reply_may_have_a_member_called_error(make_bus: MakeBus, bus: Bus) -> None:
    other = make_bus("other")

    @other.rpc("rpc.planner.log", queue="planner")
    async def log(body: bytes) -> object:
        return {"error": "none so far"}

    await other.start()
    assert json.loads(await bus.request("rpc.planner.log", b"", timeout=60)) == {"error": "none so far"}


async def test_replicas_share_requests(make_bus: MakeBus, bus: Bus) -> None:
    answered: list[str] = []
    for name in ("a", "b"):
        replica = make_bus("planner")

        def register(replica: Bus, name: str) -> None:
            @replica.rpc("rpc.planner.list", queue="planner")
            async def list_(body: bytes) -> object:
                answered.append(name)
                return name

        register(replica, name)
        await replica.start()
    await asyncio.gather(*(bus.request("rpc.planner.list", b"", timeout=60) for _ in range(40)))
    assert len(answered) == 40
    assert set(answered) == {"a", "b"}


async def test_the_trace_goes_along_by_header(make_bus: MakeBus, bus: Bus, raw: Client) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    other = make_bus("other")
    seen = await raw.subscribe("planner.1")

    @other.rpc("rpc.planner.apply", queue="planner")
    async def apply(body: bytes) -> object:
        await other.hint("planner.1")
        return {}

    await other.start()
    await raw.request("rpc.planner.apply", b"", headers={"traceparent": trace}, timeout=60)
    message = await seen.next_msg(timeout=60)
    assert message.headers == {"traceparent": trace}


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A request."""

    tenant: str
    ids: list[dict[str, int]] = []


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"tenant": 5}', "/tenant"),
        (b"{}", "/tenant"),
        (b'{"tenant": "t", "colour": 1}', "/colour"),
        (b'{"tenant": "t", "ids": {}}', "/ids"),
        (b"[]", ""),
        (b"{", ""),
        (b"", ""),
    ],
)
async def test_a_request_that_does_not_fit_is_answered_with_the_place(body: bytes, place: str) -> None:
    async def ask(body: bytes) -> object:
        return msgspec.json.decode(body, type=Asked)

    reply = json.loads(await answer(ask, body, "rpc.planner.get", 1024))
    assert reply["error"]["code"] == "invalid"
    assert [p["path"] for p in reply["error"]["paths"]] == [place]
