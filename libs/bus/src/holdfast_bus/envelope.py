"""CloudEvents 1.0 in structured JSON: wrapping our events, and taking the envelope off what comes in.

What comes in may be a CloudEvent or the bare data. Data is never parsed here: a blueprint may be YAML, or garbage,
and only its handler can say so.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Any

import msgspec

from holdfast_model.errors import Invalid, Problem
from holdfast_model.events import Event, Family

from . import subjects
from .messages import Inbound
from .tracing import TRACEPARENT

CONTENT_TYPE = "application/cloudevents+json"
MSG_ID = "Nats-Msg-Id"
_JS_ACK = "$JS.ACK."


class _Outgoing(msgspec.Struct, omit_defaults=True):
    specversion: str
    id: str
    source: str
    type: str
    time: str
    data: dict[str, Any]
    tenancyid: str
    datacontenttype: str = ""
    subject: str = ""
    traceparent: str = ""
    faulttype: str = ""


class _Incoming(msgspec.Struct):
    specversion: str
    id: str
    type: str
    source: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str = ""
    datacontenttype: str = ""
    subject: str = ""
    time: str = ""
    tenancyid: str = ""
    traceparent: str = ""
    faulttype: str = ""


_encoder = msgspec.json.Encoder()
_incoming = msgspec.json.Decoder(_Incoming)


def encode_event(event: Event) -> bytes:
    """The CloudEvent that announces ``event``."""
    return _encoder.encode(
        _Outgoing(
            specversion="1.0",
            id=event.id,
            source=f"/holdfast/{event.tenant}/{event.graph or subjects.NOBODY}",
            type=event.type,
            time=timestamp(event.time),
            data=event.data,
            tenancyid=event.tenant,
            datacontenttype="application/json",
            subject=event.node,
            traceparent=event.traceparent,
            faulttype=event.faulttype,
        )
    )


def event_headers(event: Event) -> dict[str, str]:
    """Headers to publish an event with; its id is what the server de-duplicates by."""
    headers = {MSG_ID: event.id, "Content-Type": CONTENT_TYPE}
    if event.traceparent:
        headers[TRACEPARENT] = event.traceparent
    return headers


def decode_event(subject: str, body: bytes) -> Event:
    """The event behind a CloudEvent of ours; the inverse of :func:`encode_event`. Raises Invalid."""
    family, graph, name = subjects.parse_event(subject)
    try:
        cloud = _incoming.decode(body)
        data = msgspec.json.decode(cloud.data, type=dict[str, Any]) if bytes(cloud.data) else {}
        time = datetime.fromisoformat(cloud.time).timestamp() if cloud.time else 0.0
    except (msgspec.MsgspecError, ValueError) as error:
        text = f"the message on {subject!r} is not a CloudEvent: {error}"
        raise Invalid(text, [Problem("", text)]) from error
    nobody = family is Family.WORKITEM and graph.graph == subjects.NOBODY
    return Event(
        id=cloud.id,
        family=family,
        name=name,
        tenant=graph.tenant,
        graph="" if nobody else graph.graph,
        time=time,
        data=data,
        node=cloud.subject,
        faulttype=cloud.faulttype,
        traceparent=cloud.traceparent,
    )


def open_message(
    subject: str, body: bytes, headers: dict[str, str] | None, reply: str = "", stream_created: str = ""
) -> Inbound:
    """Take the envelope off a message. Never fails: what is no CloudEvent is bare data.

    ``reply`` tells where the message comes from: JetStream writes stream, sequence and deliveries into it.
    """
    headers = headers or {}
    stream, seq, deliveries, stored = _position(reply)
    cloud = _cloud_event(body)
    bare_id = headers.get(MSG_ID) or (f"{stream}:{seq}" if stream else "")
    trace = headers.get(TRACEPARENT, "")
    answer_to = "" if stream else reply
    if cloud is None:
        return Inbound(
            subject=subject,
            data=body,
            id=bare_id,
            stream=stream,
            stream_seq=seq,
            stream_created=stream_created,
            deliveries=deliveries,
            headers=headers,
            traceparent=trace,
            time=stored,
            reply=answer_to,
        )
    return Inbound(
        subject=subject,
        data=_data(cloud),
        id=cloud.id or bare_id,
        stream=stream,
        stream_seq=seq,
        stream_created=stream_created,
        deliveries=deliveries,
        headers=headers,
        traceparent=cloud.traceparent or trace,
        time=_time(cloud.time) or stored,
        event_type=cloud.type,
        event_subject=cloud.subject,
        tenant=cloud.tenancyid,
        faulttype=cloud.faulttype,
        reply=answer_to,
    )


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def is_delivery(reply: str) -> bool:
    """Whether a message with this reply subject was delivered by JetStream (and wants an ack there)."""
    return reply.startswith(_JS_ACK)


def delivered_by(reply: str) -> tuple[str, str, int, int]:
    """Stream, consumer, stream sequence and number of deliveries of a JetStream message."""
    tokens = reply.split(".")
    # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>, and since the newer
    # form domain and account hash before the stream.
    at = 2 if len(tokens) == 9 else 4
    return tokens[at], tokens[at + 1], int(tokens[at + 3]), int(tokens[at + 2])


def _position(reply: str) -> tuple[str, int, int, datetime | None]:
    if not is_delivery(reply):
        return "", 0, 0, None
    tokens = reply.split(".")
    at = 2 if len(tokens) == 9 else 4
    stored = datetime.fromtimestamp(int(tokens[at + 5]) / 1e9, UTC)
    return tokens[at], int(tokens[at + 3]), int(tokens[at + 2]), stored


def _cloud_event(body: bytes) -> _Incoming | None:
    if b'"specversion"' not in body:
        return None
    try:
        cloud = _incoming.decode(body)
    except (msgspec.MsgspecError, RecursionError):  # the latter: nested too deeply, which is for its handler to say
        return None
    return cloud if cloud.specversion.startswith("1.") else None


def _data(cloud: _Incoming) -> bytes:
    if cloud.data_base64:
        try:
            return base64.b64decode(cloud.data_base64, validate=True)
        except binascii.Error:
            return cloud.data_base64.encode()
    data = bytes(cloud.data)
    if data[:1] == b'"' and cloud.datacontenttype and "json" not in cloud.datacontenttype:
        # Text of another format (YAML, say) travels as a JSON string.
        return msgspec.json.decode(data, type=str).encode()
    return data


def _time(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
