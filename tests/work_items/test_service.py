"""The service as a process on real servers, seen by plain NATS clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.errors import Error as NatsError

from holdfast_model.errors import ErrorBody, Forbidden, IllegalState, Invalid, NotFound, from_body
from holdfast_testkit.servers import Server
from holdfast_testkit.system import System
from holdfast_testkit.waiting import LIMIT, eventually
from holdfast_testkit.watching import Watcher
from holdfast_work_items.settings import WorkItemsSettings

DIRECTORY = "groups: {operators: [root], stewards: [ann]}\n"


class Caller:
    """Asks with plain JSON, as a user of ``nats req`` does."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    async def __call__(self, verb: str, /, _within: float = LIMIT, **body: Any) -> Any:
        reply = await self._watcher.client.request(
            f"rpc.workitems.{verb}", json.dumps({"tenant": "acme"} | body).encode(), timeout=_within
        )
        return json.loads(reply.data)

    async def refused(self, verb: str, /, **body: Any) -> dict[str, Any]:
        reply = await self(verb, **body)
        assert set(reply) == {"error"}, reply
        error: dict[str, Any] = reply["error"]
        return error

    async def patiently(self, verb: str, /, **body: Any) -> Any:
        """Ask again until the service and its store are there; every request here is safe to repeat."""
        answers: list[Any] = []

        async def ask() -> bool:
            try:
                reply = await self(verb, _within=2.0, **body)
            except (NatsError, TimeoutError):
                return False
            away = isinstance(reply, dict) and reply.get("error", {}).get("code") == "unavailable"
            answers[:] = [reply]
            return not away

        condition: Callable[[], Awaitable[bool]] = ask
        await eventually(condition)
        return answers[0]


@pytest.fixture
async def watcher(nats_url: str) -> AsyncIterator[Watcher]:
    async with Watcher(nats_url, "workitem.>") as watching:
        yield watching


@pytest.fixture
def ask(watcher: Watcher) -> Caller:
    return Caller(watcher)


def system(nats_url: str, redis_url: str, **env: str) -> System:
    return System(
        nats_url,
        redis_url,
        planners=0,
        services=["work-items"],
        env={"HOLDFAST_SWEEP_INTERVAL": "100ms", "HOLDFAST_RELAY_INTERVAL": "100ms"} | env,
    )


async def test_an_item_is_created_seen_and_decided(
    nats_url: str, redis_url: str, watcher: Watcher, ask: Caller
) -> None:
    async with system(nats_url, redis_url):
        # Given an item that somebody asked for, as a plain subscriber sees it
        made = await ask(
            "create", title="Approve gold", graph="shop", callerRef="x:1", request="g1", createdBy="planner",
            permittedOutcomes=[{"name": "approve"}, {"name": "reject"}], claimDeadline=None, expiresAt=None,
        )  # fmt: skip
        id = made["item"]["id"]
        assert made["created"] is True
        (created,) = await watcher.wait_for("workitem.acme.shop.created")
        assert created.body["type"] == "io.casehub.work.workitem.created"
        assert created.body["tenancyid"] == "acme"
        assert created.node == id
        assert created.data["decide"] == f"holdfast decide {id} approve|reject"

        # When it is asked for again, nothing is made
        again = await ask("create", title="Approve gold", graph="shop", callerRef="x:1", request="g1")
        assert (again["created"], again["item"]) == (False, made["item"])
        assert await ask("find_active", callerRef="x:1") == made["item"]

        # And when a person decides, every step is told
        done = await ask("complete", id=id, actor="ann", outcome="approve", note="fine", data={"n": 1})
        assert (done["status"], done["outcome"], done["decidedBy"]) == ("COMPLETED", "approve", "ann")
        (completed,) = await watcher.wait_for("workitem.acme.shop.completed")
        assert [s.subject.rpartition(".")[2] for s in watcher.seen] == [
            "created", "assigned", "started", "completed",
        ]  # fmt: skip
        assert {k: completed.data[k] for k in ("status", "outcome", "note", "data", "request", "callerRef")} == {
            "status": "COMPLETED", "outcome": "approve", "note": "fine", "data": {"n": 1}, "request": "g1",
            "callerRef": "x:1",
        }  # fmt: skip

        # Then it is found as it ended, and no longer active
        assert await ask("get", request="g1") == done
        assert await ask("get", callerRef="x:1") == done
        assert await ask("find_active", callerRef="x:1") is None
        history = await ask("audit", id=id)
        assert [e["event"] for e in history["entries"]] == ["CREATED", "ASSIGNED", "STARTED", "COMPLETED"]


