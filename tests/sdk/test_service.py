"""A domain's service beside its planner: announcements, requests, crashes, and how the process ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast_bus import subjects
from holdfast_model.errors import IllegalState, Invalid, NotFound, Temporary, Unavailable
from holdfast_model.fault_engine import EvaluateReply, EvaluateRequest
from holdfast_model.messages import (
    CompileReply,
    CompileRequest,
    ObserveItem,
    ObserveReply,
    ObserveRequest,
    Outcome,
    Status,
)
from holdfast_model.mutations import RemoveNode
from holdfast_sdk import Domain, PolicyRequest
from holdfast_sdk.runtime import DomainService
from holdfast_testkit.waiting import LIMIT, STARTING, eventually

from .example_domain import DnsRecord, Zone, dns
from .peer import Peer, planner_peer, running, step
from .scripted_domain import Script, Watcher, scripted

SCRIPTED = Path(__file__).with_name("scripted_domain.py")


async def ask(peer: Peer, domain: str, verb: str, body: object) -> bytes:
    return await peer.bus.request(subjects.rpc_domain(domain, verb), body, timeout=LIMIT)


async def observe(peer: Peer, *items: tuple[str, dict[str, Any]], discover: bool = False) -> ObserveReply:
    nodes = [ObserveItem(id, msgspec.Raw(msgspec.json.encode(spec)), "d") for id, spec in items]
    request = ObserveRequest("acme", "shop", "inc-1", "script", nodes, discover)
    return msgspec.json.decode(await ask(peer, "scripted", "observe", request), type=ObserveReply)


async def test_the_announcement_is_repeated_and_carries_slots(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()) as service:
        await eventually(lambda: len(peer.heard) >= 3)
        heard = peer.heard[-1]
    assert heard.manifest.domain == "scripted"
    assert heard.instance == service.instance
    assert heard.slots == {"script": 2, "ai-review": 5}


async def known(service: DomainService) -> bool:
    """Whether a planner's answer has arrived."""
    try:
        await service.announced()
    except Temporary:
        return False
    return True


async def test_a_domain_waits_for_a_planner_to_come(nats_url: str) -> None:
    # Given no planner
    script = Script()
    async with running(nats_url, scripted(), script) as service:
        with pytest.raises(Temporary, match="no planner"):
            await service.announced()
        # When one comes, then the domain is known and works
        async with planner_peer(nats_url) as peer:
            await peer.send(step("a"))
            await peer.outcome("a")
            await eventually(lambda: peer.heard)
            await eventually(partial(known, service))


async def heard_again(peer: Peer, times: int) -> None:
    """Wait for announcements from now on; who announces itself again has the answer to the one before."""
    wanted = len(peer.heard) + times
    await eventually(lambda: len(peer.heard) >= wanted)


async def test_an_older_version_stops_pulling_and_answering_until_the_newer_is_gone(nats_url: str) -> None:
    script = Script()
    async with planner_peer(nats_url) as peer, running(nats_url, scripted("1.9"), script):
        # Given the planner knows a live 1.10
        peer.newest = "1.10"
        await heard_again(peer, 2)
        await peer.send(step("warm-up"), version="1.9")  # whatever an open pull still takes
        await heard_again(peer, 2)  # ... and it takes what else comes with it
        await peer.send(step("a"), version="1.9")
        await heard_again(peer, 4)
        assert "a" not in peer.outcomes
        with pytest.raises(Unavailable):
            await observe(peer, ("a", {}))
        # When 1.10 is gone, then it goes on
        peer.newest = "1.9"
        await peer.outcome("a")
        seen = (await observe(peer, ("a", {}))).observations
        assert seen["a"].status is Status.PRESENT


async def test_compile_answers_nodes_or_what_is_wrong(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, dns, DnsRecord(Zone())):
        spec = msgspec.Raw(b'{"records": {"www": {"name": "www.example.org", "address": "192.0.2.1"}}}')
        reply = msgspec.json.decode(
            await ask(peer, "dns", "compile", CompileRequest("acme", "shop", spec)), type=CompileReply
        )
        assert [n.id for n in reply.nodes] == ["www"]
        with pytest.raises(Invalid) as refused:
            await ask(peer, "dns", "compile", CompileRequest("acme", "shop", msgspec.Raw(b'{"record": {}}')))
        assert {p.path for p in refused.value.problems} == {"/records", "/record"}


async def test_an_observer_that_fails_is_unknown_and_the_others_are_seen(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(timeout=0.3), Script()):
        reply = await observe(
            peer, ("a", {}), ("b", {"seen": "break"}), ("c", {"seen": "sleep"}), ("d", {"seen": "nonsense"}), ("e", {})
        )  # fmt: skip
    seen = reply.observations
    assert {i: o.status for i, o in seen.items()} == {
        "a": Status.PRESENT,
        "b": Status.UNKNOWN,
        "c": Status.UNKNOWN,
        "d": Status.UNKNOWN,
        "e": Status.PRESENT,
    }
    assert (seen["b"].reason, seen["b"].detail) == ("observe_failed", "ValueError: cannot look")
    assert seen["c"].reason == "timeout"
    assert "Present, Absent, Drifted or Unknown" in seen["d"].detail
    assert seen["a"].token == "seen a"


