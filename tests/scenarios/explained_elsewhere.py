"""Conditions of removed nodes, and of those that wait for domains or provisioners."""

from __future__ import annotations

from holdfast_model.messages import Action, Outcome
from holdfast_model.reconciler.conditions import Condition, Remark
from holdfast_testkit.waiting import eventually

from .conftest import Stage, graph, part
from .explained import REMOVAL, STEP, at, remark, says, shows, told
from .puppet import doll, puppet

# ---- domains and provisioners


@shows(Condition.UNCLAIMED)
async def a_type_of_nobody(stage: Stage) -> None:
    type = f"nobody-{stage.tenant}"
    await stage.publish("g", graph({"id": "a", "type": type}))
    reply = await told(stage, "a", Condition.UNCLAIMED)
    next = f"{STEP}, once a domain announces its type; holdfast get domains shows those that are known"
    why = f"no provisioner for type '{type}': no domain has ever announced it"
    says(reply, f"a is no_provisioner: {why}", next)
    assert (reply["domain"], reply["because"]["type"]) == ("", type)


@shows(Condition.DOMAIN_DOWN, Remark.UNATTENDED)
async def a_domain_that_has_left(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(doll(made, "a")))
    await made.end(await made.take())
    await stage.converged()
    await made.announce(leaving=True)
    await stage.publish("g", graph(doll(made, "a"), doll(made, "b")))
    reply = await told(stage, "b", Condition.DOMAIN_DOWN)
    gone = f"domain '{made.domain}' is not running since {at(reply['because']['since'])}"
    why = f"no provisioner for type '{made.type}': {gone}"
    says(reply, f"b is no_provisioner: {why}", f"{STEP}, once domain '{made.domain}' is running again")

    # What is as declared is so as far as anybody knows.
    reply = await told(stage, "a", Condition.PRESENT)
    assert remark(reply, Remark.UNATTENDED)["text"] == f"{gone}, so that nobody looks at it"

    # A removal waits for it as well.
    await stage.publish("g", graph(doll(made, "b")))
    reply = await told(stage, "a", Condition.DOMAIN_DOWN)
    says(reply, f"a is removing: no_provisioner: {why}", f"{REMOVAL}, once domain '{made.domain}' is running again")
    assert reply["desired"] is None


@shows(Condition.READY)
async def no_room_for_its_step(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(*(doll(made, f"n{i}") for i in range(4))))
    waiting: list[str] = []

    async def two_wait() -> bool:
        phases = await stage.phases("g")
        waiting[:] = [node for node, phase in phases.items() if phase == "ready"]
        return len(waiting) == 2

    await eventually(two_wait)
    reply = await told(stage, waiting[0], Condition.READY, queue=made.type)
    why = f"ready; waits until a provisioner of domain '{made.domain}' has room"
    says(reply, f"{waiting[0]} is ready: {why}", f"{STEP}; holdfast get domains shows who is running")
    for _ in range(4):
        await made.end(await made.take())
    await stage.converged()


@shows(Condition.PUT_OFF)
async def put_off(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(doll(made, "a")))
    await made.end(await made.take(), Outcome.SKIPPED, reason="busy", detail="come back later", retry_after=60.0)
    reply = await told(stage, "a", Condition.PUT_OFF, reason="busy")
    until = at(reply["because"]["until"])
    why = f"its provisioner put the step off until {until} (busy: come back later)"
    says(reply, f"a is backoff: {why}", f"{STEP} at {until}; holdfast unblock g a does it at once")
    assert reply["last_outcomes"][0]["outcome"] == "put off"


@shows(Condition.PROVISIONER_REJECTED)
async def rejected_by_its_provisioner(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(doll(made, "a")))
    await made.end(await made.take(), Outcome.REJECTED, reason="forbidden_zone", detail="not here")
    reply = await told(stage, "a", Condition.PROVISIONER_REJECTED, reason="forbidden_zone")
    next = "nothing, until its spec changes; holdfast unblock g a tries again"
    says(reply, "a is refused: refused by its provisioner (forbidden_zone): not here", next)
    assert reply["last_outcomes"][0]["outcome"] == "rejected"
    fault = await stage.wait_for("fault.default.g.approval_rejected")
    assert fault["reason"] == "forbidden_zone"


# ---- removals


@shows(Condition.LEFTOVER)
async def there_though_nobody_desires_it(stage: Stage) -> None:
    made = await puppet(stage, discover=True)
    made.leftovers = ["stray"]
    await stage.publish("g", graph(doll(made, "a")))
    await made.end(await made.take())
    reply = await told(stage, "stray", Condition.LEFTOVER)
    why = "it is there, and nobody desires it; it is left alone"
    next = "declare it to keep it (`holdfast import`), or remove it where it is"
    says(reply, f"stray is a leftover ({made.type}): {why}", next)
    assert reply["because"]["types"] == [made.type]


