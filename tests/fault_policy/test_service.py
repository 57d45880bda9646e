"""The service on real servers: what one message leads to."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from holdfast_bus import subjects
from holdfast_bus.setup import ensure_durable
from holdfast_bus.streams import FAULT_POLICY
from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import HoldfastError, Permanent, Temporary, to_body
from holdfast_model.fault_engine import EvaluateReply, EvaluateRequest
from holdfast_model.ladders import UNRESOLVED
from holdfast_model.manifest import AddNode as RungNode
from holdfast_model.manifest import Ladder, OwnedLadder, Rung
from holdfast_model.mutations import AddNode, RemoveNode, declaration
from holdfast_model.policies import own_namespace
from holdfast_model.rows import Gating
from holdfast_model.thresholds import Tally
from holdfast_store import keys
from holdfast_store.commits import Extra, Op
from holdfast_store.kv import Cmd
from holdfast_testkit.waiting import eventually

from .conftest import NAMESPACE, Service, Shop
from .ladders_of_pipeline import LADDERS


async def test_the_fourth_failure_adds_a_review_and_hints_the_owner(shop: Shop, running: None) -> None:
    hints: list[bytes] = []
    client = shop.bus.client
    await client.subscribe(subjects.hint(shop.ref.partition), cb=_collector(hints))
    await client.flush()
    before = await shop.version()

    await shop.fail(times=3)
    assert (await shop.count(), await shop.version(), hints) == (3, before, [])

    await shop.fail(detail="disk full", reason="io")
    review = (await shop.graph()).nodes["ai-review-ingest"]
    assert (review.type, review.owner) == ("ai-review", f"policy:{NAMESPACE}")
    assert msgspec.json.decode(review.spec)["error"] == "disk full"
    assert (await shop.count(), await shop.version()) == (4, before + 1)
    assert await shop.unhandled() == []
    await eventually(lambda: hints == [b"acme/shop"])


async def test_the_log_says_what_was_added_why_and_for_whom(shop: Shop, running: None) -> None:
    await shop.fail(permanent=True)

    entry = (await shop.store.log(shop.ref, newest_first=True))[0]

    (op,) = entry.ops
    assert (op.actor, "PROVISION_FAILED of 'ingest'" in op.cause) == ("fault-policy", True)
    (mutation,) = op.mutations
    assert (mutation["kind"], mutation["owner"]) == ("ADD_NODE", f"policy:{NAMESPACE}")


async def test_an_unresolved_review_brings_a_person(shop: Shop, running: None) -> None:
    await shop.fail(times=4)
    await shop.fail()
    assert "human-review-ingest" not in await shop.graph()

    await shop.answer("ai-review-ingest", UNRESOLVED)
    await shop.fail()

    assert (await shop.graph()).nodes["human-review-ingest"].gating is Gating.ALL


async def test_a_fault_delivered_again_is_counted_once(shop: Shop, running: None) -> None:
    fault = shop.fault("f1")
    await shop.raise_faults(fault)
    await shop.quiet()

    for copy in ("a", "b", "c"):
        body = msgspec.json.encode(fault)
        await shop.bus.publish(subjects.event(fault.event()), body, stream="FAULTS", msg_id=copy)
    await shop.quiet()

    assert await shop.count() == 1


async def test_faults_of_one_node_at_once_are_all_counted(shop: Shop, running: None) -> None:
    await shop.raise_faults(*[shop.fault(f"f{i}") for i in range(50)])
    await shop.quiet()

    assert await shop.count() == 50
    assert [n for n in (await shop.graph()).nodes if "review" in n] == ["ai-review-ingest"]


async def test_a_fault_of_an_ended_episode_only_deletes_itself(shop: Shop, running: None) -> None:
    await shop.fail(episode="e0", permanent=True)
    await shop.fail(incarnation="i0", permanent=True)
    await shop.fail(node_type="cleanser", permanent=True)
    await shop.fail(node="gate", node_type="validator", permanent=True)  # no state row yet

    assert (await shop.count(), await shop.unhandled()) == (0, [])
    assert set((await shop.graph()).nodes) == {"ingest", "gate"}


async def test_a_fault_of_a_node_that_left_drops_its_count(shop: Shop, running: None) -> None:
    await shop.fail(times=2)
    await shop.declare({"gate": "validator"})

    await shop.fail()

    assert (await shop.counts(), await shop.unhandled()) == ({}, [])


async def test_recovery_clears_counts_and_reviews_of_that_episode_once(shop: Shop, running: None) -> None:
    await shop.fail(times=4)
    before = await shop.version()

    await shop.recover()
    assert "ai-review-ingest" not in await shop.graph()
    assert (await shop.counts(), await shop.version()) == ({}, before + 1)
    assert not (await shop.graph()).gone

    await shop.recover()
    assert await shop.version() == before + 1


async def test_a_late_recovery_leaves_the_next_episode_alone(shop: Shop, running: None) -> None:
    await shop.state("ingest", episode="e2")
    await shop.fail(times=4, episode="e2")

    await shop.recover(episode="e1", now="e2")

    assert await shop.count() == 4
    assert "ai-review-ingest" in await shop.graph()


async def test_recovery_keeps_reviews_that_a_blueprint_declares_and_counts_that_never_reset(
    shop: Shop, running: None
) -> None:
    escalation = msgspec.structs.replace(LADDERS[0], reset="never")
    await shop.announce([escalation])
    await shop.declare({"ingest": "ingestion", "human-review-ingest": "human-review"})
    await shop.fail(times=2)

    await shop.recover()

    assert await shop.count() == 2
    assert "human-review-ingest" in await shop.graph()


async def test_an_episode_that_ends_while_its_fault_is_handled_leaves_no_review(shop: Shop, service: Service) -> None:
    # Given a recovery that was heard before the fault it ends was handled
    fault = shop.fault("f1", permanent=True)
    await shop.keep(fault)
    async with service():
        await shop.fail(permanent=True)
        await shop.recover()
        assert "ai-review-ingest" not in await shop.graph()
        # When a review slips in, because its fault was read before that recovery
        review = AddNode(declaration("ai-review-ingest", "ai-review", {"target": "ingest", "episode": "e1"}))
        await shop.store.commit(shop.ref, Op("slip", "tester"), _Apply(review, f"policy:{NAMESPACE}"))
        await shop.kv.run(("DEL", keys.fault(shop.ref, "f1")), ("SREM", keys.faults(shop.ref), "f1"))
        # Then the message of that fault, delivered again, removes it
        await shop.bus.publish_event(fault.event())
        await shop.quiet()

    assert "ai-review-ingest" not in await shop.graph()


async def test_a_fault_that_no_message_delivered_is_swept_up(shop: Shop, service: Service) -> None:
    await shop.keep(*[shop.fault(f"f{i}") for i in range(4)])

    async with service(fault_sweep_interval=0.05, fault_sweep_age=0.0):
        await eventually(lambda: _nothing_left(shop))

    assert await shop.count() == 4
    assert "ai-review-ingest" in await shop.graph()


async def test_a_fault_whose_message_a_killed_replica_holds_is_handled_when_the_service_starts(
    shop: Shop, service: Service
) -> None:
    # Given messages that were delivered to a reader that is gone, and long to be delivered again
    await ensure_durable(shop.bus.js, replace(FAULT_POLICY, ack_wait=3600.0))
    await shop.raise_faults(*[shop.fault(f"f{i}", time=time.time()) for i in range(4)])
    gone = await shop.bus.js.pull_subscribe_bind(FAULT_POLICY.name, FAULT_POLICY.stream)
    assert len(await gone.fetch(4)) == 4
    await gone.unsubscribe()

    # Then nobody waits until they are delivered again
    async with service():
        await eventually(lambda: _nothing_left(shop))

    assert await shop.count() == 4
    assert "ai-review-ingest" in await shop.graph()


async def test_the_sweep_drops_counts_of_nodes_that_left_silently(shop: Shop, service: Service) -> None:
    async with service(fault_sweep_interval=0.05):
        await shop.fail(times=2)
        await shop.declare({"gate": "validator"})

        await eventually(lambda: _counts_are(shop, {}))


async def test_a_conflict_drops_the_mutations_of_that_fault_and_is_told_once(shop: Shop, running: None) -> None:
    def adds(name: str, gating: str) -> Ladder:
        node = RungNode("human-review-{node}", "human-review", gating)
        return Ladder(name, ["PROVISION_FAILED"], [Rung("true", node)])

    await shop.announce([adds("one", "ALL"), adds("two", "NONE")])

    await shop.fail()

    (event,) = await shop.told()
    assert (event.name, event.data["kind"], event.data["policies"]) == ("policy_failed", "CONFLICT", ["one", "two"])
    assert "human-review-ingest" not in await shop.graph()
    assert (await shop.count(namespace="one"), await shop.unhandled()) == (1, [])


async def test_ladders_that_want_the_same_add_it_once(shop: Shop, running: None) -> None:
    def adds(name: str) -> Ladder:
        return Ladder(
            name, ["PROVISION_FAILED"], [Rung("true", RungNode("human-review-{node}", "human-review", "ALL"))]
        )

    await shop.announce([adds("one"), adds("two")])

    await shop.fail()

    assert await shop.told() == []
    assert "human-review-ingest" in await shop.graph()
    assert [await shop.count(namespace=name) for name in ("one", "two")] == [1, 1]
    assert await shop.unhandled() == []


async def test_a_domains_own_policy_is_asked_and_what_does_not_fit_is_dropped(shop: Shop, running: None) -> None:
    await shop.announce([], evaluates=True)
    asked: list[EvaluateRequest] = []

    async def evaluate(body: bytes) -> EvaluateReply:
        asked.append(msgspec.json.decode(body, type=EvaluateRequest))
        return EvaluateReply([RemoveNode("nowhere"), AddNode(declaration("spare", "ingestion", {"x": 1}))])

    await _answer(shop, evaluate)
    await shop.fail()

    assert (asked[0].count, asked[0].node.id, asked[0].fault.node) == (1, "ingest", "ingest")
    assert (await shop.graph()).nodes["spare"].owner == "policy:pipeline"
    assert await shop.count(namespace=own_namespace("pipeline")) == 1


@pytest.mark.parametrize("comes", [True, False])
async def test_the_newest_version_of_a_policy_is_asked_and_an_older_one_only_where_that_does_not_come(
    shop: Shop, running: None, comes: bool
) -> None:
    await shop.announce([], evaluates=True)
    asked: list[str] = []

    async def evaluate(body: bytes) -> EvaluateReply:
        request = msgspec.json.decode(body, type=EvaluateRequest)
        asked.append(request.domain_version)
        if request.domain_version and not (comes and len(asked) > 2):
            raise Temporary("an older version leaves this to a newer one", retry_after=0.01)
        return EvaluateReply([AddNode(declaration("spare", "ingestion", {"x": 1}))])

    await _answer(shop, evaluate)
    await shop.fail()

    assert "spare" in await shop.graph()
    assert set(asked[:-1]) == {"1.0"}
    assert asked[-1] == ("1.0" if comes else "")
    assert await shop.told() == []


@pytest.mark.parametrize("how", ["nobody", "error", "garbage"])
async def test_a_domains_policy_that_does_not_answer_is_told_and_stalls_nothing(
    shop: Shop, service: Service, how: str
) -> None:
    await shop.announce(evaluates=True)

    async def broken(body: bytes) -> bytes:
        if how == "error":
            raise Permanent("the policy has no idea")
        return b'{"mutations": 3}'

    if how != "nobody":
        await _answer(shop, broken)
    async with service(fault_evaluate_timeout=0.5):
        await shop.fail(permanent=True)

    (event,) = await shop.told()
    assert (event.data["kind"], event.data["policies"]) == ("POLICY_ERROR", ["pipeline"])
    assert (await shop.count(), await shop.unhandled()) == (1, [])
    assert "ai-review-ingest" not in await shop.graph()


async def test_ladders_of_the_graph_replace_those_of_the_domain(shop: Shop, running: None) -> None:
    once = Ladder(NAMESPACE, ["PROVISION_FAILED"], [Rung("count >= 1", RungNode("mine-{node}", "human-review"))])
    await shop.kv.run(("HSET", keys.meta(shop.ref), "ladders", msgspec.json.encode([once])))

    await shop.fail()

    assert "mine-ingest" in await shop.graph()


async def test_ladders_of_a_blueprint_look_after_the_nodes_that_it_declares(shop: Shop, running: None) -> None:
    once = OwnedLadder(
        NAMESPACE, ["PROVISION_FAILED"], [Rung("true", RungNode("mine-{node}", "human-review"))], owner="other"
    )
    await shop.kv.run(("HSET", keys.meta(shop.ref), "ladders", msgspec.json.encode([once])))
    await shop.declare({"theirs": "ingestion"}, owner="other")
    await shop.state("theirs")

    await shop.fail()
    await shop.fail(node="theirs")

    assert {n for n in (await shop.graph()).nodes if "mine" in n} == {"mine-theirs"}
    assert (await shop.count(), await shop.count("theirs")) == (1, 1)


async def test_a_node_whose_type_nobody_claims_is_left_alone(shop: Shop, running: None) -> None:
    await shop.declare({"odd": "mystery"}, owner="other")
    await shop.state("odd")

    await shop.fail(node="odd", node_type="mystery", permanent=True)

    assert (await shop.unhandled(), await shop.counts("odd")) == ([], {})


async def test_a_message_that_is_no_fault_or_of_another_graph_is_dead_lettered(shop: Shop, running: None) -> None:
    subject = subjects.fault("acme", "shop", "provision_failed")
    await shop.bus.publish(subject, b"{}", stream="FAULTS")
    foreign = msgspec.structs.replace(shop.fault("f1"), tenant="other")
    await shop.bus.publish(subject, msgspec.json.encode(foreign), stream="FAULTS")

    await shop.quiet()

    await eventually(lambda: _dead_letters(shop, 2))


# ---- pieces


class _Apply:
    """One mutation, committed as a policy does."""

    watch: tuple[str, ...] = ()
    reads: tuple[Cmd, ...] = ()

    def __init__(self, mutation: AddNode, owner: str) -> None:
        self._mutation, self._owner = mutation, owner

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        graph.apply(self._mutation, self._owner)
        return Extra()


async def test_a_fault_of_a_new_episode_takes_the_reviews_of_the_old_one_along(shop: Shop, running: None) -> None:
    await shop.fail(permanent=True)
    assert "ai-review-ingest" in await shop.graph()
    await shop.state("ingest", episode="e2")

    await shop.fail(episode="e2")

    assert "ai-review-ingest" not in await shop.graph()


async def test_the_sweep_clears_up_after_an_episode_whose_end_nobody_heard(shop: Shop, service: Service) -> None:
    async with service():
        await shop.fail(permanent=True)
    await shop.state("ingest", episode="e2")  # the node was changed while its fault was being handled

    async with service(fault_sweep_interval=0.05):
        await eventually(lambda: _counts_are(shop, {}))

    assert "ai-review-ingest" not in await shop.graph()


def _collector(into: list[bytes]) -> Callable[[Msg], Awaitable[None]]:
    async def collect(message: Msg) -> None:
        into.append(message.data)

    return collect


async def _answer(shop: Shop, handler: Callable[[bytes], Awaitable[object]]) -> None:
    """Answer ``evaluate`` requests on the tester's connection."""

    async def reply(message: Msg) -> None:
        try:
            found = await handler(message.data)
        except HoldfastError as error:
            found = {"error": to_body(error)}
        await message.respond(found if isinstance(found, bytes) else msgspec.json.encode(found))

    await shop.bus.client.subscribe(subjects.rpc_domain("pipeline", "evaluate"), cb=reply)
    await shop.bus.client.flush()


async def _nothing_left(shop: Shop) -> bool:
    return await shop.unhandled() == []


async def _counts_are(shop: Shop, wanted: dict[str, Tally]) -> bool:
    return await shop.counts() == wanted


async def _dead_letters(shop: Shop, wanted: int) -> bool:
    found: int = (await shop.bus.js.stream_info("DLQ")).state.messages
    return found == wanted
