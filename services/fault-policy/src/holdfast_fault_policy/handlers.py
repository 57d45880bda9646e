"""Messages in, commits out: decode, commit, hint the owner, return (which acks)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from holdfast_bus import Inbound, subjects
from holdfast_bus.asking import ask_domain
from holdfast_model.errors import HoldfastError, Invalid
from holdfast_model.events import Fault
from holdfast_model.fault_engine import EvaluateReply
from holdfast_model.names import GraphRef
from holdfast_model.policies import Answer, Policies, is_over, question
from holdfast_model.reconciler.records import Record
from holdfast_model.thresholds import decode_counts
from holdfast_store import keys
from holdfast_store.commits import Op
from holdfast_store.graphs import GraphStore
from holdfast_store.records import META_LADDERS, fault_op
from holdfast_store.replica import scan

from .catalog import Catalog
from .changes import CountsEvicted, EpisodeEnded, FaultHandled, Outcome, decode_records
from .watching import UNWATCHED, SituationsEnded, Watched

log = logging.getLogger("holdfast.fault_policy")

ACTOR = "fault-policy"
_SITUATIONS = "\0situations"
"""Takes the place of a node where situations of a graph are counted; ids of nodes hold no control characters."""

_decode_fault = msgspec.json.Decoder(Fault).decode
_decode_record = msgspec.json.Decoder(Record).decode


class Line(Protocol):
    """What is needed of the bus."""

    async def request(self, subject: str, body: object, *, timeout: float) -> bytes: ...
    async def hint(self, subject: str, body: bytes = b"") -> None: ...


class Recovered(msgspec.Struct, frozen=True):
    """The part of a ``recovered`` event that matters here."""

    node: str
    episode: str = ""


class Handlers:
    """What this service does with a message. ``now``: seconds since the epoch; ``new_id``: unique texts."""

    def __init__(
        self,
        store: GraphStore,
        catalog: Catalog,
        bus: Line,
        *,
        now: Callable[[], float],
        new_id: Callable[[], str],
        evaluate_timeout: float,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._bus = bus
        self._now = now
        self._new_id = new_id
        self._evaluate_timeout = evaluate_timeout
        # Changes of one group commit read before any of them writes, so those that touch the counts of one
        # node must take turns. Other processes are kept apart by the watch.
        self._turns: WeakValueDictionary[tuple[GraphRef, str], asyncio.Lock] = WeakValueDictionary()

    async def on_fault(self, message: Inbound) -> None:
        """A fault was announced. Raises Invalid for one that is no fault or of another graph than its
        subject.
        """
        ref = subjects.parse_event(message.subject).graph
        try:
            fault = _decode_fault(message.data)
        except msgspec.DecodeError as error:
            raise Invalid(f"{message.subject}: not a fault: {error}") from error
        if fault.ref != ref:
            raise Invalid(f"a fault of graph {fault.ref} came on the subject of {ref}")
        await self.handle(ref, fault.id, fault)

    async def on_recovered(self, message: Inbound) -> None:
        """A node recovered: its episode is over."""
        ref = subjects.parse_event(message.subject).graph
        try:
            event = msgspec.json.decode(message.data, type=Recovered)
        except msgspec.DecodeError as error:
            raise Invalid(f"{message.subject}: does not tell which node recovered: {error}") from error
        await self.end_situations(ref, event.node)
        if not event.episode:
            return
        counts, row = await self._store.kv.run(
            ("HGET", keys.counts(ref), event.node), ("HGET", keys.state(ref), event.node)
        )
        # A changed node begins a new episode without the old one having been told as over.
        over = is_over(decode_counts(counts), _decode_record(row) if row else None)
        for episode in {event.episode, *over}:
            await self.end_episode(ref, event.node, episode)

    async def handle(self, ref: GraphRef, fault_id: str, announced: Fault | None = None) -> Outcome:
        """Handle a fault if nobody has. ``announced`` is what a message says of it; the store knows better."""
        stored, own = await self._store.kv.run(
            ("GET", keys.fault(ref, fault_id)), ("HGET", keys.meta(ref), META_LADDERS)
        )
        if stored is None:
            if announced is not None and announced.episode:
                await self._check_episode(ref, announced)
            return Outcome()
        try:
            fault = _decode_fault(stored)
        except msgspec.DecodeError as error:
            raise Invalid(f"fault {fault_id} of graph {ref} cannot be read: {error}") from error
        policies = await self._catalog.policies(fault.node_type, own)
        watched = await self._watched(fault, policies)
        async with self._turn(ref, fault.node), self._turn(ref, _SITUATIONS if watched else f"{fault.node}\0"):
            answer = await self._ask_domain(fault, policies)
            change = FaultHandled(fault, policies, answer, self._now(), watched)
            cause = f"{fault.type} of {fault.node!r} (fault {fault.id})"
            committed = await self._store.commit(ref, Op(fault_op(fault.id), ACTOR, cause), change)
        outcome = committed.value if isinstance(committed.value, Outcome) else Outcome()
        await self._tell(ref, cause, outcome)
        if outcome.applied and fault.episode:
            await self._check_episode(ref, fault)
        return outcome

    async def end_episode(self, ref: GraphRef, node: str, episode: str) -> None:
        """Clear what an episode left behind. Nothing is written when nothing is left."""
        async with self._turn(ref, node):
            (stored,) = await self._store.kv.run(("HGET", keys.counts(ref), node))
            graph = await self._store.refresh(ref)
            change = EpisodeEnded(ref, node, episode)
            if not change.needed(graph, stored):
                return
            cause = f"episode {episode} of {node!r} is over"
            # A fresh id each time: doing it again is harmless, and a late review may need a second time.
            committed = await self._store.commit(ref, Op(f"recovered:{self._new_id()}", ACTOR, cause), change)
        if isinstance(committed.value, Outcome):
            await self._tell(ref, cause, committed.value)

    async def tidy(self, ref: GraphRef) -> None:
        """Drop the counts of nodes that left the graph, and what is left of episodes whose end was not heard."""
        await self.end_situations(ref)
        async for page in scan(self._store.kv, keys.counts(ref)):
            counted = [field.decode() for field in page]
            rows, states = await self._store.kv.run(
                ("HMGET", keys.node(ref), *counted), ("HMGET", keys.state(ref), *counted)
            )
            gone = [node for node, row in zip(counted, rows, strict=True) if row is None]
            if gone:
                op = Op(f"evict:{self._new_id()}", ACTOR, "these nodes left the graph")
                await self._store.commit(ref, op, CountsEvicted(ref, gone))
            for (node, record), counts in zip(decode_records(counted, states).items(), page.values(), strict=True):
                if node not in gone:
                    for episode in is_over(decode_counts(counts), record):
                        await self.end_episode(ref, node, episode)

    async def end_situations(self, ref: GraphRef, recovered: str = "") -> None:
        """End situations whose window has passed, or that the recovery of a node ends. Usually there is nothing."""
        change = SituationsEnded(ref, self._now(), recovered)
        (stored,) = await self._store.kv.run(*change.reads)
        if not stored or not change.needed(stored):
            return
        async with self._turn(ref, _SITUATIONS):
            op = Op(f"situations:{self._new_id()}", ACTOR, "situations that are over")
            committed = await self._store.commit(ref, op, change)
        if committed.value:
            log.info("graph %s: situations that are over: %s", ref, ", ".join(committed.value))
            await self._bus.hint(subjects.hint(ref.partition), str(ref).encode())

    async def _watched(self, fault: Fault, policies: Policies) -> Watched:
        """The situations in which a fault counts, by what its node is now."""
        if not any(situation.covers(fault) for situation in policies.situations):
            return UNWATCHED
        graph = await self._store.refresh(fault.ref)
        return Watched(*policies.zones(fault, graph.nodes.get(fault.node)))

    def _turn(self, ref: GraphRef, node: str) -> asyncio.Lock:
        return self._turns.setdefault((ref, node), asyncio.Lock())

    async def _check_episode(self, ref: GraphRef, fault: Fault) -> None:
        """Clean up if the episode ended while its fault was handled: ``recovered`` may have come first."""
        (row,) = await self._store.kv.run(("HGET", keys.state(ref), fault.node))
        if row is not None and _decode_record(row).episode != fault.episode:
            await self.end_episode(ref, fault.node, fault.episode)

    async def _ask_domain(self, fault: Fault, policies: Policies) -> Answer | None:
        """What the domain's own policy says; None where it has none or the fault is no matter any more."""
        if not policies.evaluates:
            return None
        change = FaultHandled(fault, policies, None, self._now())
        graph = await self._store.refresh(fault.ref)
        case = change.case(graph, await self._store.kv.run(*change.reads))
        request = question(case, policies) if case is not None else None
        if request is None:
            return None
        limit = self._evaluate_timeout
        try:
            reply = await ask_domain(self._bus, policies.domain, "evaluate", request, timeout=limit, any_version=True)
            return Answer(tuple(msgspec.json.decode(reply, type=EvaluateReply).mutations))
        except (HoldfastError, msgspec.DecodeError, RecursionError) as error:
            return Answer(error=f"the policy of domain {policies.domain!r} did not answer: {error}")

    async def _tell(self, ref: GraphRef, cause: str, outcome: Outcome) -> None:
        """Log what became of it, and wake the owner of the graph so that it plans and publishes at once."""
        for dropped in outcome.dropped:
            log.warning("graph %s, %s: dropped, because it does not fit any more: %s", ref, cause, dropped)
        if outcome.failure is not None:
            log.warning("graph %s, %s: policy failed: %s", ref, cause, outcome.failure.message)
        for owned in outcome.applied:
            log.info("graph %s, %s: %s by %s", ref, cause, type(owned.mutation).__name__, owned.owner)
        if outcome.concerns_planner:
            await self._bus.hint(subjects.hint(ref.partition), str(ref).encode())
