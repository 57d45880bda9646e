"""``async with harness(domain, *handlers) as h``: a domain in a test, with everything but servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from holdfast_model.blueprint import pointers
from holdfast_model.durations import format_duration, parse_duration
from holdfast_model.errors import IllegalState, Invalid, NotFound, Problem
from holdfast_model.events import Event, Fault
from holdfast_model.messages import CompileReply, NodeDeclaration, Observation, Status
from holdfast_model.names import DEFAULT_GRAPH, DEFAULT_TENANT, graph_ref
from holdfast_model.reconciler import Ended, Leftover
from holdfast_sdk.domain import Domain, Duration
from holdfast_sdk.policies import PolicyRequest

from .faults import FaultHandling
from .host import Host
from .views import NodeView, WorkItemView, node_view, unsettled


class Harness:
    """One graph of one domain. Every call returns when nothing more happens at that moment of virtual time.

    Time passes only in :meth:`advance` and :meth:`converged`. Steps and observations run the real handlers; what
    these wait for by themselves takes real time.
    """

    def __init__(self, domain: Domain, host: Host, policies: FaultHandling) -> None:
        self.domain = domain
        self.warnings: list[str] = []
        self._host = host
        self._policies = policies

    # ---- what a user does

    async def apply(
        self,
        spec: object,
        *,
        name: str = "main",
        deadline: Duration | None = None,
        moved: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a blueprint's ``spec`` (plain data or JSON text) as the owner ``name``; Invalid if it is refused.
        ``moved``: renames, old name -> new name.

        A domain without a compiler takes a raw graph: ``{"nodes": [{"id": ..., "type": ..., "spec": {...}}]}``.
        """
        renames = tuple((moved or {}).items())
        if self.domain.compiles:
            reply = self.domain.compile(spec, self._host.ref.tenant, self._host.ref.graph)
            self.warnings = list(reply.warnings)
            await self._host.publish(name, reply, {}, deadline, renames)
        else:
            nodes = _raw_graph(spec)
            await self._host.publish(name, CompileReply(nodes), pointers(nodes), deadline, renames)

    async def delete(self, name: str | None = None) -> None:
        """Remove everything, or what the owner ``name`` declared."""
        await self._host.delete(name)

    async def decide(
        self, id: str, outcome: str = "", *, note: str = "", data: dict[str, Any] | None = None, by: str = "tester"
    ) -> None:
        """Complete a WorkItem (named by its id, or by its node if only one is open for it).

        Raises NotFound, or IllegalState for an item that is not open or an outcome it does not offer.
        """
        item = self.workitem(id)
        if outcome and item.outcomes and outcome not in item.outcomes:
            raise IllegalState(f"{item.id} offers {', '.join(item.outcomes)}, not {outcome!r}")
        await self._end(item, "COMPLETED", outcome, note, data, by)

    async def reject(self, id: str, *, note: str = "", by: str = "tester") -> None:
        """Reject a WorkItem."""
        await self._end(self.workitem(id), "REJECTED", "", note, None, by)

    async def expire(self, id: str) -> None:
        """Let a WorkItem's deadline pass."""
        await self._end(self.workitem(id), "EXPIRED", "", "", None, "system")

    async def pause(self, node: str = "") -> None:
        """Stop steps of the graph or of one node; observation goes on."""
        self._host.reconciler.on_paused(self._host.now, True, node)
        await self._host.settle()

    async def resume(self, node: str = "") -> None:
        self._host.reconciler.on_paused(self._host.now, False, node)
        await self._host.settle()

    async def unblock(self, node: str) -> None:
        """Clear backoff, permanent failure, quarantine, hold and refusals of a node."""
        self._host.reconciler.on_unblock(self._host.now, node)
        await self._host.settle()

    # ---- what happens outside

    async def wake(self, *nodes: str) -> None:
        """Something changed these nodes outside: they and their dependents are observed now."""
        self._host.reconciler.on_wake(self._host.now, nodes)
        await self._host.settle()

    async def drift(
        self, node: str, reason: str = "drifted", *, detail: str = "", hold: bool | None = None, token: str = ""
    ) -> None:
        """Have a node seen as drifted once, whatever its observer would say."""
        self._host.staged[node] = Observation(Status.DRIFTED, reason, detail, token, hold)
        await self.wake(node)

    # ---- time

    @property
    def now(self) -> float:
        """Virtual time, seconds since the epoch."""
        return self._host.now

    async def advance(self, duration: Duration) -> None:
        """Let virtual time pass: resyncs, backoffs and deadlines happen on the way."""
        await self._host.advance(parse_duration(duration))

    async def converged(self, within: Duration = "10m") -> None:
        """Let time pass until everything is as declared; AssertionError naming what is not after ``within``."""
        core = self._host.reconciler.core
        limit = parse_duration(within)
        if not await self._host.advance(limit, lambda: core.settled):
            raise AssertionError(f"not converged within {format_duration(limit)}:\n{unsettled(core)}")

    # ---- what is to be seen

    @property
    def nodes(self) -> dict[str, NodeView]:
        """Desired nodes by id, those that policies added included."""
        return {id: node_view(unit) for id, unit in self._host.reconciler.core.units.items()}

    @property
    def phase(self) -> str:
        """Id of the phase in which the blueprint ``main`` is; "" if it has none."""
        standing = self._host.phases.owners.get("main")
        return standing.term.id if standing is not None else ""

    @property
    def removed(self) -> list[str]:
        """Ids of nodes that are no longer desired but not yet gone."""
        return [unit.id for unit in self._host.reconciler.core.graves.values()]

    @property
    def leftovers(self) -> list[Leftover]:
        """What ``discover`` found and nobody desires, by type and id."""
        found = self._host.reconciler.core.search.found
        return [found[key] for key in sorted(found, key=lambda key: (key[1], key[0]))]

    async def reconcile(self) -> None:
        """Look at everything now, and for leftovers of every type."""
        self._host.reconciler.on_reconcile(self._host.now)
        await self._host.settle()

    @property
    def faults(self) -> list[Fault]:
        """Every fault so far, in order."""
        return list(self._host.faults)

    @property
    def events(self) -> list[Event]:
        """Every event of graph and nodes so far, in order."""
        return list(self._host.events)

    @property
    def policy_failures(self) -> list[str]:
        """Why mutations of a fault were dropped: conflicts and exceptions of policies."""
        return list(self._policies.failures)

    @property
    def workitems(self) -> list[WorkItemView]:
        """Open WorkItems, oldest first."""
        return [item for item in self._host.workitems.values() if item.open]

    @property
    def all_workitems(self) -> list[WorkItemView]:
        """All WorkItems so far, ended ones included."""
        return list(self._host.workitems.values())

    def workitem(self, id: str) -> WorkItemView:
        """The open WorkItem with this id or, if there is one only, of this node."""
        found = [item for item in self.workitems if id in (item.id, item.node)]
        if len(found) == 1:
            return found[0]
        if id in self._host.workitems:
            raise IllegalState(f"{id} is {self._host.workitems[id].status}")
        there = ", ".join(f"{i.id} ({i.node})" for i in self.workitems) or "none"
        raise NotFound(f"{len(found)} open WorkItems match {id!r}; open: {there}")

    async def _end(
        self, item: WorkItemView, status: str, outcome: str, note: str, data: dict[str, Any] | None, by: str
    ) -> None:
        item.status = status
        end = Ended(item.request, item.id, status, outcome, by, note, data, self.now)
        self._host.reconciler.on_decision(self.now, end)
        await self._host.settle()


