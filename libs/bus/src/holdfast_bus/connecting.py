"""How to connect: the same options for services, the set-up job and the CLI."""

from __future__ import annotations

from typing import Any

from faststream.nats import NatsCredentials, NatsNKey
from faststream.security import BaseSecurity, SASLPlaintext

from .settings import BusSettings

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


def security(settings: BusSettings) -> BaseSecurity | None:
    """How a service proves who it is: credentials file, nkey seed file, or user and password."""
    if settings.nats_creds:
        return NatsCredentials(settings.nats_creds)
    if settings.nats_nkey_seed:
        return NatsNKey.from_file(settings.nats_nkey_seed)
    if settings.nats_user:
        return SASLPlaintext(settings.nats_user, settings.nats_password.get_secret_value())
    return None


def client_options(settings: BusSettings, name: str) -> dict[str, Any]:
    """Arguments for ``nats.connect`` where there is no service around it."""
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
