"""Tells the planner that this instance is there, and hears whether it still should be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from holdfast_model.errors import HoldfastError, Temporary
from holdfast_model.manifest import Announcement, AnnounceReply, Manifest

log = logging.getLogger("holdfast.sdk")

Ask = Callable[[Announcement], Awaitable[bytes]]
Newest = Callable[[str], None]
RETRY = 1.0


class Announcer:
    """Announces every few seconds; the announcement is the heartbeat.

    ``newest`` is called with the highest live version whenever an answer comes. A refusal (another domain
    claims a type, the manifest is not valid) ends :meth:`run` with the Permanent error that says why.
    """

    def __init__(self, ask: Ask, manifest: Manifest, instance: str, slots: dict[str, int], newest: Newest) -> None:
        self._ask = ask
        self._announcement = Announcement(manifest, instance, slots)
        self._newest = newest
        self._again = asyncio.Event()
        self._asking = asyncio.Lock()
        self._left = False
        self.announced = asyncio.Event()

    async def run(self) -> None:
        """Announce until cancelled. Raises Permanent when the planner refuses this domain."""
        lonely = False
        while not self._left:
            try:
                reply = await self._announce(self._announcement)
            except Temporary as e:
                if not lonely:
                    log.warning("no planner has answered yet (%s); asking again every %g s", e.message, RETRY)
                lonely = True
                await asyncio.sleep(e.retry_after or RETRY)
                continue
            if lonely or not self.announced.is_set():
                log.info("announced %s", self.name)
            lonely = False
            self.announced.set()
            self._newest(reply.newest)
            await self._pause(reply.heartbeat)

    def again(self) -> None:
        """Announce at once: which version is the newest is in doubt."""
        self._again.set()

    async def _pause(self, limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await self._again.wait()
        except TimeoutError:
            pass
        self._again.clear()

    async def leave(self, limit: float) -> None:
        """Say goodbye, so that nobody waits for the heartbeat to expire. Best effort, within ``limit`` seconds."""
        self._left = True
        try:
            async with asyncio.timeout(limit):
                await self._announce(msgspec.structs.replace(self._announcement, leaving=True))
        except (HoldfastError, TimeoutError) as e:
            log.info("could not say goodbye: %s", e)

    @property
    def name(self) -> str:
        manifest = self._announcement.manifest
        types = ", ".join(t.name for t in manifest.types) or "no types"
        return f"domain {manifest.domain} {manifest.version} ({types})"

    async def _announce(self, announcement: Announcement) -> AnnounceReply:
        async with self._asking:  # replicas of the planner take in what comes at once in any order: a farewell is last
            data = await self._ask(announcement)
        try:
            return msgspec.json.decode(data, type=AnnounceReply)
        except msgspec.DecodeError as e:
            raise Temporary(f"the planner's answer cannot be read: {e}") from e
