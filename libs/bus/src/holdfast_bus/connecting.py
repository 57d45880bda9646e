"""How to connect: the same options for services, the set-up job and the CLI."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from .foreign import bus_error
from .settings import BusSettings

log = logging.getLogger("holdfast.bus")

CONNECT_TIMEOUT = 5
RECONNECT_WAIT = 0.5
PING_INTERVAL = 10
OUTSTANDING_PINGS = 2
MAX_PENDING = 8 * 1024 * 1024


def servers(settings: BusSettings) -> list[str]:
    """The URLs of the cluster's servers (``nats_url`` takes several, separated by commas)."""
    return [url.strip() for url in settings.nats_url.split(",") if url.strip()]


def inbox_prefix(service: str) -> str:
    """The prefix of this service's inboxes. A private one, so that permissions can keep replies apart."""
    return f"_INBOX.{service}"


async def connect_once(settings: BusSettings, name: str, *, stay: bool = False) -> Client:
    """A plain client, for jobs and commands: it tries each server twice and then raises Unavailable or Permanent.
    With ``stay`` it comes back after every outage once it was connected.
    """
    try:
        async with asyncio.timeout(2 * CONNECT_TIMEOUT):
            client = await nats.connect(
                **_options(settings, name),
                max_reconnect_attempts=1,
                reconnect_time_wait=cast(int, 0.2),
                error_cb=_silence,
            )
    except (NatsError, OSError, TimeoutError) as error:
        raise bus_error(error, f"connecting to {settings.nats_url}") from error
    if stay:
        client.options["max_reconnect_attempts"] = -1
    return client


async def leave(client: Client) -> None:
    """Say what is left to say, if the server hears it, and disconnect."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await client.drain()
    except (NatsError, OSError, TimeoutError) as error:
        log.debug("disconnecting without a farewell: %s", error)
    if not client.is_closed:
        await client.close()


async def settle(client: Client, timeout: int = CONNECT_TIMEOUT) -> None:
    """Wait until the server has heard everything said so far; subscriptions count from then on.

    Twice, because the client writes a flush's ping ahead of the commands that wait in its buffer: the answer to the
    first tells that they were written, the answer to the second that they were read.
    """
    await client.flush(timeout)
    await client.flush(timeout)


async def _silence(error: Exception) -> None:
    log.debug("connecting: %s", error)


def _options(settings: BusSettings, name: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "servers": servers(settings),
        "name": name,
        "connect_timeout": CONNECT_TIMEOUT,
        "inbox_prefix": inbox_prefix(name),
    }
    if settings.nats_creds:
        options["user_credentials"] = settings.nats_creds
    elif settings.nats_nkey_seed:
        options["nkeys_seed"] = settings.nats_nkey_seed
    elif settings.nats_user:
        options["user"] = settings.nats_user
        options["password"] = settings.nats_password.get_secret_value()
    return options
