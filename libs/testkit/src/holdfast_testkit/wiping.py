"""Emptying a server between tests."""

from __future__ import annotations

import asyncio

import nats
from nats.js.errors import NotFoundError
from redis.asyncio import Redis


async def wipe_nats(url: str) -> None:
    """Delete every stream (and with it every consumer)."""
    client = await nats.connect(url, connect_timeout=5)
    try:
        manager = client.jsm()
        names = [info.config.name or "" for info in await manager.streams_info()]
        results = await asyncio.gather(*map(manager.delete_stream, names), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, NotFoundError):
                raise result
    finally:
        await client.close()


async def wipe_redis(url: str) -> None:
    """Remove every key."""
    client = Redis.from_url(url)
    try:
        await client.flushall()
    finally:
        await client.aclose()
