"""The set-up job: creates and updates streams and consumers (``python -m holdfast_bus.setup``).

Safe to run at any time, by any number of processes at once. What exists is brought to the declared configuration;
what the server refuses to change (a stream of another kind, subjects that another stream holds) ends the job with
an error that names it. Nothing is ever deleted.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from nats.errors import Error as NatsError
from nats.js import JetStreamContext, JetStreamManager
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

from holdfast_model.errors import HoldfastError, IllegalState, NotFound, Unavailable

from .connecting import connect_once
from .foreign import bus_error
from .logs import set_up_logs
from .settings import BusSettings, StreamSettings
from .streams import DURABLES, STREAMS, Durable, Stream, step_durable

log = logging.getLogger("holdfast.setup")

AT_ONCE = 16
STORE_BUSY = 10049
NO_STORAGE = 10047
STORE_PAUSES = (0.05, 0.1, 0.2, 0.5)


async def ensure(
    js: JetStreamContext | JetStreamManager,
    settings: StreamSettings | None = None,
    streams: tuple[Stream, ...] = STREAMS,
    durables: tuple[Durable, ...] = DURABLES,
) -> None:
    """Create or update every stream and consumer.

    Raises IllegalState for what exists and cannot become what it should be, Unavailable if the server does not
    answer.
    """
    limits = settings or StreamSettings()
    for stream in streams:
        await ensure_stream(js, stream, limits)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(durable: Durable) -> None:
        async with gate:
            await ensure_durable(js, durable, limits)

    await asyncio.gather(*map(one, durables))


async def ensure_stream(js: JetStreamContext | JetStreamManager, stream: Stream, limits: StreamSettings) -> None:
    """Create or update one stream."""
    wanted = stream_config(stream, limits)
    for pause in (*STORE_PAUSES, None):
        try:
            await _create_or_update(js, wanted)
            return
        except APIError as error:
            # Right after a stream was deleted its directory may still be there for a moment.
            if error.err_code == STORE_BUSY and pause is not None:
                await asyncio.sleep(pause)
                continue
            if (error.code or 500) >= 500 and error.err_code is None:
                raise bus_error(error, f"setting up stream {stream.name}") from error
            hint = f"look at it with: nats stream info {stream.name}"
            if error.err_code == NO_STORAGE:
                hint = "give the server more disk, or lower HOLDFAST_STREAM_MAX_BYTES"
            raise IllegalState(
                f"stream {stream.name} cannot be set up: {error.description} (code {error.err_code})", hint=hint
            ) from error
        except (NatsError, TimeoutError) as error:
            raise bus_error(error, f"setting up stream {stream.name}") from error


async def _create_or_update(js: JetStreamContext | JetStreamManager, wanted: StreamConfig) -> None:
    try:
        await js.update_stream(wanted)
    except NotFoundError:
        await js.add_stream(wanted)
        log.info("created stream %s", wanted.name)


async def ensure_durable(
    js: JetStreamContext | JetStreamManager, durable: Durable, limits: StreamSettings | None = None
) -> None:
    """Create or update one durable consumer."""
    wanted = consumer_config(durable, (limits or StreamSettings()).replicas)
    try:
        await js.add_consumer(durable.stream, wanted)  # creates, or updates what may be updated
    except NotFoundError as error:
        raise NotFound(f"stream {durable.stream} does not exist", hint="run the set-up job") from error
    except APIError as error:
        if (error.code or 500) >= 500 and error.err_code is None:
            raise bus_error(error, f"setting up consumer {durable}") from error
        raise IllegalState(
            f"consumer {durable} cannot be set up: {error.description} (code {error.err_code})",
            hint=f"look at it with: nats consumer info {durable.stream} {durable.name}",
        ) from error
    except (NatsError, TimeoutError) as error:
        raise bus_error(error, f"setting up consumer {durable}") from error


async def ensure_step_consumer(
    js: JetStreamContext | JetStreamManager, domain: str, type: str, limits: StreamSettings | None = None
) -> Durable:
    """Create the consumer of one node type's steps. For the planner, when a domain announces itself."""
    durable = step_durable(domain, type)
    await ensure_durable(js, durable, limits)
    return durable


def stream_config(stream: Stream, limits: StreamSettings) -> StreamConfig:
    """The server's form of a stream."""
    size = stream.max_bytes
    return StreamConfig(
        name=stream.name,
        description=stream.description,
        subjects=list(stream.subjects),
        retention=RetentionPolicy(stream.retention.value),
        discard=DiscardPolicy(stream.discard.value),
        storage=StorageType(limits.storage),
        num_replicas=limits.replicas,
        max_age=stream.max_age,
        max_bytes=min(size, limits.max_bytes) if limits.max_bytes else size,
        duplicate_window=stream.duplicate_window,
        max_consumers=-1,
        max_msgs=-1,
        max_msgs_per_subject=-1,
        max_msg_size=-1,
        allow_direct=stream.object_store,
        allow_rollup_hdrs=stream.object_store,
    )


def consumer_config(durable: Durable, replicas: int = 1) -> ConsumerConfig:
    """The server's form of a consumer."""
    filters = list(durable.filters)
    return ConsumerConfig(
        durable_name=durable.name,
        name=durable.name,
        description=durable.description or None,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=durable.ack_wait,
        max_deliver=durable.max_deliver,
        max_ack_pending=durable.max_ack_pending,
        filter_subject=filters[0] if len(filters) == 1 else None,
        filter_subjects=filters if len(filters) > 1 else None,
        num_replicas=replicas,
    )


async def set_up(settings: BusSettings, limits: StreamSettings) -> None:
    """Connect, wait for JetStream within ``limits.setup_timeout``, and create what is missing."""
    deadline = time.monotonic() + limits.setup_timeout
    while True:
        try:
            client = await connect_once(settings, "holdfast-setup")
            try:
                await ensure(client.jetstream(timeout=10), limits)
                return
            finally:
                await client.close()
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"no set-up within {limits.setup_timeout:g} s: {error}", hint=f"is {settings.nats_url} up?"
                ) from error
            log.info("waiting for the server: %s", error)
            await asyncio.sleep(0.5)


def main() -> int:
    """The process: 0 when all is there, 1 with one line of reason otherwise."""
    settings = BusSettings()
    set_up_logs("setup", settings.log_format, settings.log_level)
    try:
        asyncio.run(set_up(settings, StreamSettings()))
    except HoldfastError as error:
        log.error("%s%s", error, f" ({error.hint})" if error.hint else "")
        return 1
    log.info("%d streams and %d consumers are there", len(STREAMS), len(DURABLES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
