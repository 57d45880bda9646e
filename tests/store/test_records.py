"""What is kept beside the graph."""

from __future__ import annotations

import pytest

from holdfast_model.errors import Unavailable
from holdfast_model.events import Event, Family, Fault, FaultType
from holdfast_model.names import GraphRef
from holdfast_model.thresholds import Tally, encode_counts
from holdfast_store import keys
from holdfast_store.kv import Kv
from holdfast_store.records import (
    GraphReader,
    fault_cmds,
    fault_done_cmds,
    fault_op,
    inbox_done_cmd,
    outbox_cmd,
)

from .changes import REF


@pytest.fixture
def reader(kv: Kv) -> GraphReader:
    return GraphReader(kv)


def _event(name: str) -> Event:
    return Event(name, Family.NODE, "drifted", REF.tenant, REF.graph, 5.0, {}, node="n")


async def test_the_outbox_is_read_from_the_first_entry_that_was_not_acknowledged(reader: GraphReader) -> None:
    # Given three events, the first of them acknowledged
    await reader.kv.run(*[outbox_cmd(REF, _event(f"e{i}")) for i in range(3)])
    waiting = await reader.outbox(REF)
    await reader.outbox_ack(REF, [waiting[0][0]])
    await reader.outbox_ack(REF, [waiting[0][0]])
    await reader.outbox_ack(REF, [])
    # Then
    assert [e.id for _, e in await reader.outbox(REF)] == ["e1", "e2"]
    assert [e.id for _, e in await reader.outbox(REF, after=waiting[1][0])] == ["e2"]
    assert [e.id for _, e in await reader.outbox(REF, count=1)] == ["e1"]


async def test_inbox_entries_stay_until_they_are_deleted(reader: GraphReader) -> None:
    # Given
    first = await reader.inbox_append(REF, {"kind": "decision", "body": b"{}"})
    await reader.inbox_append(REF, {"kind": "wake", "n": 2})
    # Then
    assert [e.fields for e in await reader.inbox(REF)] == [
        {"kind": b"decision", "body": b"{}"},
        {"kind": b"wake", "n": b"2"},
    ]
    assert [e.fields["kind"] for e in await reader.inbox(REF, after=first)] == [b"wake"]
    # When
    await reader.kv.run(inbox_done_cmd(REF, [first]))
    # Then
    assert [e.fields["kind"] for e in await reader.inbox(REF)] == [b"wake"]


async def test_a_full_inbox_refuses_more(reader: GraphReader) -> None:
    await reader.inbox_append(REF, {"k": 1}, bound=1)
    with pytest.raises(Unavailable):
        await reader.inbox_append(REF, {"k": 2}, bound=1)
    assert len(await reader.inbox(REF)) == 1


async def test_a_fault_is_kept_until_it_is_handled(reader: GraphReader) -> None:
    # Given
    fault = Fault("f1", "i1", REF.tenant, REF.graph, "n", FaultType.PROVISION_FAILED, "thing", 1.0, context={"a": 1})
    await reader.kv.run(*fault_cmds(REF, fault))
    assert await reader.faults(REF) == ["f1"]
    assert await reader.fault(REF, "f1") == fault
    # When
    await reader.kv.run(*fault_done_cmds(REF, "f1"))
    # Then
    assert await reader.faults(REF) == []
    assert await reader.fault(REF, "f1") is None


async def test_a_fault_is_known_while_it_waits_and_once_it_was_handled(reader: GraphReader) -> None:
    # Given one that waits, and one that was handled
    fault = Fault("waits", "i", REF.tenant, REF.graph, "n", FaultType.PROVISION_FAILED, "t", 1.0)
    await reader.kv.run(*fault_cmds(REF, fault), ("ZADD", keys.ops(REF), 7, fault_op("handled")))
    # Then
    assert await reader.faults_known(REF, ["waits", "new", "handled"]) == {"waits", "handled"}
    assert await reader.faults_known(REF, []) == set()


async def test_counts_are_read_as_the_fault_policy_writes_them(kv: Kv, reader: GraphReader) -> None:
    counted = {"escalation": Tally(3, "e1"), "watch": Tally(1, "e1")}
    await kv.run(("HSET", keys.counts(REF), "node a", encode_counts(counted)))
    assert await reader.counts(REF) == {"node a": counted}


async def test_state_comes_in_pages_or_by_name(reader: GraphReader) -> None:
    await reader.kv.run(("HSET", keys.state(REF), *(w for i in range(1500) for w in (f"n{i}", i))))
    found: dict[str, bytes] = {}
    async for page in reader.state_pages(REF, count=100):
        found.update(page)
    assert len(found) == 1500
    assert await reader.state(REF, ["n7", "none"]) == {"n7": b"7"}
    assert await reader.state(REF, []) == {}


async def test_graphs_are_found_by_partition_and_by_wake_up(reader: GraphReader) -> None:
    # Given two graphs of one partition
    other = next(r for i in range(1000) if (r := GraphRef("acme", f"g{i}")).partition == REF.partition)
    for ref in (REF, other):
        await reader.register(ref)
    await reader.set_due(REF, 10.0)
    await reader.set_due(other, 20.0)
    # Then
    assert await reader.graphs(REF.partition) == sorted([REF, other])
    assert await reader.due(REF.partition, 15.0) == [REF]
    assert await reader.next_due(REF.partition) == 10.0
    # When
    await reader.clear_due(REF)
    await reader.unregister(other)
    # Then
    assert await reader.graphs(REF.partition) == [REF]
    assert await reader.next_due(REF.partition) is None
    assert await reader.due(REF.partition, 100.0) == []


async def test_graphs_wait_for_a_domain_with_their_blueprint(reader: GraphReader) -> None:
    await reader.set_waiting("dns", REF)
    await reader.kv.run(("HSET", keys.pending(REF), "main", "{}"), ("HSET", keys.todo(REF), "b1", "{}"))
    assert await reader.waiting("dns") == [REF]
    assert await reader.pending(REF) == {"main": b"{}"}
    assert await reader.todo(REF) == {"b1": b"{}"}
    await reader.clear_waiting("dns", REF)
    assert await reader.waiting("dns") == []
