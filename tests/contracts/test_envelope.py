"""CloudEvents out and in."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_bus import subjects
from holdfast_bus.envelope import decode_event, delivered_by, encode_event, event_headers, open_message
from holdfast_model.errors import Invalid
from holdfast_model.events import Event, Family, Fault, FaultType

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ACK = "$JS.ACK.BLUEPRINTS.planner-admission.3.41.7.1795255636296147804.2"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(Family),
    st.dictionaries(st.text(), json_values, max_size=4),
    st.text(max_size=20),
    st.integers(0, 4_000_000_000),
)
def test_an_event_comes_back_as_it_went(family: Family, data: dict[str, Any], node: str, time: int) -> None:
    event = Event("e-1", family, "some_name", "acme", "shop", float(time), data, node, "", TRACE)
    assert decode_event(subjects.event(event), encode_event(event)) == event


def test_a_workitem_of_no_graph_comes_back_without_one() -> None:
    event = Event("e", Family.WORKITEM, "created", "acme", "", 1.5, {})
    assert subjects.event(event) == "workitem.acme._.created"
    assert decode_event(subjects.event(event), encode_event(event)) == event


def test_the_envelope_is_a_cloudevent_with_our_extensions() -> None:
    fault = Fault("f1", "inc", "acme", "shop", "db/main", FaultType.PROVISION_FAILED, "database", 1_700_000_000.25)
    event = fault.event()
    assert json.loads(encode_event(event)) == {
        "specversion": "1.0",
        "id": "f1",
        "source": "/holdfast/acme/shop",
        "type": "io.casehub.desiredstate.node.faulted",
        "subject": "db/main",
        "time": "2023-11-14T22:13:20.250000Z",
        "datacontenttype": "application/json",
        "tenancyid": "acme",
        "faulttype": "PROVISION_FAILED",
        "data": event.data,
    }
    assert event_headers(event)["Nats-Msg-Id"] == "f1"


@pytest.mark.parametrize(
    ("family", "name", "type"),
    [
        (Family.GRAPH, "reconciled", "io.casehub.desiredstate.reconciliation.completed"),
        (Family.GRAPH, "accepted", "io.casehub.desiredstate.graph.accepted"),
        (Family.NODE, "recovered", "io.casehub.desiredstate.node.recovered"),
        (Family.WORKITEM, "completed", "io.casehub.work.workitem.completed"),
    ],
)
def test_types_are_the_reference_systems(family: Family, name: str, type: str) -> None:
    event = Event("e", family, name, "t", "g", 0.0, {})
    assert json.loads(encode_event(event))["type"] == type


def test_a_message_that_is_no_event_of_ours_is_invalid() -> None:
    for body in (b"{}", b"nonsense", b'{"specversion": "1.0", "id": "a", "type": "b", "time": "noon"}'):
        with pytest.raises(Invalid):
            decode_event("node.t.g.drifted", body)


@pytest.mark.parametrize(
    "body",
    [b'{"nodes": []}', b"nodes:\n  - id: a\n", b"\xff\xfe garbage", b"", b'{"specversion": 7}', b'"specversion"'],
)
def test_what_is_no_cloudevent_is_handed_on_untouched(body: bytes) -> None:
    message = open_message("blueprint.acme.shop", body, None, ACK)
    assert message.data == body
    assert message.event_type == ""
    assert message.id == "BLUEPRINTS:41"


def test_a_cloudevent_gives_its_data_id_and_trace() -> None:
    body = json.dumps(
        {
            "specversion": "1.0",
            "id": "mine",
            "source": "/ci",
            "type": "blueprint",
            "time": "2024-01-02T03:04:05Z",
            "traceparent": TRACE,
            "anything": {"else": 1},
            "data": {"domain": "pipeline", "spec": {"a": [1, 2]}},
        }
    ).encode()
    message = open_message("blueprint.acme.shop", body, {"Nats-Msg-Id": "other"}, ACK)
    assert json.loads(message.data) == {"domain": "pipeline", "spec": {"a": [1, 2]}}
    assert (message.id, message.event_type, message.traceparent) == ("mine", "blueprint", TRACE)
    assert (message.stream, message.stream_seq, message.deliveries) == ("BLUEPRINTS", 41, 3)
    assert message.time is not None
    assert message.time.isoformat() == "2024-01-02T03:04:05+00:00"


def test_data_of_other_formats_travels_as_text_or_base64() -> None:
    yaml = "nodes:\n  - id: ä\n"
    head = {"specversion": "1.0", "id": "1", "source": "/", "type": "t"}
    as_text = head | {"datacontenttype": "application/yaml", "data": yaml}
    as_bytes = head | {"data_base64": base64.b64encode(yaml.encode()).decode()}
    for event in (as_text, as_bytes):
        assert open_message("blueprint.a.b", json.dumps(event).encode(), None).data == yaml.encode()


def test_a_bare_message_takes_its_id_from_the_header_else_from_its_place() -> None:
    assert open_message("s", b"{}", {"Nats-Msg-Id": "m"}, ACK).id == "m"
    assert open_message("s", b"{}", {}, ACK).id == "BLUEPRINTS:41"
    assert open_message("s", b"{}", {}, "_INBOX.x").id == ""
    assert open_message("s", b"{}", {}, "_INBOX.x").reply == "_INBOX.x"


def test_both_forms_of_the_ack_subject_are_read() -> None:
    newer = "$JS.ACK.hub.ABCDEF.STEPS.step=a=b.2.10.5.1795255636296147804.0.random"
    assert delivered_by(ACK) == ("BLUEPRINTS", "planner-admission", 41, 3)
    assert delivered_by(newer) == ("STEPS", "step=a=b", 10, 2)
    assert open_message("s", b"", None, newer).stream_seq == 10
