"""What came before a message, and whether it is still undecided.

A durable hands out messages in order, but several are in work at once, here and on other replicas. Where the outcome
of one depends on those before it (an edge to a node that an earlier message adds), its reader asks here before it says
no. The other way round nothing needs to be asked: what can be done, can be done.
"""

from __future__ import annotations

from nats.errors import Error as NatsError
from nats.js import JetStreamManager
from nats.js.errors import NotFoundError

from .foreign import bus_error
from .messages import Inbound
from .streams import Durable


async def last_on(manager: JetStreamManager, stream: str, subject: str) -> int:
    """The sequence of the last message on a subject; 0 where there is none. Raises Unavailable."""
    try:
        found = await manager.get_msg(stream, subject=subject)
    except NotFoundError:
        return 0
    except (NatsError, TimeoutError) as error:
        raise bus_error(error, f"asking for the last message on {subject}") from error
    return found.seq or 0


async def follows_undecided(manager: JetStreamManager, durable: Durable, message: Inbound) -> bool:
    """Whether an earlier message on the same subject may not be acknowledged yet.

    True may be wrong (the server tells only up to where *everything* is acknowledged), so wait for a limited time;
    False is certain. Two requests to the server. Raises Unavailable.
    """
    try:
        info = await manager.consumer_info(durable.stream, durable.name)
        floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
        if floor + 1 >= message.stream_seq:
            return False
        first = await manager.get_msg(durable.stream, seq=floor + 1, subject=message.subject, next=True)
    except NotFoundError:
        return False  # the message itself has aged out, and all before it
    except (NatsError, TimeoutError) as error:
        raise bus_error(error, f"asking what comes before message {message.stream_seq} of {durable.stream}") from error
    return (first.seq or 0) < message.stream_seq
