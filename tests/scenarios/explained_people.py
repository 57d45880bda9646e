"""Conditions of nodes about which people are asked, or have answered."""

from __future__ import annotations

from datetime import datetime

from holdfast_model.reconciler.conditions import Condition, Remark
from holdfast_testkit.waiting import eventually

from .conftest import Stage, graph, part
from .explained import STEP, at, remark, says, shows, told

LOOKED_AT = "nothing; it is looked at every 3600 s"
BUILT_IN = "nothing; nodes of its type are not looked at"


@shows(Condition.HUMAN_GATE)
async def a_person_is_asked(stage: Stage) -> None:
    await stage.publish("g", graph(part("door", gating="PROVISION_ONLY")))
    item = await stage.item()
    reply = await told(stage, "door", Condition.HUMAN_GATE, workitem=item["id"], assignee="")
    why = f"waits for a person: WorkItem {item['id']}, nobody has claimed it, no due date"
    says(reply, f"door is waiting: {why}", f"a person decides: holdfast decide {item['id']} done|reject")


@shows(Condition.HUMAN_GATE, Remark.DEADLINE)
async def a_person_has_claimed_it_and_it_is_due(stage: Stage) -> None:
    await stage.publish("g", graph(part("door", gating="ALL"), deadline="1h"))
    item = await stage.item()
    await stage.ask("claim", "workitems", id=item["id"], actor="ann")
    reply = await told(stage, "door", Condition.HUMAN_GATE, assignee="ann")
    due = reply["because"]["due"]
    assert due == datetime.fromisoformat(item["expiresAt"]).timestamp()
    until = remark(reply, Remark.DEADLINE)
    assert (until["of"], at(until["until"])) == ("main", at(due))
    why = f"waits for a person: WorkItem {item['id']}, assigned to ann, due {at(due)}"
    why += f"; blueprint 'main' is to be complete by {at(due)}"
    says(reply, f"door is waiting: {why}", f"a person decides: holdfast decide {item['id']} done|reject")


@shows(Condition.HUMAN_GATE, Remark.TIMED_OUT)
async def nobody_did_it_in_time(stage: Stage) -> None:
    phase = {"id": "build", "graph": graph(part("door", gating="ALL")), "deadline": "1s"}
    await stage.publish("g", {"phases": [phase]})
    await stage.wait_for("graph.default.g.timed_out")
    reply = await told(stage, "door", Condition.HUMAN_GATE)
    late = remark(reply, Remark.TIMED_OUT)
    assert late["text"] == "phase 'build' is out of time; work goes on, and a new version ends that"
    assert reply["stages"][0]["timed_out"] is True


@shows(Condition.ATTESTED)
async def a_person_did_it(stage: Stage) -> None:
    await stage.publish("g", graph(part("door", gating="PROVISION_ONLY")))
    await stage.complete(await stage.item(), "done")
    reply = await told(stage, "door", Condition.ATTESTED)
    says(reply, "door is present: done by ann, whose word counts until somebody sees otherwise", LOOKED_AT)
    assert reply["observed"]["reason"] == "attested"


@shows(Condition.REJECTED)
async def a_person_said_no(stage: Stage) -> None:
    await stage.publish("g", graph(part("door", gating="PROVISION_ONLY")))
    item = await stage.item()
    await stage.ask("reject", "workitems", id=item["id"], actor="ann", note="not in my house")
    reply = await told(stage, "door", Condition.REJECTED, by="ann", workitem=item["id"])
    next = "nothing, until its spec changes; holdfast unblock g door asks again"
    says(reply, f"door is refused: refused by ann: WorkItem {item['id']}", next)


