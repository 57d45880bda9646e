"""What the planner takes from streams: decode, commit the meaning, hint the owner. No rules here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from holdfast_bus import Bus, Inbound, subjects
from holdfast_bus.streams import PLANNER_ADMISSION, PLANNER_STATE, PLANNER_WORKITEMS
from holdfast_model.errors import Invalid, Problem
from holdfast_model.events import FaultType
from holdfast_model.names import GraphRef, check_node_id, graph_ref
from holdfast_model.reconciler import Ended
from holdfast_model.work_items import WorkItemEvent
from holdfast_store.graphs import GraphStore

from .admission import Admission
from .inbox import StateReport, entry_fields
from .pending import asks_about_removals

_event = msgspec.json.Decoder(WorkItemEvent).decode


class _State(msgspec.Struct, frozen=True):
    """Body of ``state.<tenant>.<graph>``. ``status`` is what the reporter believes; it is observed anyway."""

    node: str = ""
    nodes: list[str] = []
    status: str = ""
    fault: str = ""
    detail: str = ""
    tenant: str = ""
    graph: str = ""


def read_state(message: Inbound) -> tuple[GraphRef, StateReport]:
    """The graph and what is reported of it. Raises Invalid with the place of what is wrong."""
    ref = subjects.parse_state(message.subject)
    try:
        body = msgspec.json.decode(message.data, type=_State)
    except msgspec.DecodeError as error:
        raise Invalid(f"the report is not valid: {error}", [Problem("", str(error))]) from error
    named = ((body.tenant or message.tenant, ref.tenant, "/tenant"), (body.graph, ref.graph, "/graph"))
    for said, expected, path in named:
        if said and said != expected:
            text = f"{said!r} disagrees with the subject {message.subject}"
            raise Invalid(text, [Problem(path, text)])
    nodes = [*([body.node] if body.node else []), *body.nodes]
    if not nodes:
        raise Invalid("the report names no node", [Problem("/node", "which node?")])
    for node in nodes:
        check_node_id(node, "/node")
    if body.fault and body.fault.upper() not in FaultType.__members__:
        text = f"unknown fault {body.fault!r}; one of {', '.join(f.lower() for f in FaultType)}"
        raise Invalid(text, [Problem("/fault", text)])
    return ref, StateReport(nodes, body.fault, body.detail, message.id)


class Handlers:
    """Consumers of BLUEPRINTS, STATE and EVENTS, and the hints between replicas."""

    def __init__(
        self,
        bus: Bus,
        store: GraphStore,
        admission: Admission,
        changed: Callable[[GraphRef], Awaitable[None]],
        hinted: Callable[[GraphRef], None],
    ) -> None:
        self._bus = bus
        self._store = store
        self._admission = admission
        self._changed = changed
        self._hinted = hinted

    def register(self) -> None:
        self._bus.consume(PLANNER_ADMISSION, concurrency=4)(self._admission.take)
        self._bus.consume(PLANNER_STATE, concurrency=16)(self.state)
        self._bus.consume(PLANNER_WORKITEMS, concurrency=16)(self.workitem)
        self._bus.listen("planner.*")(self.hint)

    async def state(self, message: Inbound) -> None:
        """A node changed outside: leave word for its owner."""
        ref, report = read_state(message)
        await self._leave(ref, report)

    async def workitem(self, message: Inbound) -> None:
        """A WorkItem of a graph ended: leave word for the graph's owner, or admit the blueprint that waited for it."""
        try:
            event = _event(message.data)
        except msgspec.DecodeError as error:  # anybody may publish there: it would come again for ever
            raise Invalid(f"{message.subject} is no event of a WorkItem: {error}") from error
        if not event.graph or event.graph == "_" or not event.request or not event.status.terminal:
            return
        at = message.time.timestamp() if message.time is not None else 0.0
        end = Ended(
            event.request, event.id, event.status.value, event.outcome, event.actor,
            event.note or event.resolution, event.data, at,
        )  # fmt: skip
        ref = GraphRef(event.tenant, event.graph)
        if asks_about_removals(event.caller_ref):
            await self._admission.decided(ref, end)
        else:
            await self._leave(ref, end)

    async def _leave(self, ref: GraphRef, content: StateReport | Ended) -> None:
        await self._store.inbox_append(ref, entry_fields(content))
        await self._changed(ref)

    async def hint(self, message: Inbound) -> None:
        """Somebody committed something for a graph."""
        tenant, _, graph = message.data.decode(errors="replace").partition("/")
        if tenant and graph:
            self._hinted(graph_ref(tenant, graph))


def changer(bus: Bus, hosted: Callable[[GraphRef], Any]) -> Callable[[GraphRef], Awaitable[None]]:
    """Tell the owner of a graph that its version or inbox moved: directly if it is here, else by a hint."""

    async def changed(ref: GraphRef) -> None:
        host = hosted(ref)
        if host is not None:
            host.hint()
            host.kick_relay()
        else:
            await bus.hint(subjects.hint(ref.partition), str(ref).encode())

    return changed
