"""Blueprints that wait, one per owner: for domains that are not running, or for a person who consents to removals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from holdfast_model.names import GraphRef
from holdfast_model.reconciler import CloseIntent, ItemIntent

from .planning import Intake, Place, TooMuchError, shown

APPROVE, REJECT = "approve", "reject"
_REF = "desiredstate-removal:"


class Pending(msgspec.Struct, frozen=True, omit_defaults=True):
    """A blueprint that waits: field ``<owner>`` of ``pending``. ``document`` is its text, as a JSON string.

    It waits for ``domains`` (of which ``domain`` is the first), or for the WorkItem of ``request``: consent to
    removing ``removes`` from a graph of ``size`` nodes.
    """

    domain: str
    created: str
    number: int
    message_id: str
    document: msgspec.Raw
    domains: tuple[str, ...] = ()
    request: str = ""
    removes: tuple[str, ...] = ()
    size: int = 0

    @property
    def place(self) -> Place:
        return Place(self.created, self.number)

    @property
    def text(self) -> bytes:
        return msgspec.json.decode(self.document, type=str).encode()

    def waits_for(self, domain: str) -> bool:
        return domain == self.domain or domain in self.domains


class Waiting(msgspec.Struct, frozen=True):
    """A pending blueprint without its document."""

    created: str
    number: int
    request: str = ""

    @property
    def place(self) -> Place:
        return Place(self.created, self.number)


decode_pending = msgspec.json.Decoder(Pending).decode
decode_waiting = msgspec.json.Decoder(Waiting).decode


def missing_domains(intake: Intake, document: bytes, missing: Sequence[str]) -> Pending:
    """A blueprint as it waits for domains."""
    return _kept(intake, document, domain=missing[0], domains=tuple(missing))


def asking(intake: Intake, document: bytes, error: TooMuchError, request: str) -> Pending:
    """A blueprint as it waits for consent to what it would remove."""
    return _kept(intake, document, request=request, removes=tuple(sorted(error.removed)), size=error.size)


def _kept(intake: Intake, document: bytes, domain: str = "", **why: Any) -> Pending:
    text = msgspec.Raw(msgspec.json.encode(document.decode()))  # as a string: it may be YAML
    place = intake.sequence
    return Pending(domain, place.created, place.number, intake.message_id, text, **why)


def removal_ref(ref: GraphRef, owner: str) -> str:
    """callerRef of a question about removals: ``desiredstate-removal:<tenant>:<owner>``."""
    return f"{_REF}{ref.caller_part}:{quote(owner, safe='')}"


def asks_about_removals(caller_ref: str) -> bool:
    return caller_ref.startswith(_REF)


def question(ref: GraphRef, owner: str, pending: Pending) -> ItemIntent:
    """The WorkItem that asks for consent; the same one again from the same pending blueprint."""
    count, size = len(pending.removes), pending.size
    text = f"remove {count} of {size} nodes"
    asked: dict[str, object] = {
        "owner": owner,
        "removes": count,
        "of": size,
        "nodes": shown(pending.removes),
        "sequence": pending.number,
        "message": pending.message_id,
    }
    about = f"{ref}: the new version of blueprint {owner!r} would {text}"
    return ItemIntent(
        pending.request, removal_ref(ref, owner), "removal", f"{text} of {ref.graph}", "", "", description=about,
        payload=asked, outcomes=[APPROVE, REJECT],
    )  # fmt: skip


def withdrawal(ref: GraphRef, owner: str, request: str, reason: str) -> CloseIntent:
    """Makes the question obsolete."""
    return CloseIntent(request, removal_ref(ref, owner), reason)


def asked_about(pending: Mapping[str, bytes], request: str) -> tuple[str, Pending] | None:
    """The owner and blueprint that wait for this WorkItem."""
    for owner, raw in pending.items():
        if decode_waiting(raw).request == request:
            return owner, decode_pending(raw)
    return None