@shows(Condition.DEPROVISIONING)
async def a_removal_in_flight(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(doll(made, "a")))
    await made.end(await made.take())
    await stage.converged()
    await stage.publish("g", graph())
    taken = await made.take()
    assert taken[1].action is Action.DEPROVISION
    reply = await told(stage, "a", Condition.DEPROVISIONING)
    flight = reply["because"]
    step = f"deprovision, operation {taken[1].operation}, attempt 1"
    why = f"one step ({step}) is in flight since {at(flight['since'])}"
    why += f"; unless answered by {at(flight['deadline'])} it is looked at"
    says(reply, f"a is removing: {why}", "the outcome of the step")

    # One that says it is done, though the thing is still there, is tried again.
    there = made.seen["a"]
    await made.end(taken, Outcome.SUCCEEDED, observation=there)
    reply = await told(stage, "a", Condition.BACKOFF, attempt=2)
    until = at(reply["because"]["until"])
    why = f"backing off until {until}, then attempt 2; its provisioner says that it is removed, but it is present"
    says(reply, f"a is removing: backoff: {why}", f"{REMOVAL} at {until}; holdfast unblock g a does it at once")
    await made.end(await made.take())
    await stage.converged(2)
    assert (await stage.explain("a"))["error"]["message"] == f"node 'a' is not in graph {stage.tenant}/g"


@shows(Condition.REMOVAL_BLOCKED, Condition.BACKOFF)
async def a_removal_behind_another(stage: Stage) -> None:
    await stage.publish("g", graph(part("a"), part("b", 1, "a", mood="clings", again=60)))
    await stage.converged()
    await stage.publish("g", graph())
    reply = await told(stage, "b", Condition.BACKOFF)
    until = at(reply["because"]["until"])
    why = f"backing off until {until}, then attempt 2; last error: clings: it does not let go"
    says(reply, f"b is removing: backoff: {why}", f"{REMOVAL} at {until}; holdfast unblock g b does it at once")
    reply = await told(stage, "a", Condition.REMOVAL_BLOCKED, by="b")
    next = f"{REMOVAL}, once b does not need it; see: holdfast explain g b"
    says(reply, "a is removing: blocked: what was made with it comes first: b (removing: backoff)", next)


@shows(Condition.HUMAN_GATE)
async def a_removal_that_a_person_has_to_do(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", gating="DEPROVISION_ONLY")))
    await stage.converged()
    await stage.publish("g", graph())
    item = await stage.item()
    reply = await told(stage, "a", Condition.HUMAN_GATE, workitem=item["id"], assignee="")
    why = f"waits for a person: WorkItem {item['id']}, nobody has claimed it, no due date"
    says(reply, f"a is removing: waiting: {why}", f"a person decides: holdfast decide {item['id']} done|reject")


@shows(Condition.GRAPH_PAUSED)
async def a_removal_in_a_paused_graph(stage: Stage) -> None:
    await stage.publish("g", graph(part("a")))
    await stage.converged()
    await stage.ask("pause", graph="g")
    await stage.publish("g", graph())
    reply = await told(stage, "a", Condition.GRAPH_PAUSED)
    next = f"{REMOVAL}, after holdfast resume g"
    says(reply, "a is removing: paused: needs a step, but the graph is paused", next)


@shows(Condition.SUCCESSOR_FIRST, Remark.FORMER_FORM)
async def the_new_form_comes_first(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(part("a")))
    await stage.converged()
    await stage.publish("g", graph(doll(made, "a")))
    taken = await made.take()
    reply = await told(stage, "a", Condition.PROVISIONING)
    former = remark(reply, Remark.FORMER_FORM)
    assert (former["type"], former["condition"]) == ("prop", Condition.FORMER_STEP)
    await made.end(taken, Outcome.FAILED, reason="no_clay", retry_after=60.0)
    reply = await told(stage, "a", Condition.BACKOFF)
    former = remark(reply, Remark.FORMER_FORM)
    assert (former["type"], former["condition"]) == ("prop", Condition.SUCCESSOR_FIRST)
    first = f"its new form (type '{made.type}') has to be there first, and is backoff"
    assert former["text"] == f"its former form (type 'prop') is to be removed: {first}"
    assert reply["summary"].endswith(former["text"])


@shows(Condition.REMOVAL_ASKED, Remark.FORMER_FORM)
async def two_forms_to_be_removed_by_a_person(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", gating="DEPROVISION_ONLY"), part("b")))
    await stage.converged()
    await stage.publish("g", graph(part("a", type="policed", gating="DEPROVISION_ONLY"), part("b")))
    item = await stage.item()
    await told(stage, "a", Condition.PRESENT)
    await stage.publish("g", graph(part("b")))
    reply = await told(stage, "a", Condition.HUMAN_GATE, workitem=item["id"])
    other = remark(reply, Remark.FORMER_FORM)
    assert (other["type"], other["condition"]) == ("policed", Condition.REMOVAL_ASKED)
    asked = "people are being asked about the removal of another form of it"
    assert other["text"] == f"another form (type 'policed') is to be removed: {asked}"
    assert reply["next"] == f"a person decides: holdfast decide {item['id']} done|reject"
