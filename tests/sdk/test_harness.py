"""Domains in the harness: the planner's own reconciler in virtual time, no servers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw

from holdfast_model.errors import IllegalState, Invalid, NotFound
from holdfast_model.events import FaultType
from holdfast_model.messages import NodeDeclaration, Status
from holdfast_model.mutations import AddNode as AddNodeMutation
from holdfast_model.mutations import Mutation
from holdfast_sdk import (
    RESOLVED,
    UNRESOLVED,
    Absent,
    AddNode,
    Context,
    Domain,
    Drifted,
    Ladder,
    Node,
    PendingApproval,
    PolicyRequest,
    Present,
    Review,
    Reviewed,
    Rung,
    State,
    Temporary,
)
from holdfast_sdk.testing import harness
from holdfast_testkit.waiting import LIMIT

from .example_domain import DnsRecord, Zone, dns

WWW = {"www": {"name": "www.example.org", "address": "192.0.2.1"}}
MAIL = {"mail": {"name": "mail.example.org", "address": "192.0.2.2"}}


async def test_a_blueprint_becomes_real_and_disappears_again() -> None:
    zone = Zone()
    async with harness(dns, DnsRecord(zone)) as h:
        # When a blueprint is applied
        await h.apply({"records": WWW | MAIL})
        await h.converged()
        # Then it is really there
        assert zone.records == {"www.example.org": "192.0.2.1", "mail.example.org": "192.0.2.2"}
        assert h.nodes["www"].outputs == {"address": "192.0.2.1"}
        # And what a new version leaves out goes
        await h.apply({"records": MAIL})
        await h.converged()
        assert list(zone.records) == ["mail.example.org"]
        await h.delete()
        await h.converged()
        assert zone.records == {}
        assert h.nodes == {}
        assert h.faults == []


async def test_a_resync_finds_and_heals_what_drifted() -> None:
    zone = Zone()
    async with harness(dns, DnsRecord(zone)) as h:
        await h.apply({"records": WWW})
        await h.converged()
        # When somebody changes the record behind our back
        zone.records["www.example.org"] = "203.0.113.9"
        assert h.nodes["www"].status is Status.PRESENT
        # Then the next resync tells of it and heals it, in virtual time
        began = time.monotonic()
        await h.advance("10m")
        assert time.monotonic() - began < LIMIT
        assert zone.records["www.example.org"] == "192.0.2.1"
        assert [f.type for f in h.faults] == [FaultType.NODE_DEGRADED]
        assert h.faults[0].detail == "points to 203.0.113.9"


async def test_a_wake_up_finds_drift_at_once() -> None:
    zone = Zone()
    async with harness(dns, DnsRecord(zone)) as h:
        await h.apply({"records": WWW})
        await h.converged()
        zone.records.clear()
        began = h.now
        await h.wake("www")
        assert "www.example.org" in zone.records
        assert h.now == began


async def test_a_staged_drift_is_healed() -> None:
    zone = Zone()
    async with harness(dns, DnsRecord(zone)) as h:
        await h.apply({"records": WWW})
        await h.converged()
        await h.drift("www", "wrong_ttl", detail="ttl is 5")
        await h.converged()
        (fault,) = h.faults
        assert (fault.reason, fault.detail) == ("wrong_ttl", "ttl is 5")
        assert "recovered" in [e.name for e in h.events]


class Unsteady(Zone):
    """A provider that may be down."""

    down = True

    async def get(self, name: str) -> str | None:
        if self.down:
            raise Temporary("the provider is down")
        return await super().get(name)


async def test_what_cannot_be_observed_is_left_alone_until_it_can() -> None:
    zone = Unsteady()
    async with harness(dns, DnsRecord(zone)) as h:
        await h.apply({"records": WWW})
        with pytest.raises(AssertionError, match=r"www: observing .*the provider is down"):
            await h.converged(within="30s")
        assert zone.records == {}
        zone.down = False
        await h.converged()
        assert "www.example.org" in zone.records


async def test_a_permanent_failure_waits_for_a_new_version() -> None:
    zone = Zone()
    async with harness(dns, DnsRecord(zone)) as h:
        await h.apply({"records": {"www": {"name": "www.example.org", "address": "0.0.0.0"}}})
        with pytest.raises(AssertionError, match=r"www: failed .*the provider refuses"):
            await h.converged()
        (fault,) = h.faults
        assert (fault.type, fault.reason, fault.permanent) == (FaultType.PROVISION_FAILED, "bad_address", True)
        await h.apply({"records": WWW})
        await h.converged()


async def test_a_wrong_blueprint_changes_nothing() -> None:
    zone = Zone()
    async with harness(dns, DnsRecord(zone)) as h:
        await h.apply({"records": WWW})
        await h.converged()
        with pytest.raises(Invalid) as refused:
            await h.apply({"records": {"www": {"name": "www.example.org"}}})
        assert refused.value.problems[0].path == "/records/www/address"
        assert list(h.nodes) == ["www"]


# ---- a domain of jobs that fail, ask and hold


class Jobs:
    """Jobs that fail ``fails`` times, hold when told to, and remember what they were told."""

    def __init__(self) -> None:
        self.done: dict[str, dict[str, Any]] = {}
        self.attempts: dict[str, int] = {}
        self.decisions: list[str] = []
        self.keys: dict[str, list[str]] = {}
        self.order: list[str] = []
        self.held: set[str] = set()

    async def observe(self, node: Node[dict[str, Any]], ctx: Context) -> State[dict[str, Any]]:
        if node.id in self.held:
            return Drifted("quarantined", hold=True, detail="2 bad rows")
        if node.id not in self.done:
            return Absent()
        return Present(token=node.digest) if self.done[node.id] == node.spec else Drifted("stale")

    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> object:
        self.attempts[node.id] = self.attempts.get(node.id, 0) + 1
        self.keys.setdefault(node.id, []).append(ctx.idempotency_key)
        if ctx.decision is not None:
            self.decisions.append(f"{node.id}: {ctx.decision.outcome} {ctx.decision.note}".strip())
        if self.attempts[node.id] <= node.spec.get("fails", 0) and ctx.decision is None:
            raise Temporary(f"try {self.attempts[node.id]}", reason="flaky")
        if node.spec.get("ask") and ctx.approval is None:
            raise PendingApproval(f"publish {node.id}", {"rows": 3}, {"version": 7})
        if node.spec.get("hold") and ctx.decision is None:
            self.held.add(node.id)
            return Drifted("quarantined", hold=True, detail="2 bad rows")
        self.held.discard(node.id)
        self.done[node.id] = dict(node.spec)
        self.order.append(node.id)
        return None

    async def deprovision(self, node: Node[dict[str, Any]], ctx: Context) -> None:
        self.done.pop(node.id, None)
        self.order.append(f"-{node.id}")


def jobs(**options: Any) -> Domain:
    domain = Domain("jobs")
    domain.node_type("job", backoff=("1s", "4s"), **options)(Jobs)
    return domain


def graph(*ids: str, **nodes: dict[str, Any]) -> dict[str, Any]:
    """A raw graph; each of ``ids`` depends on the one before it."""
    chain = [{"id": i, "type": "job", "spec": {}, "depends_on": list(ids[k - 1 : k])} for k, i in enumerate(ids)]
    return {"nodes": chain + [{"id": i, "type": "job", **n} for i, n in nodes.items()]}


LADDER = Ladder(
    "jobs-escalation",
    ["PROVISION_FAILED"],
    [
        Rung("count >= 3 && review('ai-review-' + node) == ''", AddNode("ai-review-{node}", "ai-review")),
        Rung(
            "review('ai-review-' + node) == 'UNRESOLVED' && review('human-review-' + node) == ''",
            AddNode("human-review-{node}", "human-review", "ALL"),
        ),
    ],
)


async def test_what_did_not_change_is_not_done_again() -> None:
    handler = Jobs()
    async with harness(jobs(), handler) as h:
        await h.apply(graph("a"))
        await h.converged()
        await h.apply(graph("a", "b"))
        await h.converged()
    assert handler.order == ["a", "b"]


async def test_dependencies_come_first_and_go_last() -> None:
    handler = Jobs()
    async with harness(jobs(), handler) as h:
        await h.apply(graph("a", "b", "c"))
        await h.converged()
        await h.delete()
        await h.converged()
    assert handler.order == ["a", "b", "c", "-c", "-b", "-a"]


async def test_retries_share_one_key_until_they_succeed() -> None:
    handler = Jobs()
    async with harness(jobs(), handler) as h:
        await h.apply(graph(a={"spec": {"fails": 2}}))
        assert h.nodes["a"].phase == "backoff"
        await h.converged()
        assert handler.attempts == {"a": 3}
        assert len(set(handler.keys["a"])) == 1
        assert [f.attempt for f in h.faults] == [1, 2]


async def test_an_approval_is_asked_once_and_used() -> None:
    handler = Jobs()
    async with harness(jobs(), handler) as h:
        await h.apply(graph(a={"spec": {"ask": True}}))
        (item,) = h.workitems
        assert (item.node, item.kind, item.outcomes) == ("a", "approval", ["approve", "reject"])
        assert item.payload["summary"] == {"rows": 3}
        with pytest.raises(IllegalState, match="approve, reject"):
            await h.decide(item.id, "maybe")
        await h.decide(item.id, "approve")
        await h.converged()
        assert h.workitems == []


async def test_a_refused_approval_stays_refused_for_this_version() -> None:
    async with harness(jobs(), Jobs()) as h:
        await h.apply(graph(a={"spec": {"ask": True}}))
        await h.decide("a", "reject")
        await h.advance("1h")
        assert h.nodes["a"].phase == "refused"
        assert h.workitems == []
        assert [f.type for f in h.faults] == [FaultType.APPROVAL_REJECTED]


async def test_a_gated_node_waits_for_a_person() -> None:
    handler = Jobs()
    async with harness(jobs(after_human=True), handler) as h:
        await h.apply(graph(a={"gating": "PROVISION_ONLY"}))
        assert h.nodes["a"].phase == "waiting"
        assert handler.attempts == {}
        await h.decide("a", "", note="go")
        await h.converged()
        assert handler.decisions == ["a:  go"]


async def test_an_item_is_closed_when_its_node_goes() -> None:
    async with harness(jobs(), Jobs()) as h:
        await h.apply(graph(a={"gating": "ALL"}))
        (item,) = h.workitems
        await h.delete()
        assert item.status == "OBSOLETE"
        with pytest.raises(IllegalState, match="OBSOLETE"):
            await h.decide(item.id)
        with pytest.raises(NotFound, match="open: none"):
            await h.decide("b")


async def test_a_hold_is_left_alone_until_it_is_decided() -> None:
    domain, handler = jobs(outcomes={"quarantined": ["accept", "drop"]}), Jobs()
    domain.ladder(Ladder("holds", ["NODE_DEGRADED"], [Rung("true", AddNode("review-{node}", "human-review", "ALL"))]))
    async with harness(domain, handler) as h:
        await h.apply(graph(a={"spec": {"hold": True}}))
        await h.advance("1h")
        assert handler.attempts == {"a": 1}
        (item,) = h.workitems
        assert (item.node, item.outcomes) == ("review-a", ["accept", "drop"])
        await h.decide(item.id, "accept", note="fine by me")
        await h.converged()
        # The decision went along with the step, and the review is gone
        assert handler.decisions == ["a: accept fine by me"]
        assert list(h.nodes) == ["a"]


async def test_a_ladder_asks_the_reviewer_and_then_a_person() -> None:
    domain, handler = jobs(), Jobs()
    domain.ladder(LADDER)
    asked: list[Review] = []

    @domain.reviewer
    async def review(review: Review, ctx: Context) -> Reviewed:
        asked.append(review)
        return Reviewed(UNRESOLVED, "no idea", 0.2)

    async with harness(domain, handler) as h:
        await h.apply(graph(a={"spec": {"fails": 1000}}))
        await h.advance("1m")
        # Then after three failures the reviewer was asked, and after the fourth a person
        assert [(r.target, r.reason, r.error) for r in asked] == [("a", "flaky", "try 3")]
        (item,) = h.workitems
        assert item.node == "human-review-a"
        await h.decide(item.id, "retry", note="the disk is free again")
        await h.converged()
        assert handler.decisions == ["a: retry the disk is free again"]
        assert list(h.nodes) == ["a"]
        assert h.policy_failures == []


async def test_a_resolved_review_takes_effect_in_the_next_attempt() -> None:
    domain, handler = jobs(), Jobs()
    domain.ladder(LADDER)

    @domain.reviewer
    async def review(review: Review, ctx: Context) -> Reviewed:
        handler.attempts["a"] = 100  # repaired
        return Reviewed(RESOLVED, "restarted it", 0.9)

    async with harness(domain, handler) as h:
        await h.apply(graph(a={"spec": {"fails": 50}}))
        await h.converged()
        assert list(h.nodes) == ["a"]


async def test_a_policy_in_code_mutates_the_graph() -> None:
    domain, handler = jobs(), Jobs()

    @domain.policy
    async def policy(request: PolicyRequest) -> Sequence[Mutation]:
        if request.count < 2:
            return []
        return [AddNodeMutation(NodeDeclaration("fallback", "job", Raw(b"{}")))]

    async with harness(domain, handler) as h:
        await h.apply(graph(a={"spec": {"fails": 2}}))
        await h.converged()
        assert "fallback" in handler.done


async def test_a_policy_that_breaks_is_told_and_stops_nothing() -> None:
    domain = jobs()

    @domain.policy
    async def policy(request: PolicyRequest) -> Sequence[Mutation]:
        raise ValueError("a bug")

    async with harness(domain, Jobs()) as h:
        await h.apply(graph(a={"spec": {"fails": 1}}))
        await h.converged()
        assert h.policy_failures == ["ValueError: a bug"]


async def test_a_paused_graph_is_observed_but_not_touched() -> None:
    handler = Jobs()
    async with harness(jobs(), handler) as h:
        await h.pause()
        await h.apply(graph("a"))
        await h.advance("10m")
        assert handler.attempts == {}
        assert h.nodes["a"].status is Status.ABSENT
        await h.resume()
        await h.converged()


async def test_hooks_run_around_a_test() -> None:
    domain, order = jobs(), []

    @domain.on_startup
    async def up() -> None:
        order.append("up")

    @domain.on_shutdown
    async def down() -> None:
        order.append("down")

    async with harness(domain, Jobs()):
        order.append("test")
    assert order == ["up", "test", "down"]


async def test_a_large_graph_converges_quickly() -> None:
    handler = Jobs()
    nodes = {f"n{i}": {"depends_on": [f"n{i // 10 - 1}"] if i >= 10 else []} for i in range(2000)}
    began = time.process_time()
    async with harness(jobs(), handler) as h:
        await h.apply(graph(**nodes))
        await h.converged()
    assert len(handler.done) == 2000
    assert time.process_time() - began < 10


async def test_who_is_applied_last_wins_even_with_what_was_applied_before() -> None:
    """As it is in production: a test must not see another graph than users will."""
    zone = Zone()
    records = {"www": {"name": "www", "address": "192.0.2.1"}}
    async with harness(dns, DnsRecord(zone)) as h:
        await h.apply({"records": records})
        await h.apply({"records": {"www": {"name": "www", "address": "192.0.2.2"}}}, name="more")
        await h.converged()
        assert zone.records == {"www": "192.0.2.2"}
        await h.apply({"records": records})
        await h.converged()
        assert zone.records == {"www": "192.0.2.1"}
