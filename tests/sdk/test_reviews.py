"""Episodes, reviews and decisions, from the first fault to recovery, in the harness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_model.events import Fault, FaultType
from holdfast_sdk import (
    PENDING,
    RESOLVED,
    UNRESOLVED,
    Absent,
    AddNode,
    Context,
    Domain,
    Drifted,
    Ladder,
    Node,
    Permanent,
    Present,
    Review,
    Reviewed,
    Rung,
    State,
    Temporary,
    Verdict,
)
from holdfast_sdk.testing import harness
from holdfast_sdk.testing.harness import Harness

ESCALATION = Ladder(
    "escalation",
    ["PROVISION_FAILED"],
    [
        Rung(
            "(count >= 2 || fault.permanent) && review('ai-review-' + node) == ''",
            AddNode("ai-review-{node}", "ai-review"),
        ),
        Rung("review('ai-review-' + node) == 'UNRESOLVED'", AddNode("human-review-{node}", "human-review", "ALL")),
    ],
)  # fmt: skip
DRIFTS = Ladder("drifts", ["NODE_DEGRADED"], [Rung("true", AddNode("human-review-{node}", "human-review", "ALL"))])


class Patients:
    """Things that are ill as long as ``ill`` says so: ``fails`` or ``hopeless`` to provision, else a drift's reason."""

    def __init__(self) -> None:
        self.ill: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.made: set[str] = set()
        self.steps: list[str] = []

    async def observe(self, node: Node[dict[str, Any]], ctx: Context) -> State[dict[str, Any]]:
        reason = self.ill.get(node.id, "")
        if reason and node.id in self.made and reason not in ("fails", "hopeless"):
            return Drifted(reason, hold=True, token=self.tokens.get(node.id, ""))
        return Present() if node.id in self.made else Absent()

    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> object:
        self.steps.append(node.id if ctx.decision is None else f"{node.id} {ctx.decision.outcome}")
        match self.ill.get(node.id):
            case "fails":
                raise Temporary("it hurts", reason="pain")
            case "hopeless":
                raise Permanent("it hurts for ever", reason="pain")
        if ctx.decision is not None:
            self.ill.pop(node.id, None)
        self.made.add(node.id)
        return None

    async def deprovision(self, node: Node[dict[str, Any]], ctx: Context) -> None:
        self.made.discard(node.id)


def clinic(*ladders: Ladder, **options: Any) -> Domain:
    domain = Domain("clinic")
    domain.node_type("patient", backoff=("1s", "4s"), **options)(Patients)
    for ladder in ladders:
        domain.ladder(ladder)
    return domain


def patients(*ids: str) -> dict[str, Any]:
    """Each depends on the one before it."""
    return {"nodes": [{"id": n, "type": "patient", "depends_on": list(ids[k - 1 : k])} for k, n in enumerate(ids)]}


def told(h: Harness, kind: FaultType) -> list[Fault]:
    return [f for f in h.faults if f.type is kind]


def recoveries(h: Harness) -> list[str]:
    return [e.node for e in h.events if e.name == "recovered"]


# ---- episodes


async def test_a_new_reason_of_drift_starts_a_new_episode_and_a_new_detail_does_not() -> None:
    handler = Patients()
    async with harness(clinic(on_drift="hold"), handler) as h:
        await h.apply(patients("ann"))
        await h.converged()

        await h.drift("ann", "fever", detail="38.1", hold=True, token="1")
        await h.drift("ann", "fever", detail="38.5", hold=True, token="1")
        await h.drift("ann", "rash", hold=True, token="1")

        fever, rash = told(h, FaultType.NODE_DEGRADED)
        assert (fever.reason, rash.reason) == ("fever", "rash")
        assert fever.episode != rash.episode
        await h.wake("ann")
        assert recoveries(h) == ["ann"], "it is told once that the trouble is over, whatever it consisted of"


async def test_an_episode_opened_by_failures_takes_the_first_drift_in() -> None:
    handler = Patients()
    handler.ill["ann"] = "fails"
    async with harness(clinic(ESCALATION), handler) as h:
        await h.apply(patients("ann"))
        await h.drift("ann", "rash", hold=True)

        assert len({f.episode for f in h.faults}) == 1
        assert [f.type for f in h.faults] == [FaultType.PROVISION_FAILED, FaultType.NODE_DEGRADED]


