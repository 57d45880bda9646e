"""Taking up a graph: its reconciler, filled from what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from holdfast_bus import Bus
from holdfast_model.names import GraphRef
from holdfast_model.reconciler import CloseIntent, ItemIntent, Reconciler, Record, Settings, StepIntent
from holdfast_model.reconciler.searching import META_LEFTOVERS
from holdfast_store.graphs import GraphStore
from holdfast_store.replica import Feed

from . import planning
from .catalog import Budget, Catalog
from .effects import Looks
from .phasing import Phases
from .preferences import PreferenceBook
from .resting import META_RESTED, read_note
from .settings import PlannerSettings
from .writing import decode_intent

T = TypeVar("T")
NOTHING = (None, b"deleted")
"""Status of a graph that was never admitted, or is gone."""
_LARGE = 5000
"""From so many nodes on the reconciler works in a thread, so that everybody else's turns go on."""
_record = msgspec.json.Decoder(Record).decode


class Tools(msgspec.Struct, frozen=True):
    """What every hosted graph works with. ``loading``: how many graphs are loaded at once."""

    bus: Bus
    store: GraphStore
    catalog: Catalog
    budget: Budget
    preferences: PreferenceBook
    looks: Looks
    settings: PlannerSettings
    clock: Callable[[], float]
    new_id: Callable[[], str]
    loading: asyncio.Semaphore


class Loaded(msgspec.Struct, frozen=True):
    """``todo``: open intents, to be carried out again. ``rested``: it was unloaded in order."""

    reconciler: Reconciler
    todo: dict[str, StepIntent | ItemIntent | CloseIntent]
    rested: bool


async def load(tools: Tools, ref: GraphRef, epoch: int, feed: Feed, phases: Phases) -> Loaded:
    """The reconciler of a graph whose epoch was raised; from now on ``feed`` follows it. Raises Unavailable."""
    store = tools.store
    feed.follow()
    graph = feed.graph
    meta = await store.meta(ref)
    await store.clear_due(ref)
    note = read_note(meta.get(META_RESTED))
    todo = {f: decode_intent(f, raw) for f, raw in (await store.todo(ref)).items()}
    records: dict[str, Record] = {}
    async for page in store.state_pages(ref):
        records.update((field, _record(raw)) for field, raw in page.items())
    await store.refresh(ref)
    settings = Settings(
        start_within=tools.settings.start_within,
        grace=tools.settings.grace,
        no_provisioner_after=tools.settings.no_provisioner_after,
        adopt_after=tools.settings.adopt_after,
    )
    incarnation = meta.get("incarnation", b"").decode()
    reconciler = Reconciler(ref, incarnation, epoch, tools.new_id, settings)
    standings, members = await phases.read(graph, reconciler, partial(_refresh, store, ref))
    feed.drain()
    nodes, gone, version = dict(graph.nodes), list(graph.gone.values()), graph.version
    now = tools.clock()
    reconciler.on_catalog(now, tools.catalog.infos)
    reconciler.on_preferences(now, *tools.preferences.of(ref.tenant))
    fill = partial(
        reconciler.load, now, nodes, gone, records, todo,
        counter=int(meta.get("counter", b"0")),
        paused=meta.get("paused") == b"1",
        converged=meta.get("status") == b"converged",
        leftovers=meta.get(META_LEFTOVERS),
        slept_until=note.wake_at if note is not None else None,
    )  # fmt: skip
    await aside(len(nodes) + len(records), fill)
    reconciler.on_phases(now, standings, members)
    reconciler.version = version
    reconciler.deleting = meta.get("status") == b"deleting"
    reconciler.deleted = meta.get("status") in NOTHING
    reconciler.on_domains(planning.domains_in(meta.get(planning.META_DOMAINS)))
    return Loaded(reconciler, todo, META_RESTED in meta)


async def aside(size: int, work: Callable[[], T]) -> T:
    """What takes long is done in a thread. Only its own turns change a reconciler, and they wait for this."""
    return await asyncio.to_thread(work) if size >= _LARGE else work()


async def _refresh(store: GraphStore, ref: GraphRef) -> None:
    await store.refresh(ref)
