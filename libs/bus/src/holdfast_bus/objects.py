"""Bodies that no message holds, kept aside in an object store for a while (the pattern "claim check").

The message that stands for such a body is empty, and names it in the header ``Holdfast-Object``. Anybody with a NATS
client can do the same: put the body into the bucket, publish with that header. Requests and replies of our own do it
by themselves; a caller that can fetch a reply from there says so with the header ``Holdfast-Accepts: object``.

What is kept goes when it has been used, or after a day: whoever died in between leaves nothing for ever.
"""

from __future__ import annotations

import asyncio
import io
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ObjectMeta, ObjectMetaOptions
from nats.js.errors import (
    BadObjectMetaError,
    BucketNotFoundError,
    DigestMismatchError,
    LinkIsABucketError,
    ObjectNotFoundError,
)
from nats.js.object_store import ObjectStore

from holdfast_model.errors import HoldfastError, Invalid, Permanent, Problem, Unavailable

from .foreign import bus_error
from .streams import BUCKET, OBJECTS

log = logging.getLogger("holdfast.bus")

HEADER = "Holdfast-Object"
ACCEPTS = "Holdfast-Accepts"
OBJECT = "object"
MAX_SIZE = 64 * 1024 * 1024
"""Bytes of the largest body."""
CHUNK = 512 * 1024
LIMIT = 60.0
"""Seconds that keeping or fetching one may take."""
FAREWELL = 5.0
GONE = f"a document is kept for {OBJECTS.max_age / 3600:g} hours, or until it was answered; put it there again"

T = TypeVar("T")


class ObjectGoneError(Invalid):
    """What a message names is not kept, or not any more."""


class Objects:
    """The bucket, over one connection. ``js``: JetStream of it."""

    def __init__(self, js: Callable[[], JetStreamContext]) -> None:
        self._js = js

    async def put(self, body: bytes) -> str:
        """Keep a body; returns its name. Nothing of it stays when this fails. Raises Permanent for one that is too
        large, Unavailable."""
        if len(body) > MAX_SIZE:
            raise Permanent(f"{len(body):,} bytes; at most {MAX_SIZE:,} can be sent", hint="send it in several parts")
        name = uuid.uuid4().hex
        task = asyncio.ensure_future(self._bounded(self._put(name, body), "keeping a large body"))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=FAREWELL)
            await self.drop(name)
            raise
        return name

    async def get(self, name: str) -> bytes:
        """The body of a name. Raises ObjectGoneError when it is not kept, Invalid when it is too large, Unavailable."""
        return await self._bounded(self._get(name), f"fetching object {name!r}")

    async def drop(self, name: str) -> None:
        """It was used, or never will be. What cannot be dropped now goes by its age."""
        try:
            async with asyncio.timeout(FAREWELL):
                await (await self._store()).delete(name)
        except (NatsError, HoldfastError, TimeoutError) as error:
            log.info("object %s is left to its age: %s", name, error)

    async def opened(self, body: bytes, headers: Mapping[str, str] | None) -> bytes:
        """The body of a message: its own, or the one it names. Raises as :meth:`get` does."""
        name = (headers or {}).get(HEADER, "")
        if not name:
            return body
        if body:
            text = f"a message that names an object ({HEADER}: {name}) has no body of its own"
            raise Invalid(text, [Problem("", text)])
        return await self.get(name)

    async def _put(self, name: str, body: bytes) -> None:
        meta = ObjectMeta(name=name, options=ObjectMetaOptions(max_chunk_size=CHUNK))
        await (await self._store()).put(name, body, meta)

    async def _get(self, name: str) -> bytes:
        store = await self._store()
        info = await store.get_info(name)
        if (info.size or 0) > MAX_SIZE:
            text = f"object {name!r} has {info.size:,} bytes; at most {MAX_SIZE:,} are read"
            raise Invalid(text, [Problem("", text)])
        into = io.BytesIO()
        await store.get(name, writeinto=into)
        return into.getvalue()

    async def _store(self) -> ObjectStore:
        return await self._js().object_store(BUCKET)

    async def _bounded(self, work: Awaitable[T], doing: str) -> T:
        try:
            async with asyncio.timeout(LIMIT):
                return await work
        except ObjectNotFoundError as error:
            text = f"{doing}: there is no such object in bucket {BUCKET}"
            raise ObjectGoneError(text, [Problem("", text)], hint=GONE) from error
        except BucketNotFoundError as error:
            raise Unavailable(f"{doing}: there is no bucket {BUCKET}", hint="has the set-up job run?") from error
        except (DigestMismatchError, BadObjectMetaError, LinkIsABucketError) as error:
            text = f"{doing}: what is kept is damaged ({type(error).__name__})"
            raise Invalid(text, [Problem("", text)]) from error
        except (NatsError, TimeoutError) as error:
            raise bus_error(error, doing) from error
