"""``rpc.planner.*``: what any replica answers, and what it passes on to the owner of the graph."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from holdfast_bus import Bus, subjects
from holdfast_bus.envelope import open_message
from holdfast_bus.setup import ensure_step_consumer
from holdfast_bus.streams import step_durable
from holdfast_model.blueprint import parse_blueprint
from holdfast_model.desired import Change
from holdfast_model.errors import Invalid, NotFound, Problem, Unavailable
from holdfast_model.manifest import Announcement, AnnounceReply
from holdfast_model.names import AI_REVIEW, PARTITIONS, GraphRef
from holdfast_store import keys
from holdfast_store.domains import Domains
from holdfast_store.graphs import GraphStore

from . import planning, requests, views
from .admission import Admission
from .catalog import Catalog
from .history import recent_events
from .hosting import HostedGraph
from .inbox import Command, entry_fields
from .settings import PlannerSettings

log = logging.getLogger("holdfast.planner")

_OWNER_TRIES = 20
_OWNER_PAUSE = 0.5
_ANSWERS = ("accepted", "rejected", "waiting")
_announcement = msgspec.json.Decoder(Announcement).decode


class PlannerRpc:
    """Handlers by verb; see :meth:`register` and :meth:`owner_verbs`."""

    def __init__(
        self,
        bus: Bus,
        store: GraphStore,
        domains: Domains,
        catalog: Catalog,
        admission: Admission,
        settings: PlannerSettings,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        changed: Callable[[GraphRef], Any],
    ) -> None:
        self._bus = bus
        self._store = store
        self._domains = domains
        self._catalog = catalog
        self._admission = admission
        self._settings = settings
        self._clock = clock
        self._new_id = new_id
        self._changed = changed
        self._consumers: dict[tuple[str, str], str] = {}

    def register(self) -> None:
        """Answer every verb, sharing the load with the other replicas."""
        for verb, handler in {
            "apply": self.apply,
            "delete": self.delete,
            "list": self.list,
            "domains": self.domains,
            "announce": self.announce,
            "log": self.log,
            "faults": self.faults,
            "pause": self.command("pause"),
            "resume": self.command("resume"),
            "reconcile": self.command("reconcile"),
            "unblock": self.command("unblock"),
            "get": self.of_owner("get"),
            "explain": self.of_owner("explain"),
            "plan": self.of_owner("plan"),
        }.items():
            self._bus.rpc(subjects.rpc_planner(verb), queue="planner")(handler)

    def owner_verbs(self) -> dict[str, Any]:
        """What the owner of a graph answers itself."""
        return {"get": self.owner_get, "explain": self.owner_explain, "plan": self.owner_plan}

    # ---- blueprints

    async def apply(self, body: bytes) -> dict[str, Any]:
        """Publish a blueprint and wait for its verdict."""
        request = msgspec.json.decode(body, type=requests.Apply)
        return await self._publish(request.ref, bytes(request.blueprint), request.wait)

    async def delete(self, body: bytes) -> dict[str, Any]:
        """Publish a deletion and wait until it is accepted."""
        request = msgspec.json.decode(body, type=requests.Delete)
        document: dict[str, Any] = {"delete": True}
        if request.name:
            document["name"] = request.name
        elif await self._store.version(request.ref) == 0:
            raise NotFound(f"there is no graph {request.ref}", hint="holdfast get graphs")
        return await self._publish(request.ref, msgspec.json.encode(document), request.wait)

    async def _publish(self, ref: GraphRef, document: bytes, wait: float) -> dict[str, Any]:
        answers: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

        async def hear(message: Any) -> None:
            data = open_message(message.subject, message.data, message.headers, message.reply, "").data
            await answers.put((message.subject.rpartition(".")[2], msgspec.json.decode(data)))

        subscriptions = [
            await self._bus.client.subscribe(subjects.graph_event(ref.tenant, ref.graph, name), cb=hear)
            for name in _ANSWERS
        ]
        try:
            await self._bus.client.flush()
            ack = await self._bus.publish(
                subjects.blueprint(ref.tenant, ref.graph), document, stream="BLUEPRINTS", msg_id=self._new_id()
            )
            async with asyncio.timeout(min(wait, 120.0)):
                while True:
                    name, data = await answers.get()
                    if data.get("sequence") == ack.seq:
                        break
        except TimeoutError as error:
            raise Unavailable(
                f"the blueprint for {ref} was published, but not answered within {wait:g} s",
                hint=f"holdfast watch {ref.graph}",
            ) from error
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()
        told = {"problems": [], "warnings": [], **data, "message_id": data.get("message", "")}
        return {**told, "status": name, "message": data.get("reason", "")}

    # ---- for the owner

    def of_owner(self, verb: str) -> Any:
        """Pass a request on to the owner; one that moves right now is waited for."""

        async def ask(body: bytes) -> bytes:
            named = msgspec.json.decode(body, type=requests.Anything)
            request = msgspec.json.decode(body, type=dict[str, Any])
            ref = requests.OfNode(tenant=named.tenant, graph=str(request.get("graph", ""))).ref
            if verb != "plan" and await self._store.version(ref) == 0:
                raise NotFound(f"there is no graph {ref}", hint="holdfast get graphs")
            for left in range(_OWNER_TRIES, 0, -1):
                try:
                    return await self._bus.request(subjects.rpc_owner(ref.partition, verb), body, timeout=25.0)
                except Unavailable:
                    if left == 1:
                        raise
                    await asyncio.sleep(_OWNER_PAUSE)
            raise Unavailable(f"no planner owns graph {ref}")

        ask.__name__ = verb
        return ask

    def command(self, verb: str) -> Any:
        """Leave a command in the graph's inbox; it is carried out whoever owns the graph."""

        async def leave(body: bytes) -> dict[str, Any]:
            request = msgspec.json.decode(body, type=requests.OfNode)
            ref = request.ref
            version = await self._store.version(ref)
            if version == 0:
                raise NotFound(f"there is no graph {ref}", hint="holdfast get graphs")
            if request.node and request.node not in await self._store.refresh(ref):
                raise NotFound(f"node {request.node!r} is not in graph {ref}", hint=f"holdfast get nodes {ref.graph}")
            if verb == "unblock" and not request.node:
                raise Invalid("unblock needs a node", [Problem("/node", "which node?")])
            if verb in ("pause", "resume") and not request.node:
                await self._store.kv.run(("HSET", keys.meta(ref), "paused", "1" if verb == "pause" else "0"))
            await self._store.inbox_append(ref, entry_fields(Command(verb, request.node, request.actor)))
            await self._changed(ref)
            return {"status": "accepted", "graph": ref.graph, "node": request.node}

        leave.__name__ = verb
        return leave

    async def owner_get(self, graph: HostedGraph, body: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(body, type=requests.Get)
        reconciler = graph.reconciler
        assert reconciler is not None
        meta = await self._store.meta(request.ref)
        wanted = set(request.nodes) if request.nodes is not None else None
        rows = [
            views.node_row(reconciler, unit)
            for unit in views.units_of(reconciler)
            if (wanted is None or unit.id in wanted) and (request.only != "not_ready" or not unit.current)
        ]
        shown, following = views.page(rows, request.after, max(1, min(request.limit, 5000)))
        status = meta.get("status", b"").decode()
        return {
            "graph": views.graph_row(reconciler, status, reconciler.version),
            "nodes": shown,
            "next": following,
        }

    async def owner_explain(self, graph: HostedGraph, body: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(body, type=requests.OfNode)
        reconciler = graph.reconciler
        assert reconciler is not None
        told = views.explain(reconciler, request.node, {t: i.domain for t, i in self._catalog.infos.items()})
        told["mutations"] = await self._touched(request.ref, request.node)
        return told

    async def _touched(self, ref: GraphRef, node: str) -> list[dict[str, Any]]:
        """The newest entries of the log that name a node."""
        out: list[dict[str, Any]] = []
        for entry in await self._store.log(ref, count=50, newest_first=True):
            for op in entry.ops:
                about = msgspec.json.encode(op.mutations)
                if msgspec.json.encode(node) in about:
                    said = {"actor": op.actor, "cause": op.cause, "mutations": op.mutations}
                    out.append({"version": entry.version, **said})
        return out[:5]

    async def owner_plan(self, graph: HostedGraph, body: bytes) -> dict[str, Any]:
        """Apply a blueprint to a copy of the graph and tell what would be done."""
        request = msgspec.json.decode(body, type=requests.Apply)
        blueprint = await asyncio.to_thread(parse_blueprint, bytes(request.blueprint))
        if blueprint.domain and not self._catalog.is_live(blueprint.domain):
            there = ", ".join(self._catalog.live_domains()) or "none"
            raise Unavailable(f"domain {blueprint.domain!r} is not running (running: {there})")
        compiled = await self._admission.compile(request.ref, blueprint)
        current = await self._store.refresh(request.ref)
        before, trial = dict(current.nodes), current.draft()

        def preview() -> tuple[Change, dict[str, Any]]:
            change = trial.declare(blueprint.name, compiled.nodes, blueprint.conflict, compiled.pointers)
            return change, views.preview(trial, before, change)

        change, told = await asyncio.to_thread(preview)
        told["warnings"] = compiled.warnings
        try:
            if not blueprint.allow_removals:
                limits = self._settings
                planning.check_blast(len(change.removed), len(before), limits.blast_least, limits.blast_share)
        except Invalid as error:
            told["removals_blocked"] = error.message
        return told

    # ---- looking

    async def list(self, body: bytes) -> dict[str, Any]:
        """The graphs of a tenant, from what their owners last wrote."""
        request = msgspec.json.decode(body, type=requests.List)
        refs = [r for p in range(PARTITIONS) for r in await self._store.graphs(p) if r.tenant == request.tenant]
        out = []
        for ref in sorted(refs):
            meta = await self._store.meta(ref)
            waiting = await self._store.pending(ref)
            status = meta.get("status", b"waiting" if waiting else b"").decode()
            if not status or status == "deleted":
                continue
            summary: dict[str, Any] = {"nodes": 0, "phases": {}}
            if "summary" in meta:
                summary = msgspec.json.decode(meta["summary"])
            phases: dict[str, int] = summary["phases"]
            row = {
                "graph": ref.graph,
                "status": status,
                "version": await self._store.version(ref),
                "nodes": summary["nodes"],
                "present": phases.get("present", 0),
                "failed": phases.get("failed", 0) + phases.get("backoff", 0),
                "waiting": phases.get("waiting", 0) + phases.get("held", 0),
                "in_flight": phases.get("running", 0),
                "removing": summary.get("removing", 0),
                "paused": meta.get("paused") == b"1",
                "blueprints": sorted(f.removeprefix("admitted:") for f in meta if f.startswith("admitted:")),
                "phases": phases,
            }
            out.append(row)
        return {"graphs": out}

    async def domains(self, body: bytes) -> dict[str, Any]:
        """Every domain that has announced itself."""
        await self._catalog.refresh()
        return {"domains": list(self._catalog.described())}

    async def log(self, body: bytes) -> dict[str, Any]:
        """The graph's versions, newest first."""
        request = msgspec.json.decode(body, type=requests.Log)
        entries = await self._store.log(request.ref, request.after, min(request.limit, 1000), newest_first=True)
        return {
            "entries": [
                {"id": e.id, "version": e.version, "ops": [msgspec.to_builtins(op) for op in e.ops]} for e in entries
            ]
        }

    async def faults(self, body: bytes) -> dict[str, Any]:
        """The newest faults of a graph, handled or not, and what is counted of them."""
        request = msgspec.json.decode(body, type=requests.Log)
        ref = request.ref
        recent = await recent_events(self._bus, "FAULTS", subjects.told("fault", ref.tenant, ref.graph), request.limit)
        open_ids = set(await self._store.faults(ref))
        (counts,) = await self._store.kv.run(("HGETALL", keys.counts(ref)))
        return {
            "faults": [{**fault, "handled": fault.get("id") not in open_ids} for fault in recent],
            "counts": {k.decode(): msgspec.json.decode(v) for k, v in counts.items()},
        }

    # ---- domains

    async def announce(self, body: bytes) -> AnnounceReply:
        """A domain's instance is there (or leaves). Raises Invalid for a manifest that cannot be taken in."""
        announcement = _announcement(body)
        newest = await self._domains.announce(announcement)
        manifest = announcement.manifest
        queues = [t.name for t in manifest.types] + ([AI_REVIEW] if manifest.reviews else [])
        consumers: dict[str, str] = {}
        for name in queues:
            key = (manifest.domain, name)
            if key not in self._consumers:
                await ensure_step_consumer(self._bus.js, manifest.domain, name)
                self._consumers[key] = step_durable(manifest.domain, name).name
            consumers[name] = self._consumers[key]
        if announcement.leaving or not self._catalog.is_live(manifest.domain) or not self._knows(announcement):
            await self._catalog.refresh()
        return AnnounceReply(newest, consumers=consumers)

    def _knows(self, announcement: Announcement) -> bool:
        manifest = announcement.manifest
        versions = self._catalog.registry.versions(manifest.domain)
        return any(v.manifest.version == manifest.version and announcement.instance in v.instances for v in versions)
