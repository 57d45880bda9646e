"""Conditions of nodes that are there, are looked at, or are worked on."""

from __future__ import annotations

import json

from holdfast_model.reconciler.conditions import Condition, Remark

from .conftest import Stage, graph, part
from .explained import STEP, at, remark, says, shows, told
from .puppet import doll, puppet

LOOKED_AT = "nothing; it is looked at every 3600 s"


@shows(Condition.PRESENT)
async def there(stage: Stage) -> None:
    await stage.publish("g", graph(part("a")))
    await stage.converged()
    reply = await told(stage, "a", Condition.PRESENT)
    says(reply, "a is present: as declared", LOOKED_AT)
    assert (reply["waits"], reply["desired"]["spec"]["value"], reply["observed"]["status"]) == ([], 1, "PRESENT")
    (last,) = reply["last_outcomes"]
    assert (last["outcome"], last["attempt"]) == ("succeeded", 1)
    (change,) = reply["mutations"]
    assert change["text"].startswith(f"version {change['version']} at {at(change['at'])} by ")


@shows(Condition.RECOVERED)
async def well_again(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", fail=1)))
    await stage.converged()
    reply = await told(stage, "a", Condition.RECOVERED)
    since = at(reply["because"]["since"])
    says(reply, f"a is present: as declared again since {since}, after PROVISION_FAILED (flaky)", LOOKED_AT)

    # An edit begins anew.
    await stage.publish("g", graph(part("a", 2)))
    await stage.converged(2)
    says(await told(stage, "a", Condition.PRESENT), "a is present: as declared", LOOKED_AT)


@shows(Condition.DOUBTED)
async def what_it_is_made_from_was_made_anew(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(doll(made, "a"), doll(made, "b", "a")))
    for _ in range(2):
        await made.end(await made.take())
    await stage.converged()
    made.silent = True
    await stage.publish("g", graph(doll(made, "a", value=2), doll(made, "b", "a")))
    await made.end(await made.take())
    reply = await told(stage, "b", Condition.DOUBTED)
    why = f"what it is made from was made anew, so domain '{made.domain}' is asked how it is"
    says(reply, f"b is present: {why}", f"an observation, then {STEP} if that is needed")


@shows(Condition.DOUBTED)
async def somebody_reported_a_fault_of_it(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(doll(made, "a")))
    await made.end(await made.take())
    await stage.converged()
    made.silent = True
    await stage.report("g", node="a", fault="NODE_DEGRADED")
    reply = await told(stage, "a", Condition.DOUBTED)
    why = f"somebody reported a fault of it, so domain '{made.domain}' is asked how it is"
    says(reply, f"a is present: {why}", f"an observation, then {STEP} if that is needed")


@shows(Condition.UNSEEN)
async def not_seen_yet(stage: Stage) -> None:
    made = await puppet(stage)
    made.silent = True
    await stage.publish("g", graph(doll(made, "a")))
    reply = await told(stage, "a", Condition.UNSEEN)
    why = f"nobody has seen it yet; domain '{made.domain}' is asked how it is"
    says(reply, f"a is observing: {why}", f"an observation, then {STEP} if that is needed")
    assert reply["last_outcomes"] == []


@shows(Condition.UNKNOWN)
async def not_to_be_seen(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", mood="blind")))
    reply = await told(stage, "a", Condition.UNKNOWN)
    why = "cannot be seen (observe_failed): RuntimeError: cannot see; domain 'stage' is asked again and again"
    says(reply, f"a is observing: {why}", f"an observation, then {STEP} if that is needed")
    await stage.ask("delete", graph="g")


@shows(Condition.PROVISIONING)
async def one_step_in_flight(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(doll(made, "a")))
    _, taken = await made.take()
    reply = await told(stage, "a", Condition.PROVISIONING)
    flight = reply["because"]
    since, until = at(flight["since"]), at(flight["deadline"])
    assert (flight["operation"], flight["attempt"]) == (taken.operation, 1)
    step = f"provision, operation {taken.operation}, attempt 1"
    why = f"one step ({step}) is in flight since {since}; unless answered by {until} it is looked at"
    says(reply, f"a is running: {why}", "the outcome of the step")


@shows(Condition.FORMER_STEP)
async def a_step_of_its_former_form_in_flight(stage: Stage) -> None:
    made = await puppet(stage)
    await stage.publish("g", graph(doll(made, "a")))
    _, taken = await made.take()
    await stage.publish("g", graph(part("a")))
    reply = await told(stage, "a", Condition.FORMER_STEP)
    flight = reply["because"]
    since, until = at(flight["since"]), at(flight["deadline"])
    step = f"one step of its other form (type '{made.type}') (provision, operation {taken.operation}, attempt 1)"
    why = f"{step} is in flight since {since}; unless answered by {until} it is looked at"
    former = remark(reply, Remark.FORMER_FORM)
    assert (former["type"], former["condition"]) == (made.type, Condition.PROVISIONING)
    says(reply, f"a is blocked: {why}; {former['text']}", f"{STEP}, once that one has ended")


@shows(Condition.BLOCKED)
async def behind_one_that_failed(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", fail=9, again=60), part("b", 1, "a"), part("c", 1, "b")))
    await told(stage, "a", Condition.BACKOFF)
    reply = await told(stage, "c", Condition.BLOCKED, root="a")
    assert reply["because"]["by"] == "b"
    why = "blocked by b (blocked), and in the end by a (backoff)"
    says(reply, f"c is blocked: {why}", f"{STEP}, once b is as declared; see: holdfast explain g a")
    reply = await told(stage, "b", Condition.BLOCKED, root="a")
    says(reply, "b is blocked: blocked by a (backoff)", f"{STEP}, once a is as declared; see: holdfast explain g a")


@shows(Condition.REFERENCE_MISSING)
async def a_reference_without_value(stage: Stage) -> None:
    nodes = [part("a"), part("b", {"$ref": "a#/url"}), part("c", fail=9, again=60), part("d", {"$ref": "c#/url"})]
    await stage.publish("g", graph(*nodes))
    await told(stage, "a", Condition.PRESENT)
    reply = await told(stage, "b", Condition.REFERENCE_MISSING)
    assert (reply["because"]["by"], reply["because"]["ref"]) == ("a", "a#/url")
    why = "its spec refers to a#/url, but a publishes nothing at /url (it publishes nothing)"
    says(reply, f"b is blocked: {why}", f"{STEP}, once there is a value; see: holdfast explain g a")
    reply = await told(stage, "d", Condition.REFERENCE_MISSING)
    why = "its spec refers to c#/url, which is known once c is as declared"
    says(reply, f"d is blocked: {why}", f"{STEP}, once there is a value; see: holdfast explain g c")


@shows(Condition.BACKOFF)
async def tried_again_after_a_pause(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", fail=9, again=60)))
    reply = await told(stage, "a", Condition.BACKOFF)
    until = at(reply["because"]["until"])
    why = f"backing off until {until}, then attempt 2; last error: flaky: attempt 1 fails"
    says(reply, f"a is backoff: {why}", f"{STEP} at {until}; holdfast unblock g a does it at once")
    (last,) = reply["last_outcomes"]
    assert (last["outcome"], last["failures"], last["reason"]) == ("failed", 1, "flaky")


@shows(Condition.FAILED)
async def failed_for_good(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", "bad", bad=True)))
    reply = await told(stage, "a", Condition.FAILED, reason="bad_value")
    next = "nothing, until its spec or the world changes or a decision comes; holdfast unblock g a tries again"
    says(reply, "a is failed: failed for good; last error: bad_value: the value is bad", next)


@shows(Condition.POISONED)
async def failed_time_and_again(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", fail=1000)))
    reply = await told(stage, "a", Condition.POISONED)
    until = at(reply["because"]["until"])
    why = f"in quarantine until {until}, because it failed time and again; last error: flaky: attempt 5 fails"
    ends = "or once its spec changes or a ladder looks after its type"
    says(reply, f"a is quarantined: {why}", f"{STEP} at {until}, {ends}; holdfast unblock g a does it at once")


@shows(Condition.LIVELOCKED)
async def healed_time_and_again(stage: Stage) -> None:
    await stage.publish("g", graph(part("a", mood="wears")))
    await stage.converged()
    for count in range(1, 7):
        await stage.report("g", node="a")
        if count < 6:
            await stage.wait_for("node.default.g.recovered", count)
    reply = await told(stage, "a", Condition.LIVELOCKED)
    until = at(reply["because"]["until"])
    why = f"in quarantine until {until}, because it was healed 5 times from the same drift (worn)"
    ends = "or once its spec changes"
    says(reply, f"a is quarantined: {why}", f"{STEP} at {until}, {ends}; holdfast unblock g a does it at once")


@shows(Condition.WATCHED)
async def only_observed(stage: Stage) -> None:
    (stage.folder / "b.json").write_text(json.dumps("other"))
    await stage.publish("g", graph(part("a"), part("b"), mode="observe"))
    next = "nothing, until its blueprint enforces it"
    reply = await told(stage, "a", Condition.WATCHED)
    says(reply, "a is watched: is absent, and its blueprint only observes (mode: observe)", next)
    reply = await told(stage, "b", Condition.WATCHED)
    says(reply, "b is watched: is drifted (changed), and its blueprint only observes (mode: observe)", next)
    assert reply["desired"]["mode"] == "observe"


@shows(Condition.GRAPH_PAUSED, Remark.PAUSED)
async def in_a_paused_graph(stage: Stage) -> None:
    await stage.publish("g", graph(part("a")))
    await stage.converged()
    await stage.ask("pause", graph="g")
    await stage.publish("g", graph(part("a"), part("b")))
    reply = await told(stage, "b", Condition.GRAPH_PAUSED)
    says(reply, "b is paused: needs a step, but the graph is paused", f"{STEP}, after holdfast resume g")
    reply = await told(stage, "a", Condition.PRESENT)
    says(reply, "a is present: as declared; the graph is paused, so that no step is sent", LOOKED_AT)
    assert remark(reply, Remark.PAUSED)


@shows(Condition.NODE_PAUSED)
async def paused_itself(stage: Stage) -> None:
    await stage.publish("g", graph(part("a")))
    await stage.converged()
    await stage.ask("pause", graph="g", node="a")
    await stage.publish("g", graph(part("a", 2)))
    reply = await told(stage, "a", Condition.NODE_PAUSED)
    says(reply, "a is paused: needs a step, but the node is paused", f"{STEP}, after holdfast resume g a")
