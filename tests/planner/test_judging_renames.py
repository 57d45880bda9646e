"""A rename is carried out as its domain was asked about it, or the domain is asked again. No server."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from msgspec import Raw

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Temporary
from holdfast_model.messages import NodeDeclaration
from holdfast_model.names import GraphRef
from holdfast_model.rows import Declaration, declare
from holdfast_planner.renaming import Judged, check_judged

PAIR = ("a", "b")


def one(v: int = 1) -> Declaration:
    return declare(NodeDeclaration("a", "plot", Raw(b'{"v":%d}' % v)))


@pytest.fixture
def graph() -> DesiredGraph:
    found = DesiredGraph(GraphRef("t", "g"))
    found.declare("main", [("a", one())])
    return found


def test_a_rename_of_what_is_still_as_it_was_judged_is_carried_out(graph: DesiredGraph) -> None:
    check_judged(graph, [PAIR], {PAIR: Judged(one().digest)}, {}, {"a"})
    check_judged(graph, [PAIR], {PAIR: Judged(one().digest, b"{}")}, {"a": b"{}"}, ())
    check_judged(graph, [PAIR], {PAIR: Judged(one().digest, b"")}, {}, {"other"})
    check_judged(graph, [], {PAIR: Judged("of another form")}, {}, {"a"})  # said before, and carried out


@pytest.mark.parametrize(
    ("judged", "known", "flying"),
    [
        ({}, {}, ()),
        ({("a", "c"): Judged(one().digest)}, {}, ()),
        ({PAIR: Judged(one(2).digest)}, {}, ()),
        ({PAIR: Judged(one().digest, b"")}, {"a": b'{"operation":1}'}, ()),
        ({PAIR: Judged(one().digest, b"")}, {}, {"a"}),
    ],
    ids=["nobody was asked", "about another name", "about another form", "made since", "about to be made"],
)
def test_a_domain_is_asked_again_about_what_has_changed_since(
    graph: DesiredGraph, judged: Mapping[tuple[str, str], Judged], known: Mapping[str, bytes], flying: Collection[str]
) -> None:
    with pytest.raises(Temporary, match="has changed since its domain was asked") as refused:
        check_judged(graph, [PAIR], judged, known, flying)
    assert refused.value.retry_after