async def test_errors_say_what_is_wrong_and_show_the_item(
    nats_url: str, redis_url: str, ask: Caller, tmp_path: Path
) -> None:
    directory = tmp_path / "directory.yaml"
    directory.write_text(DIRECTORY)
    async with system(nats_url, redis_url, HOLDFAST_DIRECTORY_FILE=str(directory)) as running:
        made = await ask("create", title="Look", candidateGroups=["stewards"])
        id = made["item"]["id"]

        # not_found
        assert (await ask.refused("get", id="nosuchitem1"))["code"] == "not_found"
        assert (await ask.refused("claim", id="status:PENDING", actor="ann"))["code"] == "not_found"
        assert (await ask.refused("claim", id=id, actor="ann", tenant="evil"))["code"] == "not_found"
        # invalid, with the place
        for verb, body, path in (
            ("create", {"title": " "}, "/title"),
            ("create", {"title": 3}, "/title"),
            ("create", {"title": "x", "tenant": "a.b"}, "/tenant"),
            ("complete", {"id": id, "actor": "ann", "outcom": "approve"}, "/outcom"),
            ("claim", {"id": id}, "/actor"),
            ("claim", {"actor": "ann"}, "/id"),
            ("list", {"limit": 0}, "/limit"),
            ("inbox", {}, "/actor"),
            ("find_active", {}, "/callerRef"),
            ("get", {}, "/id"),
            ("bulk", {"verb": "claim", "ids": [], "actor": "ann"}, "/ids"),
        ):
            error = await ask.refused(verb, **body)
            assert (error["code"], error["paths"][0]["path"]) == ("invalid", path), (verb, body, error)
        # forbidden, and remembered
        error = await ask.refused("claim", id=id, actor="eve")
        assert (error["code"], error["current"]["id"]) == ("forbidden", id)
        history = await ask("audit", id=id, event="CLAIM_DENIED")
        assert [e["actor"] for e in history["entries"]] == ["eve"]
        # nobody becomes an operator by their own word
        assert (await ask.refused("claim", id=id, actor="eve", groups=["operators"]))["code"] == "forbidden"
        # the directory's steward may; a second claim is a conflict that shows the item
        claimed = await ask("claim", id=id, actor="ann")
        error = await ask.refused("claim", id=id, actor="ann")
        assert (error["code"], error["current"]) == ("conflict", claimed)
        assert (await ask.refused("start", id=id, actor="ann", version=1))["code"] == "stale"
        # an operator overrides
        done = await ask("complete", id=id, actor="root")
        assert done["status"] == "COMPLETED"
        history = await ask("audit", id=id, actor="root")
        assert "operator override" in history["entries"][-1]["detail"]
        # automated repeats change nothing
        assert await ask("obsolete", id=id) == done
        assert await ask("cancel", id=id, actor="planner", system=True) == done
        # noise
        reply = await ask._watcher.client.request("rpc.workitems.create", b"\xff{", timeout=LIMIT)
        assert json.loads(reply.data)["error"]["code"] == "invalid"
        assert running["work-items"].running


async def test_errors_travel_as_the_callers_own(nats_url: str, redis_url: str, ask: Caller) -> None:
    async with system(nats_url, redis_url):
        id = (await ask("create", title="x", excludedUsers=["eve"]))["item"]["id"]
        await ask("cancel", id=id, actor="ann")
        for verb, body, kind in (
            ("get", {"id": "nosuchitem1"}, NotFound),
            ("claim", {"id": id, "actor": "ann"}, IllegalState),
            ("create", {"title": ""}, Invalid),
            ("create", {"title": "x", "assigneeId": "eve", "excludedUsers": ["eve"]}, Forbidden),
        ):
            error = await ask.refused(verb, **body)
            assert type(from_body(msgspec.convert(error, ErrorBody))) is kind
        denied = await ask("audit", event="CREATE_DENIED")
        assert len(denied["entries"]) == 1


