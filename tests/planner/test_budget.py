"""How graphs of one planner share what provisioners hold: every one gets its turn."""

from __future__ import annotations

from collections import Counter

import pytest

from holdfast_planner.catalog import Budget

KEY = ("world", "thing")


class Slots:
    """A catalog of which only the slots are asked."""

    def __init__(self, slots: int) -> None:
        self.free = slots

    def slots(self, key: tuple[str, str]) -> int:
        return self.free


class Sender:
    """A graph that has ``left`` batches to send."""

    def __init__(self, name: str, budget: Budget, left: int) -> None:
        self.name, self.left, self.woken = name, left, True
        self._budget = budget

    def wake(self) -> None:
        self.woken = True

    def turn(self, wants: bool = True) -> int:
        """Have a turn if woken; returns how many batches it sent."""
        if not self.woken:
            return 0
        self.woken, sent = False, 0
        if wants and self.left:
            sent = min(self.left, self._budget.room(KEY, self.wake))
            self.left -= sent
            for _ in range(sent):
                self._budget.take(KEY)
        self._budget.share(self.wake)
        return sent


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_however_many_wait_every_batch_is_sent_and_never_more_than_there_is_room_for(slots: int) -> None:
    budget = Budget(Slots(slots))  # type: ignore[arg-type]
    graphs = [Sender(f"g{i}", budget, 3) for i in range(40)]
    out: list[Sender] = []
    sent: Counter[str] = Counter()
    for _ in range(200):
        for graph in graphs:
            sent[graph.name] += (more := graph.turn())
            out += [graph] * more
            assert len(out) <= 2 * slots
        for done in out[: len(out) // 2 + 1]:  # outcomes come, each gives its graph a turn
            out.remove(done)
            budget.give_back(KEY)
            done.wake()
    assert dict(sent) == {graph.name: 3 for graph in graphs}


def test_who_is_invited_and_needs_nothing_any_more_or_leaves_makes_room() -> None:
    budget = Budget(Slots(1))  # type: ignore[arg-type]
    first, second, third, fourth = (Sender(n, budget, 2) for n in "abcd")
    assert first.turn() == 2
    assert [g.turn() for g in (second, third, fourth)] == [0, 0, 0]
    for _ in range(2):
        budget.give_back(KEY)
    first.wake()
    first.turn()
    assert (second.woken, third.woken, fourth.woken) == (True, True, False)

    assert second.turn(wants=False) == 0
    assert fourth.woken
    budget.leave(third.wake)
    assert fourth.turn() == 2


def test_nobody_takes_a_second_turn_while_others_wait() -> None:
    budget = Budget(Slots(1))  # type: ignore[arg-type]
    greedy, patient = Sender("a", budget, 10), Sender("b", budget, 1)
    assert greedy.turn() == 2
    assert patient.turn() == 0
    budget.give_back(KEY)
    greedy.wake()
    assert greedy.turn() == 0
    assert patient.turn() == 1
