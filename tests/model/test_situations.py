"""Several faults in one zone within a time are one situation."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Invalid
from holdfast_model.events import Fault, FaultType
from holdfast_model.fault_engine import Owned
from holdfast_model.manifest import Reinforcement, Situation
from holdfast_model.mutations import AddNode, declaration
from holdfast_model.names import GraphRef
from holdfast_model.rows import declare
from holdfast_model.situations import (
    MAX_COUNT,
    RECOVERY,
    CompiledSituation,
    Zone,
    consider,
    owner_of,
    situation_problems,
    withdraw,
    zone_field,
)

FORTIFY = Situation(
    "FORTIFY",
    faults=["NODE_DESTROYED"],
    zone="has(node.spec.location) ? node.spec.location : ''",
    count=3,
    within=60.0,
    add=[Reinforcement("wall-{zone}", "wall", {"at": "{zone}"}, ["nexus-{zone}"])],
)


def graph_of(**locations: str) -> DesiredGraph:
    graph = DesiredGraph(GraphRef("t", "g"))
    nodes = [declaration(id.replace("_", "-"), "tower", {"location": place}) for id, place in locations.items()]
    graph.declare("main", [(n.id, declare(n)) for n in nodes])
    return graph


GRAPH = graph_of(nexus_L="L", a="L", b="L", m="M")


def fault(id: str, node: str, time: float, type: str = "NODE_DESTROYED", reason: str = "reported") -> Fault:
    return Fault(id, "i", "t", "g", node, FaultType(type), "tower", time, reason=reason)


def play(faults: list[Fault], situation: Situation = FORTIFY, graph: DesiredGraph = GRAPH) -> list[object]:
    """Count faults one by one; returns the events and the zones."""
    compiled = CompiledSituation(situation)
    zones: dict[str, Zone] = {}
    events = []
    for one in faults:
        place = compiled.zone(one, graph.nodes[one.node]) if compiled.covers(one) else ""
        if place:
            reply = consider([(compiled, place)], zones, 10, one, graph, (), one.time)
            zones.update(reply.zones)
            events += reply.events
    return [events, zones]


def test_enough_faults_in_one_zone_are_told_once_with_their_nodes() -> None:
    found = [fault("1", "a", 0.0), fault("2", "b", 10.0), fault("3", "a", 20.0), fault("4", "b", 30.0)]
    events, _ = play(found)
    (event,) = events  # type: ignore[misc]
    assert (event.name, event.id) == ("situation", "3.situation.FORTIFY")
    assert event.data["zone"] == "L"
    assert (event.data["nodes"], event.data["faults"], event.data["since"]) == (["a", "b"], ["1", "2", "3"], 0.0)


@pytest.mark.parametrize(
    "faults",
    [
        [fault("1", "a", 0.0), fault("2", "m", 1.0), fault("3", "b", 2.0)],  # in two zones
        [fault("1", "a", 0.0), fault("2", "b", 50.0), fault("3", "a", 100.0)],  # never three within a minute
        [fault("1", "a", 0.0), fault("2", "b", 1.0), fault("3", "a", 2.0, "PROVISION_FAILED")],
        [fault("1", "a", 0.0), fault("2", "b", 1.0), fault("3", "a", 2.0, reason="stale")],
        [fault("1", "a", 0.0), fault("2", "b", 1.0), fault("3", "a", 2.0, reason="spec_changed")],
    ],
)
def test_what_does_not_belong_together_is_no_situation(faults: list[Fault]) -> None:
    assert play(faults)[0] == []


def test_faults_count_in_whatever_order_they_come() -> None:
    found = [fault("3", "a", 20.0), fault("1", "a", 0.0), fault("2", "b", 10.0)]
    assert [e.data["faults"] for e in play(found)[0]] == [["1", "2", "3"]]  # type: ignore[attr-defined]


def test_a_situation_whose_window_has_passed_can_begin_again() -> None:
    found = [fault(str(i), "a", t) for i, t in enumerate((0.0, 1.0, 2.0, 100.0, 101.0, 102.0))]
    assert len(play(found)[0]) == 2  # type: ignore[arg-type]


def test_what_is_kept_of_a_zone_is_bounded() -> None:
    _, zones = play([fault(str(i), "a", i * 0.01) for i in range(5 * MAX_COUNT)])
    (zone,) = zones.values()  # type: ignore[attr-defined]
    assert len(zone.seen) == MAX_COUNT
    assert zone.afflicted == ("a",)


def test_zones_beyond_the_bound_are_not_counted_and_that_is_told() -> None:
    compiled = CompiledSituation(FORTIFY)
    reply = consider([(compiled, "L")], {}, 0, fault("1", "a", 0.0), GRAPH, (), 0.0)
    assert reply.zones == {}
    assert "zones are counted already" in reply.failures[0].message


def test_its_answer_is_declared_for_the_zone_and_taken_back_as_a_whole() -> None:
    graph = graph_of(nexus_L="L")
    compiled = CompiledSituation(FORTIFY)
    for owned in compiled.answer("L", graph):
        graph.apply(owned.mutation, owned.owner)
    assert graph.nodes["wall-L"].depends_on == ("nexus-L",)
    assert bytes(graph.nodes["wall-L"].spec) == b'{"at":"L"}'
    removed, stays = withdraw(graph, [owner_of("FORTIFY", "L")])
    assert (removed, stays, set(graph.nodes)) == (("wall-L",), (), {"nexus-L"})


def test_a_node_that_is_there_has_another_spec_while_it_lasts() -> None:
    graph = graph_of(nexus_L="L")
    before = graph.nodes["nexus-L"].digest
    stronger = msgspec.structs.replace(FORTIFY, add=[Reinforcement("nexus-{zone}", "tower", {"guard": 2})])
    for owned in CompiledSituation(stronger).answer("L", graph):
        graph.apply(owned.mutation, owned.owner)
    assert bytes(graph.nodes["nexus-L"].spec) == b'{"guard":2}'
    withdraw(graph, [owner_of("FORTIFY", "L")])
    assert graph.nodes["nexus-L"].digest == before


def test_an_answer_that_conflicts_or_does_not_fit_drops_only_itself() -> None:
    compiled = CompiledSituation(msgspec.structs.replace(FORTIFY, count=1))
    other = Owned("policy:ladder", AddNode(declaration("wall-L", "wall", {"at": "elsewhere"})))
    reply = consider([(compiled, "L")], {}, 9, fault("1", "a", 0.0), GRAPH, (other,), 0.0)
    assert ([e.name for e in reply.events], reply.mutations) == (["situation"], ())
    assert reply.failures[0].kind == "CONFLICT"

    odd = CompiledSituation(msgspec.structs.replace(FORTIFY, count=1, add=[Reinforcement("a", "wall")]))
    reply = consider([(odd, "L"), (compiled, "L")], {}, 9, fault("1", "a", 0.0), GRAPH, (), 0.0)
    assert [o.mutation.node.id for o in reply.mutations] == ["wall-L"]  # type: ignore[union-attr]
    assert "is a tower, not a wall" in reply.failures[0].message


def test_recovery_of_all_its_nodes_ends_one_that_says_so() -> None:
    _, zones = play(
        [fault(str(i), n, i) for i, n in enumerate("aba")], msgspec.structs.replace(FORTIFY, until=RECOVERY)
    )
    zone = zones[zone_field("FORTIFY", "L")]  # type: ignore[index]
    left = zone.without("a")
    assert left is not None
    assert left.without("b") is None


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"zone": "node.spec."}, "/situations/0/zone"),
        ({"zone": ""}, "/situations/0/zone"),
        ({"faults": ["RAID"]}, "/situations/0/faults/0"),
        ({"count": MAX_COUNT + 1}, "/situations/0/count"),
        ({"within": 0.0}, "/situations/0/within"),
        ({"until": "later"}, "/situations/0/until"),
        ({"name": "a/b"}, "/situations/0/name"),
        ({"add": [Reinforcement("x", "human-review")]}, "/situations/0/add/0/type"),
    ],
)
def test_what_is_wrong_with_one_is_named_with_its_place(wrong: dict[str, object], place: str) -> None:
    assert [p.path for p in situation_problems([msgspec.structs.replace(FORTIFY, **wrong)])] == [place]


def test_a_condition_that_cannot_be_evaluated_names_its_place() -> None:
    compiled = CompiledSituation(msgspec.structs.replace(FORTIFY, zone="node.spec.nowhere"), "/situations/0")
    with pytest.raises(Invalid) as refused:
        compiled.zone(fault("1", "a", 0.0), GRAPH.nodes["a"])
    assert refused.value.problems[0].path == "/situations/0/zone"
