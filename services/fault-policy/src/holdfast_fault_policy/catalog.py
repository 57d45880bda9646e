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
from holdfast_model.manifest import OwnedLadder, Situation
from holdfast_model.policies import Policies
from holdfast_model.situations import CompiledSituation, compile_situations
from holdfast_store.domains import Registry

log = logging.getLogger("holdfast.fault_policy")

KEPT = 256
"""Compiled lists of ladders that stay in memory."""

_decode_situations = msgspec.json.Decoder(list[Situation]).decode
_decode = msgspec.json.Decoder(list[OwnedLadder]).decode


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
        self._watched: dict[bytes, tuple[tuple[CompiledSituation, ...], str]] = {}
        self._compiled: OrderedDict[bytes, tuple[tuple[CompiledLadder, ...], str]] = OrderedDict()

    async def policies(self, node_type: str, own: bytes | None = None) -> Policies:
        """What looks after ``node_type``; ``own`` are the graph's own ladders (JSON), if it has any.

        The domain is the one that claims the type, in its highest live version, or the highest known one if none is
        live.
        """
        registry = await self._newest()
        domain = registry.domain_of(node_type) or ""
        manifest = registry.manifest(domain, self._now()) if domain else None
        ladders, problem = self._compile(msgspec.json.encode(manifest.ladders) if manifest else b"[]")
        mine, my_problem = self._compile(own or b"[]")
        evaluates = manifest is not None and manifest.evaluates
        situations, wrong = self._situations(msgspec.json.encode(manifest.situations) if manifest else b"[]")
        brought = tuple((owned, compiled) for compiled in mine if isinstance(owned := compiled.ladder, OwnedLadder))
        version = manifest.version if manifest is not None else ""
        return Policies(domain, ladders, brought, evaluates, my_problem or problem or wrong, situations, version)

    async def _newest(self) -> Registry:
        async with self._reading:
            if self._registry is None or self._clock() - self._read_at >= self._refresh:
                self._registry = await self._manifests.registry()
                self._read_at = self._clock()
            return self._registry

    def _situations(self, situations: bytes) -> tuple[tuple[CompiledSituation, ...], str]:
        """Compiled situations and why they cannot be used ("")."""
        if situations not in self._watched:
            try:
                self._watched[situations] = compile_situations(_decode_situations(situations)), ""
            except (Invalid, msgspec.DecodeError) as error:
                self._watched[situations] = (), f"situations cannot be used: {error}"
                log.error(self._watched[situations][1])
            if len(self._watched) > self._kept:
                del self._watched[next(iter(self._watched))]
        return self._watched[situations]

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
