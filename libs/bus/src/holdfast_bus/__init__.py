"""Subjects, streams, envelopes, delivery and RPC over NATS.

The only package that writes a subject, acknowledges a message or knows an error of the NATS client. It knows nothing
of graphs, stores or policies, and imports nothing of the project but the model.
"""

from .bus import Bus
from .dead_letters import DeadLetter
from .messages import Inbound, PubAck
from .mover import attach_mover
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
    "Outgoing",
    "PubAck",
    "ServiceApp",
    "StreamSettings",
    "WorkMessage",
    "WorkQueue",
    "attach_mover",
    "run",
]