async def test_a_new_episode_replaces_the_review_of_the_old_one_and_closes_its_item() -> None:
    handler = Patients()
    async with harness(clinic(DRIFTS, on_drift="hold"), handler) as h:
        await h.apply(patients("ann"))
        await h.converged()
        handler.ill["ann"] = "fever"
        await h.wake("ann")
        (first,) = h.workitems

        handler.ill["ann"] = "rash"
        await h.wake("ann")

        (second,) = h.workitems
        assert first.status == "OBSOLETE"
        assert (first.title, second.title) == ("review ann: fever", "review ann: rash")
        await h.decide(second.id, "retry")
        assert handler.steps == ["ann", "ann retry"]
        assert list(h.nodes) == ["ann"]


async def test_a_review_that_no_ladder_asks_for_any_more_goes_with_its_episode() -> None:
    fevers = Ladder(
        "fevers", ["NODE_DEGRADED"], [Rung("fault.reason == 'fever'", AddNode("human-{node}", "human-review"))]
    )
    handler = Patients()
    async with harness(clinic(fevers, on_drift="hold"), handler) as h:
        await h.apply(patients("ann"))
        await h.converged()
        handler.ill["ann"] = "fever"
        await h.wake("ann")
        assert "human-ann" in h.nodes

        handler.ill["ann"] = "rash"
        await h.wake("ann")

        assert (list(h.nodes), h.workitems) == (["ann"], [])


async def test_a_decision_about_an_earlier_drift_is_not_sent_for_a_later_one() -> None:
    handler = Patients()
    async with harness(clinic(DRIFTS, on_drift="hold"), handler) as h:
        await h.apply(patients("ann"))
        await h.converged()
        handler.ill["ann"] = "fever"
        await h.wake("ann")
        await h.pause("ann")
        await h.decide(h.workitems[0].id, "retry")  # it cannot go out yet

        handler.ill["ann"] = "rash"
        await h.wake("ann")
        await h.resume("ann")

        assert handler.steps == ["ann"], "nobody has decided about the rash"
        assert h.nodes["ann"].phase == "held"


async def test_a_fault_of_a_dependent_names_the_fault_that_led_to_it() -> None:
    handler = Patients()
    handler.ill["ann"] = "fails"
    async with harness(clinic(ESCALATION), handler) as h:
        await h.apply(patients("ann", "bob"))

        (blocked,) = told(h, FaultType.DEPENDENCY_UNAVAILABLE)
        (failed,) = told(h, FaultType.PROVISION_FAILED)
        assert (blocked.node, blocked.parents) == ("bob", (failed.id,))


async def test_what_a_ladder_added_of_a_domains_type_is_taken_down_at_recovery() -> None:
    spare = Ladder("spare", ["PROVISION_FAILED"], [Rung("true", AddNode("spare-{node}", "patient"))])
    handler = Patients()
    handler.ill["ann"] = "fails"
    async with harness(clinic(spare), handler) as h:
        await h.apply(patients("ann"))
        await h.advance("1m")
        assert handler.made == {"spare-ann"}

        handler.ill.clear()
        await h.converged()

        assert (handler.made, list(h.nodes), h.removed) == ({"ann"}, ["ann"], [])


# ---- AI reviews


def reviewed_by(domain: Domain, answer: Callable[[int], Reviewed]) -> list[Review]:
    """Serve reviews: the n-th (from 1) is answered with ``answer(n)``."""
    asked: list[Review] = []

    @domain.reviewer
    async def review(review: Review, ctx: Context) -> Reviewed:
        asked.append(review)
        return answer(len(asked))

    return asked


async def test_a_pending_review_is_asked_again_later_and_nobody_else_is() -> None:
    domain, handler = clinic(ESCALATION), Patients()
    handler.ill["ann"] = "hopeless"
    asked = reviewed_by(domain, lambda n: Reviewed(UNRESOLVED if n > 3 else PENDING, "hm"))
    async with harness(domain, handler) as h:
        await h.apply(patients("ann"))
        assert (len(asked), h.workitems) == (1, [])
        assert h.nodes["ai-review-ann"].phase == "backoff"

        await h.advance("30m")

        assert len(asked) == 4
        assert [i.node for i in h.workitems] == ["human-review-ann"]


