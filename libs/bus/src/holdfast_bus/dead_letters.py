"""Dead letters: a message that failed for ever, as it stands on ``dlq.<stream>``.

The body is the original payload, byte for byte; everything else is in headers, so that a dead letter can be looked
at with any NATS tool and sent again as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from nats.aio.msg import Msg

from holdfast_model.errors import Invalid, Problem

from . import subjects
from .envelope import MSG_ID, delivered_by, timestamp
from .publishing import HEADER_ROOM, Outgoing
from .streams import DLQ

PREFIX = "Holdfast-"
_KEPT = ("Content-Type", "traceparent")


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. ``failed`` is in seconds since the epoch; ``service`` is who gave up ("" for the server)."""

    stream: str
    seq: int
    consumer: str
    subject: str
    payload: bytes
    reason: str
    deliveries: int
    failed: float
    service: str = ""
    msg_id: str = ""
    headers: Mapping[str, str] = {}

    @classmethod
    def of(cls, msg: Msg, reason: str, now: float, service: str = "") -> DeadLetter:
        """The dead letter of a message that JetStream delivered to us."""
        stream, consumer, seq, deliveries = delivered_by(msg.reply)
        headers = msg.headers or {}
        return cls(
            stream=stream,
            seq=seq,
            consumer=consumer,
            subject=msg.subject,
            payload=msg.data,
            reason=reason,
            deliveries=deliveries,
            failed=now,
            service=service,
            msg_id=headers.get(MSG_ID, ""),
            headers=headers,
        )

    @property
    def id(self) -> str:
        """One message given up by one consumer is one dead letter, however often it is copied."""
        return f"dlq:{self.stream}:{self.seq}:{self.consumer}"

    def to_headers(self) -> dict[str, str]:
        """Headers of the copy on ``dlq.<stream>``; the inverse of :func:`parse`."""
        kept = {name: value for name, value in self.headers.items() if name in _KEPT}
        return kept | {
            MSG_ID: self.id,
            PREFIX + "Stream": self.stream,
            PREFIX + "Seq": str(self.seq),
            PREFIX + "Consumer": self.consumer,
            PREFIX + "Subject": self.subject,
            PREFIX + "Reason": " ".join(self.reason.split())[:1000],
            PREFIX + "Deliveries": str(self.deliveries),
            PREFIX + "Failed": timestamp(self.failed),
            PREFIX + "Service": self.service,
            PREFIX + "Msg-Id": self.msg_id,
        }

    @classmethod
    def parse(cls, payload: bytes, headers: Mapping[str, str]) -> DeadLetter:
        """A dead letter as it stands on the DLQ. Raises Invalid if the headers are not ours."""
        try:
            return cls(
                stream=headers[PREFIX + "Stream"],
                seq=int(headers[PREFIX + "Seq"]),
                consumer=headers[PREFIX + "Consumer"],
                subject=headers[PREFIX + "Subject"],
                payload=payload,
                reason=headers[PREFIX + "Reason"],
                deliveries=int(headers[PREFIX + "Deliveries"]),
                failed=datetime.fromisoformat(headers[PREFIX + "Failed"]).timestamp(),
                service=headers.get(PREFIX + "Service", ""),
                msg_id=headers.get(PREFIX + "Msg-Id", ""),
                headers={name: value for name, value in headers.items() if name in _KEPT},
            )
        except (KeyError, ValueError) as error:
            text = f"this is no dead letter: {error}"
            raise Invalid(text, [Problem("", text)]) from error

    @property
    def target(self) -> str:
        """The subject it belongs on."""
        return subjects.dlq(self.stream)

    def outgoing(self, max_payload: int) -> Outgoing:
        """The copy for the DLQ. A payload that leaves no room for the headers is cut, and a header says so."""
        headers = self.to_headers()
        room = max_payload - HEADER_ROOM
        if len(self.payload) > room:
            headers[PREFIX + "Truncated"] = str(len(self.payload))
        return Outgoing(self.target, self.payload[:room], DLQ.name, self.id, headers)
