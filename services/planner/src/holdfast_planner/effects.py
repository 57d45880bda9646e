"""What a committed turn asks for, carried out: steps published, nodes observed, WorkItems opened and closed.

Each is a task of its own with a limit on every wait, tried again until it is done or no longer wanted. None of them
decides anything: answers come back as inputs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_bus import subjects
from holdfast_bus.asking import ask_domain
from holdfast_model.errors import HoldfastError, Invalid, Permanent, Temporary
from holdfast_model.messages import Observation, ObserveItem, ObserveReply, ObserveRequest, Status
from holdfast_model.names import GraphRef
from holdfast_model.reasons import Reason
from holdfast_model.reconciler import CloseIntent, Dispatch, Ended, Found, ItemIntent, Look, TypeInfo
from holdfast_model.work_items import CreateReply, CreateWorkItem, PermittedOutcome, WorkItem, WorkItemCommand
from holdfast_model.work_items_create import fitted, payload_text

from .discovering import search

if TYPE_CHECKING:
    from .hosting import HostedGraph
    from .loading import Tools

log = logging.getLogger("holdfast.planner")

ACTOR = "planner"
_MAX_REQUEST = 4_000_000
ITEM_TIMEOUT = 5.0
_LOOKS_AT_ONCE = 8
"""Requests of one graph about one type. What is seen first is worked on while the rest is looked at."""
_LOOKS_OF_ALL = 16
"""Requests of all graphs here about one type. Observers answer more than that at once: see the SDK's runtime."""
_PAUSES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_observed = msgspec.json.Decoder(ObserveReply).decode
_created = msgspec.json.Decoder(CreateReply).decode
_item = msgspec.json.Decoder(WorkItem).decode
_encode = msgspec.json.Encoder().encode


class Looks:
    """Bounds the requests to observers, type by type: types that are slow to look at hold up no other."""

    def __init__(self) -> None:
        self._room: dict[tuple[str, str], asyncio.Semaphore] = {}

    def of(self, look: Look) -> asyncio.Semaphore:
        return self._room.setdefault((look.domain, look.type), asyncio.Semaphore(_LOOKS_OF_ALL))


class Effects:
    """The tasks of one hosted graph."""

    def __init__(self, host: HostedGraph, tools: Tools) -> None:
        self._host = host
        self._tools = tools
        self._tasks: set[asyncio.Task[None]] = set()
        self._items: dict[str, asyncio.Task[None]] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._looking: dict[str, asyncio.Semaphore] = {}

    @property
    def busy(self) -> bool:
        """Something is being sent, asked, opened or closed."""
        return bool(self._tasks)

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
        if look.discover:
            await self._search(look)
            return
        seen: dict[str, Observation] = {}
        async with self._looking.setdefault(look.type, asyncio.Semaphore(_LOOKS_AT_ONCE)), self._tools.looks.of(look):
            for part in _portions(look.nodes):
                seen |= await self._ask(look, part)
        self._host.observed(look, seen)

    async def _search(self, look: Look) -> None:
        async with self._tools.looks.of(look):
            found = await self.search(look.type)
        self._host.found(look, found)

    async def search(self, type: str) -> Found:
        """What is there of a type, and whether other graphs desire it."""
        tools, reconciler = self._tools, self._host.reconciler
        info = tools.catalog.infos.get(type)
        if info is None or reconciler is None:
            return Found(failed=f"no domain has announced the type {type!r}")
        core = reconciler.core
        return await search(
            tools.bus, tools.store, self._host.ref, core.incarnation, type, info,
            timeout=self._limit(info), ours=core.units.keys(),
        )  # fmt: skip

    def _limit(self, info: TypeInfo | None) -> float:
        return max(self._tools.settings.observe_timeout, (info.timeout if info else 0.0) + 5.0)

    async def _ask(self, look: Look, items: list[ObserveItem]) -> dict[str, Observation]:
        ref = self._host.ref
        reconciler = self._host.reconciler
        incarnation = reconciler.core.incarnation if reconciler is not None else ""
        info = self._tools.catalog.infos.get(look.type)
        version = info.version if info is not None else ""
        request = ObserveRequest(ref.tenant, ref.graph, incarnation, look.type, items, domain_version=version)
        limit = self._limit(info)
        try:
            reply = await ask_domain(self._tools.bus, look.domain, "observe", request, timeout=limit)
            return _observed(reply).observations
        except Exception as error:  # nobody else would ever answer for these nodes
            if not isinstance(error, HoldfastError | msgspec.DecodeError):
                log.exception("what domain %r says of %s cannot be taken", look.domain, ref)
            unknown = Observation(Status.UNKNOWN, reason=Reason.OBSERVER_FAILED, detail=str(error))
            return {item.node: unknown for item in items}

    # ---- WorkItems

    def item(self, intent: ItemIntent | CloseIntent) -> None:
        """Open or close a WorkItem. What concerns one request is done in order."""
        before = self._items.get(intent.request)
        opens = isinstance(intent, ItemIntent)
        work = self._open(intent) if isinstance(intent, ItemIntent) else self._close(intent)
        self._items[intent.request] = task = self._spawn(self._after(before, work), "WorkItem")
        if opens:
            self._opening[intent.request] = task
        task.add_done_callback(lambda t: self._forget(intent.request, t))

    def call_off(self, request: str) -> None:
        """An opening is no longer wanted; one that is still being tried is given up. A closing goes on."""
        task = self._opening.get(request)
        if task is not None:
            task.cancel()

    def _forget(self, request: str, task: asyncio.Task[None]) -> None:
        for tasks in (self._items, self._opening):
            if tasks.get(request) is task:
                del tasks[request]

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
        request = creation(self._host.ref, intent)
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
                return await self._tools.bus.request(subjects.rpc_workitems(verb), body, timeout=ITEM_TIMEOUT)
            except Permanent as error:
                if isinstance(body, CreateWorkItem) and too_late(error):
                    # Its deadline passed before anybody was asked: it limits no question that is opened after it.
                    body = msgspec.structs.replace(body, expires_at=None)
                    continue
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
            reply = await self._tools.bus.request(subjects.rpc_workitems("get"), query, timeout=ITEM_TIMEOUT)
        except HoldfastError as error:
            log.info("WorkItem %s cannot be asked after: %s", workitem, error)
            return
        self._told(_item(reply))

    def _told(self, item: WorkItem) -> None:
        if item.status.terminal:
            self._host.item_ended(ended(item))


def creation(ref: GraphRef, intent: ItemIntent) -> CreateWorkItem:
    """What work-items is asked for. The planner's own items have no claim deadline."""
    request = CreateWorkItem(
        tenant=ref.tenant, graph=ref.graph, request=intent.request, caller_ref=intent.caller_ref,
        title=intent.title, description=intent.description, types=(f"desiredstate/{intent.kind}",),
        payload=payload_text(intent.payload), plan_ref=str(intent.payload.get("plan", "")),
        permitted_outcomes=tuple(PermittedOutcome(name=o) for o in intent.outcomes),
        claim_deadline=None, expires_at=_instant(intent.expires_at), created_by=ACTOR, replace=True,
    )  # fmt: skip
    return fitted(request)


def too_late(error: Permanent) -> bool:
    """Whether an item is refused for nothing but its deadline."""
    return isinstance(error, Invalid) and [p.path for p in error.problems] == ["/expiresAt"]


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


def _instant(time: float | None) -> datetime | None:
    try:
        return None if time is None else datetime.fromtimestamp(time, UTC)
    except (ValueError, OverflowError, OSError):
        return None  # beyond what calendars can say: as good as never


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
