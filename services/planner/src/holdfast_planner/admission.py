"""Blueprints in: decode, compile, decide, commit, answer. Any replica may admit any graph's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from holdfast_bus import Bus, Inbound, ObjectGoneError, subjects
from holdfast_bus.streams import PLANNER_ADMISSION
from holdfast_model.blueprint import ANY_OWNER, Blueprint, parse_blueprint, warnings_of
from holdfast_model.blueprint_parts import Mode
from holdfast_model.errors import HoldfastError, Invalid, Problem, Temporary, Unavailable
from holdfast_model.names import GraphRef
from holdfast_model.phases import Standing
from holdfast_model.reconciler import Ended
from holdfast_model.renames import Rename
from holdfast_model.staging import decode_standings
from holdfast_model.targeting import Target
from holdfast_model.work_items import CreateReply
from holdfast_store import keys
from holdfast_store.commits import Op
from holdfast_store.graphs import GraphStore

from . import planning
from .catalog import Catalog
from .changes import AdmissionChange, DropChange, Limits, WaitChange, rejected_by
from .compiling import Compiled, Compiler, aside
from .effects import ITEM_TIMEOUT, creation, ended
from .pending import APPROVE, Pending, asked_about, decode_pending, question
from .planning import Intake, Place, RedeliveredError
from .renaming import Judged, check_renames
from .settings import PlannerSettings

log = logging.getLogger("holdfast.planner")

IN_TURN = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)
"""Pauses (s) after which a blueprint that cannot be admitted is looked at again while one before it is undecided."""

_created = msgspec.json.Decoder(CreateReply).decode


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
        self._compiler = Compiler(bus, store, catalog, settings)
        self._limits = Limits(settings.blast_least, settings.blast_share)

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
            await self._in_turn(message)
            event = planning.tell_rejected(
                tenant, graph, error, message.id, message.stream_seq, self._clock(), f"rejected-{self._new_id()}"
            )
            await self._bus.publish_event(event)

    async def _in_turn(self, message: Inbound) -> None:
        """Blueprints of one graph are taken in at once, here and by other replicas. One that builds on what was
        published just before it must not be refused for having come first: raises Temporary while it may have.
        """
        pauses = IN_TURN[max(0, message.deliveries - 1) :]
        if pauses and await self._bus.follows_undecided(PLANNER_ADMISSION, message):
            raise Temporary(f"a blueprint before {message.stream_seq} is not decided yet", retry_after=pauses[0])

    async def _admit(self, ref: GraphRef, message: Inbound) -> None:
        place = Place(message.stream_created, message.stream_seq)
        data = await self._opened(ref, message, place)
        # The decoded document is not named here, so that it can go as soon as its nodes are declared.
        await self.admit(ref, await aside(parse_blueprint, data), place, message.id, data)

    async def _opened(self, ref: GraphRef, message: Inbound, place: Place) -> bytes:
        """The document, which may be kept aside. It may be gone because it was used: then this is a redelivery."""
        if not message.object:
            return message.data
        try:
            return await self._bus.objects.opened(message.data, message.headers)
        except ObjectGoneError:
            if planning.was_admitted(place, await self._store.meta(ref)):
                raise RedeliveredError from None
            raise

    async def admit(
        self,
        ref: GraphRef,
        blueprint: Blueprint,
        place: Place,
        message_id: str,
        document: bytes,
        *,
        consent: Pending | None = None,
    ) -> None:
        """Compile, declare, commit; or keep the document until its domains run, or until a person agrees to what it
        removes (``consent``: somebody did). Raises Invalid, RedeliveredError.
        """
        judged: Mapping[Rename, Judged] = {}
        intake = intake_of(ref, blueprint, place, message_id)
        if consent is not None:
            intake = msgspec.structs.replace(intake, consent=frozenset(consent.removes))
        await self._store.register(ref)
        missing = await self._missing(blueprint.domains)
        if missing:
            await self._wait(intake, document, missing)
            return
        if blueprint.delete:
            graph = await self._store.refresh(ref)
            weight = len(graph.rows if intake.owner == ANY_OWNER else graph.owned.get(intake.owner, ()))
        else:
            compiled = await self.compile(ref, blueprint)
            del blueprint
            intake, weight = declaring(intake, compiled), compiled.weight
            placed, _ = await self.foresee(intake)
            judged = await self.check_renames(placed)
        answered = consent.request if consent is not None else ""
        ids = [self._new_id() for _ in range(5)]
        change = AdmissionChange(intake, document, self._clock(), ids, self._limits, answered, judged)
        op = f"bp:{place.created}:{place.number}:{intake.owner}{answered and f':{answered}'}"
        await self._store.commit(
            ref, Op(op, f"blueprint:{intake.owner}", message_id), change, weight=weight, alone=True
        )
        await self._changed(ref)

    async def _missing(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Those of the domains that are not running."""
        if not all(map(self._catalog.is_live, domains)):
            await self._catalog.refresh()
        return tuple(domain for domain in domains if not self._catalog.is_live(domain))

    async def compile(self, ref: GraphRef, blueprint: Blueprint) -> Compiled:
        """The checked nodes of a blueprint, with warnings. Raises Invalid with pointers into the document."""
        compiled = await self._compiler.compile(ref, blueprint)
        unknown = self._catalog.unknown_types(compiled.nodes)
        return msgspec.structs.replace(compiled, warnings=[*compiled.warnings, *unknown])

    async def foresee(self, intake: Intake) -> tuple[Intake, Standing | None]:
        """The intake in the phase that would be in force, with how far it would be, as the graph is now. Raises Invalid
        when a phase that is to come would not fit it.
        """
        if intake.staged is None:
            return intake, None
        graph = await self._store.refresh(intake.ref)
        (raw,) = await self._store.kv.run(("HGET", keys.meta(intake.ref), planning.META_PHASE))
        placed, standing = planning.in_phase(intake, decode_standings(raw), self._clock())
        await aside(lambda of: planning.try_phases(graph, of, standing), placed, len(graph))
        return placed, standing

    async def check_renames(self, intake: Intake) -> Mapping[Rename, Judged]:
        """The renames of an intake. Raises Invalid where a domain would not find a thing under its new name."""
        graph = await self._store.refresh(intake.ref)
        pairs = planning.renames(graph, intake)
        return await check_renames(self._bus, self._store, self._catalog, self._settings, graph, intake, pairs)

    async def _wait(self, intake: Intake, document: bytes, missing: Sequence[str]) -> None:
        for domain in missing:
            await self._store.set_waiting(domain, intake.ref)
        there = self._catalog.live_domains()
        change = WaitChange(intake, document, missing, there, self._clock(), self._new_id())
        place = intake.sequence
        op = Op(f"wait:{place.created}:{place.number}:{intake.owner}", f"blueprint:{intake.owner}")
        await self._store.commit(intake.ref, op, change, alone=True)
        # Once more: whoever resumes what waits for these domains may have looked just before the document was there.
        for domain in missing:
            await self._store.set_waiting(domain, intake.ref)
        await self._changed(intake.ref)

    # ---- what waits for a domain

    async def resume(self, domain: str) -> None:
        """Admit what waits for a domain that runs. What fails is logged, and waits for the next time."""
        for ref in await self._store.waiting(domain):
            for owner, raw in (await self._store.pending(ref)).items():
                pending = decode_pending(raw)
                if not pending.waits_for(domain):
                    continue
                try:
                    await self._admit_pending(ref, owner, pending)
                except HoldfastError as error:
                    log.warning("the waiting blueprint of %s cannot be admitted yet: %s", ref, error)
            if await self._waits_for(domain, ref):
                continue
            await self._store.clear_waiting(domain, ref)
            if await self._waits_for(domain, ref):  # since a moment ago; see also ask_after
                await self._store.set_waiting(domain, ref)

    async def _waits_for(self, domain: str, ref: GraphRef) -> bool:
        return any(decode_pending(raw).waits_for(domain) for raw in (await self._store.pending(ref)).values())

    async def _admit_pending(self, ref: GraphRef, owner: str, pending: Pending, consent: Pending | None = None) -> None:
        """Admit what waited; what is not valid (any more) is dropped and told."""
        document = pending.text
        try:
            blueprint = await aside(parse_blueprint, document)
            await self.admit(ref, blueprint, pending.place, pending.message_id, document, consent=consent)
        except RedeliveredError:
            log.debug("sequence %d of %s was admitted before", pending.number, ref)
        except Invalid as error:
            await self._drop(ref, owner, pending, error)

    async def _drop(self, ref: GraphRef, owner: str, pending: Pending, error: Invalid) -> None:
        change = DropChange(ref, owner, pending, error, self._clock(), self._new_id())
        op = Op(f"drop:{pending.created}:{pending.number}:{owner}:{pending.request}", f"blueprint:{owner}")
        await self._store.commit(ref, op, change, alone=True)
        await self._changed(ref)

    # ---- what waits for a person

    async def decided(self, ref: GraphRef, end: Ended) -> None:
        """A person has answered whether a blueprint may remove what it would; answers to old questions say nothing."""
        found = asked_about(await self._store.pending(ref), end.request)
        if found is None:
            return
        owner, pending = found
        if end.status == "COMPLETED" and end.outcome in ("", APPROVE):
            await self._admit_pending(ref, owner, pending, consent=pending)
        else:
            await self._drop(ref, owner, pending, rejected_by(pending, end.by, end.note))

    async def ask_after(self, ref: GraphRef) -> None:
        """Ask work-items again about every blueprint that waits for a person, in case its answer was missed: the same
        request returns the item that there is, in whatever status. One that waits for a domain is noted there again:
        somebody may have crashed between taking the note away and putting it back.
        """
        for owner, raw in (await self._store.pending(ref)).items():
            pending = decode_pending(raw)
            if not pending.request:
                for domain in pending.domains:
                    await self._store.set_waiting(domain, ref)
                continue
            request = creation(ref, question(ref, owner, pending))
            try:
                reply = await self._bus.request(subjects.rpc_workitems("create"), request, timeout=ITEM_TIMEOUT)
            except Unavailable as error:
                log.info("%s cannot be asked after: %s", request.caller_ref, error)
                return
            item = _created(reply).item
            if item.status.terminal:
                await self.decided(ref, ended(item))


def intake_of(ref: GraphRef, blueprint: Blueprint, place: Place, message_id: str) -> Intake:
    """What a blueprint asks for, its nodes still to come."""
    return Intake(
        ref, blueprint.name, (), blueprint.conflict, place, message_id, {},
        allow_removals=blueprint.allow_removals, delete=blueprint.delete, warnings=warnings_of(blueprint),
        target=Target(blueprint.only or (), blueprint.omit), ladders=blueprint.ladders,
        observe=blueprint.mode == Mode.OBSERVE, domains=blueprint.domains,
        moved=tuple((move.source, move.target) for move in blueprint.moved),
    )  # fmt: skip


def declaring(intake: Intake, compiled: Compiled) -> Intake:
    """The intake with its nodes."""
    warnings = [*intake.warnings, *compiled.warnings]
    return msgspec.structs.replace(
        intake,
        nodes=compiled.nodes,
        pointers=compiled.pointers,
        warnings=warnings,
        staged=compiled.staged,
        versions=compiled.versions,
    )