async def test_a_review_less_sure_than_asked_for_resolves_nothing() -> None:
    rung = Rung("true", AddNode("ai-{node}", "ai-review", spec={"min_confidence": 0.8}))
    careful = Ladder("careful", ["PROVISION_FAILED"], [rung])
    domain, handler = clinic(careful), Patients()
    handler.ill["ann"] = "fails"
    reviewed_by(domain, lambda n: Reviewed(RESOLVED, "perhaps", 0.5))
    async with harness(domain, handler) as h:
        await h.apply(patients("ann"))
        assert h.nodes["ai-ann"].reason == "UNRESOLVED"


async def test_a_reviewer_that_fails_for_ever_leaves_it_to_a_person() -> None:
    domain, handler = clinic(ESCALATION), Patients()
    handler.ill["ann"] = "hopeless"

    def broken(n: int) -> Reviewed:
        raise Permanent("no such model")

    reviewed_by(domain, broken)
    async with harness(domain, handler) as h:
        await h.apply(patients("ann"))

        assert handler.steps == ["ann", "ann"], "the answer, whatever it is, lets one attempt follow"
        assert [i.node for i in h.workitems] == ["human-review-ann"]
        assert "no such model" in h.nodes["ai-review-ann"].detail


async def test_without_a_reviewer_a_permanent_failure_goes_straight_to_a_person() -> None:
    handler = Patients()
    handler.ill["ann"] = "hopeless"
    async with harness(clinic(ESCALATION), handler) as h:
        await h.apply(patients("ann"))

        assert handler.steps == ["ann", "ann"]
        assert [i.node for i in h.workitems] == ["human-review-ann"]


async def test_a_resolved_review_followed_by_as_many_failures_brings_a_person() -> None:
    domain, handler = clinic(ESCALATION), Patients()
    handler.ill["ann"] = "fails"
    reviewed_by(domain, lambda n: Reviewed(RESOLVED, "try again", 0.9))
    async with harness(domain, handler) as h:
        await h.apply(patients("ann"))
        await h.advance("1h")

        asked = [f for f in h.faults if f.node == "ann"]
        (item,) = h.workitems
        assert item.node == "human-review-ann"
        assert len(asked) >= 2 + 2


# ---- fixes


def fixed(value: object, *, verdict: Verdict = UNRESOLVED) -> Callable[[int], Reviewed]:
    patch = [{"op": "replace", "path": "/dose", "value": value}]
    return lambda n: Reviewed(verdict, "the dose is wrong", 0.9, {"patch": patch, "note": "half of it"})


class Dosed(Patients):
    """Well from a dose of 5 down."""

    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> object:
        self.ill[node.id] = "hopeless" if node.spec["dose"] > 5 else ""
        return await super().provision(node, ctx)


def dosed(dose: int, **more: Any) -> dict[str, Any]:
    return {"nodes": [{"id": "ann", "type": "patient", "spec": {"dose": dose, **more}}]}


async def test_a_proposed_fix_is_shown_to_a_person_and_applied_when_she_agrees() -> None:
    domain, handler = clinic(ESCALATION), Dosed()
    asked = reviewed_by(domain, fixed(5))
    async with harness(domain, handler) as h:
        await h.apply(dosed(10))
        (item,) = h.workitems
        assert asked[0].context["spec"] == {"dose": 10}
        assert item.outcomes == ["apply-fix", "retry", "give-up"]
        advice = item.payload["advice"]
        assert isinstance(advice, dict)
        assert advice["fix"]["note"] == "half of it"

        await h.decide(item.id, "apply-fix", by="dora")

        await h.converged()
        assert (list(h.nodes), h.nodes["ann"].spec) == (["ann"], {"dose": 5})
        # It holds until the blueprint changes the node
        await h.apply(dosed(10))
        assert h.nodes["ann"].spec == {"dose": 5}
        await h.apply(dosed(4))
        assert h.nodes["ann"].spec == {"dose": 4}


