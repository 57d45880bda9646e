"""What handlers get and publishers receive back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """One message as a handler sees it: its envelope is taken off, its data is untouched.

    ``data`` is the ``data`` member of a CloudEvent as JSON text, or the whole body of anything else (which may be
    YAML or garbage: the handler decides). ``id`` is the CloudEvent's id, else ``Nats-Msg-Id``, else
    ``<stream>:<seq>``; empty for a bare message on core NATS. ``stream`` is empty, ``stream_seq`` and ``deliveries``
    are 0 on core NATS. ``time`` is when the message was stored (or the CloudEvent's own time), if known.
    ``event_type``, ``event_subject``, ``tenant`` and ``faulttype`` come from a CloudEvent and are empty otherwise.
    """

    subject: str
    data: bytes
    id: str = ""
    stream: str = ""
    stream_seq: int = 0
    stream_created: str = ""
    deliveries: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    traceparent: str = ""
    time: datetime | None = None
    event_type: str = ""
    event_subject: str = ""
    tenant: str = ""
    faulttype: str = ""
    reply: str = ""

    @property
    def object(self) -> str:
        """The name of the object that is the body, where it was too large for a message; else empty."""
        return self.headers.get("Holdfast-Object", "")


@dataclass(frozen=True, slots=True)
class PubAck:
    """The server stored a message. ``duplicate``: it had it already, ``seq`` is the first copy's."""

    stream: str
    seq: int
    duplicate: bool = False
