"""Settings of everything that talks to the bus (environment, prefix ``HOLDFAST_``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class BusSettings(BaseSettings):
    """How a process reaches NATS, and how it can be looked at. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="HOLDFAST_", frozen=True, extra="ignore")

    nats_url: str = "nats://127.0.0.1:4222"
    nats_user: str = ""
    nats_password: SecretStr = SecretStr("")
    nats_creds: str = ""
    nats_nkey_seed: str = ""

    health_host: str = "127.0.0.1"
    health_port: int = Field(default=0, ge=0, le=65535)
    """0 takes a free port; the log line ``listening`` tells which."""

    log_format: Literal["text", "json"] = "text"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    graceful_timeout: float = Field(default=8.0, gt=0)
    """How long handlers may take to end after SIGTERM; keep it below the orchestrator's kill time."""
    publish_timeout: float = Field(default=5.0, gt=0)
    freeze_limit: float = Field(default=60.0, ge=0)
    """A process whose event loop stands still for so long ends itself; 0 switches that off."""


class StreamSettings(BaseSettings):
    """Limits of the streams (environment, prefix ``HOLDFAST_STREAM_``). 0 keeps what the stream declares."""

    model_config = SettingsConfigDict(env_prefix="HOLDFAST_STREAM_", frozen=True, extra="ignore")

    replicas: int = Field(default=1, ge=1, le=5)
    storage: Literal["file", "memory"] = "file"
    max_bytes: int = Field(default=0, ge=0)
    """A cap on the size of every stream, for servers with little disk."""
    setup_timeout: float = Field(default=30.0, gt=0)
    """How long the set-up job waits for the server."""
