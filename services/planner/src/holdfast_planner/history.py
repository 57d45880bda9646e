"""What the bus still knows: the newest events of a graph, read once and forgotten."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from holdfast_bus import Bus
from holdfast_bus.envelope import open_message
from holdfast_model.errors import Unavailable

_PAGE = 500
_MOST = 10_000
_WAIT = 2.0


async def recent_events(bus: Bus, stream: str, subject: str, limit: int) -> list[dict[str, Any]]:
    """Data of the last ``limit`` events on a subject, newest first. Raises Unavailable.

    Reads at most 10,000 events with a consumer that the server drops by itself.
    """
    newest: deque[dict[str, Any]] = deque(maxlen=max(1, min(limit, 1000)))
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, inactive_threshold=10.0, mem_storage=True
    )
    try:
        reader = await bus.js.pull_subscribe(subject, stream=stream, config=config)
        try:
            left = min(_MOST, (await reader.consumer_info()).num_pending or 0)
            while left > 0:
                messages = await reader.fetch(min(_PAGE, left), timeout=_WAIT)
                left -= len(messages)
                for message in messages:
                    inbound = open_message(message.subject, message.data, message.headers, message.reply, "")
                    newest.append(msgspec.json.decode(inbound.data))
        finally:
            await reader.unsubscribe()
    except (NatsError, TimeoutError) as error:
        raise Unavailable(f"the events on {subject} cannot be read: {error}", retry_after=1.0) from error
    return list(reversed(newest))
