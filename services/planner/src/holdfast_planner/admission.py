"""Blueprints in: decode, compile, decide, commit, answer. Any replica may admit any graph's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from holdfast_bus import Bus, Inbound, subjects
from holdfast_model.blueprint import Blueprint, declarations, parse_blueprint, pointers, warnings_of
from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import HoldfastError, Invalid, Problem, Temporary, Unavailable
from holdfast_model.messages import CompileReply, CompileRequest, NodeDeclaration
from holdfast_model.names import GraphRef
from holdfast_model.rows import Declaration
from holdfast_store import keys
from holdfast_store.bulk import hash_cmds
from holdfast_store.commits import Extra, Op
from holdfast_store.graphs import GraphStore
from holdfast_store.kv import Cmd

from . import planning
from .catalog import Catalog
from .planning import ANY_OWNER, Admitted, Floor, Intake, Place, RedeliveredError
from .schemas import SpecSchemas
from .settings import PlannerSettings

log = logging.getLogger("holdfast.planner")

T = TypeVar("T")
R = TypeVar("R")

_LARGE = 64 * 1024
_place = msgspec.json.Decoder(Place)
_reply = msgspec.json.Decoder(CompileReply)
_encode = msgspec.json.Encoder().encode


class Pending(msgspec.Struct, frozen=True):
    """A blueprint that waits for its domain."""

    domain: str
    created: str
    number: int
    message_id: str
    document: msgspec.Raw


class Compiled(msgspec.Struct, frozen=True):
    """The nodes of a document, where each stands in it, and how many rows of the graph they would change."""

    nodes: list[tuple[str, Declaration]]
    pointers: Mapping[str, str]
    warnings: list[str]
    weight: int = 0


class AdmissionChange:
    """An intake as a change of the graph: floors and events in the same transaction. See ``commits.Change``."""

    def __init__(self, intake: Intake, now: float, ids: Sequence[str], least: int, share: float) -> None:
        self.intake = intake
        self._now = now
        self._ids = ids
        self._limits = (least, share)

    @property
    def watch(self) -> Sequence[str]:
        return ()

    @property
    def reads(self) -> Sequence[Cmd]:
        meta = keys.meta(self.intake.ref)
        return [("HMGET", meta, f"floor:{self.intake.owner}", f"floor:{ANY_OWNER}", "incarnation", "status")]

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        intake = self.intake
        owner, everything, incarnation, status = reads[0]
        Floor(_place.decode(owner) if owner else None, _place.decode(everything) if everything else None).check(
            intake.sequence
        )
        change = planning.declare(graph, intake, *self._limits)
        version = graph.version + 1
        meta: list[Any] = [f"floor:{intake.owner}", _encode(intake.sequence), f"admitted:{intake.owner}", self._now]
        if intake.delete and intake.owner == ANY_OWNER:
            meta += ["status", "deleting"]
        else:
            meta += ["status", "reconciling"]
            if incarnation is None or status == b"deleted":
                meta += ["incarnation", self._ids[2]]
        events = planning.tell_admitted(intake, change, version, self._now, self._ids)
        told = {"owner": intake.owner, "delete": intake.delete}
        lists = {n: planning.shown(getattr(change, n)) for n in ("added", "updated", "removed")}
        cmds: list[Cmd] = [
            ("HSET", keys.meta(intake.ref), *meta),
            ("HDEL", keys.pending(intake.ref), intake.owner),
        ]
        if change.removed:  # what was counted of a node goes with it
            cmds += hash_cmds(keys.counts(intake.ref), [(node, None) for node in change.removed])
        return Extra(
            cmds=cmds,
            events=events,
            mutations=[{"kind": "DELETE" if intake.delete else "DECLARE", **told, **lists}],
            value=Admitted(version, change.added, change.updated, change.removed),
        )


class WaitChange:
    """Keep a blueprint whose domain is not running. A newer one of its owner replaces it."""

    def __init__(self, intake: Intake, pending: Pending, now: float, id: str, there: Sequence[str]) -> None:
        self._intake = intake
        self._pending = pending
        self._event = planning.tell_waiting(
            intake.ref, pending.domain, there, intake.message_id, intake.sequence.number, now, id
        )

    @property
    def watch(self) -> Sequence[str]:
        return ()

    @property
    def reads(self) -> Sequence[Cmd]:
        ref, owner = self._intake.ref, self._intake.owner
        return [
            ("HMGET", keys.meta(ref), f"floor:{owner}", f"floor:{ANY_OWNER}"),
            ("HGET", keys.pending(ref), owner),
        ]

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        (owner, everything), waiting = reads
        mine = self._intake.sequence
        Floor(_place.decode(owner) if owner else None, _place.decode(everything) if everything else None).check(mine)
        if waiting is not None:
            other = msgspec.json.decode(waiting, type=Pending)
            Floor(Place(other.created, other.number), None).check(mine)
        field = ("HSET", keys.pending(self._intake.ref), self._intake.owner, _encode(self._pending))
        # The version rises although no node changed, so that admissions of one graph are ordered by it.
        return Extra(cmds=[field], events=[self._event])


class Admission:
    """Admits blueprints. ``changed`` is told which graph got a new version."""

    def __init__(
        self,
        bus: Bus,
        store: GraphStore,
        catalog: Catalog,
        settings: PlannerSettings,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        changed: Callable[[GraphRef], Any],
    ) -> None:
        self._bus = bus
        self._store = store
        self._catalog = catalog
        self._settings = settings
        self._clock = clock
        self._new_id = new_id
        self._changed = changed
        self._schemas = SpecSchemas()

    async def take(self, message: Inbound) -> None:
        """One message of BLUEPRINTS. Returning acknowledges it; what cannot be admitted now is raised."""
        tenant, graph = "_", "_"
        try:
            ref = subjects.parse_blueprint(message.subject)
            tenant, graph = ref
            if message.tenant and message.tenant != ref.tenant:
                text = f"the event is of tenant {message.tenant!r}, its subject of {ref.tenant!r}"
                raise Invalid(text, [Problem("/tenancyid", text)])
            await self._admit(ref, message)
        except RedeliveredError:
            log.debug("%s sequence %d was admitted before", message.subject, message.stream_seq)
        except Invalid as error:
            event = planning.tell_rejected(
                tenant, graph, error, message.id, message.stream_seq, self._clock(), f"rejected-{self._new_id()}"
            )
            await self._bus.publish_event(event)

    async def _admit(self, ref: GraphRef, message: Inbound) -> None:
        place = Place(message.stream_created, message.stream_seq)
        # The decoded document is not named here, so that it can go as soon as its nodes are declared.
        await self.admit(ref, await _aside(parse_blueprint, message.data), place, message.id, message.data)

    async def admit(self, ref: GraphRef, blueprint: Blueprint, place: Place, message_id: str, document: bytes) -> None:
        """Compile, declare, commit; or keep the document until its domain runs. Raises Invalid, RedeliveredError."""
        owner = blueprint.name
        if blueprint.delete and not _names(document):
            owner = ANY_OWNER
        intake = Intake(
            ref, owner, (), blueprint.conflict, place, message_id, {},
            allow_removals=blueprint.allow_removals, delete=blueprint.delete,
            warnings=warnings_of(blueprint), domain=blueprint.domain,
        )  # fmt: skip
        await self._store.register(ref)
        if not blueprint.delete:
            if blueprint.domain and not self._catalog.is_live(blueprint.domain):
                await self._catalog.refresh()
            if blueprint.domain and not self._catalog.is_live(blueprint.domain):
                await self._wait(intake, document)
                return
            compiled = await self.compile(ref, blueprint)
            del blueprint
            warned = [*intake.warnings, *compiled.warnings, *self._catalog.unknown_types(compiled.nodes)]
            intake = msgspec.structs.replace(intake, nodes=compiled.nodes, pointers=compiled.pointers, warnings=warned)
            weight = compiled.weight
        else:
            graph = await self._store.refresh(ref)
            weight = len(graph.rows if owner == ANY_OWNER else graph.owned.get(owner, ()))
        ids = [self._new_id() for _ in range(3)]
        change = AdmissionChange(intake, self._clock(), ids, self._settings.blast_least, self._settings.blast_share)
        op = Op(f"bp:{place.created}:{place.number}:{owner}", f"blueprint:{owner}", message_id)
        await self._store.commit(ref, op, change, weight=weight)
        await self._changed(ref)

    async def compile(self, ref: GraphRef, blueprint: Blueprint) -> Compiled:
        """The checked nodes of a blueprint. Raises Invalid with pointers into the document."""
        if blueprint.nodes is not None:
            raw = blueprint.nodes
            await _aside(lambda nodes: self._schemas.check_nodes(nodes, self._catalog.spec_schemas()), raw)
            return await self._declare(ref, blueprint.name, raw, pointers(raw), [])
        request = CompileRequest(ref.tenant, ref.graph, blueprint.spec)
        subject = subjects.rpc_domain(blueprint.domain, "compile")
        try:
            reply = await self._bus.request(subject, request, timeout=self._settings.compile_timeout)
        except Invalid as error:
            placed = [Problem(_below_spec(p.path), p.message) for p in error.problems]
            raise Invalid(error.message, placed, hint=error.hint) from error
        except Unavailable as error:
            # Only this blueprint waits: an Unavailable of its own would stop the admission of all others.
            raise Temporary(f"domain {blueprint.domain!r} does not answer: {error}", retry_after=2.0) from error
        nodes = _reply.decode(reply)
        return await self._declare(ref, blueprint.name, nodes.nodes, {}, nodes.warnings)

    async def _declare(
        self,
        ref: GraphRef,
        owner: str,
        nodes: Sequence[NodeDeclaration],
        places: Mapping[str, str],
        warnings: list[str],
    ) -> Compiled:
        graph = await self._store.refresh(ref)
        rows = graph.rows

        def known(node: str) -> Declaration | None:
            row = rows.get(node)
            return row.of(owner) if row is not None else None

        def declare(raw: Sequence[NodeDeclaration]) -> tuple[list[tuple[str, Declaration]], int]:
            declared = declarations(raw, known=known)
            return declared, sum(known(node) is not new for node, new in declared)

        declared, fresh = await _aside(declare, nodes)
        removed = len(graph.owned.get(owner, ())) - (len(declared) - fresh)
        return Compiled(declared, places, warnings, fresh + max(0, removed))

    async def _wait(self, intake: Intake, document: bytes) -> None:
        blueprint_json = msgspec.json.encode(document.decode())
        pending = Pending(
            intake.domain,
            intake.sequence.created,
            intake.sequence.number,
            intake.message_id,
            msgspec.Raw(blueprint_json),
        )
        await self._store.set_waiting(intake.domain, intake.ref)
        change = WaitChange(intake, pending, self._clock(), self._new_id(), self._catalog.live_domains())
        op = Op(f"wait:{intake.sequence.created}:{intake.sequence.number}:{intake.owner}", f"blueprint:{intake.owner}")
        await self._store.commit(intake.ref, op, change)
        await self._changed(intake.ref)

    async def resume(self, domain: str) -> None:
        """A domain came: admit what waited for it. What fails is logged and tried at its next announcement."""
        for ref in await self._store.waiting(domain):
            left = False
            for owner, raw in (await self._store.pending(ref)).items():
                pending = msgspec.json.decode(raw, type=Pending)
                if pending.domain != domain:
                    continue
                document = msgspec.json.decode(pending.document, type=str).encode()
                place = Place(pending.created, pending.number)
                try:
                    await self.admit(ref, parse_blueprint(document), place, pending.message_id, document)
                except RedeliveredError:
                    pass
                except Invalid as error:
                    event = planning.tell_rejected(
                        *ref, error, pending.message_id, pending.number, self._clock(), f"rejected-{self._new_id()}"
                    )
                    await self._bus.publish_event(event)
                    await self._store.kv.run(("HDEL", keys.pending(ref), owner))
                except HoldfastError as error:
                    log.warning("the waiting blueprint of %s cannot be admitted yet: %s", ref, error)
                    left = True
            if not left:
                await self._store.clear_waiting(domain, ref)


def _below_spec(path: str) -> str:
    return f"/spec{path}" if path.startswith("/") or not path else path


def _names(document: bytes) -> bool:
    return b"name" in document


async def _aside(work: Callable[[T], R], value: T) -> R:
    """Large input is worked on in a thread, so that it does not hold up the loop."""
    size = len(value) if isinstance(value, bytes | list) else 0
    if size < (_LARGE if isinstance(value, bytes) else 1000):
        return work(value)
    return await asyncio.to_thread(work, value)
