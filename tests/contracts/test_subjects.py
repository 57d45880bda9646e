"""The grammar of subjects."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_bus import subjects
from holdfast_bus.streams import DURABLES, STREAMS, result_durable, step_durable
from holdfast_model.errors import Invalid
from holdfast_model.events import Event, Family, FaultType
from holdfast_model.names import PARTITIONS, GraphRef

labels = st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True)
types = st.from_regex(r"[a-z0-9][a-z0-9:_-]{0,62}", fullmatch=True)
words = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)


@given(labels, labels)
def test_blueprints_and_states_name_their_graph(tenant: str, graph: str) -> None:
    assert subjects.parse_blueprint(subjects.blueprint(tenant, graph)) == GraphRef(tenant, graph)
    assert subjects.parse_state(subjects.state(tenant, graph)) == GraphRef(tenant, graph)


@given(st.sampled_from(Family), labels, labels, words)
def test_events_name_family_graph_and_event(family: Family, tenant: str, graph: str, name: str) -> None:
    subject = subjects.event(Event("1", family, name, tenant, graph, 0.0, {}))
    assert subjects.parse_event(subject) == (family, (tenant, graph), name)


@given(labels, types)
def test_steps_name_domain_and_type(domain: str, type: str) -> None:
    assert subjects.parse_step(subjects.step(domain, type)) == (domain, type)


@given(st.lists(st.tuples(labels, types), min_size=2, max_size=2, unique=True))
def test_no_two_types_share_a_consumer(pairs: list[tuple[str, str]]) -> None:
    first, second = (step_durable(*pair).name for pair in pairs)
    assert first != second


@given(labels, types)
def test_consumer_names_are_names_the_server_takes(domain: str, type: str) -> None:
    name = step_durable(domain, type).name
    assert len(name) <= 255
    assert not set(name) & set(" \t\r\n.*>/\\:")


@pytest.mark.parametrize("partition", [0, 1, PARTITIONS - 1])
def test_partitions_are_named(partition: int) -> None:
    assert subjects.parse_result(subjects.result(partition)) == partition
    assert subjects.parse_hint(subjects.hint(partition)) == partition
    assert subjects.rpc_owner(partition, "explain") == f"rpc.planner.owner.{partition}.explain"


def test_the_subjects_are_the_documented_ones() -> None:
    assert subjects.blueprint("acme", "shop") == "blueprint.acme.shop"
    assert subjects.graph_event("_", "_", "rejected") == "graph._._.rejected"
    assert subjects.node_event("acme", "shop", "drifted") == "node.acme.shop.drifted"
    assert subjects.fault("acme", "shop", FaultType.NODE_DEGRADED) == "fault.acme.shop.node_degraded"
    assert subjects.workitem_event("acme", "", "created") == "workitem.acme._.created"
    assert subjects.progress("acme", "shop") == "node.acme.shop.progress"
    assert subjects.step("dns", "dns-record:a") == "step.dns.dns-record:a"
    assert subjects.rpc_planner("apply") == "rpc.planner.apply"
    assert subjects.rpc_workitems("complete") == "rpc.workitems.complete"
    assert subjects.rpc_domain("dns", "compile") == "rpc.domain.dns.compile"
    assert subjects.dlq("STEPS") == "dlq.STEPS"
    assert subjects.parse_rpc_domain("rpc.domain.dns.compile") == ("dns", "compile")
    assert subjects.parse_dlq("dlq.STEPS") == "STEPS"


@pytest.mark.parametrize(
    ("parse", "subject"),
    [
        (subjects.parse_blueprint, "blueprint.acme"),
        (subjects.parse_blueprint, "blueprint.acme.shop.extra"),
        (subjects.parse_blueprint, "blueprint.ac me.shop"),
        (subjects.parse_blueprint, "blueprint.acme." + "x" * 64),
        (subjects.parse_blueprint, "state.acme.shop"),
        (subjects.parse_event, "node.acme.shop"),
        (subjects.parse_event, "nodes.acme.shop.drifted"),
        (subjects.parse_event, "node.acme.shop.DRIFTED"),
        (subjects.parse_step, "step.dns.UPPER"),
        (subjects.parse_result, "result.64"),
        (subjects.parse_result, "result.-1"),
        (subjects.parse_result, "result.x"),
        (subjects.parse_hint, "planner.²"),
        (subjects.parse_state, ""),
        (subjects.parse_dlq, "dlq.A.B"),
        (subjects.parse_rpc_domain, "rpc.planner.get.x"),
    ],
)
def test_what_is_no_such_subject_is_invalid_and_named(parse: Callable[[str], object], subject: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(subject)
    assert repr(subject) in caught.value.message


@pytest.mark.parametrize("name", ["a.b", "*", ">", "", "a b", "é"])
def test_no_name_smuggles_another_token_into_a_subject(name: str) -> None:
    builders: tuple[Callable[[], str], ...] = (
        lambda: subjects.blueprint(name, "g"),
        lambda: subjects.node_event("t", "g", name),
        lambda: subjects.step("d", name),
        lambda: subjects.rpc_domain(name, "compile"),
        lambda: subjects.rpc_planner(name),
    )
    for build in builders:
        with pytest.raises(Invalid):
            build()


def test_streams_hold_every_stored_subject_once() -> None:
    held = [subject for stream in STREAMS for subject in stream.subjects]
    assert len(held) == len(set(held))
    assert {stream.name for stream in STREAMS if stream.work_queue} == {"STATE", "STEPS", "RESULTS"}


def test_every_durable_reads_a_stream_that_exists_and_only_steps_are_ever_given_up() -> None:
    names = {stream.name for stream in STREAMS}
    assert {durable.stream for durable in DURABLES} <= names
    assert {durable.max_deliver for durable in DURABLES} == {-1}
    assert step_durable("d", "t").max_deliver == 20
    assert len({str(durable) for durable in DURABLES}) == len(DURABLES) == 6 + PARTITIONS
    assert result_durable(3).ack_wait == 5
