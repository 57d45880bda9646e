"""The simulated world is fair: it holds nothing against the planner that cannot happen, or that is right."""

from __future__ import annotations

import msgspec

from holdfast_model.messages import Action, NodeDeclaration, Step, StepBatch
from holdfast_model.rows import Declaration, declare

from .outside import HEAL
from .world import Chances, World


def declared(*names: str, **below: tuple[str, ...]) -> list[tuple[str, Declaration]]:
    return [
        (n, declare(NodeDeclaration(n, HEAL, msgspec.Raw(b"{}"), "NONE", depends_on=below.get(n, ())))) for n in names
    ]


def test_a_batch_is_not_given_up_while_one_of_its_steps_runs() -> None:
    # Given a step that runs
    world = World(1)
    world.events.clear()
    world.chances = Chances.none()
    step = Step("n0", Action.PROVISION, 1, 1, HEAL, msgspec.Raw(b"{}"), "d1")
    world.renames.sent(step)
    batch = StepBatch("b1", "t", "g", "inc", 0, 1, "1", 100.0, [step])
    world.outside.running["n0"] = world.outside.highest["n0"] = (1, 1)
    # When its batch is delivered once more, and would be given up
    world.chances.dead_letter = 1.0
    world.outside.receive(batch)
    # Then nobody is told that it failed
    assert world.outside.answers == {}
    # But when nobody works on it any more, they are
    world.outside.running.clear()
    world.outside.receive(batch)
    assert world.outside.answers["n0"].reason == "dead_lettered"


def test_what_a_new_owner_finds_as_declared_stands_on_what_is_declared_now() -> None:
    # Given a thing that was made with another, and is there as declared
    world = World(1)
    world.chances = Chances.none()
    world.disk.graph.declare("main", declared("n0", "n1", "n2", n2=("n0",)))
    world.disk.graph.version += 1
    world.play(60.0)
    world.turn(lambda r: r.on_time(world.now))
    world.play(120.0)
    assert world.outside.things[("n2", HEAL)].made_with == {("n0", HEAL)}
    # When another edge is declared, and the planner crashes before it has heard of it
    world.disk.graph.declare("main", declared("n0", "n1", "n2", n2=("n1",)))
    world.disk.graph.version += 1
    world.boot()
    # Then it stands on that
    assert world.reconciler.core.units["n2"].current
    assert world.outside.things[("n2", HEAL)].made_with == {("n1", HEAL)}