async def test_discover_finds_what_nobody_desires(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        reply = await observe(peer, ("a", {}), discover=True)
    assert reply.leftovers == ["left-over"]


async def test_a_request_for_an_unknown_type_names_it(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, running(nats_url, scripted(), Script()):
        with pytest.raises(NotFound, match="no type 'other'"):
            await ask(peer, "scripted", "observe", ObserveRequest("acme", "shop", "i", "other", []))
        with pytest.raises(Invalid):
            await ask(peer, "scripted", "observe", b"noise")


async def test_a_custom_policy_is_asked(nats_url: str) -> None:
    domain = scripted()

    @domain.policy
    async def policy(request: PolicyRequest) -> list[RemoveNode]:
        return [RemoveNode(request.fault.node)] if request.count > 2 else []

    fault = {"id": "f", "incarnation": "i", "tenant": "t", "graph": "g", "node": "n", "type": "PROVISION_FAILED",
             "node_type": "script", "time": 1.0}  # fmt: skip
    node = {"id": "n", "type": "script", "spec": {}, "digest": "d", "depends_on": [], "gating": "NONE",
            "spec_gating": "NONE", "owner": "main"}  # fmt: skip
    body = msgspec.json.encode({"fault": fault, "node": node, "count": 3})
    msgspec.json.decode(body, type=EvaluateRequest)
    async with planner_peer(nats_url) as peer, running(nats_url, domain, Script()):
        reply = msgspec.json.decode(await ask(peer, "scripted", "evaluate", body), type=EvaluateReply)
    assert reply.mutations == [RemoveNode("n")]


async def test_what_a_watch_yields_becomes_a_state_event(nats_url: str) -> None:
    domain = Domain("scripted", version="1.0")
    domain.node_type("script")(Watcher)
    async with planner_peer(nats_url) as peer, running(nats_url, domain):

        async def told() -> Any:
            return (await peer.bus.js.stream_info("STATE")).state.messages

        await eventually(told)
        message = await peer.bus.js.get_msg("STATE", seq=1)
    assert message.subject == "state.acme.shop"
    assert msgspec.json.decode(message.data or b"") == {"node": "n1", "detail": "it moved"}


async def test_hooks_run_around_the_service(nats_url: str) -> None:
    domain, order = scripted(), []

    @domain.on_startup
    async def open_clients() -> None:
        order.append("open")

    @domain.on_shutdown
    async def close_clients() -> None:
        order.append("close")

    async with planner_peer(nats_url), running(nats_url, domain, Script()):
        assert order == ["open"]
    assert order == ["open", "close"]


# ---- as a process


@asynccontextmanager
async def process(url: str, target: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast_sdk.run", target,
        env={**os.environ, "HOLDFAST_NATS_URL": url, **environment}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def test_steps_of_a_killed_process_run_again_with_the_same_key(nats_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    def lines() -> list[list[str]]:
        return [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []

    async with planner_peer(nats_url, ack_wait=4.0) as peer:
        # Given a process in the middle of a step
        async with process(nats_url, str(SCRIPTED), SCRIPT_JOURNAL=str(journal)) as first:
            await peer.send(step("a", do="journal"))
            await eventually(lambda: len(lines()) == 1)
            # When it is killed and another one comes
            first.kill()
            await first.wait()
        async with process(nats_url, str(SCRIPTED), SCRIPT_JOURNAL=str(journal)):
            done = await peer.outcome("a")
            await peer.queue_empty()
    # Then the step ran again under the same idempotency key, and was answered once
    (pid, key), (other, again) = lines()
    assert pid != other
    assert key == again
    assert done.outcome is Outcome.SUCCEEDED
    assert sum(len(part.outcomes) for _, part in peer.parts) == 1


async def test_a_refused_domain_says_why_once_and_exits_non_zero(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer:
        text = "type 'script' of domain 'scripted' is claimed by domain 'theatre'"
        peer.refusal = IllegalState(text)
        async with process(nats_url, str(SCRIPTED)) as child:
            _, errors = await asyncio.wait_for(child.communicate(), STARTING)
    assert child.returncode == 1
    assert errors.decode().count(text) == 1
    assert "Traceback" not in errors.decode()


async def test_sigterm_ends_the_process_in_order(nats_url: str) -> None:
    async with planner_peer(nats_url) as peer, process(nats_url, f"{SCRIPTED}:domain") as child:
        await eventually(lambda: peer.heard)
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), LIMIT) == 0
        assert peer.heard[-1].leaving


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py", "there is no file nowhere.py"),
        (f"{SCRIPTED}:other", "has no Domain called 'other'"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(target: str, message: str) -> None:
    async with process("nats://127.0.0.1:1", target) as child:
        _, errors = await asyncio.wait_for(child.communicate(), STARTING)
    assert child.returncode == 2
    assert message in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_policy_of_an_older_version_leaves_its_answer_to_the_newer(nats_url: str) -> None:
    domain = scripted()
    asked = 0

    @domain.policy
    async def policy(request: PolicyRequest) -> list[RemoveNode]:
        nonlocal asked
        asked += 1
        raise Temporary("not now", retry_after=1.0)

    fault = {"id": "f", "incarnation": "i", "tenant": "t", "graph": "g", "node": "n", "type": "PROVISION_FAILED",
             "node_type": "script", "time": 1.0}  # fmt: skip
    node = {"id": "n", "type": "script", "spec": {}, "digest": "d", "depends_on": [], "gating": "NONE",
            "spec_gating": "NONE", "owner": "main"}  # fmt: skip
    body = {"fault": fault, "node": node, "count": 3}
    async with planner_peer(nats_url) as peer, running(nats_url, domain, Script()):
        with pytest.raises(Temporary, match="leaves this to 9") as left:
            await ask(peer, "scripted", "evaluate", msgspec.json.encode(body | {"domain_version": "9"}))
        assert (asked, left.value.retry_after is not None) == (0, True)
        # What a policy raises by itself is no reason to ask again
        with pytest.raises(Temporary, match="not now") as raised:
            await ask(peer, "scripted", "evaluate", msgspec.json.encode(body | {"domain_version": "1"}))
        assert (asked, raised.value.retry_after) == (1, None)
