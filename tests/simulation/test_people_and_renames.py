"""The simulated people know a node by what it is, not by what the planner calls it."""

from __future__ import annotations

from msgspec import Raw

from holdfast_model.messages import NodeDeclaration
from holdfast_model.rows import declare

from .outside import HEAL
from .phased import OWNER
from .world import Chances, World


def test_a_person_makes_what_was_asked_for_though_it_was_renamed_before_the_planner_heard_of_it() -> None:
    world = World(1, renames=True)
    world.chances, world.calm = Chances.none(), True
    node = declare(NodeDeclaration("n0", HEAL, Raw(b'{"v":1}'), "ALL"))
    world.mutate(lambda: world.disk.graph.declare(OWNER, [("n0", node)]))
    world.play(5.0)
    assert [item.intent.node for item in world.people.items.values()] == ["n0"]
    world.renames.rename()
    assert ("n0" in world.reconciler.core.units, list(world.disk.graph.nodes)) == (True, ["m1"])
    world.people.decide()
    assert set(world.outside.things) == {("m1", HEAL)}
