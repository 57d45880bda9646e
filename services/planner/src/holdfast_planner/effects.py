"""What a committed turn asks for, carried out: steps published, nodes observed, WorkItems opened and closed.

Each is a task of its own with a limit on every wait, tried again until it is done or no longer wanted. None of them
decides anything: answers come back as inputs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_bus import subjects
from holdfast_model.errors import HoldfastError, Permanent, Temporary
from holdfast_model.messages import Observation, ObserveItem, ObserveReply, ObserveRequest, Status
from holdfast_model.reconciler import CloseIntent, Dispatch, Ended, ItemIntent, Look
from holdfast_model.work_items import CreateReply, CreateWorkItem, PermittedOutcome, WorkItem, WorkItemCommand

if TYPE_CHECKING:
    from .hosting import HostedGraph, Tools

log = logging.getLogger("holdfast.planner")

ACTOR = "planner"
_MAX_REQUEST = 4_000_000
_ITEM_TIMEOUT = 5.0
_LOOKS_AT_ONCE = 8
"""Requests of one graph to observers. What is seen first is worked on while the rest is looked at."""
_PAUSES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_observed = msgspec.json.Decoder(ObserveReply).decode
_created = msgspec.json.Decoder(CreateReply).decode
_item = msgspec.json.Decoder(WorkItem).decode
_encode = msgspec.json.Encoder().encode


class Effects:
    """The tasks of one hosted graph."""

    def __init__(self, host: HostedGraph, tools: Tools) -> None:
        self._host = host
        self._tools = tools
        self._tasks: set[asyncio.Task[None]] = set()
        self._items: dict[str, asyncio.Task[None]] = {}
        self._looking = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"{name} of {self._host.ref}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    # ---- steps

    def publish(self, sent: Dispatch) -> None:
        """Publish a batch; its id is its message id, so that doing it again does no harm."""
        self._spawn(self._publish(sent), "dispatch")

    async def _publish(self, sent: Dispatch) -> None:
        subject = subjects.step(sent.domain, sent.queue)
        body = _encode(sent.batch)
        for pause in _endless():
            try:
                await self._tools.bus.publish(subject, body, stream="STEPS", msg_id=sent.batch.batch)
                return
            except Temporary as error:
                if self._tools.clock() > sent.batch.start_by:
                    log.warning("batch %s was not published in time: %s", sent.batch.batch, error)
                    return
                await asyncio.sleep(error.retry_after or pause)

    # ---- observations

    def observe(self, look: Look) -> None:
        """Ask the domain; whatever happens, there is an answer in the end."""
        self._spawn(self._observe(look), "observation")

    async def _observe(self, look: Look) -> None:
        seen: dict[str, Observation] = {}
        async with self._looking:
            for part in _portions(look.nodes):
                seen |= await self._ask(look, part)
        self._host.observed(look, seen)

    async def _ask(self, look: Look, items: list[ObserveItem]) -> dict[str, Observation]:
        ref = self._host.ref
        reconciler = self._host.reconciler
        incarnation = reconciler.core.incarnation if reconciler is not None else ""
        request = ObserveRequest(ref.tenant, ref.graph, incarnation, look.type, items)
        info = self._tools.catalog.infos.get(look.type)
        limit = max(self._tools.settings.observe_timeout, (info.timeout if info else 0.0) + 5.0)
        try:
            reply = await self._tools.bus.request(subjects.rpc_domain(look.domain, "observe"), request, timeout=limit)
            return _observed(reply).observations
        except (HoldfastError, msgspec.DecodeError) as error:
            unknown = Observation(Status.UNKNOWN, reason="observer_failed", detail=str(error))
            return {item.node: unknown for item in items}

    # ---- WorkItems

    def item(self, intent: ItemIntent | CloseIntent) -> None:
        """Open or close a WorkItem. What concerns one request is done in order."""
        before = self._items.get(intent.request)
        work = self._open(intent) if isinstance(intent, ItemIntent) else self._close(intent)
        self._items[intent.request] = task = self._spawn(self._after(before, work), "WorkItem")
        task.add_done_callback(lambda t: self._forget(intent.request, t))

    def call_off(self, request: str) -> None:
        """An opening is no longer wanted; one that is still being tried is given up."""
        task = self._items.get(request)
        if task is not None:
            task.cancel()

    def _forget(self, request: str, task: asyncio.Task[None]) -> None:
        if self._items.get(request) is task:
            del self._items[request]

    @staticmethod
    async def _after(before: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> None:
        try:
            if before is not None:
                await asyncio.wait([before], timeout=30)
        except BaseException:
            work.close()
            raise
        await work

    async def _open(self, intent: ItemIntent) -> None:
        ref = self._host.ref
        request = CreateWorkItem(
            tenant=ref.tenant, graph=ref.graph, request=intent.request, caller_ref=intent.caller_ref,
            title=intent.title, description=intent.description, types=(f"desiredstate/{intent.kind}",),
            payload=_encode(intent.payload).decode(), plan_ref=str(intent.payload.get("plan", "")),
            permitted_outcomes=tuple(PermittedOutcome(name=o) for o in intent.outcomes),
            claim_deadline=None, expires_at=None, created_by=ACTOR, replace=True,
        )  # fmt: skip
        reply = await self._insist("create", request)
        if reply is None:
            return
        item = _created(reply).item
        self._host.item_opened(intent.request, item.id)
        self._told(item)

    async def _close(self, intent: CloseIntent) -> None:
        command = WorkItemCommand(
            tenant=self._host.ref.tenant, actor=ACTOR, system=True, note=intent.reason,
            caller_ref=intent.caller_ref, request=intent.request,
        )  # fmt: skip
        if await self._insist("obsolete", command) is not None:
            self._host.item_closed(intent.request)

    async def _insist(self, verb: str, body: CreateWorkItem | WorkItemCommand) -> bytes | None:
        """Ask work-items until it answers; None when it refuses for good, which nothing can mend here."""
        for pause in _endless():
            try:
                return await self._tools.bus.request(subjects.rpc_workitems(verb), body, timeout=_ITEM_TIMEOUT)
            except Permanent as error:
                log.error("work-items refuses to %s for %s: %s", verb, body.caller_ref, error)
                return b"null" if verb == "obsolete" else None
            except Temporary as error:
                log.info("work-items cannot %s yet: %s", verb, error)
                await asyncio.sleep(pause)
        return None

    def poll(self, workitem: str) -> None:
        """Ask after an open item, in case its events were missed."""
        self._spawn(self._poll(workitem), "poll")

    async def _poll(self, workitem: str) -> None:
        query = {"tenant": self._host.ref.tenant, "id": workitem}
        try:
            reply = await self._tools.bus.request(subjects.rpc_workitems("get"), query, timeout=_ITEM_TIMEOUT)
        except HoldfastError as error:
            log.info("WorkItem %s cannot be asked after: %s", workitem, error)
            return
        self._told(_item(reply))

    def _told(self, item: WorkItem) -> None:
        if item.status.terminal:
            self._host.item_ended(ended(item))


def ended(item: WorkItem) -> Ended:
    """The end of an item, as the reconciler takes it."""
    at = item.completed_at or item.updated_at
    return Ended(
        item.request,
        item.id,
        item.status.value,
        item.outcome,
        item.decided_by,
        item.resolution,
        item.data,
        at.timestamp(),
    )


def _portions(items: list[ObserveItem]) -> list[list[ObserveItem]]:
    """Requests of a size that the bus carries."""
    out: list[list[ObserveItem]] = [[]]
    size = 0
    for item in items:
        size += len(bytes(item.spec)) + 200
        if size > _MAX_REQUEST and out[-1]:
            out.append([])
            size = len(bytes(item.spec)) + 200
        out[-1].append(item)
    return out


def _endless() -> Any:
    yield from _PAUSES
    while True:
        yield _PAUSES[-1]
