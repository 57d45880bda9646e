"""Which ladders look after a node type: its domain's, and those that the graph brought along."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import msgspec

from holdfast_model.errors import Invalid
from holdfast_model.ladders import CompiledLadder, compile_ladders
from holdfast_model.manifest import Ladder
from holdfast_store.domains import Registry

from .policy import Policies

log = logging.getLogger("holdfast.fault_policy")

KEPT = 256
"""Compiled lists of ladders that stay in memory."""

_decode = msgspec.json.Decoder(list[Ladder]).decode


class Manifests(Protocol):
    """Where manifests are read."""

    async def registry(self) -> Registry: ...


class Catalog:
    """Reads manifests at most every ``refresh`` seconds and compiles each list of ladders once.

    ``clock`` gives monotonic seconds, ``now`` seconds since the epoch (for liveness).
    """

    def __init__(
        self,
        manifests: Manifests,
        *,
        refresh: float,
        clock: Callable[[], float],
        now: Callable[[], float],
        kept: int = KEPT,
    ) -> None:
        self._manifests = manifests
        self._refresh = refresh
        self._clock = clock
        self._now = now
        self._kept = kept
        self._registry: Registry | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._compiled: OrderedDict[bytes, tuple[tuple[CompiledLadder, ...], str]] = OrderedDict()

    async def policies(self, node_type: str, own: bytes | None = None) -> Policies:
        """What looks after ``node_type``; ``own`` are the graph's own ladders (JSON), if it has any.

        Ladders of the graph come first and replace the domain's of the same name. The domain is the one that
        claims the type, in its highest live version, or the highest known one if none is live.
        """
        registry = await self._newest()
        domain = registry.domain_of(node_type) or ""
        manifest = registry.manifest(domain, self._now()) if domain else None
        ladders, problem = self._compile(msgspec.json.encode(manifest.ladders) if manifest else b"[]")
        mine, my_problem = self._compile(own or b"[]")
        named = {ladder.name for ladder in mine}
        both = (*mine, *(ladder for ladder in ladders if ladder.name not in named))
        evaluates = manifest is not None and manifest.evaluates
        return Policies(domain, both, evaluates, my_problem or problem)

    async def _newest(self) -> Registry:
        async with self._reading:
            if self._registry is None or self._clock() - self._read_at >= self._refresh:
                self._registry = await self._manifests.registry()
                self._read_at = self._clock()
            return self._registry

    def _compile(self, ladders: bytes) -> tuple[tuple[CompiledLadder, ...], str]:
        """Compiled ladders and why they cannot be used (""). Announcing refuses bad ones, so that is rare."""
        if ladders in self._compiled:
            self._compiled.move_to_end(ladders)
            return self._compiled[ladders]
        found: tuple[tuple[CompiledLadder, ...], str]
        try:
            found = compile_ladders(_decode(ladders)), ""
        except (Invalid, msgspec.DecodeError) as error:
            found = (), f"ladders cannot be used: {error}"
            log.error(found[1])
        self._compiled[ladders] = found
        if len(self._compiled) > self._kept:
            self._compiled.popitem(last=False)
        return found