@shows(Condition.APPROVAL)
async def a_plan_waits_for_approval(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", plan="spend 3")))
    item = await stage.item()
    reply = await told(stage, "a", Condition.APPROVAL, workitem=item["id"], assignee="")
    why = f"waits for approval of 'spend 3': WorkItem {item['id']}, nobody has claimed it, no due date"
    says(reply, f"a is waiting: {why}", f"a person decides: holdfast decide {item['id']} approve|reject")
    assert reply["last_outcomes"][0]["outcome"] == "asked for approval"


@shows(Condition.APPROVAL_REJECTED)
async def a_plan_was_refused(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", plan="spend 3")))
    item = await stage.item()
    await stage.complete(item, "reject")
    reply = await told(stage, "a", Condition.APPROVAL_REJECTED, by="ann")
    next = "nothing, until its spec changes; holdfast unblock g a asks again"
    says(reply, f"a is refused: refused by ann: WorkItem {item['id']} about 'spend 3'", next)


@shows(Condition.HELD)
async def held_and_a_person_is_asked(stage: Stage) -> None:
    await stage.publish("g", graph(part("w", type="watched")))
    await stage.converged()
    await stage.fall_sick("w", token="t", detail="38.1")
    item = await stage.item()
    reply = await told(stage, "w", Condition.HELD, workitem=item["id"], assignee="")
    asks = f"human-review-w asks a person: WorkItem {item['id']}, nobody has claimed it, no due date"
    next = f"a person decides: holdfast decide {item['id']} mend|give-up"
    says(reply, f"w is held: held because of sick: 38.1; {asks}", next)
    review = await told(stage, "human-review-w", Condition.HUMAN_GATE, workitem=item["id"])
    why = f"waits for a person: WorkItem {item['id']}, nobody has claimed it, no due date"
    says(review, f"human-review-w is waiting: {why}", next)
    assert review["desired"]["owner"] == "policy:drifts"


async def _handled(stage: Stage) -> bool:
    """Whether the fault-policy service has handled every fault so far."""
    faults = (await stage.ask("faults", graph="g"))["faults"]
    return bool(faults) and all(fault["handled"] for fault in faults)


@shows(Condition.HELD)
async def held_and_nobody_is_asked(stage: Stage) -> None:
    await stage.publish("g", graph(part("a")))
    await stage.converged()
    await stage.fall_sick("a", hold=True, token="t")
    await eventually(lambda: _handled(stage))
    reply = await told(stage, "a", Condition.HELD, reason="sick")
    next = "nothing, until it is well again or its spec changes; holdfast unblock g a has it mended"
    says(reply, "a is held: held because of sick; nobody is asked: no policy has added a review of it", next)


@shows(Condition.GIVEN_UP, Remark.DRIFTED)
async def given_up(stage: Stage) -> None:
    await stage.publish("g", graph(part("w", type="watched")))
    await stage.converged()
    await stage.fall_sick("w", token="t")
    await stage.complete(await stage.item(), "give-up")
    reply = await told(stage, "w", Condition.GIVEN_UP, by="ann")
    next = "nothing, until its spec changes; holdfast unblock g w tries again"
    says(reply, "w is refused: given up by ann (outcome give-up); drifted: sick", next)
    assert remark(reply, Remark.DRIFTED)["reason"] == "sick"


@shows(Condition.ANSWERED, Remark.DECIDED)
async def a_person_answered_a_review(stage: Stage) -> None:
    open = stage.folder / "open"
    open.touch()
    await stage.publish("g", graph(part("w", type="watched", until="open")))
    await stage.converged()
    open.unlink()
    await stage.fall_sick("w", token="t")
    await stage.complete(await stage.item(), "mend")
    review = await told(stage, "human-review-w", Condition.ANSWERED)
    says(review, "human-review-w is present: answered: mend by ann", BUILT_IN)
    target = await told(stage, "w", Condition.PROVISIONING)
    assert remark(target, Remark.DECIDED)["text"] == "the decision mend of ann goes along with its next step"
    assert target["decision"]["outcome"] == "mend"
    open.touch()
    await stage.converged(2)


@shows(Condition.ANSWERED)
async def a_reviewer_answered(stage: Stage) -> None:
    await stage.publish("g", graph(part("w", "bad", type="watched", bad=True)))
    review = await told(stage, "ai-review-w", Condition.ANSWERED, answer="UNRESOLVED")
    says(review, "ai-review-w is present: answered UNRESOLVED: looked at it", BUILT_IN)


@shows(Condition.REVIEW_PENDING)
async def a_reviewer_has_no_answer_yet(stage: Stage) -> None:
    await stage.publish("g", graph(part("w", "bad", type="watched", bad=True, review="PENDING")))
    review = await told(stage, "ai-review-w", Condition.REVIEW_PENDING)
    again = at(review["because"]["until"])
    why = f"its reviewer has no answer yet, and is asked again at {again}"
    says(review, f"ai-review-w is backoff: {why}", f"the reviewer is asked again at {again}")


@shows(Condition.LATER_PHASE)
async def in_a_phase_to_come(stage: Stage) -> None:
    build = {"id": "build", "graph": graph(part("a"), part("b", fail=9, again=60))}
    run = {"id": "run", "graph": graph(part("c", 7))}
    await stage.publish("g", {"phases": [build, run]})
    await told(stage, "b", Condition.BACKOFF)
    await told(stage, "a", Condition.PRESENT)
    reply = await told(stage, "c", Condition.LATER_PHASE, missing=["b"])
    why = "it belongs to phase 'run' of blueprint 'main'; in force is 'build', which waits for 1 of its nodes: b"
    next = "the node is declared when phase 'run' begins; see: holdfast explain g b"
    says(reply, f"c is not in the graph yet: {why}", next)
    assert (reply["because"]["phase"], reply["because"]["after"]) == ("run", "build")
    assert (reply["desired"]["spec"]["value"], reply["desired"]["owner"]) == (7, "main")


@shows(Remark.REMOVAL_CONSENT)
async def a_version_that_removes_it_waits_for_consent(stage: Stage) -> None:
    nodes = [part(f"n{i:02}") for i in range(12)]
    await stage.publish("g", graph(*nodes))
    await stage.converged()
    await stage.publish("g", graph(nodes[0]))
    await stage.item()
    reply = await told(stage, "n05", Condition.PRESENT)
    text = "a version of blueprint 'main' waits for consent to removing 11 of 12 nodes, this one among them"
    says(reply, f"n05 is present: as declared; {text}", LOOKED_AT)
    assert remark(reply, Remark.REMOVAL_CONSENT)["of"] == "main"
    kept = await told(stage, "n00", Condition.PRESENT)
    assert kept["summary"] == "n00 is present: as declared"


@shows(Remark.NEWER_VERSION)
async def a_newer_version_waits_for_a_domain(stage: Stage) -> None:
    await stage.publish("g", graph(part("a")))
    await stage.converged()
    missing = f"not-there-{stage.tenant}"
    await stage.publish("g", {"domain": missing, "spec": {}})
    await stage.wait_for("graph.default.g.waiting")
    reply = await told(stage, "a", Condition.PRESENT)
    text = f"a version of blueprint 'main' waits for domain '{missing}', not running"
    says(reply, f"a is present: as declared; {text}", LOOKED_AT)
    assert remark(reply, Remark.NEWER_VERSION)["domains"] == [missing]

    # What is nowhere is an error that says so, and why, as far as a waiting blueprint is the reason.
    error = (await stage.explain("b"))["error"]
    assert error["code"] == "not_found"
    assert error["message"] == f"node 'b' is not in graph {stage.tenant}/g; {text}"
    await stage.publish("other", {"domain": missing, "spec": {}})
    await stage.wait_for("graph.default.other.waiting")
    error = (await stage.explain("b", "other"))["error"]
    assert error["message"].endswith(text), error
    error = (await stage.explain("b", "nothing"))["error"]
    assert (error["code"], error["message"]) == ("not_found", f"there is no graph {stage.tenant}/nothing")


@shows(Condition.FAILED)
async def an_escalation_says_who_is_asked(stage: Stage) -> None:
    """A node that failed for good, with the review that a ladder added, is one explanation after another."""
    await stage.publish("g", graph(part("p", "bad", type="policed", bad=True)))
    item = await stage.item()
    reply = await told(stage, "p", Condition.FAILED, workitem=item["id"])
    asks = f"human-review-p asks a person: WorkItem {item['id']}, nobody has claimed it, no due date"
    why = f"failed for good; last error: bad_value: the value is bad; {asks}"
    says(reply, f"p is failed: {why}", f"a person decides: holdfast decide {item['id']} mend|give-up")
    assert STEP not in reply["next"]
