"""Subjects, streams, envelopes, delivery and RPC over NATS.

The only package that writes a subject, acknowledges a message or knows an error of the NATS client. It knows nothing
of graphs, stores or policies, and imports nothing of the project but the model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bus import Bus
    from .dead_letters import DeadLetter
    from .link import Link, linked
    from .messages import Inbound, PubAck
    from .mover import attach_mover
    from .objects import ObjectGoneError
    from .publishing import Outgoing
    from .service import ServiceApp, run
    from .settings import BusSettings, StreamSettings
    from .streams import Durable
    from .work import WorkMessage, WorkQueue

__all__ = [
    "Bus",
    "BusSettings",
    "DeadLetter",
    "Durable",
    "Inbound",
    "Link",
    "ObjectGoneError",
    "Outgoing",
    "PubAck",
    "ServiceApp",
    "StreamSettings",
    "WorkMessage",
    "WorkQueue",
    "attach_mover",
    "linked",
    "run",
]

_HOME = {
    "Bus": "bus",
    "BusSettings": "settings",
    "DeadLetter": "dead_letters",
    "Durable": "streams",
    "Inbound": "messages",
    "Link": "link",
    "ObjectGoneError": "objects",
    "Outgoing": "publishing",
    "PubAck": "messages",
    "ServiceApp": "service",
    "StreamSettings": "settings",
    "WorkMessage": "work",
    "WorkQueue": "work",
    "attach_mover": "mover",
    "linked": "link",
    "run": "service",
}


def __getattr__(name: str) -> object:
    """Loaded when it is first named (PEP 562): a command line needs no framework for services, and starts in a third
    of the time without it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
