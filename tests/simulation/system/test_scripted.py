"""What once went wrong, told again on purpose: a quiet world in which one thing happens at its worst moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from holdfast_bus import subjects
from holdfast_model.errors import Unavailable
from holdfast_model.messages import Observation, Outcome, Step, StepBatch, StepOutcome
from holdfast_model.work_items import WorkItemStatus
from holdfast_store import keys
from holdfast_store.kv import Cmd
from holdfast_store.memory_kv import Stage

from .processes import Process
from .seeds import collect
from .server import Network
from .settled import Settled
from .things import GUESSED, HEAL, HOLD, Key
from .world import REFS, START, World

REF = REFS[0]


@contextmanager
def quiet(*wanted: str) -> Iterator[World]:
    """A world without mishaps in which the named processes (else all) run from the beginning."""
    world = World(0)
    world.calm_down()
    with world.going():
        world.people.bus.open()
        for process in world.processes:
            if not wanted or process.name in wanted:
                process.start()
        yield world
    del world
    collect()


def once(world: World, when: Callable[[Process, Stage, Sequence[Cmd]], bool], error: Exception) -> list[str]:
    """The store fails once; the list holds what it failed at."""
    failed: list[str] = []

    def interrupt(process: Process, stage: Stage, cmds: Sequence[Cmd]) -> None:
        if not failed and when(process, stage, cmds):
            failed.append(f"{process.name} {cmds}")
            raise error

    world.interrupt = interrupt
    return failed


def node(id: str, kind: str = HEAL, *needs: str, v: int = 0) -> dict[str, Any]:
    return {"id": id, "type": kind, "spec": {"v": v}, "depends_on": list(needs), "gating": "NONE"}


def test_a_partition_of_which_the_first_read_failed_is_served_all_the_same() -> None:
    with quiet("plannera", "faultpolicy", "workitems", "domain") as world:

        def first_read(process: Process, stage: Stage, cmds: Sequence[Cmd]) -> bool:
            return stage == "run" and ("SMEMBERS", keys.graphs(REF.partition)) in [c[:2] for c in cmds]

        failed = once(world, first_read, Unavailable("the store does not answer"))
        world.people.bus.spawn(world.people.declare(REF, {"nodes": [node("a"), node("b", HEAL, "a")]}))
        world.loop.play(START + 60.0)
        assert failed
        assert sorted(k[1] for k in world.things.there) == ["a", "b"]
        told: list[Any] = []

        async def get() -> None:
            told.append(await world.people.ask("get", REF))

        world.people.bus.spawn(get())
        world.loop.play(START + 65.0)
        assert [row["phase"] for row in told[0]["nodes"]] == ["present", "present"]
        Settled(world).check()


def test_a_report_that_is_delivered_again_after_its_node_has_changed_raises_no_second_fault() -> None:
    with quiet() as world:
        say = world.people.bus.spawn

        async def report() -> None:
            body = b'{"node": "a", "fault": "NODE_DESTROYED"}'
            await world.people.bus.publish(subjects.state(*REF), body, stream="STATE", msg_id="report")

        say(world.people.declare(REF, {"nodes": [node("a")]}))
        world.loop.play(START + 20.0)
        world.server.network.lose_ack = 1.0
        say(report())
        world.loop.play(START + 22.0)
        world.server.network = Network.perfect()
        say(world.people.declare(REF, {"nodes": [node("a", GUESSED)]}))
        world.loop.play(START + 120.0)
        assert [line.split()[3:5] for line in world.trace if " fault " in line] == [["NODE_DESTROYED", "a"]]
        (consumer,) = world.server.streams["STATE"].consumers.values()
        assert list(consumer.deliveries.values()) == [2]
        Settled(world).check()


def test_a_blueprint_that_waits_for_a_domain_is_not_forgotten_by_a_crash_while_it_is_admitted() -> None:
    with quiet("plannera", "faultpolicy", "workitems") as world:
        planner, domain = world.processes[0], world.processes[-1]
        world.people.bus.spawn(world.people.declare(REF, {"domain": "sim", "spec": [node("a")]}))
        world.loop.play(START + 10.0)
        note = keys.waiting("sim")
        taken_away: list[float] = []

        def interrupt(process: Process, stage: Stage, cmds: Sequence[Cmd]) -> None:
            if taken_away and process.running and process is planner and len(taken_away) == 1:
                taken_away.append(world.loop.now)
                process.kill("after taking the note away")
                raise Unavailable("it is dead")
            if ("SREM", note) in [c[:2] for c in cmds]:
                taken_away.append(world.loop.now)

        world.interrupt = interrupt
        domain.start()
        world.loop.play(START + 10.5)
        domain.freeze(30.0)
        world.loop.play(START + 120.0)
        assert taken_away
        Settled(world).check()
        assert sorted(k[1] for k in world.things.there) == ["a"]


def test_a_deletion_that_comes_late_leaves_alone_what_was_published_after_it() -> None:
    with quiet() as world:
        say, soon = world.people.bus.spawn, world.server.delay
        say(world.people.declare(REF, {"name": "extra", "nodes": [node("x"), node("shared")]}))
        world.loop.play(START + 20.0)
        world.server.delay = lambda: 5.0  # type: ignore[method-assign]
        say(world.people.declare(REF, {"delete": True}))
        world.loop.play(START + 21.0)
        world.server.delay = soon  # type: ignore[method-assign]
        say(world.people.declare(REF, {"nodes": [node("a"), node("shared")]}))
        world.loop.play(START + 80.0)
        answers = [line.split()[-1] for line in told(world, "accepted")]
        assert answers == ["extra", "main", "*"]
        Settled(world).check()
        assert sorted(k[1] for k in world.things.there) == ["a", "shared"]


def test_a_person_is_asked_though_the_deadline_passed_while_nobody_could_be() -> None:
    with quiet("plannera", "faultpolicy", "domain") as world:
        gated = {**node("a"), "gating": "ALL"}
        world.people.bus.spawn(world.people.declare(REF, {"nodes": [gated], "deadline": "5s"}))
        world.loop.play(START + 20.0)
        assert not world.watcher.items
        world.processes[3].start()
        world.loop.play(START + 60.0)
        (item,) = world.watcher.items.values()
        assert (item.status, item.expires_at) == (WorkItemStatus.PENDING, None)
        Settled(world).check()
        assert sorted(k[1] for k in world.things.there) == ["a"]


def keyed(id: str, key: str, kind: str = HEAL) -> dict[str, Any]:
    return {**node(id, kind), "spec": {"v": 0, "key": key}}


def test_a_rename_is_overtaken_by_a_deletion_while_domains_are_asked_about_it() -> None:
    with quiet("plannera", "faultpolicy", "workitems", "domain") as world:
        say, domain = world.people.bus.spawn, world.processes[-1]
        say(world.people.declare(REF, {"nodes": [keyed("a", "ka"), keyed("b", "kb", GUESSED)]}))
        world.loop.play(START + 30.0)
        domain.freeze(3.0)
        moved = [{"from": "a", "to": "c"}, {"from": "b", "to": "d"}]
        say(world.people.declare(REF, {"nodes": [keyed("c", "ka"), keyed("d", "kb", GUESSED)], "moved": moved}))
        world.loop.play(START + 31.0)
        say(world.people.declare(REF, {"delete": True}))
        world.loop.play(START + 60.0)
        assert told(world, "accepted")[1:] == ["3 *"]
        Settled(world).check()
        assert world.things.there == {}


def test_what_is_made_while_its_domain_is_asked_about_another_name_keeps_the_one_it_has() -> None:
    with quiet() as world:
        say, see, seen = world.people.bus.spawn, world.things.see, list[str]()
        world.things.luck.fail = 1.0
        say(world.people.declare(REF, {"nodes": [node("a")]}))
        world.loop.play(START + 10.0)
        world.things.luck.fail = 0.0
        owner = world.watcher.graphs[REF].owner
        (replica,) = (p for p in world.processes[:2] if p.life is not owner)

        def asked(key: Key, digest: str) -> Observation:
            """While the domain answers about the new name, who asked stands still."""
            if key[1] == "c" and not seen:
                replica.freeze(20.0)
            seen.append(key[1])
            return see(key, digest)

        world.things.see = asked  # type: ignore[method-assign]
        say(world.people.declare(REF, {"nodes": [node("c")], "moved": [{"from": "a", "to": "c"}]}))
        world.loop.play(START + 80.0)
        assert seen.count("c") == 2
        Settled(world).check()
        assert [key[1] for key in world.things.there] == ["a"]


def test_what_fails_is_tried_again_under_a_name_that_another_node_has_left() -> None:
    with quiet() as world:
        run, lucky = world.things.run, False

        def attempt(batch: StepBatch, step: Step) -> StepOutcome:
            if b'"kb"' in bytes(step.spec) and not lucky:
                return StepOutcome(step.node, step.operation, step.attempt, Outcome.FAILED, reason="no luck")
            return run(batch, step)

        def publish(*nodes: dict[str, Any], **moved: str) -> None:
            document = {"nodes": list(nodes), "moved": [{"from": old, "to": new} for old, new in moved.items()]}
            world.people.bus.spawn(world.people.declare(REF, document))

        world.things.run = attempt  # type: ignore[method-assign]
        publish(keyed("a", "ka", HOLD), keyed("b", "kb", HOLD))
        world.loop.play(START + 15.0)
        publish({**keyed("a", "ka", HOLD), "spec": {"v": 1, "key": "ka"}}, keyed("b", "kb", HOLD))
        world.loop.play(START + 30.0)
        other = {**keyed("c", "ka", HOLD), "spec": {"v": 1, "key": "ka"}}
        publish(other, keyed("b", "kb", HOLD), a="c")
        world.loop.play(START + 36.0)
        failed = sum("domain         failed" in line for line in world.trace)
        while sum("domain         failed" in line for line in world.trace) == failed:
            world.loop.play(world.loop.now + 0.1)
        publish(other, keyed("a", "kb", HOLD), b="a")  # between two attempts
        world.loop.play(world.loop.now + 0.2)
        assert "a" in world.watcher.graphs[REF].owners.rows
        lucky = True
        world.loop.play(START + 70.0)
        assert sorted(k[1] for k in world.things.there) == ["ka", "kb"]
        Settled(world).check()


def told(world: World, name: str) -> list[str]:
    """Events of the graph as a whole, as they came: sequence and owner of the blueprint they are about."""
    events = (m for m in world.server.streams["EVENTS"].stored.values() if m.subject == f"graph.t.{REF.graph}.{name}")
    found = [msgspec.json.decode(m.data)["data"] for m in events]
    return [f"{data['sequence']} {data['name']}" for data in found]