@asynccontextmanager
async def harness(
    domain: Domain, *handlers: object, tenant: str = DEFAULT_TENANT, graph: str = DEFAULT_GRAPH
) -> AsyncIterator[Harness]:
    """A domain with its handler instances in a test; startup and shutdown hooks run around it.

    Raises Invalid when a type has no handler or the manifest could never be accepted.
    """
    manifest = domain.manifest()
    bound = domain.served(handlers)
    policy = domain.evaluates

    async def ask(request: PolicyRequest) -> list[Any]:
        assert policy is not None
        return list(await policy(request))

    policies = FaultHandling(domain.name, domain.ladders, ask if policy is not None else None)
    for hook in domain.startup:
        await hook()
    host = Host(graph_ref(tenant, graph), manifest, bound, policies)
    try:
        yield Harness(domain, host, policies)
    finally:
        host.close()
        for hook in domain.shutdown:
            await hook()


def _raw_graph(spec: object) -> list[NodeDeclaration]:
    raw = spec if isinstance(spec, bytes) else msgspec.json.encode(spec)
    try:
        return msgspec.json.decode(raw, type=dict[str, list[NodeDeclaration]])["nodes"]
    except (msgspec.DecodeError, KeyError) as e:
        text = f"a domain without a compiler takes a raw graph with 'nodes': {e}"
        raise Invalid(text, [Problem("", text)]) from e