async def test_a_fix_that_resolves_by_itself_waits_for_consent_unless_the_ladder_says_otherwise() -> None:
    domain, handler = clinic(ESCALATION), Dosed()
    reviewed_by(domain, fixed(5, verdict=RESOLVED))
    async with harness(domain, handler) as h:
        await h.apply(dosed(10))
        assert [i.outcomes[0] for i in h.workitems] == ["apply-fix"]


def automatic() -> Ladder:
    ask = AddNode("ai-review-{node}", "ai-review", spec={"auto_apply": True, "min_confidence": 0.5})
    return Ladder(
        "automatic", ["PROVISION_FAILED"], [Rung("review('ai-review-' + node) == ''", ask), ESCALATION.rungs[1]]
    )


async def test_a_fix_is_applied_at_once_where_the_ladder_says_so_but_only_one_until_the_blueprint_changes() -> None:
    domain, handler = clinic(automatic()), Dosed()
    reviewed_by(domain, lambda n: fixed(8 if n == 1 else 3, verdict=RESOLVED)(n))
    async with harness(domain, handler) as h:
        await h.apply(dosed(10))

        # The first fix was not enough: the second one needs a person
        assert h.nodes["ann"].spec == {"dose": 8}
        (item,) = h.workitems
        assert item.outcomes[0] == "apply-fix"
        assert handler.steps == ["ann", "ann", "ann"]
        await h.decide(item.id, "apply-fix")
        assert h.nodes["ann"].spec == {"dose": 3}


@pytest.mark.parametrize(
    ("fix", "why"),
    [
        ({"patch": [{"op": "replace", "path": "/drug", "value": 1}]}, "does not apply"),
        ({"patch": [{"op": "replace", "path": "/dose", "value": 10}]}, "changes nothing"),
        ({"patch": "half of it"}, "cannot be read"),
    ],
)
async def test_a_fix_that_cannot_be_carried_out_is_told_and_not_offered(fix: dict[str, object], why: str) -> None:
    domain, handler = clinic(automatic()), Dosed()
    reviewed_by(domain, lambda n: Reviewed(RESOLVED, "try this", 0.9, fix))
    async with harness(domain, handler) as h:
        await h.apply(dosed(10))

        told = [e.data for e in h.events if e.name == "policy_failed"]
        assert [(e["node"], e["kind"], why in str(e["message"])) for e in told] == [("ann", "FIX_INVALID", True)]
        assert [i.outcomes for i in h.workitems] == [["retry", "give-up"]]
        assert h.nodes["ann"].spec == {"dose": 10}


# ---- people


@pytest.mark.parametrize("ill", ["fails", "hopeless"])
async def test_a_step_that_fails_in_spite_of_a_decision_asks_anew_with_the_latest_detail(ill: str) -> None:
    handler = Patients()
    handler.ill["ann"] = ill
    async with harness(clinic(ESCALATION), handler) as h:
        await h.apply(patients("ann"))
        await h.advance("10s")
        (first,) = h.workitems

        await h.decide(first.id, "retry")

        (second,) = h.workitems
        assert first.id != second.id
        assert second.description.startswith("it hurts")


async def test_giving_up_sends_nothing_until_unblocked_and_the_next_failure_asks_again() -> None:
    handler = Patients()
    handler.ill["ann"] = "fails"
    async with harness(clinic(ESCALATION), handler) as h:
        await h.apply(patients("ann"))
        await h.advance("10s")
        steps = len(handler.steps)
        await h.decide(h.workitems[0].id, "give-up", by="dora")
        await h.advance("2h")
        assert (h.nodes["ann"].phase, len(handler.steps)) == ("refused", steps)

        await h.unblock("ann")

        assert len(handler.steps) == steps + 1
        assert [i.node for i in h.workitems] == ["human-review-ann"]


async def test_a_review_nobody_answers_in_time_is_one_fault_and_a_new_round() -> None:
    handler = Patients()
    handler.ill["ann"] = "hopeless"
    async with harness(clinic(ESCALATION), handler) as h:
        await h.apply(patients("ann"))
        (first,) = h.workitems
        await h.expire(first.id)

        (late,) = told(h, FaultType.HUMAN_NODE_TIMEOUT)
        (second,) = h.workitems
        assert (late.node, first.id != second.id) == ("human-review-ann", True)
        await h.advance("1h")
        assert len(told(h, FaultType.HUMAN_NODE_TIMEOUT)) == 1