async def test_replacing_obsoleting_and_bulk(nats_url: str, redis_url: str, watcher: Watcher, ask: Caller) -> None:
    async with system(nats_url, redis_url):
        first = (await ask("create", title="a", callerRef="x", request="1", createdBy="planner"))["item"]
        second = (await ask("create", title="b", callerRef="x", request="2", replace=True))["item"]
        (gone,) = await watcher.wait_for("workitem.acme._.obsolete")
        assert (gone.data["request"], gone.data["status"]) == ("1", "OBSOLETE")

        # A gate that was closed already must not take the next one with it.
        assert (await ask("obsolete", callerRef="x", request="1"))["id"] == first["id"]
        assert (await ask("find_active", callerRef="x"))["id"] == second["id"]
        assert await ask("obsolete", callerRef="nothing") is None
        assert await ask("obsolete", callerRef="x", request="never") is None
        late = await ask.refused("create", title="c", callerRef="x", request="never", replace=True)
        assert (late["code"], (await ask("find_active", callerRef="x"))["id"]) == ("illegal_state", second["id"])
        assert (await ask("obsolete", callerRef="x"))["status"] == "OBSOLETE"

        ids = [(await ask("create", title=str(n)))["item"]["id"] for n in range(3)]
        await ask("cancel", id=ids[1], actor="ann")
        results = (await ask("bulk", verb="claim", ids=[*ids, "nosuchitem1"], actor="bob"))["results"]
        assert [(r["ok"], r.get("code", "")) for r in results] == [
            (True, ""), (False, "conflict"), (True, ""), (False, "not_found"),
        ]  # fmt: skip
        summary = await ask("summary")
        assert summary["byStatus"] == {"ASSIGNED": 2, "CANCELLED": 1, "OBSOLETE": 2}
        inbox = await ask("inbox", actor="bob")
        assert {i["id"] for i in inbox["items"]} == {ids[0], ids[2]}
        assert (await ask("list", status=["CANCELLED"]))["total"] == 1


async def test_deadlines_pass_while_nobody_looks(nats_url: str, redis_url: str, watcher: Watcher, ask: Caller) -> None:
    async with system(nats_url, redis_url, HOLDFAST_WORK_ITEM_EXPIRY="1s", HOLDFAST_WORK_ITEM_CLAIM="0") as running:
        soon = (await ask("create", title="soon"))["item"]
        never = (await ask("create", title="never", expiresAt=None))["item"]
        await running["work-items"].kill()
        deadline = datetime.fromisoformat(soon["expiresAt"])
        await eventually(lambda: datetime.now(UTC) > deadline)
        await running["work-items"].start()

        (expired,) = await watcher.wait_for("workitem.acme._.expired")

        assert (expired.data["id"], expired.data["breach"]) == (soon["id"], {"kind": "fail"})
        assert (await ask("get", id=soon["id"]))["status"] == "EXPIRED"
        assert await ask("get", id=never["id"]) == never


async def test_a_killed_service_loses_no_event(nats_url: str, redis_url: str, watcher: Watcher, ask: Caller) -> None:
    """kill -9 again and again while items are made and decided by two replicas."""
    wanted = 60
    async with system(nats_url, redis_url) as running:
        other = system(nats_url, redis_url)["work-items"]
        await other.start()
        replicas = [running["work-items"], other]
        over = asyncio.Event()

        async def havoc() -> int:
            kills = 0
            while not over.is_set():
                await replicas[kills % 2].restart(kill=True)
                kills += 1
            return kills

        async def one(n: int) -> None:
            made = await ask.patiently("create", title=f"t{n}", callerRef=f"x:{n}", request=f"r{n}")
            id = made["item"]["id"]
            # A system command: its repeat after a lost reply is no conflict.
            await ask.patiently("complete", id=id, actor="engine", system=True, outcome="ok")

        killing = asyncio.create_task(havoc())
        for start in range(0, wanted, 10):
            await asyncio.gather(*(one(n) for n in range(start, start + 10)))
            await asyncio.sleep(0)
        over.set()
        kills = await killing
        await other.stop()
        other.discard()

        def told() -> bool:
            for name in ("created", "assigned", "started", "completed"):
                distinct = {s.data["request"] for s in watcher.on(f"workitem.acme._.{name}")}
                assert len(distinct) == wanted, f"{name}: {len(distinct)} of {wanted}"
            return True

        await eventually(told)
        assert kills >= 1
        assert (await ask("list", limit=1))["total"] == wanted
        assert (await ask("summary"))["byStatus"] == {"COMPLETED": wanted}
        stream = await watcher.client.jetstream().stream_info("EVENTS")
        assert stream.state.messages == 4 * wanted


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("90", 90.0), ("5m", 300.0), ("PT1H", 3600.0)])
def test_durations_are_written_as_people_write_them(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    monkeypatch.setenv("HOLDFAST_WORK_ITEM_CLAIM", text)
    assert WorkItemsSettings().work_item_claim == seconds


async def test_a_store_that_is_away_is_waited_for(
    nats_url: str, own_redis: Server, watcher: Watcher, ask: Caller
) -> None:
    async with system(nats_url, own_redis.url) as running:
        item = (await ask("create", title="x"))["item"]
        await own_redis.kill()
        assert (await ask.refused("get", id=item["id"]))["code"] == "unavailable"

        await own_redis.start()

        assert await ask.patiently("get", id=item["id"]) == item
        await ask("cancel", id=item["id"], actor="ann")
        await watcher.wait_for("workitem.acme._.cancelled")
        await running["work-items"].ready()
