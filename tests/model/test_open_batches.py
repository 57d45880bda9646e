"""Steps of batches that are still open when their graph is taken over."""

from __future__ import annotations

import msgspec
import pytest

from .test_renaming import Rig


def test_a_step_of_what_was_forgotten_between_two_owners_is_not_under_way_for_what_is_called_so_later() -> None:
    # Given a batch of which one step is still under way, while the thing of the other has been removed since
    rig = Rig()
    rig.declare({}, None, "a", "b")
    rig.take()
    rig.look(rig.turn())
    rig.turn()
    (batch,) = rig.sent
    first, second = batch.steps
    rig.answer(msgspec.structs.replace(batch, steps=[first]))
    rig.turn()
    rig.declare({}, None, second.node)
    rig.take()
    (removal,) = rig.turn().dispatch
    rig.answer(removal.batch)
    # When it is forgotten, and somebody else takes over before it was heard
    assert rig.turn().forget == [(first.node, "a")]
    rig.start()
    rig.turn()
    # Then the open batch speaks of the other one only, and what gets the name later is new, for every owner
    assert [step[0] for step in rig.todo[f"b:{batch.batch}"].steps] == [second.node]
    rig.declare({}, None, "a", "b")
    rig.take()
    rig.turn()
    rig.start()
    assert set(rig.it.core.flights) == {second.node}


def test_a_name_that_another_one_of_the_batch_had_does_not_mix_up_their_steps() -> None:
    # Given a batch with one step that was answered and one that was not
    rig = Rig()
    rig.declare({}, None, "a", "b")
    rig.take()
    rig.look(rig.turn())
    rig.turn()
    (batch,) = rig.sent
    steps = {step.node: step for step in batch.steps}
    rig.answer(msgspec.structs.replace(batch, steps=[steps["b"]]))
    rig.turn()
    # When the name of the one that was answered goes to the other
    rig.declare({}, {"b": "c"}, "a", "c")
    rig.take()
    rig.turn()
    rig.declare({}, {"a": "b"}, "b", "c")
    rig.take()
    rig.turn()
    rig.start()
    # Then a new owner knows which of them is under way
    assert {name: flight.operation for name, (_, flight) in rig.it.core.flights.items()} == {"b": steps["a"].operation}


@pytest.mark.parametrize("taken_over", [False, True])
def test_nothing_is_sent_for_what_is_wanted_again_while_a_step_of_it_from_before_it_was_let_go_is_under_way(
    taken_over: bool,
) -> None:
    # Given a step under way for a node that its blueprint lets go meanwhile, without a removal
    rig = Rig()
    rig.declare({}, None, "a")
    rig.take()
    rig.look(rig.turn())
    rig.turn()
    (batch,) = rig.sent
    rig.graph.declare("main", [], release=True)
    rig.graph.take_delta()
    if taken_over:
        rig.start()
        rig.turn()
    else:
        rig.take()
        rig.turn()
    # When it is wanted again
    rig.declare({}, None, "a")
    if taken_over:
        rig.start()
    else:
        rig.take()
    rig.look(rig.turn())
    # Then it waits for the end of that step
    assert rig.settle() == []
    assert rig.sent == [batch]
    rig.answer(batch)
    rig.look(rig.turn())
    assert set(rig.rows) == {"a"}
    assert rig.todo == {}
