"""``rpc.planner.*``: what any replica answers, and what it passes on to the owner of the graph."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdfast_bus import Bus, Inbound, subjects
from holdfast_bus.envelope import open_message
from holdfast_bus.setup import ensure_step_consumer
from holdfast_bus.streams import PLANNER_ADMISSION, step_durable
from holdfast_model.blueprint import parse_blueprint
from holdfast_model.errors import Invalid, NotFound, Problem, Stale, Temporary, Unavailable
from holdfast_model.manifest import Announcement, AnnounceReply
from holdfast_model.names import AI_REVIEW, PARTITIONS, GraphRef, check_label
from holdfast_model.staging import decode_standings
from holdfast_store import keys
from holdfast_store.domains import Domains
from holdfast_store.graphs import GraphStore

from . import explaining, importing, planning, previewing, requests, views
from .admission import IN_TURN, Admission, declaring, intake_of
from .catalog import Catalog
from .changes import KEPT_DOCUMENT
from .gathering import Explainer
from .history import recent_events
from .hosting import HostedGraph
from .inbox import Command, entry_fields
from .pending import APPROVE, REJECT
from .planning import Place
from .settings import PlannerSettings

log = logging.getLogger("holdfast.planner")

_OWNER_LIMIT, _PLAN_LIMIT = 25.0, 90.0
_OWNER_TRIES = 20
_OWNER_PAUSE = 0.5
_OF_ANY_GRAPH = frozenset({"plan", "import"})  # that may still have to come to be
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
        self._explainer = Explainer(bus, store, catalog)

    def register(self) -> None:
        """Answer every verb, sharing the load with the other replicas."""
        for verb, handler in {
            "apply": self.apply,
            "delete": self.delete,
            "list": self.list,
            "domains": self.domains,
            "announce": self.announce,
            "log": self.log,
            "blueprint": self.blueprint,
            "faults": self.faults,
            "pause": self.command("pause"),
            "resume": self.command("resume"),
            "reconcile": self.command("reconcile"),
            "unblock": self.command("unblock"),
            "get": self.of_owner("get"),
            "explain": self.of_owner("explain"),
            "plan": self.of_owner("plan"),
            "import": self.of_owner("import"),
        }.items():
            self._bus.rpc(subjects.rpc_planner(verb), queue="planner")(handler)

    def owner_verbs(self) -> dict[str, Any]:
        """What the owner of a graph answers itself."""
        answers = {"get": self.owner_get, "explain": self.owner_explain}
        return {**answers, "plan": self.owner_plan, "import": self.owner_import}

    # ---- blueprints

    async def apply(self, body: bytes) -> dict[str, Any]:
        """Publish a blueprint and wait for its verdict."""
        request = msgspec.json.decode(body, type=requests.Apply)
        return await self._publish(request.ref, bytes(request.blueprint), request.wait, request.after)

    async def delete(self, body: bytes) -> dict[str, Any]:
        """Publish a deletion and wait until it is accepted."""
        request = msgspec.json.decode(body, type=requests.Delete)
        document: dict[str, Any] = {"delete": True}
        if request.name:
            document["name"] = request.name
        elif await self._store.version(request.ref) == 0:
            raise NotFound(f"there is no graph {request.ref}", hint="holdfast get graphs")
        return await self._publish(request.ref, msgspec.json.encode(document), request.wait)

    async def _publish(self, ref: GraphRef, document: bytes, wait: float, after: int | None = None) -> dict[str, Any]:
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
            ack, kept = await self._bus.publish_large(
                subjects.blueprint(ref.tenant, ref.graph), document,
                stream="BLUEPRINTS", msg_id=self._new_id(), after=after,
            )  # fmt: skip
            async with asyncio.timeout(min(wait, 120.0)):
                while True:
                    name, data = await answers.get()
                    if data.get("sequence") == ack.seq:
                        break
            if kept:  # a blueprint that waits is kept elsewhere
                await self._bus.objects.drop(kept)
        except Stale as error:
            text = f"another blueprint of graph {ref} was published meanwhile; nothing was changed"
            raise Stale(text, hint="look what it declares, and do it again") from error
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

        limit = _PLAN_LIMIT if verb == "plan" else _OWNER_LIMIT

        async def ask(body: bytes) -> bytes:
            ref = msgspec.json.decode(body, type=requests.AnyOfGraph).ref
            if verb not in _OF_ANY_GRAPH and await self._store.version(ref) == 0:
                said = explaining.nowhere(f"there is no graph {ref}", await self._explainer.pending(ref))
                raise NotFound(said, hint="holdfast get graphs")
            for left in range(_OWNER_TRIES, 0, -1):
                try:
                    return await self._bus.request(subjects.rpc_owner(ref.partition, verb), body, timeout=limit)
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
            if request.node and not await self._knows_node(ref, request.node):
                raise NotFound(f"node {request.node!r} is not in graph {ref}", hint=f"holdfast get nodes {ref.graph}")
            if verb == "unblock" and not request.node:
                raise Invalid("unblock needs a node", [Problem("/node", "which node?")])
            await self._store.inbox_append(ref, entry_fields(Command(verb, request.node, request.actor)))
            await self._changed(ref)
            return {"status": "accepted", "graph": ref.graph, "node": request.node}

        leave.__name__ = verb
        return leave

    async def _knows_node(self, ref: GraphRef, node: str) -> bool:
        """Whether it is in the graph, or was removed and is not gone yet: a removal may need a word, too."""
        graph = await self._store.refresh(ref)
        return node in graph or any(id == node for id, _ in graph.gone)

    async def owner_get(self, graph: HostedGraph, body: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(body, type=requests.Get)
        reconciler = graph.reconciler
        assert reconciler is not None
        version = reconciler.version  # before its status: an older status is never told of a newer version
        meta = await self._store.meta(request.ref)
        wanted = set(request.nodes) if request.nodes is not None else None
        rows = [
            views.node_row(reconciler, unit)
            for unit in views.units_of(reconciler)
            if (wanted is None or unit.id in wanted) and (request.only != "not_ready" or not unit.current)
        ]
        shown, following = views.page(rows, request.after, max(1, min(request.limit, 5000)))
        status = meta.get("status", b"").decode() or ("waiting" if await self._store.pending(request.ref) else "")
        return {
            "graph": views.graph_row(reconciler, status, version),
            "nodes": shown,
            "next": following,
            **({} if request.after else {"leftovers": views.leftover_rows(reconciler)}),
        }

    async def owner_explain(self, graph: HostedGraph, body: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(body, type=requests.OfNode)
        reconciler = graph.reconciler
        assert reconciler is not None
        return await self._explainer.explain(reconciler, request.ref, request.node)

    async def owner_import(self, graph: HostedGraph, body: bytes) -> dict[str, Any]:
        """A blueprint of what is there and nobody desires. Changes nothing."""
        request = msgspec.json.decode(body, type=requests.Import)
        check_label(request.name, "name", "/name")
        found = await importing.search_all(graph, importing.chosen_types(self._catalog.infos, request.type))
        if request.type and (failed := found[request.type].failed):
            raise Unavailable(f"type {request.type!r} cannot be searched for: {failed}")
        current = await self._store.refresh(request.ref)
        return {"graph": request.graph, **importing.blueprint_of(current, request.name, found)}

    async def owner_plan(self, graph: HostedGraph, body: bytes) -> dict[str, Any]:
        """Apply a blueprint to a copy of the graph and tell what would be done."""
        request = msgspec.json.decode(body, type=requests.Apply)
        blueprint = await asyncio.to_thread(parse_blueprint, bytes(request.blueprint))
        missing = [domain for domain in blueprint.domains if not self._catalog.is_live(domain)]
        if missing:
            there = ", ".join(self._catalog.live_domains()) or "none"
            raise Unavailable(f"domain {missing[0]!r} is not running (running: {there})")
        intake = intake_of(request.ref, blueprint, Place("", 0), "")
        if not blueprint.delete:
            intake = declaring(intake, await self._admission.compile(request.ref, blueprint))
        intake, standing = await self._admission.foresee(intake)
        await self._admission.check_renames(intake)
        current = await self._store.refresh(request.ref)
        before, trial = dict(current.nodes), current.draft()

        reconciler = graph.reconciler
        assert reconciler is not None
        units = reconciler.core.units

        def published(node: str) -> Mapping[str, object] | None:
            unit = units.get(node)
            return (unit.rec.outputs or {}) if unit is not None and unit.current else None

        def preview() -> dict[str, Any]:
            warnings = planning.warned(trial, intake)
            change = planning.declare(trial, intake)
            told = previewing.preview(trial, before, change, published)
            told["warnings"] = warnings
            if standing is not None:
                told["stages"] = planning.phase_rows({intake.owner: standing})
            limits = self._settings
            try:
                planning.check_blast(change.removed, len(before), intake, limits.blast_least, limits.blast_share)
            except planning.TooMuchError as error:
                asks = {"removes": len(error.removed), "of": error.size, "outcomes": [APPROVE, REJECT]}
                told |= {"removals_blocked": error.message, "asks": asks}
            return told

        return await asyncio.to_thread(preview)

    # ---- looking

    async def list(self, body: bytes) -> dict[str, Any]:
        """The graphs of a tenant, from what their owners last wrote."""
        request = msgspec.json.decode(body, type=requests.List)
        refs = [r for p in range(PARTITIONS) for r in await self._store.graphs(p) if r.tenant == request.tenant]
        out = []
        for ref in sorted(refs):
            version = await self._store.version(ref)  # before its status: see owner_get
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
                "version": version,
                "nodes": summary["nodes"],
                "present": phases.get("present", 0),
                "failed": phases.get("failed", 0) + phases.get("backoff", 0),
                "waiting": phases.get("waiting", 0) + phases.get("held", 0),
                "watched": phases.get("watched", 0),
                "in_flight": phases.get("running", 0),
                "removing": summary.get("removing", 0),
                "paused": meta.get("paused") == b"1",
                "blueprints": planning.admitted(meta),
                "outdated": planning.outdated(meta.get(planning.META_COMPILED), self._catalog.version_of),
                "phases": phases,
                **_stages(meta),
            }
            out.append(row)
        return {"graphs": out}

    async def domains(self, body: bytes) -> dict[str, Any]:
        """Every domain that has announced itself."""
        if body:
            msgspec.json.decode(body, type=requests.Anything)
        await self._catalog.refresh()
        return {"domains": list(self._catalog.described())}

    async def blueprint(self, body: bytes) -> dict[str, Any]:
        """The newest blueprint of an owner, as it was admitted."""
        request = msgspec.json.decode(body, type=requests.OfOwner)
        ref = request.ref
        last = {"after": await self._all_decided(ref)} if request.to_change else {}
        found, every = await self._store.kv.run(
            ("HGET", keys.document(ref), request.name), ("HKEYS", keys.document(ref))
        )
        if found is None:
            known = ", ".join(sorted(owner.decode() for owner in every)) or "none"
            raise NotFound(
                f"no blueprint {request.name!r} of graph {ref} is kept",
                hint=f"kept are: {known}; those above {KEPT_DOCUMENT:,} bytes are not",
            )
        return {"graph": ref.graph, "name": request.name, "document": found.decode(), **last}

    async def _all_decided(self, ref: GraphRef) -> int:
        """The sequence of the graph's last blueprint, when it and all before it are decided. Raises Temporary."""
        subject = subjects.blueprint(ref.tenant, ref.graph)
        for pause in (*IN_TURN, None):
            last = await self._bus.last_on("BLUEPRINTS", subject)
            following = Inbound(subject=subject, data=b"", stream_seq=last + 1)
            if not await self._bus.follows_undecided(PLANNER_ADMISSION, following):
                return last
            if pause is not None:
                await asyncio.sleep(pause)
        raise Temporary(f"a blueprint of graph {ref} is being looked at", retry_after=IN_TURN[-1], hint="do it again")

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
        counts = await self._store.counts(ref)
        return {
            "faults": [{**fault, "handled": fault.get("id") not in open_ids} for fault in recent],
            "counts": {node: msgspec.to_builtins(counted) for node, counted in counts.items()},
        }

    # ---- domains

    async def announce(self, body: bytes) -> AnnounceReply:
        """A domain's instance is there (or leaves). Raises Invalid for a manifest that cannot be taken in."""
        announcement = _announcement(body)
        requests.check_announcement(announcement)
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


def _stages(meta: Mapping[str, bytes]) -> dict[str, Any]:
    """How far the blueprints of a graph are."""
    standings = decode_standings(meta.get(planning.META_PHASE)).owners
    return {"phase": planning.phase_text(standings), "stages": planning.phase_rows(standings)}
