"""Answers what is really there, node by node and bounded; one that fails is UNKNOWN, never an error."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from msgspec import Raw

from holdfast_model.errors import HoldfastError
from holdfast_model.messages import Observation, ObserveItem, ObserveReply, ObserveRequest, Status
from holdfast_model.reasons import Reason
from holdfast_model.rows import Gating

from .context import Context
from .handlers import Act, Bound, Discover, Found, ObserveMany
from .limiting import Limit
from .nodes import Node
from .reasons import SdkReason
from .specs import encode
from .states import observation_of

log = logging.getLogger("holdfast.sdk")


ANSWER_WITHIN = 25.0
"""A request is answered within this (or the type's timeout, if that is longer), for its planner waits no longer."""

_BREATH = 128  # nodes a lane looks at before it lets the loop look at something else

Now = Callable[[], float]


class Observer:
    """Observes nodes of one type. All requests share the type's ``concurrency``."""

    def __init__(self, bound: Bound, now: Now) -> None:
        self._bound = bound
        self._now = now
        self._room = asyncio.Semaphore(bound.type.concurrency)

    async def observe(self, request: ObserveRequest) -> ObserveReply:
        """One observation per node asked for; ``leftovers`` where the request wants them and the type finds
        any.
        """
        bound = self._bound
        if not request.nodes:
            seen: dict[str, Observation] = {}
        elif bound.observe_many is not None:
            seen = await self._many(bound.observe_many, request)
        elif bound.observe is not None:
            seen = await self._each(bound.observe, request)
        else:
            text = f"type {request.type!r} has no observe"
            seen = {item.node: Observation(Status.UNKNOWN, SdkReason.NO_OBSERVER, text) for item in request.nodes}
        if not request.discover:
            return ObserveReply(seen)
        if bound.discover is None:
            return ObserveReply(seen, undiscovered=f"type {request.type!r} has no discover")
        return await self._search(bound.discover, request, seen)

    async def _each(self, observe: Act, request: ObserveRequest) -> dict[str, Observation]:
        """Lanes instead of a task per node, each opening the next: observations that never wait need one or two."""
        seen: dict[str, Observation] = {}
        waiting = deque(request.nodes)
        deadline = asyncio.get_running_loop().time() + max(self._bound.type.timeout, ANSWER_WITHIN)
        async with asyncio.TaskGroup() as group:
            left = min(self._bound.type.concurrency, len(waiting)) - 1
            group.create_task(self._lane(observe, request, waiting, seen, deadline, group, left))
        return seen

    async def _lane(
        self,
        observe: Act,
        request: ObserveRequest,
        waiting: deque[ObserveItem],
        seen: dict[str, Observation],
        deadline: float,
        group: asyncio.TaskGroup,
        left: int,
    ) -> None:
        if left and len(waiting) > 1:
            group.create_task(self._lane(observe, request, waiting, seen, deadline, group, left - 1))
        clock = asyncio.get_running_loop().time
        breath = _BREATH
        while waiting:
            item = waiting.popleft()
            breath -= 1
            if not breath:
                breath = _BREATH
                await asyncio.sleep(0)
            if self._room.locked():
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._room.acquire()
                except TimeoutError:
                    seen[item.node] = Observation(Status.UNKNOWN, SdkReason.TIMEOUT, "others were observed meanwhile")
                    continue
            else:
                await self._room.acquire()
            try:
                limit = min(self._bound.type.timeout, deadline - clock())
                seen[item.node] = await self._one(observe, request, item, limit)
            finally:
                self._room.release()

    async def _one(self, observe: Act, request: ObserveRequest, item: ObserveItem, timeout: float) -> Observation:
        limit = Limit(timeout)
        try:
            call = observe(self._node(request, item), self._context(request, item.node))
            return observation_of(await limit.run(call))
        except Exception as e:  # noqa: BLE001 - the author's code; its failure is what is known of this node
            return _unknown(e, timeout, limit.expired, f"{request.type} {item.node}")

    async def _many(self, observe: ObserveMany, request: ObserveRequest) -> dict[str, Observation]:
        timeout = self._bound.type.timeout
        limit = asyncio.timeout(timeout)
        nodes = [self._node(request, item) for item in request.nodes]
        try:
            async with limit, self._room:
                answers = await observe(nodes, self._context(request, ""))
        except Exception as e:  # noqa: BLE001 - as above, for the whole batch
            unknown = _unknown(e, timeout, limit.expired(), f"{len(nodes)} {request.type}")
            return {node.id: unknown for node in nodes}
        return {node.id: _answer(node.id, answers.get(node.id)) for node in nodes}

    async def _search(self, discover: Discover, request: ObserveRequest, seen: dict[str, Observation]) -> ObserveReply:
        """What is left over. A search that fails says so: it must not look as if nothing were there."""
        desired = {item.node for item in request.nodes if item.present}
        limit = asyncio.timeout(self._bound.type.timeout)
        specs: dict[str, Raw] = {}
        leftovers: list[str] = []
        edges: dict[str, tuple[str, ...]] = {}
        gates: dict[str, str] = {}
        try:
            async with limit:
                for found in await discover(self._context(request, "")):
                    one = found if isinstance(found, Found) else Found(found)
                    if one.id not in desired:
                        leftovers.append(one.id)
                    if one.spec is not None:
                        specs[one.id] = Raw(encode(one.spec))
                    if one.depends_on:
                        edges[one.id] = tuple(one.depends_on)
                    if (gating := Gating(one.gating)) is not Gating.NONE:
                        gates[one.id] = gating.value
        except Exception as e:  # noqa: BLE001 - the author's code; its failure is what is known
            unknown = _unknown(e, self._bound.type.timeout, limit.expired(), f"discover of {request.type}")
            return ObserveReply(seen, undiscovered=f"{unknown.reason}: {unknown.detail}")
        return ObserveReply(seen, leftovers, specs, edges=edges, gates=gates)

    def _node(self, request: ObserveRequest, item: ObserveItem) -> Node[object]:
        return Node(
            item.node, request.type, item.spec, self._bound.codec, item.digest, item.depends_on,
            request.tenant, request.graph, request.incarnation, item.present,
        )  # fmt: skip

    def _context(self, request: ObserveRequest, node: str) -> Context:
        deadline = self._now() + self._bound.type.timeout
        return Context(request.tenant, request.graph, request.incarnation, node, 0, 0, deadline, type=request.type)


def _answer(node: str, answer: object) -> Observation:
    if answer is None:
        return Observation(Status.UNKNOWN, Reason.NOT_OBSERVED, f"observe_many left out {node!r}")
    try:
        return observation_of(answer)
    except TypeError as e:
        return Observation(Status.UNKNOWN, SdkReason.OBSERVE_FAILED, str(e))


def _unknown(error: Exception, timeout: float, timed_out: bool, what: str) -> Observation:
    if timed_out and isinstance(error, TimeoutError):
        return Observation(Status.UNKNOWN, SdkReason.TIMEOUT, f"took longer than {timeout:g} s")
    if isinstance(error, HoldfastError):
        return Observation(Status.UNKNOWN, error.reason or SdkReason.OBSERVE_FAILED, error.message)
    log.warning("observing %s failed", what, exc_info=error)
    return Observation(Status.UNKNOWN, SdkReason.OBSERVE_FAILED, f"{type(error).__name__}: {error}")
